// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The argument of VCPUOP_initialise, judged, and as a processor holds it: what a VMM sets when a
// guest starts a vCPU at a place of its choice. Pure; xen/arch/x86/hvm/domain.c.
#pragma once

#include <cstdint>
#include <optional>

#include "xen_abi/vcpu.hpp"

namespace xen_hcall {

struct Segment {
  std::uint64_t base = 0;
  std::uint32_t limit = 0;
  std::uint16_t attributes = 0;  // bits 40 to 47 and 52 to 55 of a descriptor; 0: unusable

  [[nodiscard]] constexpr unsigned type() const noexcept { return attributes & 0xf; }
  [[nodiscard]] constexpr bool is_code_or_data() const noexcept { return attributes >> 4 & 1; }
  [[nodiscard]] constexpr unsigned dpl() const noexcept { return attributes >> 5 & 3; }
  [[nodiscard]] constexpr bool is_present() const noexcept { return attributes >> 7 & 1; }
  [[nodiscard]] constexpr bool is_available() const noexcept { return attributes >> 8 & 1; }
  [[nodiscard]] constexpr bool is_64_bit() const noexcept { return attributes >> 9 & 1; }
  [[nodiscard]] constexpr bool is_default_big() const noexcept { return attributes >> 10 & 1; }
  [[nodiscard]] constexpr bool is_in_pages() const noexcept { return attributes >> 11 & 1; }
};

// All else is as after INIT.
struct VcpuRegisters {
  std::uint64_t rax = 0, rcx = 0, rdx = 0, rbx = 0, rsp = 0, rbp = 0, rsi = 0, rdi = 0;
  std::uint64_t rip = 0, rflags = 0;
  std::uint64_t cr0 = 0, cr3 = 0, cr4 = 0, efer = 0;
  Segment cs{}, ds{}, ss{}, es{}, tr{};
};

namespace detail {

inline constexpr std::uint64_t cr0_paging = std::uint64_t{1} << 31;
inline constexpr std::uint64_t cr4_pae = 1 << 5;
inline constexpr std::uint64_t efer_long_mode_enable = 1 << 8;
inline constexpr std::uint64_t efer_long_mode_active = 1 << 10;

constexpr std::uint64_t valid_rflags(std::uint64_t flags) noexcept {
  return (flags & 0x3f7fd5) | 2;  // all there are, and the one that is always set
}

enum class Role { code, stack, data, task };

// A present segment has been accessed, a task is busy.
constexpr Segment given(std::uint32_t segment_base, std::uint32_t limit, std::uint16_t attributes,
                        Role role) noexcept {
  Segment segment{segment_base, limit, attributes};
  if (role == Role::task) {
    segment.attributes |= 2;
  } else if (segment.is_present()) {
    segment.attributes |= 1;
  }
  return segment;
}

constexpr bool is_valid(const Segment& segment, Role role) noexcept {
  constexpr unsigned executable = 8, readable = 2, writable = 2;
  constexpr unsigned busy_tss = 11;
  if (segment.attributes >> 12 != 0) return false;
  if (segment.attributes == 0) return role == Role::data;
  if (role == Role::task) {
    return !segment.is_code_or_data() && segment.type() == busy_tss && segment.is_present();
  }
  if (!segment.is_code_or_data() || !segment.is_present()) return false;
  const bool is_code = (segment.type() & executable) != 0;
  switch (role) {
    case Role::code:
      return is_code;
    case Role::stack:
      return !is_code && (segment.type() & writable) != 0;
    default:
      return !is_code || (segment.type() & readable) != 0;
  }
}

constexpr std::optional<VcpuRegisters> registers(const xen_abi::VcpuHvmX86_32& from) noexcept {
  if ((from.pad1 | from.pad2[0] | from.pad2[1] | from.pad2[2]) != 0) return std::nullopt;
  VcpuRegisters to{.rax = from.eax,
                   .rcx = from.ecx,
                   .rdx = from.edx,
                   .rbx = from.ebx,
                   .rsp = from.esp,
                   .rbp = from.ebp,
                   .rsi = from.esi,
                   .rdi = from.edi,
                   .rip = from.eip,
                   .rflags = valid_rflags(from.eflags),
                   .cr0 = from.cr0,
                   .cr3 = from.cr3,
                   .cr4 = from.cr4,
                   .efer = from.efer,
                   .cs = given(from.cs_base, from.cs_limit, from.cs_ar, Role::code),
                   .ds = given(from.ds_base, from.ds_limit, from.ds_ar, Role::data),
                   .ss = given(from.ss_base, from.ss_limit, from.ss_ar, Role::stack),
                   .es = given(from.es_base, from.es_limit, from.es_ar, Role::data),
                   .tr = given(from.tr_base, from.tr_limit, from.tr_ar, Role::task)};
  if (!is_valid(to.cs, Role::code) || !is_valid(to.ds, Role::data) ||
      !is_valid(to.ss, Role::stack) || !is_valid(to.es, Role::data) ||
      !is_valid(to.tr, Role::task)) {
    return std::nullopt;
  }
  const std::uint32_t end = to.cs.is_in_pages() ? to.cs.limit << 12 | 0xfff : to.cs.limit;
  if (from.eip > end) return std::nullopt;
  if (to.ss.dpl() != to.cs.dpl()) return std::nullopt;
  if (to.ds.is_present() && to.ds.dpl() > to.cs.dpl()) return std::nullopt;
  if (to.es.is_present() && to.es.dpl() > to.cs.dpl()) return std::nullopt;
  if ((from.efer & efer_long_mode_active) != 0 && (from.efer & efer_long_mode_enable) == 0) {
    return std::nullopt;
  }
  return to;
}

constexpr std::optional<VcpuRegisters> registers(const xen_abi::VcpuHvmX86_64& from) noexcept {
  const bool is_canonical = from.rip >> 47 == 0 || from.rip >> 47 == 0x1ffff;
  if (!is_canonical || (from.cr0 & cr0_paging) == 0 || (from.cr4 & cr4_pae) == 0 ||
      (from.efer & efer_long_mode_enable) == 0) {
    return std::nullopt;
  }
  const Segment data{0, ~std::uint32_t{0}, 0xc93};
  return VcpuRegisters{.rax = from.rax,
                       .rcx = from.rcx,
                       .rdx = from.rdx,
                       .rbx = from.rbx,
                       .rsp = from.rsp,
                       .rbp = from.rbp,
                       .rsi = from.rsi,
                       .rdi = from.rdi,
                       .rip = from.rip,
                       .rflags = valid_rflags(from.rflags),
                       .cr0 = from.cr0,
                       .cr3 = from.cr3,
                       .cr4 = from.cr4,
                       .efer = from.efer,
                       .cs = {0, ~std::uint32_t{0}, 0xa9b},
                       .ds = data,
                       .ss = data,
                       .es = data,
                       .tr = {0, 0x67, 0x8b}};
}

}  // namespace detail

// nullopt for what Xen refuses with -EINVAL. Whether the processor takes these control registers is
// left to judge for who sets them.
constexpr std::optional<VcpuRegisters> initial_registers(
    const xen_abi::VcpuHvmContext& context) noexcept {
  if (context.pad != 0) return std::nullopt;
  std::optional<VcpuRegisters> to;
  if (context.mode == xen_abi::VcpuHvmContext::mode_32) to = detail::registers(context.x86_32);
  if (context.mode == xen_abi::VcpuHvmContext::mode_64) to = detail::registers(context.x86_64);
  if (!to) return std::nullopt;
  // As the processor does by itself: active is what is enabled, and paging.
  const bool is_active =
      (to->efer & detail::efer_long_mode_enable) != 0 && (to->cr0 & detail::cr0_paging) != 0;
  to->efer &= ~detail::efer_long_mode_active;
  if (is_active) to->efer |= detail::efer_long_mode_active;
  return to;
}

}  // namespace xen_hcall
