// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What is made of the kernel's answers: KVM_RUN's errnos, and sizes that can't be.
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "handles.hpp"
#include "kvm_ioctls/kvm.hpp"
#include "memfd.hpp"
#include "scripted_ioctl.hpp"

namespace kvm_ioctls {
namespace {

// --- KVM_RUN ---

TEST(Handles, RunTellsWhatEachErrnoIs) {
  Handles handles;
  int code = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void*) {
    errno = code;
    return -1;
  });
  for (const int interrupted : {EINTR, EAGAIN}) {
    code = interrupted;
    auto exit = handles.vcpu.run();
    ASSERT_TRUE(exit);
    EXPECT_TRUE(std::holds_alternative<Interrupted>(exit.assume_value()));
  }
  for (const int fault : {EFAULT, EHWPOISON}) {
    code = fault;
    handles.vcpu.page().exit_reason = KVM_EXIT_MEMORY_FAULT;
    auto exit = handles.vcpu.run();
    ASSERT_TRUE(exit);
    EXPECT_EQ(std::get<MemoryFault>(exit.assume_value()).error, fault);
    // The kernel says nothing of where.
    handles.vcpu.page().exit_reason = KVM_EXIT_UNKNOWN;
    EXPECT_EQ(handles.vcpu.run().error(), (vmm_base::Error{"KVM_RUN", fault, 3}));
  }
}

TEST(Handles, RunWithCasesTellsTheSame) {
  Handles handles;
  int code = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void*) {
    errno = code;
    return code == 0 ? 0 : -1;
  });
  const auto run = [&] {
    return handles.vcpu.run([](Interrupted&) { return 1; },                  //
                            [](MemoryFault& fault) { return fault.error; },  //
                            [](Halted&) { return 2; },                       //
                            [](auto&) { return 3; });
  };
  auto& reason = handles.vcpu.page().exit_reason;
  reason = KVM_EXIT_HLT;
  EXPECT_EQ(run().value(), 2);
  reason = KVM_EXIT_SHUTDOWN;
  EXPECT_EQ(run().value(), 3);
  code = EAGAIN;
  EXPECT_EQ(run().value(), 1);
  code = EFAULT;
  EXPECT_EQ(run().error(), (vmm_base::Error{"KVM_RUN", EFAULT, 3}));
  reason = KVM_EXIT_MEMORY_FAULT;
  EXPECT_EQ(run().value(), EFAULT);
  code = EIO;
  int called = 0;
  const auto count = [&](auto&) { ++called; };
  EXPECT_EQ(handles.vcpu.run(count).error(), (vmm_base::Error{"KVM_RUN", EIO, 3}));
  EXPECT_EQ(called, 0);
  code = 0;
  EXPECT_TRUE(handles.vcpu.run(count));
  EXPECT_EQ(called, 1);
}

// --- What the kernel says of sizes ---

TEST(Handles, ASizeThatCantBeIsRefused) {
  int answer = 0;
  Handles handles;
  const ScriptedIoctl kernel([&](int, unsigned long, void*) { return answer; });
  const auto xsave_size = [&] { return handles.vm.xsave_size(handles.vcpu); };
  EXPECT_EQ(xsave_size().value().bytes(), 4096u) << "before Linux 5.17";
  for (const int wrong : {1, 4095, (1 << 20) + 1}) {
    answer = wrong;
    EXPECT_EQ(xsave_size().error(),
              (vmm_base::Error{"KVM_CHECK_EXTENSION", EPROTO, static_cast<unsigned>(wrong)}));
  }
  answer = 11008;
  EXPECT_EQ(xsave_size().value().bytes(), 11008u);
  EXPECT_EQ(Vcpu::from_fd(new_memfd(run_size), sizeof(kvm_run) - 1, the_vcpu).error(),
            (vmm_base::Error{"KVM_GET_VCPU_MMAP_SIZE", EPROTO, sizeof(kvm_run) - 1}));
  EXPECT_EQ(Vcpu::from_fd(new_memfd(run_size), ~std::size_t{0} - 8191, the_vcpu).error(),
            (vmm_base::Error{"mmap of kvm_run", ENOMEM, 3}));
  answer = 13;
  EXPECT_EQ(Kvm::from_fd(new_memfd(run_size)).error(),
            (vmm_base::Error{"KVM_GET_API_VERSION", ENOTSUP, 13}));
}

