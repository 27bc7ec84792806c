// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The state in which a vCPU enters a test guest: 64-bit mode, ring 0, the first 4 GiB mapped to
// themselves.
#pragma once

#include <cstdint>

#include "kvm_ioctls/vcpu.hpp"
#include "vm_memory/guest_memory.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

// Six pages of page tables, for all vCPUs.
inline constexpr vmm_base::Gpa page_tables{0x1000};

[[nodiscard]] vmm_base::Result<void> write_page_tables(vm_memory::GuestMemory& memory);

// Sets the vCPU's segments and control registers; and the registers that are given, RFLAGS apart.
[[nodiscard]] vmm_base::Result<void> enter_long_mode(const kvm_ioctls::Vcpu& vcpu, kvm_regs regs);

}  // namespace vmm_reference
