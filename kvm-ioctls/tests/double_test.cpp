// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The double's calls, failures, files, and what it shares; double_exit_test.cpp has its KVM_RUN.
#include "kvm_ioctls/double.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>

#include <array>
#include <filesystem>
#include <optional>
#include <thread>

#include "double_fixture.hpp"

namespace kvm_ioctls {
namespace {

using Names = std::vector<std::string>;

template <class T>
std::vector<std::byte> bytes_of(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}
std::size_t open_fds() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

// --- Calls ---------------------------------------------------------------------------------------

TEST(KvmDouble, RecordsEveryCallWithItsArgument) {
  KvmDouble kvm;
  const Kvm system = must(kvm.open());
  const Vm vm = must(system.create_vm());
  const Vcpu vcpu = must(vm.create_vcpu({3}));
  must(vm.set_tss_addr({0xfffbd000}));
  kvm_regs regs{};
  regs.rip = 0x1000;
  must(vcpu.set_regs(regs));
  kvm_cpuid_entry2 leaf{};
  leaf.function = 7;
  must(vcpu.set_cpuid2(std::array{kvm_cpuid_entry2{}, leaf}));
  (void)must(vcpu.get_mp_state());
  EXPECT_EQ(vcpu.set_sregs2({}).has_value(), true);

  EXPECT_EQ(kvm.names(), (Names{"KVM_GET_API_VERSION", "KVM_GET_VCPU_MMAP_SIZE", "KVM_CREATE_VM",
                                "KVM_CREATE_VCPU", "KVM_SET_TSS_ADDR", "KVM_SET_REGS",
                                "KVM_SET_CPUID2", "KVM_GET_MP_STATE", "KVM_SET_SREGS2"}));
  const auto calls = kvm.calls();
  EXPECT_EQ(calls[0].role, Role::system);
  EXPECT_EQ(calls[0].result, KVM_API_VERSION);
  EXPECT_EQ(calls[3].role, Role::vm);
  EXPECT_EQ(calls[3].word, 3u);
  EXPECT_EQ(calls[4].word, 0xfffbd000u);
  EXPECT_EQ(calls[5].role, Role::vcpu);
  EXPECT_EQ(calls[5].id, 3u);
  EXPECT_EQ(calls[5].argument<kvm_regs>().rip, 0x1000u);
  EXPECT_EQ(calls[6].entries<kvm_cpuid_entry2>().at(1).function, 7u);
  EXPECT_EQ(calls[7].answer<kvm_mp_state>().mp_state, unsigned{KVM_MP_STATE_RUNNABLE});
  EXPECT_EQ(kvm.count(KVM_SET_REGS), 1u);
}

TEST_F(Double, CodeWithIoctlsOfItsOwnIsAnswered) {
  const vmm_base::UniqueFd fd(::open(kvm.path().c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_EQ(::ioctl(fd.get(), KVM_GET_API_VERSION, 0), KVM_API_VERSION);
  kvm_regs regs{};
  errno = EXDEV;
  EXPECT_EQ(::ioctl(vcpu.fd(), KVM_GET_REGS, &regs), 0);
  EXPECT_EQ(errno, EXDEV) << "success leaves errno alone";
}

TEST_F(Double, WhatWasSetIsWhatIsGot) {
  const auto same = [&](const auto& value, auto setter, auto getter) {
    must((vcpu.*setter)(value));
    EXPECT_EQ(bytes_of(must((vcpu.*getter)())), bytes_of(value)) << kvm.names().back();
  };
  const auto filled = [](auto value) {
    std::memset(&value, 0x5a, sizeof(value));
    return value;
  };
  same(filled(kvm_regs{}), &Vcpu::set_regs, &Vcpu::get_regs);
  same(filled(kvm_sregs{}), &Vcpu::set_sregs, &Vcpu::get_sregs);
  same(filled(kvm_sregs2{}), &Vcpu::set_sregs2, &Vcpu::get_sregs2);
  same(filled(kvm_fpu{}), &Vcpu::set_fpu, &Vcpu::get_fpu);
  same(filled(kvm_xcrs{}), &Vcpu::set_xcrs, &Vcpu::get_xcrs);
  same(filled(kvm_debugregs{}), &Vcpu::set_debugregs, &Vcpu::get_debugregs);
  same(filled(kvm_lapic_state{}), &Vcpu::set_lapic, &Vcpu::get_lapic);
  same(filled(kvm_mp_state{}), &Vcpu::set_mp_state, &Vcpu::get_mp_state);
  same(filled(kvm_vcpu_events{}), &Vcpu::set_vcpu_events, &Vcpu::get_vcpu_events);

  must(vcpu.set_tsc_khz(2'000'000));
  EXPECT_EQ(must(vcpu.get_tsc_khz()), 2'000'000u);
  must(vcpu.set_tsc_offset(77));
  EXPECT_EQ(must(vcpu.get_tsc_offset()), 77u);
  must(vcpu.set_msr(0x10, 5));
  EXPECT_EQ(must(vcpu.get_msr(0x10)), 5u);
  EXPECT_EQ(must(vcpu.get_msr(0x11)), 0u);
  EXPECT_EQ(must(vcpu.get_one_reg(Vcpu::x86_msr_reg(0x10))), 5u);
  must(vcpu.set_one_reg(KVM_REG_X86, 6));
  EXPECT_EQ(must(vcpu.get_one_reg(KVM_REG_X86)), 6u);
  must(vcpu.set_cpuid2(std::vector<kvm_cpuid_entry2>(100)));
  EXPECT_EQ(must(vcpu.get_cpuid2()).size(), 100u);
  const XsaveSize size = must(vm.xsave_size(vcpu));
  Xsave area(size);
  area.bytes()[4095] = std::byte{9};
  must(vcpu.set_xsave(area, size));
  EXPECT_EQ(must(vcpu.get_xsave()).bytes()[4095], std::byte{9});
  EXPECT_EQ(must(vcpu.get_xsave2(size)).bytes()[4095], std::byte{9});
  NestedState nested(4096);
  nested.data()[0] = std::byte{3};
  must(vcpu.set_nested_state(nested));
  EXPECT_EQ(must(vcpu.get_nested_state(8192)).size(), 4096u);
  EXPECT_EQ(must(vcpu.get_nested_state(8192)).data()[0], std::byte{3});
  EXPECT_EQ(vcpu.get_nested_state(200).error().code, E2BIG);

  must(vcpu.xen_vcpu_set_attr(XenTimer{.port = 3, .expires_ns = 4}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenTimer>()).expires_ns, 4u);
  EXPECT_EQ(must(xen_id_rule(vcpu)), XenIdRule::unset);
  must(vcpu.xen_vcpu_set_attr(XenVcpuIdAttr{vmm_base::XenVcpuId{1}}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuIdAttr>()).id, vmm_base::XenVcpuId{1});
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuInfo>()).gpa.value, xen_invalid_gpa);
  must(vm.xen_hvm_set_attr(XenSharedInfo{5}));
  EXPECT_EQ(must(vm.xen_hvm_get_attr<XenSharedInfo>()).gfn, 5u);
  EXPECT_EQ(must(vm.xen_hvm_get_attr<XenVersion>()).version, 0u);

  must(vm.set_clock(filled(kvm_clock_data{})));
  EXPECT_EQ(bytes_of(must(vm.get_clock())), bytes_of(filled(kvm_clock_data{})));
  kvm_pit_state2 pit = filled(kvm_pit_state2{});
  must(vm.set_pit2(pit));
  EXPECT_EQ(bytes_of(must(vm.get_pit2())), bytes_of(pit));
}

TEST_F(Double, VcpusOfOneVmKeepTheirStateApart) {
  const Vcpu other = must(vm.create_vcpu({1}));
  kvm_regs regs{};
  regs.rax = 1;
  must(vcpu.set_regs(regs));
  EXPECT_EQ(must(other.get_regs()).rax, 0u);
  EXPECT_EQ(vm.create_vcpu({1}).error().code, EEXIST);
}

// Of the numbers that Linux has given out so far, and of those to come.
TEST_F(Double, HasMostCapabilitiesOfLinuxAndNoOthers) {
  unsigned had = 0;
  for (unsigned capability = 0; capability < 250; ++capability) {
    had += must(system.check_extension(capability)) > 0 ? 1u : 0u;
  }
  EXPECT_GT(had, 100u);
  for (unsigned capability = 250; capability < 1000; ++capability) {
    EXPECT_EQ(must(system.check_extension(capability)), 0) << capability;
  }
}

TEST_F(Double, CapabilitiesAreSaidByTheTest) {
  EXPECT_EQ(must(system.check_extension(KVM_CAP_SYNC_REGS)), 7);
  EXPECT_EQ(must(system.check_extension(9999)), 0);
  kvm.cap(KVM_CAP_SYNC_REGS, 0);
  kvm.cap(9999, 3);
  EXPECT_EQ(must(system.check_extension(KVM_CAP_SYNC_REGS)), 0);
  EXPECT_EQ(must(vm.check_extension(9999)), 3);
  EXPECT_EQ(must(system.get_supported_cpuid()).size(), 4u);
  kvm.supported_cpuid(std::vector<kvm_cpuid_entry2>(200));
  EXPECT_EQ(must(system.get_supported_cpuid()).size(), 200u);
}

TEST_F(Double, ATestMayAnswerItself) {
  kvm.on<kvm_sregs>(KVM_GET_SREGS, [](kvm_sregs& sregs) {
    sregs.cr0 = 1;
    return 0;
  });
  EXPECT_EQ(must(vcpu.get_sregs()).cr0, 1u);

  kvm.on(KVM_CREATE_VCPU, [&](const Call& call) {
    EXPECT_EQ(call.role, Role::vm);
    (void)kvm.calls();  // no lock is held
    return call.word == 5 ? -ENOMEM : KvmDouble::as_usual;
  });
  EXPECT_EQ(vm.create_vcpu({5}).error().code, ENOMEM);
  EXPECT_TRUE(vm.create_vcpu({6}));

  constexpr Request<kvm_regs> newest{"KVM_NEWEST", _IOW(KVMIO, 0xfe, kvm_regs)};
  kvm_regs regs{};
  EXPECT_EQ(call(vcpu.fd(), newest, regs).error().code, ENOTTY);
  kvm.on(newest.number, [](const Call&) { return 42; });
  EXPECT_EQ(must(call(vcpu.fd(), newest, regs)), 42);
}

TEST_F(Double, WhatCantBeIsRefusedAsTheKernelDoes) {
  EXPECT_EQ(::ioctl(vm.fd(), KVM_GET_REGS, nullptr), -1);
  EXPECT_EQ(errno, ENOTTY);
  EXPECT_EQ(::ioctl(vcpu.fd(), KVM_GET_REGS, nullptr), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_TRUE(vm.create_irqchip());
  EXPECT_EQ(vm.create_irqchip().error().code, EEXIST);
  EXPECT_EQ(must(must(vm.create_vcpu({1})).get_mp_state()).mp_state,
            unsigned{KVM_MP_STATE_UNINITIALIZED});
}

// --- Failures ------------------------------------------------------------------------------------

TEST_F(Double, TheNthCallFailsAndHasNoEffect) {
  kvm.fail(KVM_CREATE_VCPU, EMFILE, 2);
  EXPECT_TRUE(vm.create_vcpu({1}));
  EXPECT_EQ(vm.create_vcpu({2}).error().code, EMFILE);
  EXPECT_TRUE(vm.create_vcpu({2}));

  kvm.fail_call(kvm.calls().size() + 2, EIO);
  EXPECT_TRUE(vcpu.get_regs());
  const auto error = vcpu.get_sregs().error();
  EXPECT_EQ(error.code, EIO);
  EXPECT_STREQ(error.operation, "KVM_GET_SREGS");
  EXPECT_EQ(kvm.calls().back().result, -EIO);

  guest0.runs(guest::halt());
  kvm.fail(KVM_RUN, EINTR);
  (void)run_to<Interrupted>();
  (void)run_to<Halted>();
}

TEST_F(Double, AMappingMayBeRefused) {
  kvm.vcpu(1).refuse_mapping();
  const auto error = vm.create_vcpu({1}).error();
  EXPECT_STREQ(error.operation, "mmap of kvm_run");
  EXPECT_EQ(error.code, EACCES);
}

// --- Files ---------------------------------------------------------------------------------------

TEST(KvmDouble, TwoAreTwo) {
  KvmDouble one;
  KvmDouble two;
  one.cap(KVM_CAP_MAX_VCPUS, 1);
  two.cap(KVM_CAP_MAX_VCPUS, 2);
  const Kvm first = must(one.open());
  const Kvm second = must(two.open());
  EXPECT_EQ(must(first.check_extension(KVM_CAP_MAX_VCPUS)), 1);
  EXPECT_EQ(must(second.check_extension(KVM_CAP_MAX_VCPUS)), 2);
  EXPECT_EQ(one.count(KVM_CHECK_EXTENSION), 1u);
}

TEST_F(Double, ItIsTheFileThatCountsAndNotItsNumber) {
  const int copy = ::fcntl(vcpu.fd(), F_DUPFD_CLOEXEC, 0);
  kvm_regs regs{};
  EXPECT_EQ(::ioctl(copy, KVM_GET_REGS, &regs), 0);
  // The number is the real kernel's file now.
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::dup3(null, copy, O_CLOEXEC), copy);
  EXPECT_EQ(::ioctl(copy, KVM_GET_REGS, &regs), -1);
  EXPECT_EQ(errno, ENOTTY);
  ::close(copy);
  EXPECT_EQ(::ioctl(copy, KVM_GET_REGS, &regs), -1);
  EXPECT_EQ(errno, EBADF);
  ::close(null);
  EXPECT_EQ(kvm.count(KVM_GET_REGS), 1u);
}

TEST_F(Double, OtherIoctlsAreTheKernels) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::write(ends[1], "abc", 3), 3);
  int waiting = 0;
  EXPECT_EQ(::ioctl(ends[0], FIONREAD, &waiting), 0);
  EXPECT_EQ(waiting, 3);
  ::close(ends[0]);
  ::close(ends[1]);
  EXPECT_EQ(Kvm::open("/dev/null").error().code, ENOTTY);
}

