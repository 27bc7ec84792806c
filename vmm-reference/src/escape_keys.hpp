// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Keys that are the VMM's, among those that the user types for the guest: Ctrl-A x leaves,
// Ctrl-A Ctrl-A is one Ctrl-A. As with QEMU.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace vmm_reference {

class EscapeKeys {
 public:
  // Appends to `typed` what is the guest's. False: the user wants to leave; nothing after counts.
  [[nodiscard]] bool feed(std::span<const std::uint8_t> keys, std::vector<std::uint8_t>& typed) {
    for (const std::uint8_t key : keys) {
      if (!escaped_ && key == ctrl_a) {
        escaped_ = true;
        continue;
      }
      const bool was_escaped = std::exchange(escaped_, false);
      if (was_escaped && (key == 'x' || key == 'X')) return false;
      if (was_escaped && key != ctrl_a) continue;  // no such command
      typed.push_back(key);
    }
    return true;
  }

 private:
  static constexpr std::uint8_t ctrl_a = 1;
  bool escaped_ = false;
};

}  // namespace vmm_reference
