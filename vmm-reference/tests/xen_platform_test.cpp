// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What becomes of a guest's wishes that no test guest has: told to KVM where it has KVM_XEN, done
// by hand where it hasn't.
#include "xen_platform.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "kvm_ioctls/double.hpp"
#include "machine.hpp"
#include "xen_handlers.hpp"

namespace vmm_reference {
namespace {

using kvm_ioctls::KvmDouble;
using vmm_base::Error;
using Callback = xen_hcall::CallbackIrq;

constexpr std::uint64_t ram = 2 << 20;
constexpr std::uint64_t no_ram = ram >> vmm_base::page_shift;  // the first frame that isn't
constexpr std::uint64_t shared_gfn = 0x40;
constexpr Gpa second_info{0x50040};
constexpr XenVcpuId first{0}, second{1};
constexpr EventPort port{70};
constexpr std::uint8_t vector = 0xf3;

Host open(const KvmDouble& kvm, bool xen) {
  if (!xen) kvm.cap(KVM_CAP_XEN_HVM, 0);
  return std::get<Host>(Host::open(kvm.path()));
}

struct Platform : testing::Test {
  explicit Platform(bool xen) : host(open(kvm, xen)) {}

  KvmDouble kvm;
  Host host;
  Machine machine =
      create_machine(host, {.ram_size = ram, .vcpu_count = 2, .all_running = true}).value();
  IrqRoutes routes{machine.vm};
  HostErrors errors;
  XenPlatform platform{host, machine.vm, routes, machine.memory, machine.vcpus, errors};

  void map_shared_info() {
    platform.enter_hypercall(first, true);
    ASSERT_TRUE(platform.map_shared_info(shared_gfn));
  }
  template <class T>
  [[nodiscard]] T& at(Gpa gpa) const {
    return *reinterpret_cast<T*>(kvm.memory(gpa.value, sizeof(T)));
  }
  [[nodiscard]] auto& shared() const {
    return at<xen_abi::SharedInfo<std::uint64_t>>(Gpa{shared_gfn << vmm_base::page_shift});
  }
  [[nodiscard]] auto& info() const { return at<xen_abi::VcpuInfo<std::uint64_t>>(second_info); }
  [[nodiscard]] bool is_set(EventPort event) const {
    return (shared().evtchn_pending[event.value / 64] >> event.value % 64 & 1) != 0;
  }
  // The last of the domain's, or of a vCPU's, attributes of a type; of type 0xffff where none was
  // set.
  template <class Attr>
  [[nodiscard]] Attr last(unsigned long request, std::uint16_t type,
                          std::optional<std::uint32_t> vcpu = {}) const {
    Attr found{};
    found.type = 0xffff;
    for (const auto& call : kvm.calls(request)) {
      const Attr attr = call.argument<Attr>();
      if (call.result == 0 && attr.type == type && vcpu.value_or(call.id) == call.id) found = attr;
    }
    return found;
  }
  [[nodiscard]] auto domain(std::uint16_t type) const {
    return last<kvm_xen_hvm_attr>(KVM_XEN_HVM_SET_ATTR, type);
  }
  [[nodiscard]] auto of_second(std::uint16_t type) const {
    return last<kvm_xen_vcpu_attr>(KVM_XEN_VCPU_SET_ATTR, type, second.value);
  }
  [[nodiscard]] std::vector<kvm_msi> messages() const {
    std::vector<kvm_msi> sent;
    for (const auto& call : kvm.calls(KVM_SIGNAL_MSI)) sent.push_back(call.argument<kvm_msi>());
    return sent;
  }
};
// KVM_XEN has all that there is.
struct WithXen : Platform {
  WithXen() : Platform(true) {}
};
struct WithoutXen : Platform {
  WithoutXen() : Platform(false) {}
};

// --- vCPUs ---

TEST_F(WithXen, AreasAreKvmsAndAreTakenAway) {
  ASSERT_TRUE(platform.set_runstate_area(second, Gpa{0x1040}));
  ASSERT_TRUE(platform.set_time_area(second, Gpa{0x2040}));
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR).u.gpa, 0x1040u);
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO).u.gpa, 0x2040u);
  ASSERT_TRUE(platform.set_runstate_area(second, std::nullopt));
  ASSERT_TRUE(platform.set_time_area(second, std::nullopt));
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR).u.gpa, kvm_ioctls::xen_invalid_gpa);
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO).u.gpa, kvm_ioctls::xen_invalid_gpa);
}

