// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <array>
#include <cstring>

#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/event_channel_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/memory_op.hpp"
#include "xen_hcall/vcpu_info_op.hpp"

namespace xen_hcall {
namespace {

using vmm_base::Error;
using vmm_base::Gpa;
using vmm_base::Gva;
using vmm_base::Result;
using vmm_base::success;
using xen_abi::Answer;
using xen_abi::Errno;
using xen_abi::GuestResult;
using xen_abi::Hypercall;

// Guest memory of 64 bytes at 0x1000, and a note of every call.
struct Vmm {
  std::array<std::byte, 64> memory{};
  std::uint64_t shared_info_gfn = 0;
  Gpa info{};
  std::uint8_t vector = 0;
  xen_abi::EventPort bound{};
  xen_abi::EventPort cleared{};
  int failure = 0;

  std::byte* at(Gva gva, std::size_t size) {
    if (gva.value < 0x1000 || gva.value - 0x1000 + size > memory.size()) return nullptr;
    return memory.data() + (gva.value - 0x1000);
  }
  bool copy_from_guest(XenVcpuId, Gva from, std::span<std::byte> to) {
    const std::byte* host = at(from, to.size());
    if (host != nullptr) std::memcpy(to.data(), host, to.size());
    return host != nullptr;
  }
  bool copy_to_guest(XenVcpuId, Gva to, std::span<const std::byte> from) {
    std::byte* host = at(to, from.size());
    if (host != nullptr) std::memcpy(host, from.data(), from.size());
    return host != nullptr;
  }
  Result<void> result() const {
    if (failure != 0) return Error{"double", failure, 0};
    return success();
  }
  Result<void> map_shared_info(std::uint64_t gfn) {
    shared_info_gfn = gfn;
    return result();
  }
  Result<void> move_vcpu_info(XenVcpuId, Gpa gpa) {
    info = gpa;
    return result();
  }
  Result<void> set_upcall_vector(XenVcpuId, std::uint8_t v) {
    vector = v;
    return result();
  }
  void clear_pending(xen_abi::EventPort port) { cleared = port; }
  Result<void> virq_bound(XenVcpuId, std::uint32_t, xen_abi::EventPort port) {
    bound = port;
    return result();
  }
};

struct Hypercalls : testing::Test {
  Vmm vmm;
  MemoryOp<Vmm> memory{vmm};
  VcpuInfoOp<Vmm> info{vmm, 2};
  HvmOp<Vmm> hvm{vmm, 2};
  EventChannelOp<Vmm> events{vmm, 2};
  Dispatcher<MemoryOp<Vmm>, VcpuInfoOp<Vmm>, HvmOp<Vmm>, EventChannelOp<Vmm>> dispatcher{
      memory, info, hvm, events};

