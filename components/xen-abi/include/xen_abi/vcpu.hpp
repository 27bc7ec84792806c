// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_vcpu_op: sub-ops and arguments, from xen/include/public/vcpu.h.
// Calls are vcpu_op(u32 cmd, u32 vcpu, GVA arg); a Xen vCPU id's upper half is ignored.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xen_abi {

namespace vcpuop {
inline constexpr std::uint32_t initialise = 0;
inline constexpr std::uint32_t up = 1;
inline constexpr std::uint32_t down = 2;
inline constexpr std::uint32_t is_up = 3;
inline constexpr std::uint32_t get_runstate_info = 4;
inline constexpr std::uint32_t register_runstate_memory_area = 5;
inline constexpr std::uint32_t set_periodic_timer = 6;
inline constexpr std::uint32_t stop_periodic_timer = 7;
inline constexpr std::uint32_t set_singleshot_timer = 8;
inline constexpr std::uint32_t stop_singleshot_timer = 9;
inline constexpr std::uint32_t register_vcpu_info = 10;
inline constexpr std::uint32_t send_nmi = 11;
inline constexpr std::uint32_t get_physid = 12;
inline constexpr std::uint32_t register_vcpu_time_memory_area = 13;
inline constexpr std::uint32_t register_runstate_phys_area = 14;
inline constexpr std::uint32_t register_vcpu_time_phys_area = 15;
}  // namespace vcpuop

// Argument of set_singleshot_timer. A 64-bit caller's has 4 bytes of padding at the end, which Xen
// reads, and so answers -EFAULT where only they are unreadable: 16 bytes, and 12 for 32 bits.
struct SetSingleshotTimer {
  std::uint64_t timeout_abs_ns;  // Guest system time, ns.
  std::uint32_t flags;           // VCPU_SSHOTTMR_future: ignored since Xen 4.18.
};
inline constexpr std::size_t set_singleshot_timer_size_64 = 16;
inline constexpr std::size_t set_singleshot_timer_size_32 = 12;
static_assert(sizeof(SetSingleshotTimer) == set_singleshot_timer_size_64);
static_assert(offsetof(SetSingleshotTimer, flags) + 4 == set_singleshot_timer_size_32);

// Argument of set_periodic_timer, the same for both widths.
struct SetPeriodicTimer {
  std::uint64_t period_ns;
};
static_assert(sizeof(SetPeriodicTimer) == 8);

// Argument of register_vcpu_info, the same for both widths.
struct RegisterVcpuInfo {
  std::uint64_t mfn;     // Guest frame number of the page.
  std::uint32_t offset;  // Bytes into it.
  std::uint32_t rsvd;
};
static_assert(sizeof(RegisterVcpuInfo) == 16);

// Argument of the four register_…_area ops. A memory area is where the calling vCPU sees it, a
// phys area a guest physical address. 8 bytes; of a 32-bit caller's memory area only 4 are read.
struct RegisterArea {
  std::uint64_t address;
};
static_assert(sizeof(RegisterArea) == 8);
inline constexpr std::uint64_t no_phys_area = ~std::uint64_t{0};  // Takes the area away.

// How long a vCPU has been in each state; 48 bytes, 44 for 32 bits.
struct RunstateInfo {
  std::int32_t state;              // running 0, runnable 1, blocked 2, offline 3
  std::uint32_t pad0;              // Written to the guest, too: 0.
  std::uint64_t state_entry_time;  // Guest system time, ns.
  std::uint64_t time[4];           // ns in each state.
};
static_assert(sizeof(RunstateInfo) == 48);
struct [[gnu::packed]] RunstateInfo32 {
  std::int32_t state;
  std::uint64_t state_entry_time;
  std::uint64_t time[4];
};
static_assert(sizeof(RunstateInfo32) == 44);

// Argument of initialise, from xen/include/public/hvm/hvm_vcpu.h; the same for both widths.
struct VcpuHvmX86_32 {
  std::uint32_t eax, ecx, edx, ebx, esp, ebp, esi, edi, eip, eflags;
  std::uint32_t cr0, cr3, cr4, pad1;
  std::uint64_t efer;
  std::uint32_t cs_base, ds_base, ss_base, es_base, tr_base;
  std::uint32_t cs_limit, ds_limit, ss_limit, es_limit, tr_limit;
  std::uint16_t cs_ar, ds_ar, ss_ar, es_ar, tr_ar;
  std::uint16_t pad2[3];
};
static_assert(sizeof(VcpuHvmX86_32) == 120);
struct VcpuHvmX86_64 {
  std::uint64_t rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, rip, rflags;
  std::uint64_t cr0, cr3, cr4, efer;
};
static_assert(sizeof(VcpuHvmX86_64) == 112);
struct VcpuHvmContext {
  static constexpr std::uint32_t mode_32 = 0;
  static constexpr std::uint32_t mode_64 = 1;
  std::uint32_t mode;
  std::uint32_t pad;
  union {
    VcpuHvmX86_32 x86_32;
    VcpuHvmX86_64 x86_64;
  };
};
static_assert(sizeof(VcpuHvmContext) == 128);

}  // namespace xen_abi
