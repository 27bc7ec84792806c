// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The run loop through every kind of exit that there is.
#include "vcpu_loop.hpp"

#include <gtest/gtest.h>

#include <set>
#include <utility>
#include <vector>

#include "kvm_ioctls/double.hpp"
#include "kvm_ioctls/kicker.hpp"

namespace vmm_reference {
namespace {

namespace guest = kvm_ioctls::guest;
using kvm_ioctls::Exit;

// Hypercalls answer 7, the MSR 0x10 is ours, and so is the port 0xea.
struct Calls {
  void hypercall(kvm_ioctls::XenHypercall& call, VcpuState& state) {
    ++state.punted;
    call.set_result(7);
  }
  bool out(kvm_ioctls::IoOut& out, VcpuState&) {
    if (out.port != 0xea) return false;
    ++hypercall_ports;
    return true;
  }
  bool write_msr(kvm_ioctls::MsrWrite& write) { return write.index() == 0x10; }
  int& hypercall_ports;
};
struct Ports final : Devices {
  static constexpr std::uint16_t last = 0xf4;
  bool out(std::uint16_t port, std::span<const std::byte> data) override {
    written.emplace_back(port, std::to_integer<int>(data[0]));
    return port != last;
  }
  void in(std::uint16_t port, std::span<std::byte> data) override {
    data[0] = static_cast<std::byte>(port + 1);
  }
  std::vector<std::pair<std::uint16_t, int>> written;
};

struct Loop : testing::Test {
  kvm_ioctls::KvmDouble kvm;
  kvm_ioctls::Vm vm = std::move(kvm.open().value().create_vm().value());
  kvm_ioctls::Vcpu vcpu = std::move(vm.create_vcpu({0}).value());
  kvm_ioctls::Runner<kvm_ioctls::Vcpu> runner{vcpu, kvm_ioctls::KickSignal::install().value()};
  Ports ports;
  VcpuState state;
  int hypercall_ports = 0;
  int interruptions = 0;
  bool go_on = true;
  std::set<std::size_t> seen;

  void run() {
    run_vcpu(
        runner, Calls{hypercall_ports}, ports,
        [&] {
          ++interruptions;
          return go_on;
        },
        state);
  }
  void note(const guest::Step& step) {
    kvm.vcpu(0).runs(step);
    auto exit = runner.run();
    ASSERT_TRUE(exit);
    seen.insert(exit.assume_value().index());
  }

