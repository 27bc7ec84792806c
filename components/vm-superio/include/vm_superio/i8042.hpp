// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// As much of a PC's keyboard controller as guests reset the machine by.
//
//   if (vm_superio::i8042_resets(port, value)) stop(Reason::reboot);   // the guest's OUT
//   value = vm_superio::i8042_read(port);                              // its IN
#pragma once

#include <cstdint>

namespace vm_superio {

inline constexpr std::uint16_t i8042_data_port = 0x60;
inline constexpr std::uint16_t i8042_command_port = 0x64;

// Whether writing `value` to `port` pulses the processor's reset line.
constexpr bool i8042_resets(std::uint16_t port, std::uint8_t value) noexcept {
  constexpr std::uint8_t pulse_reset = 0xfe;
  return port == i8042_command_port && value == pulse_reset;
}

// No keyboard, nothing to read, ready for a command.
constexpr std::uint8_t i8042_read(std::uint16_t /*port*/) noexcept { return 0; }

}  // namespace vm_superio
