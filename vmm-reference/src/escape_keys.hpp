// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Keys that are the VMM's, among those that the user types for the guest: Ctrl-A x leaves, Ctrl-A s
// takes a snapshot, Ctrl-A Ctrl-A is one Ctrl-A. As with QEMU, but for the snapshot.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace vmm_reference {

class EscapeKeys {
 public:
  enum class Command : std::uint8_t { none, leave, snapshot };

  // Appends to `typed` what is the guest's.
  [[nodiscard]] Command feed(std::uint8_t key, std::vector<std::uint8_t>& typed) {
    if (!escaped_ && key == ctrl_a) {
      escaped_ = true;
      return Command::none;
    }
    const bool was_escaped = std::exchange(escaped_, false);
    if (was_escaped && (key == 'x' || key == 'X')) return Command::leave;
    if (was_escaped && (key == 's' || key == 'S')) return Command::snapshot;
    if (!was_escaped || key == ctrl_a) typed.push_back(key);  // else no such command
    return Command::none;
  }

 private:
  static constexpr std::uint8_t ctrl_a = 1;
  bool escaped_ = false;
};

}  // namespace vmm_reference
