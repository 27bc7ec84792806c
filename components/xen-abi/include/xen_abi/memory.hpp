// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_memory_op: memory_op(ulong cmd, GVA arg), from xen/include/public/memory.h. Word is
// std::uint64_t or std::uint32_t, as the caller is; so are the frame numbers in its lists.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xen_abi/domain.hpp"

namespace xen_abi {

namespace memory_op {
inline constexpr std::uint32_t increase_reservation = 0;
inline constexpr std::uint32_t decrease_reservation = 1;
inline constexpr std::uint32_t maximum_ram_page = 2;
inline constexpr std::uint32_t current_reservation = 3;
inline constexpr std::uint32_t maximum_reservation = 4;
inline constexpr std::uint32_t populate_physmap = 6;
inline constexpr std::uint32_t add_to_physmap = 7;
inline constexpr std::uint32_t memory_map = 9;
inline constexpr std::uint32_t machine_memory_map = 10;
inline constexpr std::uint32_t maximum_gpfn = 14;
inline constexpr std::uint32_t remove_from_physmap = 15;
inline constexpr std::uint32_t get_sharing_freed_pages = 18;
inline constexpr std::uint32_t get_sharing_shared_pages = 19;
inline constexpr std::uint32_t add_to_physmap_batch = 23;
inline constexpr std::uint32_t get_vnumainfo = 26;

// cmd is the sub-op in its low bits, and where to go on above them.
inline constexpr std::uint64_t command_mask = 63;
inline constexpr unsigned extent_shift = 6;
}  // namespace memory_op

namespace mapspace {
inline constexpr std::uint32_t shared_info = 0;
inline constexpr std::uint32_t grant_table = 1;
inline constexpr std::uint32_t gmfn = 2;
inline constexpr std::uint32_t gmfn_range = 3;
inline constexpr std::uint32_t gmfn_foreign = 4;
inline constexpr std::uint32_t dev_mmio = 5;
}  // namespace mapspace

template <class Word>
struct AddToPhysmap {
  DomainId domid;
  std::uint16_t size;
  std::uint32_t space;
  Word idx;
  Word gpfn;
};
static_assert(sizeof(AddToPhysmap<std::uint64_t>) == 24);
static_assert(sizeof(AddToPhysmap<std::uint32_t>) == 16);

template <class Word>
struct AddToPhysmapBatch {
  DomainId domid;
  std::uint16_t space;
  std::uint16_t size;
  std::uint16_t foreign_domid;
  Word idxs;   // GVA of `size` Words.
  Word gpfns;  // GVA of `size` Words.
  Word errs;   // GVA of `size` int32_t. Out.
};
static_assert(sizeof(AddToPhysmapBatch<std::uint64_t>) == 32);
static_assert(sizeof(AddToPhysmapBatch<std::uint32_t>) == 20);

template <class Word>
struct RemoveFromPhysmap {
  DomainId domid;
  Word gpfn;
};
static_assert(sizeof(RemoveFromPhysmap<std::uint64_t>) == 16);
static_assert(sizeof(RemoveFromPhysmap<std::uint32_t>) == 8);

// Argument of increase_reservation, decrease_reservation and populate_physmap.
template <class Word>
struct MemoryReservation {
  Word extent_start;  // GVA of nr_extents Words.
  Word nr_extents;
  std::uint32_t extent_order;  // An extent is 2^order frames.
  std::uint32_t mem_flags;
  DomainId domid;
};
static_assert(sizeof(MemoryReservation<std::uint64_t>) == 32);
static_assert(sizeof(MemoryReservation<std::uint32_t>) == 20);

template <class Word>
struct MemoryMap {
  std::uint32_t nr_entries;  // In: room; out: filled in.
  Word buffer;               // GVA of E820Entry.
};
static_assert(sizeof(MemoryMap<std::uint64_t>) == 16);
static_assert(sizeof(MemoryMap<std::uint32_t>) == 8);

// A piece of the memory map, for both widths 20 bytes.
struct [[gnu::packed]] E820Entry {
  std::uint64_t address;
  std::uint64_t size;
  std::uint32_t type;
};
static_assert(sizeof(E820Entry) == 20);
inline constexpr std::uint32_t e820_ram = 1;

}  // namespace xen_abi