TEST(KvmDouble, TellsWhatTheVmmLeftOpen) {
  KvmDouble kvm;
  std::optional<Vm> vm = must(must(kvm.open()).create_vm());
  std::optional<Vcpu> vcpu = must(vm->create_vcpu({2}));
  const std::string fd = "fd " + std::to_string(vcpu->fd()) + ": vCPU 2";
  const KickSignal signal = must(KickSignal::install());
  std::optional<Kicker> kicker = vcpu->kicker(signal);
  vm.reset();
  EXPECT_EQ(kvm.leaks(), (Names{fd, "mapping: vCPU 2"}));
  vcpu.reset();
  EXPECT_EQ(kvm.leaks(), (Names{"mapping: vCPU 2"})) << "the Kicker's";
  kicker.reset();
  EXPECT_EQ(kvm.leaks(), Names{});
}

TEST(KvmDouble, LeavesNothingOpenItself) {
  const std::size_t before = open_fds();
  std::optional<Vcpu> vcpu;
  {
    KvmDouble kvm;
    const Vm vm = must(must(kvm.open()).create_vm());
    kvm.vcpu(0).runs(guest::halt());
    vcpu = must(vm.create_vcpu({0}));
    (void)must(vm.get_stats());
    (void)must(vm.create_device(KVM_DEV_TYPE_VFIO));
    EXPECT_EQ(must(vcpu->run()).index(), Exit(Halted{}).index());
  }
  EXPECT_EQ(vcpu->run().error().code, ENOTTY) << "a file that knows no ioctl";
  vcpu.reset();
  EXPECT_EQ(open_fds(), before);
}

