// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The hardware of a guest: a VM with memory and vCPUs.
#pragma once

#include <cstdint>
#include <vector>

#include "host.hpp"
#include "kvm_ioctls/vcpu.hpp"
#include "kvm_ioctls/vm.hpp"
#include "linux_loader/memory_map.hpp"
#include "vm_memory/guest_memory.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

struct Machine {
  vm_memory::GuestMemory memory;
  kvm_ioctls::Vm vm;
  std::vector<kvm_ioctls::Vcpu> vcpus;  // by Xen vCPU id, which is the APIC id, too
  std::vector<linux_loader::MemoryRange> memory_map;
};

struct MachineConfig {
  std::uint64_t ram_size = 0;  // bytes; what doesn't fit below 3 GiB is above 4 GiB
  std::uint32_t vcpu_count = 1;
  bool xen = true;           // else a guest of KVM's own
  bool all_running = false;  // else all but the first wait for INIT and SIPI
  bool xen_ids = false;      // KVM is told the vCPUs' Xen ids, and serves their timers
};

[[nodiscard]] vmm_base::Result<Machine> create_machine(const Host& host,
                                                       const MachineConfig& config);

}  // namespace vmm_reference