// Linux insists on a yes, whatever the kernel keeps.
TEST_F(WithXen, ARunstateAreaIsTakenThoughTheKernelKeepsNone) {
  kvm.fail(KVM_XEN_VCPU_SET_ATTR, EOPNOTSUPP);
  EXPECT_TRUE(platform.set_runstate_area(first, Gpa{0x1000}));
  kvm.fail(KVM_XEN_VCPU_SET_ATTR, ENOMEM);
  EXPECT_EQ(platform.set_runstate_area(first, Gpa{0x1000}).error().code, ENOMEM);
}

TEST_F(WithoutXen, ARunstateAreaIsTakenAndATimeAreaIsNot) {
  EXPECT_TRUE(platform.set_runstate_area(first, Gpa{0x1000}));
  EXPECT_TRUE(platform.set_time_area(first, std::nullopt));
  EXPECT_EQ(platform.set_time_area(second, Gpa{0x1000}).error(),
            (Error{"vcpu_time_info of its own", ENOTSUP, 1}));
}

TEST_F(WithXen, ARunstateIsWhatKvmSays) {
  kvm.on<kvm_xen_vcpu_attr>(KVM_XEN_VCPU_GET_ATTR, [](kvm_xen_vcpu_attr& attr) {
    auto& to = attr.u.runstate;
    to.state = 2;
    to.state_entry_time = 10;
    to.time_running = 1;
    to.time_runnable = 2;
    to.time_blocked = 3;
    to.time_offline = 4;
    return 0;
  });
  const auto state = platform.runstate(second).value();
  EXPECT_EQ(state.state, 2);
  EXPECT_EQ(state.state_entry_time, 10u);
  for (std::uint64_t at = 0; at < 4; ++at) EXPECT_EQ(state.time[at], at + 1);
}

TEST_F(WithXen, AVcpusPowerIsItsStateAndWhetherItWasEverInitialised) {
  using Power = xen_hcall::VcpuPower;
  const auto power = [&](std::uint32_t state) {
    EXPECT_TRUE(machine.vcpus[1].set_mp_state({state}));
    return platform.vcpu_power(second).value();
  };
  EXPECT_EQ(power(KVM_MP_STATE_UNINITIALIZED), Power::uninitialised);
  EXPECT_EQ(power(KVM_MP_STATE_RUNNABLE), Power::up);
  EXPECT_EQ(power(KVM_MP_STATE_HALTED), Power::up);
  EXPECT_EQ(power(KVM_MP_STATE_SIPI_RECEIVED), Power::up);
  ASSERT_TRUE(platform.power_down(second));
  EXPECT_EQ(machine.vcpus[1].get_mp_state().value().mp_state,
            std::uint32_t{KVM_MP_STATE_UNINITIALIZED})
      << "in which KVM lets it wait";
  EXPECT_EQ(platform.vcpu_power(second).value(), Power::down);
  ASSERT_TRUE(platform.power_up(second));
  EXPECT_EQ(platform.vcpu_power(second).value(), Power::up);
  EXPECT_EQ(platform.vcpu_power(first).value(), Power::up);
}

