// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Domain ids, and the calls about the domain as a whole: __HYPERVISOR_vm_assist(u32 cmd, u32 type),
// from xen/include/public/xen.h.
#pragma once

#include <cstdint>

namespace xen_abi {

using DomainId = std::uint16_t;
inline constexpr DomainId domid_self = 0x7ff0;

// Whether a call that names this domain means the caller's own.
constexpr bool is_self(DomainId named, DomainId self) noexcept {
  return named == domid_self || named == self;
}

namespace vm_assist {
inline constexpr std::uint32_t enable = 0;
inline constexpr std::uint32_t disable = 1;
inline constexpr std::uint32_t runstate_update_flag = 5;  // The only type that HVM guests have.
}  // namespace vm_assist

// Argument of a multicall: one hypercall and its result. Word is as the caller is.
template <class Word>
struct MulticallEntry {
  Word op;
  Word result;
  Word args[6];
};
static_assert(sizeof(MulticallEntry<std::uint64_t>) == 64);
static_assert(sizeof(MulticallEntry<std::uint32_t>) == 32);

}  // namespace xen_abi
