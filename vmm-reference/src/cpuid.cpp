// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "cpuid.hpp"

#include "xen_abi/cpuid.hpp"

namespace vmm_reference {

namespace cpuid = xen_abi::cpuid;

namespace {

constexpr std::uint32_t hypervisors = 0x4000;  // the upper half of their leaves
constexpr std::uint32_t leaf_1_tsc_deadline = 1u << 24;
constexpr std::uint32_t leaf_1_hypervisor = 1u << 31;

std::vector<kvm_cpuid_entry2> processor(std::span<const kvm_cpuid_entry2> supported,
                                        vmm_base::KvmVcpuId apic) {
  std::vector<kvm_cpuid_entry2> leaves(supported.begin(), supported.end());
  for (kvm_cpuid_entry2& leaf : leaves) {
    if (leaf.function == 1) {
      leaf.ebx = (leaf.ebx & 0x00ffffff) | apic.value << 24;
      leaf.ecx |= leaf_1_hypervisor;
    }
    if (leaf.function == 0xb || leaf.function == 0x1f) leaf.edx = apic.value;
  }
  return leaves;
}

}  // namespace

std::vector<kvm_cpuid_entry2> kvm_guest_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                              vmm_base::KvmVcpuId apic, bool tsc_deadline) {
  std::vector<kvm_cpuid_entry2> leaves = processor(supported, apic);
  for (kvm_cpuid_entry2& leaf : leaves) {
    if (leaf.function == 1 && tsc_deadline) leaf.ecx |= leaf_1_tsc_deadline;
  }
  return leaves;
}

std::vector<kvm_cpuid_entry2> xen_guest_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                              vmm_base::KvmVcpuId apic, vmm_base::XenVcpuId xen) {
  std::vector<kvm_cpuid_entry2> leaves = processor(supported, apic);
  std::erase_if(leaves, [](const kvm_cpuid_entry2& leaf) {
    return leaf.function >> 16 == hypervisors;  // KVM's own signature
  });
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
