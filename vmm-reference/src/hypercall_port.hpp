// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Hypercalls on a KVM without KVM_XEN: we fill the guest's hypercall page ourselves, with slots
// that write to a port, and read the arguments out of the registers at the port exit.
#pragma once

#include "kvm_ioctls/vcpu.hpp"
#include "vm_memory/guest_memory.hpp"
#include "xen_abi/hypercall.hpp"

namespace vmm_reference {

class HypercallPort {
 public:
  // An 8-bit port, for the instruction's immediate form leaves RDX, the third parameter, alone.
  static constexpr std::uint8_t port = 0xea;

  explicit HypercallPort(vm_memory::GuestMemory& memory) noexcept : memory_(memory) {}

  // Fills the page whose guest physical address the guest wrote to the hypercall MSR; false if it
  // isn't RAM.
  [[nodiscard]] bool fill(std::uint64_t msr_value) noexcept;

  // The call that a vCPU has just made, by any write to the port; it must have both sets of
  // sync_regs() requested.
  [[nodiscard]] static xen_abi::Hypercall decode(const kvm_ioctls::Vcpu& vcpu) noexcept;

 private:
  vm_memory::GuestMemory& memory_;
};

}  // namespace vmm_reference
