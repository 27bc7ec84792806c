// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A serial port's registers, and a line that remembers what the port made of it.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace vm_superio {

inline constexpr std::uint16_t rbr = 0, thr = 0, ier = 1, iir = 2, fcr = 2, lcr = 3, mcr = 4,
                               lsr = 5, msr = 6, scr = 7;

struct Line {
  void transmit(std::uint8_t byte) { output.push_back(static_cast<char>(byte)); }
  void set_interrupt(bool level) {
    EXPECT_NE(level, interrupt) << "called without a change";
    interrupt = level;
    ++changes;
  }
  void ready_for_input() { ++ready; }

  std::string output;
  bool interrupt = false;
  int changes = 0;
  int ready = 0;
};

}  // namespace vm_superio