// The kernel would see a part of it, or look beyond its end.
TEST(Handles, WhatIsTooLargeOrTooSmallIsNotShownToTheKernel) {
  Handles handles;
  int called = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void*) { return ++called, 0; });
  EXPECT_EQ(handles.vm.enable_dirty_ring(1ull << 32).error(),
            (vmm_base::Error{"KVM_ENABLE_CAP", E2BIG, 1ull << 32}));
  const std::uint8_t bitmap[2] = {};
  const MsrFilterRange range{KVM_MSR_FILTER_READ, 0x10, 9, bitmap};
  EXPECT_EQ(handles.vm.set_msr_filter(std::vector<MsrFilterRange>(17, range)).error(),
            (vmm_base::Error{"KVM_X86_SET_MSR_FILTER", EINVAL, 17}));
  const MsrFilterRange too_short{KVM_MSR_FILTER_READ, 0x20, 9, std::span(bitmap, 1)};
  EXPECT_EQ(handles.vm.set_msr_filter({&too_short, 1}).error(),
            (vmm_base::Error{"KVM_X86_SET_MSR_FILTER", EINVAL, 0x20}));
  EXPECT_EQ(called, 0);
  EXPECT_TRUE(handles.vm.set_msr_filter(std::vector<MsrFilterRange>(16, range)));
  EXPECT_EQ(called, 1);
}

TEST(Handles, AnAreaForXsaveIsAsLargeAsNeeded) {
  Handles handles;
  int called = 0;
  const ScriptedIoctl kernel([&](int, unsigned long request, void* argument) {
    if (request == KVM_CHECK_EXTENSION) return 8192;
    ++called;
    if (request == KVM_GET_XSAVE2) std::memset(argument, 0x5a, 8192);
    return 0;
  });
  const auto size = handles.vm.xsave_size(handles.vcpu);
  constexpr const char* too_small = "KVM_SET_XSAVE, bytes of the area";
  EXPECT_EQ(handles.vcpu.set_xsave(Xsave(), size.assume_value()).error(),
            (vmm_base::Error{too_small, EINVAL, 4096}));
  Xsave area(size.assume_value());
  EXPECT_EQ(area.bytes().size(), 8192u);
  EXPECT_EQ(area.bytes()[8191], std::byte{0});
  const Xsave taken = std::move(area);
  EXPECT_TRUE(area.bytes().empty());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(handles.vcpu.set_xsave(area, size.assume_value()).error(),
            (vmm_base::Error{too_small, EINVAL, 0}));
  EXPECT_EQ(called, 0) << "the kernel would have read what isn't there";

  auto all = handles.vcpu.get_xsave2(size.assume_value());
  ASSERT_EQ(all.assume_value().bytes().size(), 8192u);
  EXPECT_EQ(all.assume_value().bytes()[8191], std::byte{0x5a});
  EXPECT_TRUE(handles.vcpu.set_xsave(all.assume_value(), size.assume_value()));
  EXPECT_EQ(called, 2);

  // Only once there is a vCPU is it settled.
  const Vcpu moved = std::move(handles.vcpu);
  EXPECT_EQ(handles.vm.xsave_size(handles.vcpu).error(),  // NOLINT(bugprone-use-after-move)
            (vmm_base::Error{"KVM_CHECK_EXTENSION", EBADF, KVM_CAP_XSAVE2}));
}