TEST_F(WithXen, AVcpuBeginsWithTheRegistersThatItIsGiven) {
  xen_hcall::VcpuRegisters registers;
  std::uint64_t next = 1;
  for (auto* field :
       {&registers.rax, &registers.rcx, &registers.rdx, &registers.rbx, &registers.rsp,
        &registers.rbp, &registers.rsi, &registers.rdi, &registers.rip, &registers.rflags,
        &registers.cr0, &registers.cr3, &registers.cr4, &registers.efer}) {
    *field = next++;
  }
  registers.cs = {0x1000, 0xfffff, 0xa9b};  // 64 bits, in pages
  registers.ss = {0x2000, 0xffff, 0x0f3};   // of ring 3
  registers.tr = {0x3000, 0x67, 0x08b};
  ASSERT_TRUE(machine.vcpus[1].set_mp_state({KVM_MP_STATE_UNINITIALIZED}));
  ASSERT_TRUE(platform.initialise_vcpu(second, registers));
  EXPECT_EQ(platform.vcpu_power(second).value(), xen_hcall::VcpuPower::down);

  const auto regs = kvm.calls(KVM_SET_REGS).back().argument<kvm_regs>();
  const std::vector<std::uint64_t> general{regs.rax, regs.rcx, regs.rdx, regs.rbx, regs.rsp,
                                           regs.rbp, regs.rsi, regs.rdi, regs.rip, regs.rflags};
  EXPECT_EQ(general, (std::vector<std::uint64_t>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}));
  const auto sregs = kvm.calls(KVM_SET_SREGS).back().argument<kvm_sregs>();
  const std::vector<std::uint64_t> control{sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer};
  EXPECT_EQ(control, (std::vector<std::uint64_t>{11, 12, 13, 14}));
  const auto segment = [](const kvm_segment& of) {
    return std::vector<std::uint64_t>{of.base,    of.limit, of.type, of.s, of.dpl,
                                      of.present, of.l,     of.db,   of.g, of.unusable};
  };
  using Fields = std::vector<std::uint64_t>;
  EXPECT_EQ(segment(sregs.cs), (Fields{0x1000, 0xfffff, 0xb, 1, 0, 1, 1, 0, 1, 0}));
  EXPECT_EQ(segment(sregs.ss), (Fields{0x2000, 0xffff, 0x3, 1, 3, 1, 0, 0, 0, 0}));
  EXPECT_EQ(segment(sregs.tr), (Fields{0x3000, 0x67, 0xb, 0, 0, 1, 0, 0, 0, 0}));
  EXPECT_EQ(segment(sregs.ds), (Fields{0, 0, 0, 0, 0, 0, 0, 0, 0, 1}));
}

TEST_F(WithXen, AnNmiGoesToTheVcpusApic) {
  ASSERT_TRUE(platform.send_nmi(second));
  ASSERT_EQ(messages().size(), 1u);
  EXPECT_EQ(messages()[0].address_lo, 0xfee01000u);
  EXPECT_EQ(messages()[0].data, 0x400u);
}

TEST_F(WithXen, OneThatBlocksIsHalted) {
  ASSERT_TRUE(platform.block(second));
  const auto set = kvm.calls(KVM_SET_MP_STATE).back();
  EXPECT_EQ(set.id, 1u);
  EXPECT_EQ(set.argument<kvm_mp_state>().mp_state, std::uint32_t{KVM_MP_STATE_HALTED});
}

// --- the domain ---

TEST_F(WithXen, WatchdogsAndShutdownsAreTheDomains) {
  EXPECT_EQ(platform.set_watchdog(1, std::chrono::seconds(3)).error(),
            (Error{"watchdog", ENOTSUP, 1}));
  std::optional<std::chrono::seconds> after;
  platform.on_watchdog(
      [&](std::uint32_t, std::optional<std::chrono::seconds> set) { after = set; });
  EXPECT_TRUE(platform.set_watchdog(1, std::chrono::seconds(3)));
  EXPECT_EQ(after, std::chrono::seconds(3));
  std::optional<xen_abi::ShutdownReason> why;
  platform.on_shutdown([&](xen_abi::ShutdownReason reason) { why = reason; });
  platform.shutdown(xen_abi::ShutdownReason::reboot);
  EXPECT_EQ(why, xen_abi::ShutdownReason::reboot);
}

