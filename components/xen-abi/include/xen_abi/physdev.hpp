// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_physdev_op: physdev_op(int cmd, GVA arg), from xen/include/public/physdev.h.
#pragma once

#include <cstdint>

#include "xen_abi/domain.hpp"

namespace xen_abi {

namespace physdevop {
inline constexpr std::uint32_t irq_status_query = 5;
inline constexpr std::uint32_t eoi = 12;
inline constexpr std::uint32_t map_pirq = 13;
inline constexpr std::uint32_t unmap_pirq = 14;
inline constexpr std::uint32_t get_free_pirq = 23;
inline constexpr std::uint32_t pirq_eoi_gmfn_v2 = 28;
}  // namespace physdevop

struct PhysdevMapPirq {
  DomainId domid;
  std::int32_t type;
  std::int32_t index;
  std::int32_t pirq;
  std::int32_t bus;
  std::int32_t devfn;
  std::int32_t entry_nr;
  std::uint64_t table_base;
};
static_assert(sizeof(PhysdevMapPirq) == 40);
struct [[gnu::packed]] PhysdevMapPirq32 {
  DomainId domid;
  std::uint16_t pad;
  std::int32_t type;
  std::int32_t index;
  std::int32_t pirq;
  std::int32_t bus;
  std::int32_t devfn;
  std::int32_t entry_nr;
  std::uint64_t table_base;
};
static_assert(sizeof(PhysdevMapPirq32) == 36);

struct PhysdevUnmapPirq {
  DomainId domid;
  std::int32_t pirq;
};
static_assert(sizeof(PhysdevUnmapPirq) == 8);

}  // namespace xen_abi
