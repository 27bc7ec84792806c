// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "../examples/pc_ports.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <ctime>

TEST(Readme, ExampleServesPorts) {
  Com1 line;
  Serial<Com1> com1(line);
  Rtc rtc([] { return std::time_t{0}; });
  const auto out = [&](std::uint16_t port, std::uint8_t value) {
    return handle_port(com1, rtc, port, true, value);
  };
  const auto in = [&](std::uint16_t port) {
    std::uint8_t value = 0;
    EXPECT_TRUE(handle_port(com1, rtc, port, false, value));
    return value;
  };
  EXPECT_TRUE(out(0x3f8, 'x'));
  EXPECT_EQ(line.console, "x");
  EXPECT_EQ(in(0x3fd), 0x60);
  EXPECT_TRUE(out(0x70, 9));
  EXPECT_EQ(in(0x71), 0x70);
  EXPECT_EQ(in(0x64), 0);
  EXPECT_EQ(in(0x80), 0xff);
  EXPECT_TRUE(out(0x64, 0xd1));
  EXPECT_FALSE(out(0x64, 0xfe));
}
