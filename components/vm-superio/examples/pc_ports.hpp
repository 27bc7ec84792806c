// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The ports of a PC that boots Linux, but for those that KVM serves itself.
#pragma once

#include <cstdint>
#include <string>

#include "vm_superio/i8042.hpp"
#include "vm_superio/rtc.hpp"
#include "vm_superio/serial.hpp"

using namespace vm_superio;

struct Com1 {
  void transmit(std::uint8_t byte) { console.push_back(static_cast<char>(byte)); }
  void set_interrupt(bool level) { irq4 = level; }
  void ready_for_input() { want_input = true; }

  std::string console;
  bool irq4 = false;
  bool want_input = true;
};

// An OUT or IN of the guest's; whether it goes on.
template <class Rtc>
bool handle_port(Serial<Com1>& com1, Rtc& rtc, std::uint16_t port, bool is_write,
                 std::uint8_t& value) {
  const auto device = [&](auto& it, unsigned first) {
    if (is_write) {
      it.write(port - first, value);
    } else {
      value = it.read(port - first);
    }
    return true;
  };
  if (port >= 0x3f8 && port < 0x400) return device(com1, 0x3f8);
  if (port == 0x70 || port == 0x71) return device(rtc, 0x70);
  if (is_write) return !i8042_resets(port, value);
  const bool keyboard = port == i8042_data_port || port == i8042_command_port;
  value = keyboard ? i8042_read(port) : 0xff;  // Nobody answers.
  return true;
}
