// SPDX-License-Identifier: BSD-3-Clause
//
// __HYPERVISOR_memory_op: memory_op(u32 cmd, GVA arg), from xen/include/public/memory.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xen_abi {

inline constexpr std::uint16_t domid_self = 0x7ff0;

namespace memory_op {
inline constexpr std::uint32_t add_to_physmap = 7;
}

namespace mapspace {
inline constexpr std::uint32_t shared_info = 0;
inline constexpr std::uint32_t grant_table = 1;
}  // namespace mapspace

// Word is std::uint64_t or std::uint32_t, as the caller is.
template <class Word>
struct AddToPhysmap {
  std::uint16_t domid;
  std::uint16_t size;
  std::uint32_t space;
  Word idx;
  Word gpfn;
};
static_assert(sizeof(AddToPhysmap<std::uint64_t>) == 24);
static_assert(sizeof(AddToPhysmap<std::uint32_t>) == 16);

}  // namespace xen_abi