TEST_F(WithXen, RamIsWhatTheGuestHas) {
  EXPECT_TRUE(platform.is_ram(0));
  EXPECT_TRUE(platform.populate_page(no_ram - 1));
  EXPECT_FALSE(platform.remove_page(no_ram));
  EXPECT_FALSE(platform.is_ram(std::uint64_t{1} << 52)) << "frame 0, were the shift to wrap";
}

TEST_F(WithXen, OfTheConsolesTextOnlyWhatIsPrintableIsShown) {
  testing::internal::CaptureStderr();
  platform.console_write(std::as_bytes(std::span("up\x1b[2J\r\x7f\xc3 1\n", 12)));
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "up[2J 1\n");
}

TEST_F(WithXen, SharedInfoIsRefusedWhereThereIsNoRamAndTo32Bits) {
  platform.enter_hypercall(first, true);
  EXPECT_EQ(platform.map_shared_info(no_ram).error(), (Error{"shared_info", EFAULT, no_ram}));
  EXPECT_EQ(platform.map_shared_info(std::uint64_t{1} << 52).error().code, EFAULT);
  platform.enter_hypercall(first, false);
  EXPECT_EQ(platform.map_shared_info(shared_gfn).error(),
            (Error{"shared_info of a 32-bit domain", ENOTSUP, shared_gfn}));
  EXPECT_EQ(domain(KVM_XEN_ATTR_TYPE_SHARED_INFO).type, 0xffff);
}

TEST_F(WithXen, SharedInfoTakesWhatItWasAlong) {
  map_shared_info();
  shared().evtchn_mask[3] = 0x1234;
  at<std::uint64_t>(Gpa{0x41800}) = 99;
  ASSERT_TRUE(platform.map_shared_info(shared_gfn + 1));
  EXPECT_EQ(domain(KVM_XEN_ATTR_TYPE_SHARED_INFO).u.shared_info.gfn, shared_gfn + 1);
  EXPECT_EQ((at<xen_abi::SharedInfo<std::uint64_t>>(Gpa{0x41000}).evtchn_mask[3]), 0x1234u);
  EXPECT_EQ(at<std::uint64_t>(Gpa{0x41800}), 0u) << "evtchn_pending";
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO).u.gpa, 0x41040u);
}

TEST_F(WithXen, AVcpuInfoHasToLieInRamAndAligned) {
  EXPECT_EQ(platform.move_vcpu_info(first, Gpa{ram - 32}).error(),
            (Error{"vcpu_info", EFAULT, ram - 32}));
  EXPECT_EQ(platform.move_vcpu_info(first, Gpa{0x1004}).error().code, EFAULT);
}

TEST_F(WithXen, ASoftResetLeavesNothingOfWhatWasSet) {
  map_shared_info();
  unsigned timers = 0;
  platform.on_timer_reset([&](XenVcpuId) {
    ++timers;
    return Result<void>(vmm_base::success());
  });
  ASSERT_TRUE(platform.move_vcpu_info(second, second_info));
  ASSERT_TRUE(platform.set_runstate_area(second, Gpa{0x1000}));
  ASSERT_TRUE(platform.set_time_area(second, Gpa{0x2000}));
  ASSERT_TRUE(platform.set_upcall_vector(second, vector));
  ASSERT_TRUE(platform.set_callback({Callback::Kind::vector, vector}));
  ASSERT_TRUE(platform.set_runstate_update_flag(true));
  ASSERT_TRUE(platform.map_grant_frame(0, 0x20));

  XenHandlers handlers(platform, machine);
  ASSERT_TRUE(platform.soft_reset(first));
  EXPECT_EQ(timers, 2u);
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO).u.gpa, kvm_ioctls::xen_invalid_gpa);
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR).u.gpa, kvm_ioctls::xen_invalid_gpa);
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO).u.gpa, kvm_ioctls::xen_invalid_gpa);
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR).type,
            KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR);
  EXPECT_EQ(of_second(KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR).u.vector, 0);
  EXPECT_EQ(domain(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR).u.vector, 0);
  EXPECT_EQ(domain(KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG).u.long_mode, 0);
  EXPECT_EQ(domain(KVM_XEN_ATTR_TYPE_SHARED_INFO).u.shared_info.gfn, kvm_ioctls::xen_invalid_gpa);
  EXPECT_EQ(platform.grant_frame(0), std::nullopt);
}

