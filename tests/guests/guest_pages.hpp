// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Addresses that hypercalls can go wrong at.
#pragma once

#include <cstdint>

#include "guest.hpp"

namespace guest {

// Three virtual pages: the first two lie on pages that aren't neighbours, the third on none.
inline constexpr std::uint64_t window = 0x40000000;
inline constexpr std::uint64_t not_mapped = window + 2 * 4096;
inline constexpr std::uint64_t beyond_ram = 0x10000000;
alignas(4096) inline std::uint64_t window_table[512];
alignas(4096) inline std::uint8_t window_pages[3][4096];

// Changes the VMM's page tables, which map everything to itself: the window, and RAM open to
// ring 3.
inline void set_up_memory() {
  constexpr std::uint64_t present_writable = 3;
  constexpr std::uint64_t user = 4;
  const auto table = [](std::uint64_t entry) {
    return reinterpret_cast<std::uint64_t*>(entry & 0x000ffffffffff000);
  };
  std::uint64_t cr3 = 0;
  asm volatile("mov %%cr3, %0" : "=r"(cr3));
  std::uint64_t* pml4 = table(cr3);
  std::uint64_t* gigabytes = table(pml4[0]);
  pml4[0] |= user;
  gigabytes[0] |= user;
  for (unsigned i = 0; i < 32; ++i) table(gigabytes[0])[i] |= user;
  window_table[0] = address(window_pages[0]) | present_writable;
  window_table[1] = address(window_pages[2]) | present_writable;
  table(gigabytes[window >> 30])[0] = address(window_table) | present_writable;
}
inline void reload_page_tables() {
  asm volatile("mov %%cr3, %%rax; mov %%rax, %%cr3" ::: "rax", "memory");
}

}  // namespace guest