  // The loop takes the exit and goes on. What the guest got for it.
  kvm_ioctls::Answer handled(const guest::Step& step) {
    note(step);
    const std::size_t before = kvm.vcpu(0).answers().size();
    kvm.vcpu(0).runs(step, guest::out(Ports::last, 0));
    run();
    EXPECT_EQ(state.fault, "");
    EXPECT_EQ(kvm.vcpu(0).steps_left(), 0u);
    return kvm.vcpu(0).answers().at(before + 1);
  }
  // The exit ends the loop, which says so.
  void ends(const guest::Step& step, const std::string& text) {
    note(step);
    kvm.vcpu(0).runs(step);
    state.fault.clear();
    const std::size_t before = kvm.count(KVM_RUN);
    run();
    EXPECT_NE(state.fault.find(text), std::string::npos) << state.fault << " instead of " << text;
    EXPECT_EQ(kvm.count(KVM_RUN), before + 1);
  }
  void has_no_reason(const guest::Step& step, const std::string& name) {
    ends(step, "an exit that this guest has no reason for: " + name);
  }
};

TEST_F(Loop, TakesOrNamesEveryKindOfExit) {
  EXPECT_EQ(handled(guest::xen_hypercall(17)).value, 7u);
  EXPECT_EQ(state.punted, 1u);
  (void)handled(guest::out(0x80, 5));
  EXPECT_EQ(ports.written.at(1), (std::pair<std::uint16_t, int>{0x80, 5}));
  EXPECT_EQ(handled(guest::in(0x60)).value, 0x61u);
  EXPECT_EQ(handled(guest::mmio_read(0xfed00000, 4)).value, 0xffffffffu);
  (void)handled(guest::mmio_write(0xfed00000, 1));
  EXPECT_TRUE(handled(guest::rdmsr(0x10)).fault);
  EXPECT_FALSE(handled(guest::wrmsr(0x10, 1)).fault);
  EXPECT_TRUE(handled(guest::wrmsr(0x11, 1)).fault);

  ends(guest::shutdown(), "the guest crashed (a triple fault)");
  ends(guest::fail_entry(0x80000021), "the processor refused the guest's state, reason 2147483681");
  ends(guest::internal_error(KVM_INTERNAL_ERROR_EMULATION), "KVM internal error, suberror 1");
  ends(guest::other(4711), "an exit this VMM doesn't know: KVM_EXIT 4711");

  has_no_reason(guest::halt(), "KVM_EXIT_HLT");
  has_no_reason(guest::system_event(KVM_SYSTEM_EVENT_RESET), "KVM_EXIT_SYSTEM_EVENT");
  has_no_reason(guest::hypercall(12), "KVM_EXIT_HYPERCALL");
  has_no_reason(guest::hyperv_hypercall(1), "KVM_EXIT_HYPERV, a hypercall");
  has_no_reason(guest::hyperv_synic(1, 2, 3, 4), "KVM_EXIT_HYPERV, SynIC");
  has_no_reason(guest::hyperv_syndbg(1, 2), "KVM_EXIT_HYPERV, the debugger");
  has_no_reason(guest::debug(1, 2), "KVM_EXIT_DEBUG");
  has_no_reason(guest::tpr_access(1, true), "KVM_EXIT_TPR_ACCESS");
  has_no_reason(guest::set_tpr(1), "KVM_EXIT_SET_TPR");
  has_no_reason(guest::ioapic_eoi(1), "KVM_EXIT_IOAPIC_EOI");
  has_no_reason(guest::bus_lock(), "KVM_EXIT_X86_BUS_LOCK");
  has_no_reason(guest::notify(), "KVM_EXIT_NOTIFY");
  has_no_reason(guest::ap_reset_hold(), "KVM_EXIT_AP_RESET_HOLD");
  has_no_reason(guest::memory_fault(0x1000, 0x1000), "KVM_EXIT_MEMORY_FAULT");
  has_no_reason(guest::tdx(1), "KVM_EXIT_TDX");
  has_no_reason(guest::snp_req_certs(1, 2), "KVM_EXIT_SNP_REQ_CERTS");
  has_no_reason(guest::irq_window_open(), "KVM_EXIT_IRQ_WINDOW_OPEN");
  has_no_reason(guest::dirty_ring_full(), "KVM_EXIT_DIRTY_RING_FULL");
  has_no_reason(guest::unknown(1), "KVM_EXIT_UNKNOWN");
  has_no_reason(guest::exception(1), "KVM_EXIT_EXCEPTION");
  has_no_reason(guest::nmi(), "KVM_EXIT_NMI");
  has_no_reason(guest::watchdog(), "KVM_EXIT_WATCHDOG");
#define FOREIGN(reason) has_no_reason(guest::other(reason), #reason)
  FOREIGN(KVM_EXIT_S390_SIEIC);
  FOREIGN(KVM_EXIT_S390_RESET);
  FOREIGN(KVM_EXIT_DCR);
  FOREIGN(KVM_EXIT_OSI);
  FOREIGN(KVM_EXIT_PAPR_HCALL);
  FOREIGN(KVM_EXIT_S390_UCONTROL);
  FOREIGN(KVM_EXIT_S390_TSCH);
  FOREIGN(KVM_EXIT_EPR);
  FOREIGN(KVM_EXIT_S390_STSI);
  FOREIGN(KVM_EXIT_ARM_NISV);
  FOREIGN(KVM_EXIT_RISCV_SBI);
  FOREIGN(KVM_EXIT_RISCV_CSR);
  FOREIGN(KVM_EXIT_LOONGARCH_IOCSR);
  FOREIGN(KVM_EXIT_ARM_SEA);
  FOREIGN(KVM_EXIT_ARM_LDST64B);
#undef FOREIGN

  kvm.vcpu(0).runs(guest::interrupted(), guest::interrupted(), guest::out(Ports::last, 0));
  state.fault.clear();
  run();
  EXPECT_EQ(state.fault, "");
  EXPECT_EQ(interruptions, 2);
  seen.insert(Exit(kvm_ioctls::Interrupted{}).index());
  EXPECT_EQ(seen.size(), std::variant_size_v<Exit>) << "there are kinds that nobody tried";
}

TEST_F(Loop, AsksTheCallsBeforeThePorts) {
  kvm.vcpu(0).runs(guest::out(0xea, 1), guest::out(Ports::last, 0));
  run();
  EXPECT_EQ(hypercall_ports, 1);
  EXPECT_EQ(ports.written.size(), 1u);
}

TEST_F(Loop, EndsWhenTheInterruptionSaysSo) {
  go_on = false;
  kvm.vcpu(0).runs(guest::interrupted());
  run();
  EXPECT_EQ(interruptions, 1);
  EXPECT_EQ(state.fault, "");
}

TEST_F(Loop, SaysWhatKvmRunFailedOf) {
  for (const int error : {EBADF, EFAULT, EINVAL, EIO, ENOEXEC, ENOMEM}) {
    kvm.fail(KVM_RUN, error);
    run();
    EXPECT_EQ(state.fault, (vmm_base::Error{"KVM_RUN", error, 0}.message()));
  }
}

}  // namespace
}  // namespace vmm_reference