TEST_F(WithXen, ASoftResetGoesOnAfterAnErrorAndSaysTheFirst) {
  map_shared_info();
  XenHandlers handlers(platform, machine);
  kvm.fail(KVM_XEN_VCPU_SET_ATTR, EIO);
  EXPECT_EQ(platform.soft_reset(first).error(), (Error{"KVM_XEN_VCPU_SET_ATTR", EIO, 0}));
  EXPECT_EQ(domain(KVM_XEN_ATTR_TYPE_SHARED_INFO).u.shared_info.gfn, kvm_ioctls::xen_invalid_gpa);
}

TEST_F(WithXen, ASoftResetNeedsSomebodyWhoDoesIt) {
  EXPECT_EQ(platform.soft_reset(first).error(), (Error{"soft reset", ENOTSUP, 0}));
}

// --- events ---

TEST_F(WithXen, ACallbackByVectorIsKvmsAndAGsiIsAYes) {
  ASSERT_TRUE(platform.set_callback({Callback::Kind::vector, vector}));
  EXPECT_EQ(domain(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR).u.vector, vector);
  ASSERT_TRUE(platform.set_callback({Callback::Kind::gsi, 1}));
  EXPECT_EQ(domain(KVM_XEN_ATTR_TYPE_UPCALL_VECTOR).u.vector, 0);
}

TEST_F(WithoutXen, ACallbackByVectorIsRefusedAndAGsiIsAYes) {
  EXPECT_EQ(platform.set_callback({Callback::Kind::vector, vector}).error(),
            (Error{"HVM_PARAM_CALLBACK_IRQ", ENOTSUP, vector}));
  EXPECT_TRUE(platform.set_callback({Callback::Kind::gsi, 1}));
}

TEST_F(WithXen, KvmSendsOnAPortWhatItIsTold) {
  constexpr auto type = KVM_XEN_ATTR_TYPE_EVTCHN;
  const auto told = [&] { return domain(type).u.evtchn; };
  const auto times = [&] {
    const auto calls = kvm.calls(KVM_XEN_HVM_SET_ATTR);
    return std::count_if(calls.begin(), calls.end(), [](const kvm_ioctls::Call& call) {
      return call.argument<kvm_xen_hvm_attr>().type == type;
    });
  };
  ASSERT_TRUE(platform.send_routed(port, xen_evtchn::Target{port, second}));
  EXPECT_EQ(told().send_port, port.value);
  EXPECT_EQ(told().type, xen_abi::evtchn_status::ipi);
  EXPECT_EQ(told().flags, 0u);
  EXPECT_EQ(told().deliver.port.port, port.value);
  EXPECT_EQ(told().deliver.port.vcpu, 1u);
  // To another vCPU: the same port, changed.
  ASSERT_TRUE(platform.send_routed(port, xen_evtchn::Target{port, first}));
  EXPECT_EQ(told().flags, std::uint32_t{KVM_XEN_EVTCHN_UPDATE});
  EXPECT_EQ(told().deliver.port.vcpu, 0u);
  EXPECT_EQ(times(), 2);
  // To another port: KVM can't change that.
  ASSERT_TRUE(platform.send_routed(port, xen_evtchn::Target{{9}, second}));
  EXPECT_EQ(times(), 4);
  EXPECT_EQ(told().type, xen_abi::evtchn_status::interdomain);
  EXPECT_EQ(told().flags, 0u);
  EXPECT_EQ(told().deliver.port.port, 9u);
  ASSERT_TRUE(platform.send_routed(port, std::nullopt));
  EXPECT_EQ(told().flags, std::uint32_t{KVM_XEN_EVTCHN_DEASSIGN});
  ASSERT_TRUE(platform.send_routed(port, std::nullopt));
  EXPECT_EQ(times(), 5) << "what isn't there isn't taken away";
}

