// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Where a PC has RAM, as guests are told: E820 in boot parameters, the memory map of PVH, and Xen's
// XENMEM_memory_map have the same types.
//
//   RAM  0 .. 640 KiB, 1 MiB .. 3 GiB, 4 GiB ..;  reserved  640 KiB .. 1 MiB;  devices  3 .. 4 GiB
#pragma once

#include <cstdint>
#include <vector>

#include "vmm_base/guest_address.hpp"

namespace linux_loader {

// ACPI 6.4, table 15.2.
enum class MemoryType : std::uint32_t { ram = 1, reserved = 2, acpi = 3, nvs = 4, unusable = 5 };

struct MemoryRange {
  vmm_base::Gpa start;
  std::uint64_t size;  // bytes
  MemoryType type;
  friend constexpr bool operator==(const MemoryRange&, const MemoryRange&) = default;
};

inline constexpr vmm_base::Gpa high_memory{0x100000};      // after the hole below 1 MiB
inline constexpr vmm_base::Gpa device_memory{3ull << 30};  // LAPIC, IOAPIC and the like
inline constexpr vmm_base::Gpa above_4g{4ull << 30};

// How many bytes of `ram_size` stand at 0, and how many at 4 GiB. The VMM backs both; the hole
// below 1 MiB is a part of the first, and holds the ACPI tables.
struct PcRam {
  std::uint64_t low;
  std::uint64_t high;
};
constexpr PcRam pc_ram(std::uint64_t ram_size) noexcept {
  return ram_size <= device_memory.value
             ? PcRam{ram_size, 0}
             : PcRam{device_memory.value, ram_size - device_memory.value};
}

// Ascending, none overlap. `ram_size`: bytes, more than 1 MiB; a VMM usually takes whole MiB.
inline std::vector<MemoryRange> pc_memory_map(std::uint64_t ram_size) {
  constexpr std::uint64_t hole = 0xa0000;
  const PcRam ram = pc_ram(ram_size);
  std::vector<MemoryRange> map{
      {{0}, hole, MemoryType::ram},
      {{hole}, high_memory.value - hole, MemoryType::reserved},
      {high_memory, ram.low - high_memory.value, MemoryType::ram},
  };
  if (ram.high != 0) map.push_back({above_4g, ram.high, MemoryType::ram});
  return map;
}

}  // namespace linux_loader
