// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What CPUID tells a guest: the host's leaves as KVM offers them.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/ids.hpp"

namespace vmm_reference {

// Xen 4.17, whose vCPUs may have an upcall vector each.
inline constexpr std::uint32_t xen_version = 4u << 16 | 17;

// With Xen's leaves in the hypervisor's place.
[[nodiscard]] std::vector<kvm_cpuid_entry2> xen_guest_cpuid(
    std::span<const kvm_cpuid_entry2> supported, vmm_base::KvmVcpuId apic, vmm_base::XenVcpuId xen);

// With KVM's. `tsc_deadline`: KVM_CAP_TSC_DEADLINE_TIMER, which KVM doesn't say here by itself; a
// guest without a PIT needs it to start its APIC timer.
[[nodiscard]] std::vector<kvm_cpuid_entry2> kvm_guest_cpuid(
    std::span<const kvm_cpuid_entry2> supported, vmm_base::KvmVcpuId apic, bool tsc_deadline);

}  // namespace vmm_reference