TEST_F(WithXen, AnEventIsKvmsToRaise) {
  map_shared_info();
  ASSERT_TRUE(platform.raise_event(second, port));
  const auto sent =
      kvm.calls(KVM_XEN_HVM_EVTCHN_SEND).back().argument<kvm_irq_routing_xen_evtchn>();
  EXPECT_EQ(sent.port, port.value);
  EXPECT_EQ(sent.vcpu, 1u);
}

TEST_F(WithoutXen, AnEventIsABitAndAMessageOfTheVcpusVector) {
  EXPECT_EQ(platform.raise_event(second, port).error(),
            (Error{"event before shared_info", ENXIO, port.value}));
  map_shared_info();
  ASSERT_TRUE(platform.move_vcpu_info(second, second_info));
  info() = {};
  ASSERT_TRUE(platform.set_upcall_vector(second, vector));
  EXPECT_TRUE(messages().empty());
  ASSERT_TRUE(platform.raise_event(second, port));
  EXPECT_TRUE(is_set(port));
  EXPECT_TRUE(platform.is_pending(port));
  EXPECT_EQ(info().pending_sel, 1u << port.value / 64);
  EXPECT_EQ(info().upcall_pending, 1);
  ASSERT_EQ(messages().size(), 1u);
  EXPECT_EQ(messages()[0].address_lo, 0xfee01000u);
  EXPECT_EQ(messages()[0].data, vector);
  // It is told already.
  ASSERT_TRUE(platform.raise_event(second, EventPort{71}));
  EXPECT_EQ(messages().size(), 1u);

  platform.clear_pending(port);
  EXPECT_FALSE(platform.is_pending(port));
  EXPECT_TRUE(is_set(EventPort{71}));
  EXPECT_EQ(platform.raise_event(second, EventPort{xen_abi::event_ports_64}).error(),
            (Error{"event channel", EINVAL, xen_abi::event_ports_64}));
  EXPECT_FALSE(platform.is_pending(EventPort{xen_abi::event_ports_64}));
  platform.clear_pending(EventPort{xen_abi::event_ports_64});
}

// Else the guest, which was never interrupted, would never be again.
TEST_F(WithoutXen, AnUpcallThatFailedIsMadeUpFor) {
  map_shared_info();
  ASSERT_TRUE(platform.move_vcpu_info(second, second_info));
  info() = {};
  ASSERT_TRUE(platform.set_upcall_vector(second, vector));
  kvm.fail(KVM_SIGNAL_MSI, EIO);
  EXPECT_EQ(platform.raise_event(second, port).error().code, EIO);
  ASSERT_TRUE(platform.raise_event(second, port));
  EXPECT_EQ(messages().size(), 2u);
  ASSERT_TRUE(platform.raise_event(second, port));
  EXPECT_EQ(messages().size(), 2u);
}

TEST_F(WithoutXen, WhatIsPendingComesWithTheVector) {
  map_shared_info();
  ASSERT_TRUE(platform.move_vcpu_info(second, second_info));
  EXPECT_EQ(info().pending_sel, ~std::uint64_t{0}) << "all are looked for at the new place";
  EXPECT_TRUE(messages().empty());
  ASSERT_TRUE(platform.set_upcall_vector(second, vector));
  ASSERT_EQ(messages().size(), 1u);
  EXPECT_EQ(messages()[0].data, vector);
}

