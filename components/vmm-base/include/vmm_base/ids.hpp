// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The numbers a VMM mixes up most easily, as types that don't convert into each other.
#pragma once

#include <compare>
#include <cstdint>

namespace vmm_base {

// A 32-bit number of one kind.
template <class Kind>
struct Id {
  std::uint32_t value = 0;
  friend constexpr auto operator<=>(Id, Id) noexcept = default;
};

// What the guest calls a vCPU in Xen hypercalls, CPUID leaf base+4 and the MADT's processor UID.
// Dense: a domain of n vCPUs has 0..n-1.
using XenVcpuId = Id<struct XenVcpuIdKind>;

// What KVM_CREATE_VCPU was given: the APIC id. Event routes and KVM_XEN_HVM_EVTCHN_SEND mean this.
using KvmVcpuId = Id<struct KvmVcpuIdKind>;

// The order in which the VMM created it: 0, 1, 2 …
using VcpuIndex = Id<struct VcpuIndexKind>;

}  // namespace vmm_base
