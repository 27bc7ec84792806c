// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A vCPU that has put itself down, as a real kernel has it, saved.
#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <variant>

#include "host.hpp"
#include "long_mode.hpp"
#include "machine.hpp"
#include "machine_state.hpp"
#include "micro_vm.hpp"
#include "xen_abi/hypercall_numbers.hpp"
#include "xen_abi/vcpu.hpp"

namespace conformance {
namespace {

using vmm_reference::Host;

constexpr Gpa code{0x8000};
constexpr std::uint8_t program[] = {0x0f, 0x01, 0xd9, 0xf4};  // vmmcall; hlt
constexpr std::uint64_t after_the_call = code.value + 3;

struct SavedVcpu : testing::Test {
  Host host = std::get<Host>(Host::open("/dev/kvm"));
  vmm_reference::Machine machine = must(vmm_reference::create_machine(
      host, {.ram_size = 4 << 20, .vcpu_count = 2, .all_running = true}));
  kvm_ioctls::Vcpu& vcpu = machine.vcpus[0];
  vmm_reference::Snapshot snapshot;

  SavedVcpu() {
    must(vmm_reference::write_page_tables(machine.memory));
    must(machine.memory.write(code, std::as_bytes(std::span(program))));
    kvm_regs regs{};
    regs.rip = code.value;
    regs.rax = xen_abi::hypercall::vcpu_op;
    regs.rdi = xen_abi::vcpuop::down;
    must(vmm_reference::enter_long_mode(vcpu, regs));
  }
  // It calls, and is answered, but for what KVM makes of the answer.
  void makes_its_call() {
    auto exit = must(vcpu.run());
    auto* call = std::get_if<kvm_ioctls::XenHypercall>(&exit);
    ASSERT_NE(call, nullptr);
    call->set_result(0x5a5a);
  }
};

TEST_F(SavedVcpu, OneThatIsDownIsBehindItsCall) {
  makes_its_call();
  must(vcpu.set_mp_state({KVM_MP_STATE_UNINITIALIZED}));
  must(vmm_reference::save_machine(host, machine, snapshot));
  EXPECT_EQ(snapshot.vcpus[0].mp_state.mp_state, KVM_MP_STATE_UNINITIALIZED);
  EXPECT_EQ(snapshot.vcpus[0].regs.rip, after_the_call);
  EXPECT_EQ(snapshot.vcpus[0].regs.rax, 0x5a5au);
  EXPECT_EQ(must(vcpu.get_mp_state()).mp_state, KVM_MP_STATE_UNINITIALIZED);
}

TEST_F(SavedVcpu, OneThatHasNeverRunIsWhereItWas) {
  must(vcpu.set_mp_state({KVM_MP_STATE_UNINITIALIZED}));
  must(vmm_reference::save_machine(host, machine, snapshot));
  EXPECT_EQ(snapshot.vcpus[0].regs.rip, code.value);
  EXPECT_EQ(snapshot.vcpus[0].regs.rax, xen_abi::hypercall::vcpu_op);
  EXPECT_EQ(must(vcpu.get_mp_state()).mp_state, KVM_MP_STATE_UNINITIALIZED);
}

}  // namespace
}  // namespace conformance
