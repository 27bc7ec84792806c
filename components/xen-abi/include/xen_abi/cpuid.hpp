// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The CPUID leaves and the MSR by which a guest finds Xen: xen/include/public/arch-x86/cpuid.h.
#pragma once

#include <cstdint>

namespace xen_abi::cpuid {

inline constexpr std::uint32_t base = 0x40000000;
inline constexpr std::uint32_t hyperv_base =
    0x40000100;  // Where it stands beside Hyper-V's leaves.

inline constexpr std::uint32_t signature_ebx = 0x566e6558;  // "XenV"
inline constexpr std::uint32_t signature_ecx = 0x65584d4d;  // "MMXe"
inline constexpr std::uint32_t signature_edx = 0x4d4d566e;  // "nVMM"

// Offsets from base.
inline constexpr std::uint32_t leaf_version = 1;    // EAX: major << 16 | minor
inline constexpr std::uint32_t leaf_hypercall = 2;  // EAX: pages; EBX: the MSR
inline constexpr std::uint32_t leaf_time = 3;
inline constexpr std::uint32_t leaf_hvm = 4;  // EAX: flags; EBX: Xen vCPU id

// Flags of leaf_hvm.
inline constexpr std::uint32_t hvm_vcpu_id_present = 1u << 3;
inline constexpr std::uint32_t hvm_upcall_vector = 1u << 6;

// WRMSR of a guest physical address fills that page with 128 slots of 32 bytes, one a hypercall.
inline constexpr std::uint32_t hypercall_msr = 0x40000000;
inline constexpr std::uint32_t hypercall_slot_size = 32;

}  // namespace xen_abi::cpuid