// KVM_GET_DIRTY_LOG is told no size: a bitmap of another is never shown to the kernel.
TEST(Handles, ABitmapOfDirtyPagesIsAsLargeAsTheSlot) {
  Handles handles;
  int code = 0;
  int called = 0;
  const ScriptedIoctl kernel([&](int, unsigned long request, void*) {
    if (request == KVM_GET_DIRTY_LOG) ++called;
    errno = code;
    return code == 0 ? 0 : -1;
  });
  const Vm& vm = handles.vm;
  const auto set = [&](std::uint32_t slot, std::uint64_t pages, std::uint32_t flags) {
    return vm.set_user_memory_region(slot, {0}, pages * 4096, nullptr, flags);
  };
  const auto get = [&](std::uint32_t slot, std::uint64_t pages) {
    DirtyBitmap bitmap(pages);
    auto got = vm.get_dirty_log(slot, bitmap);
    return got ? vmm_base::Error{"success"} : got.error();
  };
  const vmm_base::Error success{"success"};
  const auto unknown = [](std::uint32_t slot) {
    return vmm_base::Error{"KVM_GET_DIRTY_LOG", ENOENT, slot};
  };
  const auto wrong = [](std::uint64_t pages) {
    return vmm_base::Error{"KVM_GET_DIRTY_LOG, pages of the bitmap", EINVAL, pages};
  };
  EXPECT_EQ(get(9, 64), unknown(9));
  EXPECT_TRUE(set(9, 64, 0));
  EXPECT_EQ(get(9, 64), unknown(9)) << "it isn't logged";
  EXPECT_EQ(called, 0);
  EXPECT_TRUE(set(9, 65, KVM_MEM_LOG_DIRTY_PAGES));
  EXPECT_EQ(get(9, 65), success);
  EXPECT_EQ(called, 1);
  for (const std::uint64_t pages : {0u, 1u, 64u, 66u, 128u}) EXPECT_EQ(get(9, pages), wrong(pages));
  EXPECT_EQ(get(0x10009, 65), unknown(0x10009)) << "of another address space";

  // What fails changes nothing.
  code = EINVAL;
  EXPECT_FALSE(set(9, 1000, KVM_MEM_LOG_DIRTY_PAGES));
  EXPECT_FALSE(set(10, 64, KVM_MEM_LOG_DIRTY_PAGES));
  code = 0;
  EXPECT_EQ(get(9, 65), success);
  EXPECT_EQ(get(10, 64), unknown(10));
  EXPECT_EQ(get(10, 0), unknown(10));

  // Removed, and made anew by the newer ioctl.
  EXPECT_TRUE(set(9, 0, KVM_MEM_LOG_DIRTY_PAGES));
  EXPECT_EQ(get(9, 65), unknown(9));
  UserspaceMemoryRegion2 region{};
  region.slot = 9;
  region.flags = KVM_MEM_LOG_DIRTY_PAGES;
  region.memory_size = 3 * 4096;
  EXPECT_TRUE(vm.set_user_memory_region2(region));
  EXPECT_EQ(get(9, 65), wrong(65));
  EXPECT_EQ(get(9, 3), success);
  EXPECT_EQ(called, 3);

  // The slots go with the VM.
  const Vm moved = std::move(handles.vm);
  DirtyBitmap pages(3);
  EXPECT_TRUE(moved.get_dirty_log(9, pages));
  DirtyBitmap empty = std::move(pages);
  EXPECT_EQ(moved.get_dirty_log(9, pages).error(), wrong(0));  // NOLINT(bugprone-use-after-move)
}

TEST(Handles, ANestedStateIsAsLargeAsItSays) {
  Handles handles;
  int result = 0;
  std::uint32_t size = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void* argument) {
    static_cast<NestedStateHeader*>(argument)->size = size;
    if (result < 0) errno = E2BIG;
    return result;
  });
  size = 5000;
  EXPECT_EQ(handles.vcpu.get_nested_state(4096).error(),
            (vmm_base::Error{"KVM_GET_NESTED_STATE", E2BIG, 5000}))
      << "without an error from the kernel";
  result = -1;
  EXPECT_EQ(handles.vcpu.get_nested_state(4096).error(),
            (vmm_base::Error{"KVM_GET_NESTED_STATE", E2BIG, 5000}));
  result = 0;
  size = 4;  // less than its own header
  auto state = handles.vcpu.get_nested_state(4096).assume_value();
  EXPECT_EQ(state.size(), sizeof(NestedStateHeader));
  EXPECT_TRUE(state.data().empty());
  const NestedState taken = std::move(state);
  EXPECT_EQ(state.size(), 0u);  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(state.data().empty());
  EXPECT_EQ(state.capacity(), 0u);
}

TEST(Handles, AnMsrThatIsRefusedIsAnError) {
  Handles handles;
  int done = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void* argument) {
    EXPECT_EQ(static_cast<const MsrsHeader*>(argument)->nmsrs, 1u);
    return done;
  });
  EXPECT_EQ(handles.vcpu.get_msr(0x10).error(), (vmm_base::Error{"KVM_GET_MSRS", EINVAL, 0x10}));
  EXPECT_EQ(handles.vcpu.set_msr(0x11, 1).error(), (vmm_base::Error{"KVM_SET_MSRS", EINVAL, 0x11}));
  done = 1;
  EXPECT_EQ(handles.vcpu.get_msr(0x10).value(), 0u);
}

TEST(Handles, ARingOutsideOfTheMappingIsEmpty) {
  // Above the next mapping, as a rule: what a ring too far would be.
  void* const above =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  static_cast<std::uint32_t*>(above)[1] = 1;
  Handles handles;
  const auto drained = [&](int page) {
    return handles.vcpu.coalesced_mmio(page).drain([](const CoalescedWrite&) {});
  };
  auto* const ring =
      reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(&handles.vcpu.page()) + 2 * 4096);
  ring[1] = 1;  // last
  for (const int outside : {-1, 0, 3, 4, 1 << 30}) EXPECT_EQ(drained(outside), 0u) << outside;
  EXPECT_EQ(drained(2), 1u);
  ::munmap(above, 4096);
}

}  // namespace
}  // namespace kvm_ioctls
