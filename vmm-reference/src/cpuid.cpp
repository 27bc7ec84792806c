// SPDX-License-Identifier: BSD-3-Clause
#include "cpuid.hpp"

#include "xen_abi/cpuid.hpp"

namespace vmm_reference {

namespace cpuid = xen_abi::cpuid;

std::vector<kvm_cpuid_entry2> guest_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                          vmm_base::KvmVcpuId apic, vmm_base::XenVcpuId xen) {
  std::vector<kvm_cpuid_entry2> leaves;
  for (kvm_cpuid_entry2 leaf : supported) {
    if (leaf.function >> 16 == 0x4000) continue;  // KVM's own signature
    if (leaf.function == 1) {
      leaf.ebx = (leaf.ebx & 0x00ffffff) | apic.value << 24;
      leaf.ecx |= 1u << 31;  // runs under a hypervisor
    }
    if (leaf.function == 0xb || leaf.function == 0x1f) leaf.edx = apic.value;
    leaves.push_back(leaf);
  }
  const auto add = [&](std::uint32_t offset, std::uint32_t eax, std::uint32_t ebx,
                       std::uint32_t ecx, std::uint32_t edx) {
    kvm_cpuid_entry2 leaf{};
    leaf.function = cpuid::base + offset;
    leaf.eax = eax;
    leaf.ebx = ebx;
    leaf.ecx = ecx;
    leaf.edx = edx;
    leaves.push_back(leaf);
  };
  add(0, cpuid::base + cpuid::leaf_hvm, cpuid::signature_ebx, cpuid::signature_ecx,
      cpuid::signature_edx);
  add(cpuid::leaf_version, xen_version, 0, 0, 0);
  add(cpuid::leaf_hypercall, 1, cpuid::hypercall_msr, 0, 0);
  add(cpuid::leaf_time, 0, 0, 0, 0);
  add(cpuid::leaf_hvm, cpuid::hvm_vcpu_id_present | cpuid::hvm_upcall_vector, xen.value, 0, 0);
  return leaves;
}

}  // namespace vmm_reference