  template <class T>
  void put(const T& value) {
    std::memcpy(vmm.memory.data(), &value, sizeof(value));
  }
  Answer call(std::uint64_t number, std::uint64_t a, std::uint64_t b = 0x1000, std::uint64_t c = 0,
              XenVcpuId vcpu = {0}) {
    return dispatcher(vcpu, Hypercall{number, {a, b, c, 0, 0, 0}, true, 0});
  }
};

TEST_F(Hypercalls, OutsideRing0IsEpermWhateverIsAsked) {
  for (const std::uint8_t cpl : std::initializer_list<std::uint8_t>{1, 2, 3}) {
    EXPECT_EQ(dispatcher({0}, Hypercall{9999, {}, true, cpl}).guest, GuestResult(Errno::perm));
    EXPECT_EQ(dispatcher({0}, Hypercall{12, {7, 0x1000}, true, cpl}).guest,
              GuestResult(Errno::perm));
  }
}

TEST_F(Hypercalls, UnknownIsEnosysAndNumbersAre64Bits) {
  EXPECT_EQ(call(9999, 0).guest, GuestResult(Errno::nosys));
  EXPECT_EQ(call(0x1'0000'000c, 7).guest, GuestResult(Errno::nosys));
  EXPECT_EQ(call(xen_abi::hypercall::memory_op, 999).guest, GuestResult(Errno::nosys));
}

TEST_F(Hypercalls, AddToPhysmapMapsSharedInfoForBothWidths) {
  put(xen_abi::AddToPhysmap<std::uint64_t>{xen_abi::domid_self, 0, 0, 0, 0x123});
  EXPECT_EQ(call(12, 7).guest, GuestResult::ok());
  EXPECT_EQ(vmm.shared_info_gfn, 0x123u);
  put(xen_abi::AddToPhysmap<std::uint32_t>{xen_abi::domid_self, 0, 0, 0, 0x321});
  EXPECT_EQ(dispatcher({0}, Hypercall{12, {7, 0x1000}, false, 0}).guest, GuestResult::ok());
  EXPECT_EQ(vmm.shared_info_gfn, 0x321u);
}

TEST_F(Hypercalls, AddToPhysmapErrors) {
  EXPECT_EQ(call(12, 7, 0x5000).guest, GuestResult(Errno::fault));
  put(xen_abi::AddToPhysmap<std::uint64_t>{5, 0, 0, 0, 1});
  EXPECT_EQ(call(12, 7).guest, GuestResult(Errno::srch));
  put(xen_abi::AddToPhysmap<std::uint64_t>{xen_abi::domid_self, 0, 0, 1, 1});
  EXPECT_EQ(call(12, 7).guest, GuestResult(Errno::inval));
  put(xen_abi::AddToPhysmap<std::uint64_t>{xen_abi::domid_self, 0, 0, 0, 1});
  vmm.failure = ENOMEM;
  const auto answer = call(12, 7);
  EXPECT_EQ(answer.guest, GuestResult(Errno::inval));
  EXPECT_EQ(answer.host.error().code, ENOMEM);
}

TEST_F(Hypercalls, RegisterVcpuInfoOnceAVcpuInXensOrderOfErrors) {
  const auto reg = [&](std::uint64_t mfn, std::uint32_t offset, std::uint64_t vcpu = 0) {
    put(xen_abi::RegisterVcpuInfo{mfn, offset, 0});
    return call(24, 10, vcpu, 0x1000).guest;
  };
  EXPECT_EQ(call(24, 10, 2, 0x5000).guest, GuestResult(Errno::noent));
  EXPECT_EQ(call(24, 10, 0, 0x5000).guest, GuestResult(Errno::fault));
  EXPECT_EQ(reg(1, 4096), GuestResult(Errno::inval));
  EXPECT_EQ(reg(~0ull, 0), GuestResult(Errno::inval));
  EXPECT_EQ(reg(1, 4096 - 56), GuestResult(Errno::nxio));
  EXPECT_EQ(reg(1, 4), GuestResult(Errno::nxio));
  vmm.failure = EFAULT;
  EXPECT_EQ(reg(1, 0x40), GuestResult(Errno::inval));
  vmm.failure = 0;
  EXPECT_EQ(reg(1, 0x40, 0xffff'ffff'0000'0000), GuestResult::ok());
  EXPECT_EQ(vmm.info, Gpa{0x1040});
  EXPECT_EQ(reg(2, 0x40), GuestResult(Errno::busy));
}

TEST_F(Hypercalls, UpcallVector) {
  put(xen_abi::EvtchnUpcallVector{0, 0x0f});
  EXPECT_EQ(call(34, 23).guest, GuestResult(Errno::inval));
  put(xen_abi::EvtchnUpcallVector{2, 0x20});
  EXPECT_EQ(call(34, 23).guest, GuestResult(Errno::noent));
  put(xen_abi::EvtchnUpcallVector{0, 0x20});
  EXPECT_EQ(call(34, 23).guest, GuestResult::ok());
  EXPECT_EQ(vmm.vector, 0x20);
}

TEST_F(Hypercalls, BindVirqTellsTheGuestAndTheVmmAndCloseUndoesIt) {
  put(xen_abi::EvtchnBindVirq{0, 0, 0});
  EXPECT_EQ(call(32, 1).guest, GuestResult::ok());
  xen_abi::EvtchnBindVirq out{};
  std::memcpy(&out, vmm.memory.data(), sizeof(out));
  EXPECT_EQ(out.port, 1u);
  EXPECT_EQ(vmm.bound, xen_abi::EventPort{1});
  EXPECT_EQ(call(32, 1).guest, GuestResult(Errno::exist));

  put(xen_abi::EvtchnClose{1});
  EXPECT_EQ(call(32, 3).guest, GuestResult::ok());
  EXPECT_EQ(vmm.bound, xen_abi::EventPort{});
  EXPECT_EQ(vmm.cleared, xen_abi::EventPort{1});
  EXPECT_EQ(call(32, 3).guest, GuestResult(Errno::inval));
}

TEST_F(Hypercalls, AFailedBindLeavesNoPortBehind) {
  put(xen_abi::EvtchnBindVirq{0, 0, 0});
  vmm.failure = EINVAL;
  EXPECT_EQ(call(32, 1).guest, GuestResult(Errno::inval));
  vmm.failure = 0;
  EXPECT_EQ(call(32, 1).guest, GuestResult::ok());
  EXPECT_EQ(vmm.bound, xen_abi::EventPort{1});
}

}  // namespace
}  // namespace xen_hcall
