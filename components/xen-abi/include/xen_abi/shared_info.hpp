// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The pages that Xen and the guest share: shared_info, vcpu_info and the pvclock in it, from
// xen/include/public/xen.h. Both widths have the same fields; Word is std::uint64_t or
// std::uint32_t. All of it may be written by the guest at any time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace xen_abi {

// The pvclock: guest system time, ns = system_time + scale(guest tsc - tsc_timestamp).
struct VcpuTimeInfo {
  std::uint32_t version;  // Odd while it is being written.
  std::uint32_t pad0;
  std::uint64_t tsc_timestamp;
  std::uint64_t system_time;        // ns
  std::uint32_t tsc_to_system_mul;  // A 0.32 fixed-point fraction.
  std::int8_t tsc_shift;
  std::uint8_t flags;
  std::uint8_t pad1[2];
};
static_assert(sizeof(VcpuTimeInfo) == 32);
static_assert(offsetof(VcpuTimeInfo, tsc_timestamp) == 8);
static_assert(offsetof(VcpuTimeInfo, tsc_to_system_mul) == 24);
inline constexpr std::uint8_t pvclock_tsc_stable = 1 << 0;
inline constexpr std::uint8_t pvclock_guest_stopped = 1 << 1;

template <class Word>
struct VcpuInfo {
  std::uint8_t upcall_pending;
  std::uint8_t upcall_mask;
  Word pending_sel;
  Word cr2;
  std::array<Word, sizeof(Word) == 8 ? 1 : 5> arch_pad;
  VcpuTimeInfo time;
};
static_assert(sizeof(VcpuInfo<std::uint64_t>) == 64 && sizeof(VcpuInfo<std::uint32_t>) == 64);
static_assert(offsetof(VcpuInfo<std::uint64_t>, pending_sel) == 8);
static_assert(offsetof(VcpuInfo<std::uint32_t>, pending_sel) == 4);
static_assert(offsetof(VcpuInfo<std::uint64_t>, time) == 0x20);
static_assert(offsetof(VcpuInfo<std::uint32_t>, time) == 0x20);

inline constexpr std::size_t vcpu_info_size = 64;
inline constexpr std::size_t vcpu_time_info_offset = 0x20;  // In vcpu_info, for both widths.
inline constexpr unsigned legacy_max_vcpus = 32;            // vcpu_infos inside shared_info.

// As far as 2-level event channels need; the wall clock behind the masks is KVM's to write.
template <class Word>
struct SharedInfo {
  std::array<VcpuInfo<Word>, legacy_max_vcpus> vcpu_info;
  std::array<Word, 8 * sizeof(Word)> evtchn_pending;
  std::array<Word, 8 * sizeof(Word)> evtchn_mask;
};
static_assert(offsetof(SharedInfo<std::uint64_t>, evtchn_pending) == 0x800);
static_assert(offsetof(SharedInfo<std::uint64_t>, evtchn_mask) == 0xa00);
static_assert(offsetof(SharedInfo<std::uint32_t>, evtchn_pending) == 0x800);
static_assert(offsetof(SharedInfo<std::uint32_t>, evtchn_mask) == 0x880);

}  // namespace xen_abi