// --- What the kernel shares ----------------------------------------------------------------------

TEST(KvmDouble, HasADirtyRing) {
  KvmDouble kvm;
  Vm vm = must(must(kvm.open()).create_vm());
  constexpr std::size_t bytes = 4096;
  constexpr std::uint32_t entries = bytes / sizeof(kvm_dirty_gfn);
  EXPECT_FALSE(kvm.vcpu(0).dirties(0, 0));
  must(vm.enable_dirty_ring(bytes));
  Vcpu vcpu = must(vm.create_vcpu({0}));
  DirtyRing ring = must(vcpu.map_dirty_ring(bytes));
  for (std::uint32_t i = 0; i < entries; ++i) EXPECT_TRUE(kvm.vcpu(0).dirties(1, i));
  EXPECT_FALSE(kvm.vcpu(0).dirties(1, entries)) << "it is full";
  std::uint64_t expected = 0;
  EXPECT_EQ(ring.harvest([&](std::uint32_t slot, std::uint64_t page) {
    EXPECT_EQ(slot, 1u);
    EXPECT_EQ(page, expected++);
  }),
            entries);
  EXPECT_EQ(must(vm.reset_dirty_rings()), entries);
  EXPECT_TRUE(kvm.vcpu(0).dirties(1, 7));
}

