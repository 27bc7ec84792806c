// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Guest addresses, physical and virtual, as types that don't convert into each other.
#pragma once

#include <compare>
#include <cstdint>

namespace vmm_base {

// A guest physical address, in bytes.
struct Gpa {
  std::uint64_t value = 0;
  friend constexpr auto operator<=>(Gpa, Gpa) noexcept = default;
  friend constexpr Gpa operator+(Gpa a, std::uint64_t bytes) noexcept { return {a.value + bytes}; }
};

// A guest virtual (linear) address, in bytes; its meaning depends on the vCPU and the moment.
struct Gva {
  std::uint64_t value = 0;
  friend constexpr auto operator<=>(Gva, Gva) noexcept = default;
  friend constexpr Gva operator+(Gva a, std::uint64_t bytes) noexcept { return {a.value + bytes}; }
};

inline constexpr unsigned page_shift = 12;
inline constexpr std::uint64_t page_size = 1u << page_shift;

}  // namespace vmm_base
