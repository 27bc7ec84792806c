// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "machine.hpp"

#include <utility>

#include "cpuid.hpp"
#include "xen_abi/cpuid.hpp"

namespace vmm_reference {

using vmm_base::Gpa;
using vmm_base::Result;
using vmm_base::XenVcpuId;

Result<Machine> create_machine(const Host& host, const MachineConfig& config) {
  const auto ram = linux_loader::pc_ram(config.ram_size);
  VMM_TRY(memory, ram.high == 0 ? vm_memory::GuestMemory::create({{Gpa{0}, ram.low}})
                                : vm_memory::GuestMemory::create(
                                      {{Gpa{0}, ram.low}, {linux_loader::above_4g, ram.high}}));
  VMM_TRY(vm, host.kvm.create_vm());
  // Out of the way of RAM and of the APICs' pages.
  VMM_CHECK(vm.set_identity_map_addr(Gpa{0xfffbc000}));
  VMM_CHECK(vm.set_tss_addr(Gpa{0xfffbd000}));
  VMM_CHECK(vm.create_irqchip());
  if (config.xen && host.xen_exits) {
    std::uint32_t flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
    if (host.evtchn_send) flags |= KVM_XEN_HVM_CONFIG_EVTCHN_SEND;
    VMM_CHECK(vm.xen_hvm_config(flags, xen_abi::cpuid::hypercall_msr));
  } else if (config.xen) {
    VMM_CHECK(vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN |
                                                            KVM_MSR_EXIT_REASON_INVAL |
                                                            KVM_MSR_EXIT_REASON_FILTER));
  }
  std::uint32_t slot = 0;
  for (const auto& region : memory.regions()) {
    VMM_CHECK(vm.set_user_memory_region(slot++, region.gpa(), region.size(), region.host()));
  }

  VMM_TRY(supported, host.kvm.get_supported_cpuid());
  VMM_TRY(tsc_deadline, host.kvm.check_extension(KVM_CAP_TSC_DEADLINE_TIMER));
  std::vector<kvm_ioctls::Vcpu> vcpus;
  for (std::uint32_t index = 0; index < config.vcpu_count; ++index) {
    // In this VMM the three ids of a vCPU are one number.
    const vmm_base::KvmVcpuId apic{index};
    const XenVcpuId xen{index};
    VMM_TRY(vcpu, vm.create_vcpu(apic));
    VMM_CHECK(vcpu.set_cpuid2(config.xen ? xen_guest_cpuid(supported, apic, xen)
                                         : kvm_guest_cpuid(supported, apic, tsc_deadline != 0)));
    if (config.all_running) {
      VMM_CHECK(vcpu.set_mp_state({KVM_MP_STATE_RUNNABLE}));
    }
    // The id is what makes KVM answer by itself; left unset, the calls come to us.
    if (config.xen_ids) {
      VMM_CHECK(vcpu.xen_vcpu_set_attr(kvm_ioctls::XenVcpuIdAttr{xen}));
    }
    if (config.xen && !host.xen_exits) {
      vcpu.sync_regs().request(kvm_ioctls::SyncRegs::regs_set | kvm_ioctls::SyncRegs::sregs_set);
    }
    vcpus.push_back(std::move(vcpu));
  }
  return Machine{std::move(memory), std::move(vm), std::move(vcpus),
                 linux_loader::pc_memory_map(config.ram_size)};
}

}  // namespace vmm_reference