TEST_F(Double, HasARingOfCoalescedWrites) {
  auto ring = vcpu.coalesced_mmio(must(system.check_extension(KVM_CAP_COALESCED_MMIO)));
  const std::array data{std::byte{1}, std::byte{2}};
  EXPECT_TRUE(guest0.coalesces(0xb8000, data));
  EXPECT_TRUE(guest0.coalesces(0x80, std::span(data).first(1), true));
  std::vector<std::pair<std::uint64_t, std::size_t>> seen;
  EXPECT_EQ(ring.drain([&](const CoalescedWrite& write) {
    EXPECT_EQ(write.pio, write.address == 0x80);
    seen.emplace_back(write.address, write.data.size());
  }),
            2u);
  EXPECT_EQ(seen, (std::vector<std::pair<std::uint64_t, std::size_t>>{{0xb8000, 2}, {0x80, 1}}));
}

TEST_F(Double, HasStatistics) {
  kvm.stats({{"exits", 5}, {"halt_exits", 2}});
  const Stats stats = must(vcpu.get_stats());
  EXPECT_EQ(stats.all().size(), 2u);
  EXPECT_EQ(must(stats.read(*stats.find("halt_exits"))), std::vector<std::uint64_t>{2});
  EXPECT_NE(stats.id().find("vcpu-0"), std::string::npos);
}

