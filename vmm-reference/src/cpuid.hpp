// SPDX-License-Identifier: BSD-3-Clause
//
// What CPUID tells a guest: the host's leaves as KVM offers them, with Xen's in the hypervisor's
// place.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/ids.hpp"

namespace vmm_reference {

// Xen 4.17, whose vCPUs may have an upcall vector each.
inline constexpr std::uint32_t xen_version = 4u << 16 | 17;

[[nodiscard]] std::vector<kvm_cpuid_entry2> guest_cpuid(std::span<const kvm_cpuid_entry2> supported,
                                                        vmm_base::KvmVcpuId apic,
                                                        vmm_base::XenVcpuId xen);

}  // namespace vmm_reference
