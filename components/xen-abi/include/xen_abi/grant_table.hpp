// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_grant_table_op: grant_table_op(u32 cmd, GVA uop, u32 count), from
// xen/include/public/grant_table.h. Only setup_table differs in the two widths.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xen_abi/domain.hpp"

namespace xen_abi {

namespace gnttabop {
inline constexpr std::uint32_t map_grant_ref = 0;
inline constexpr std::uint32_t unmap_grant_ref = 1;
inline constexpr std::uint32_t setup_table = 2;
inline constexpr std::uint32_t copy = 5;
inline constexpr std::uint32_t query_size = 6;
inline constexpr std::uint32_t set_version = 8;
inline constexpr std::uint32_t get_version = 10;
inline constexpr std::uint32_t swap_grant_ref = 11;
}  // namespace gnttabop

namespace grant_status {
inline constexpr std::int16_t okay = 0;
inline constexpr std::int16_t general_error = -1;
inline constexpr std::int16_t bad_domain = -2;
inline constexpr std::int16_t bad_virt_addr = -5;
}  // namespace grant_status

template <class Word>
struct GnttabSetupTable {
  DomainId dom;
  std::uint32_t nr_frames;
  std::int16_t status;  // Out.
  Word frame_list;      // GVA of nr_frames Words. Out.
};
static_assert(sizeof(GnttabSetupTable<std::uint64_t>) == 24);
static_assert(sizeof(GnttabSetupTable<std::uint32_t>) == 16);

struct GnttabQuerySize {
  DomainId dom;
  std::uint32_t nr_frames;      // Out.
  std::uint32_t max_nr_frames;  // Out.
  std::int16_t status;          // Out.
};
static_assert(sizeof(GnttabQuerySize) == 16);

struct GnttabSetVersion {
  std::uint32_t version;  // In and out.
};
static_assert(sizeof(GnttabSetVersion) == 4);

struct GnttabGetVersion {
  DomainId dom;
  std::uint16_t pad;
  std::uint32_t version;  // Out.
};
static_assert(sizeof(GnttabGetVersion) == 8);

}  // namespace xen_abi
