// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "pc_ports.hpp"

#include <cstdio>
#include <ctime>

int main() {
  Com1 line;
  Serial com1(line);
  Rtc rtc([] { return std::time(nullptr); });
  const auto out = [&](std::uint16_t port, std::uint8_t value) {
    return handle_port(com1, rtc, port, true, value);
  };
  for (const char c : {'h', 'i', '\n'}) out(0x3f8, static_cast<std::uint8_t>(c));
  std::fputs(line.console.c_str(), stdout);

  const bool resets = !out(0x64, 0xfe);
  return line.console == "hi\n" && resets ? 0 : 1;
}