TEST_F(WithoutXen, AnEventIsKeptForAVcpuThatHasNoInfo) {
  map_shared_info();
  ASSERT_TRUE(platform.reset_vcpu(second));
  ASSERT_TRUE(platform.raise_event(second, port));
  EXPECT_TRUE(is_set(port));
  EXPECT_TRUE(messages().empty());
}

TEST_F(WithoutXen, AMaskedEventComesOnceItIsUnmasked) {
  EXPECT_TRUE(platform.unmask_event(second, port)) << "there is nothing to unmask yet";
  map_shared_info();
  ASSERT_TRUE(platform.move_vcpu_info(second, second_info));
  info() = {};
  ASSERT_TRUE(platform.set_upcall_vector(second, vector));
  shared().evtchn_mask[port.value / 64] = ~std::uint64_t{0};
  ASSERT_TRUE(platform.raise_event(second, port));
  EXPECT_TRUE(messages().empty());
  ASSERT_TRUE(platform.unmask_event(second, port));
  EXPECT_EQ(messages().size(), 1u);
  EXPECT_EQ(shared().evtchn_mask[port.value / 64], ~(std::uint64_t{1} << port.value % 64));
}

TEST_F(WithoutXen, WhatKvmCantSendComesToUs) {
  const std::size_t before = kvm.calls().size();
  EXPECT_TRUE(platform.send_routed(port, xen_evtchn::Target{port, second}));
  EXPECT_EQ(kvm.calls().size(), before);
}

// --- guest memory ---

TEST_F(WithXen, AnAreaIsWhereItsPagesAreInARow) {
  // Pages 1 and 2 are neighbours; 3 is elsewhere; nothing is from 4 on.
  kvm.on<kvm_translation>(KVM_TRANSLATE, [](kvm_translation& at) {
    const auto page = at.linear_address >> vmm_base::page_shift;
    at.valid = page < 4 ? 1 : 0;
    at.physical_address =
        page == 3 ? 0x20000 + at.linear_address % vmm_base::page_size : at.linear_address;
    return 0;
  });
  EXPECT_EQ(platform.translate(first, Gva{0x1ff0}, 32), Gpa{0x1ff0});
  EXPECT_EQ(platform.translate(first, Gva{0x2ff0}, 32), std::nullopt);
  EXPECT_EQ(platform.translate(first, Gva{0x2ff0}, 16), Gpa{0x2ff0});
  EXPECT_EQ(platform.translate(first, Gva{0x3ff0}, 32), std::nullopt);
  EXPECT_EQ(errors.message(), "") << "that is the guest's";

  std::array<std::byte, 32> bytes{};
  bytes.fill(std::byte{0x5a});
  ASSERT_TRUE(platform.copy_to_guest(first, Gva{0x2ff0}, bytes));
  EXPECT_EQ(at<std::byte>(Gpa{0x2fff}), std::byte{0x5a});
  EXPECT_EQ(at<std::byte>(Gpa{0x2000f}), std::byte{0x5a});
  EXPECT_EQ(at<std::byte>(Gpa{0x20010}), std::byte{0});
  bytes.fill(std::byte{0});
  ASSERT_TRUE(platform.copy_from_guest(first, Gva{0x2ff0}, bytes));
  EXPECT_EQ(bytes[31], std::byte{0x5a});
  EXPECT_FALSE(platform.copy_to_guest(first, Gva{0x3ff0}, bytes));
  EXPECT_FALSE(platform.copy_from_guest(first, Gva{0x3ff0}, bytes));
}

TEST_F(WithXen, WhatKvmCantTranslateIsTheHostsError) {
  kvm.fail(KVM_TRANSLATE, EIO);
  EXPECT_EQ(platform.translate(first, Gva{0x1000}, 8), std::nullopt);
  EXPECT_NE(errors.message().find("KVM_TRANSLATE"), std::string::npos);
}

}  // namespace
}  // namespace vmm_reference
