// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vm_superio/i8042.hpp"

#include <gtest/gtest.h>

namespace vm_superio {
namespace {

TEST(I8042, OnlyThePulseOfTheResetLineResets) {
  for (unsigned value = 0; value < 256; ++value) {
    EXPECT_EQ(i8042_resets(0x64, static_cast<std::uint8_t>(value)), value == 0xfe) << value;
    EXPECT_FALSE(i8042_resets(0x60, static_cast<std::uint8_t>(value))) << value;
  }
}

// Linux waits for bit 1 to be clear before it writes, and reads the data port while bit 0 is set.
TEST(I8042, IsReadyForACommandAndHasNothingToRead) {
  EXPECT_EQ(i8042_read(i8042_command_port) & 3, 0);
}

}  // namespace
}  // namespace vm_superio