TEST_F(Double, KnowsTheGuestsMemory) {
  EXPECT_EQ(kvm.memory(0, 1), nullptr);
  std::vector<std::byte> ram(2 * 4096);
  must(vm.set_user_memory_region(0, {0x1000}, ram.size(), ram.data()));
  EXPECT_EQ(kvm.memory(0x1000, 2 * 4096), ram.data());
  EXPECT_EQ(kvm.memory(0x2fff, 1), ram.data() + 8191);
  EXPECT_EQ(kvm.memory(0x2fff, 2), nullptr);
  EXPECT_EQ(kvm.memory(0xfff, 1), nullptr);
  EXPECT_EQ(must(vcpu.translate({0x1234})).value, 0x1234u);
  must(vm.set_user_memory_region(0, {0}, 0, nullptr));
  EXPECT_EQ(kvm.memory(0x1000, 1), nullptr);
}

// --- Threads -------------------------------------------------------------------------------------

TEST(KvmDouble, VcpusRunAtOnce) {
  constexpr std::uint32_t count = 4;
  constexpr int exits = 500;
  KvmDouble kvm;
  const Vm vm = must(must(kvm.open()).create_vm());
  std::vector<Vcpu> vcpus;
  for (std::uint32_t id = 0; id < count; ++id) {
    vcpus.push_back(must(vm.create_vcpu({id})));
    for (int i = 0; i < exits; ++i) kvm.vcpu(id).runs(guest::in(static_cast<std::uint16_t>(id), 4));
  }
  std::vector<std::thread> threads;
  for (std::uint32_t id = 0; id < count; ++id) {
    threads.emplace_back([&, id] {
      for (std::uint32_t i = 0; i < exits; ++i) {
        auto exit = must(vcpus[id].run());
        auto& in = std::get<IoIn>(exit);
        EXPECT_EQ(in.port, id);
        std::memcpy(in.data.data(), &i, sizeof(i));
        (void)must(vcpus[id].get_regs());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::uint32_t id = 0; id < count; ++id) {
    const auto answers = kvm.vcpu(id).answers();
    ASSERT_EQ(answers.size(), std::size_t{exits - 1});
    for (std::uint32_t i = 0; i < exits - 1; ++i) EXPECT_EQ(answers[i].value, i);
  }
  EXPECT_EQ(kvm.count(KVM_RUN), count * exits);
}

}  // namespace
}  // namespace kvm_ioctls
