// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The ports of a small PC: a serial console, a clock, and the ways to power off and to reset.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <utility>

#include "console.hpp"
#include "host_errors.hpp"
#include "kvm_ioctls/vm.hpp"
#include "linux_loader/acpi.hpp"
#include "snapshot.hpp"
#include "vm_superio/i8042.hpp"
#include "vm_superio/rtc.hpp"
#include "vm_superio/serial.hpp"

namespace vmm_reference {

// How a guest's run came to its end; left: by the user.
enum class Ending { poweroff, reboot, crash, watchdog, left, timeout };

constexpr const char* to_string(Ending ending) noexcept {
  switch (ending) {
    case Ending::poweroff:
      return "poweroff";
    case Ending::reboot:
      return "reboot";
    case Ending::crash:
      return "crash";
    case Ending::watchdog:
      return "watchdog";
    case Ending::left:
      return "left";
    case Ending::timeout:
      return "timeout";
  }
  return "?";
}

// There is no PIT; but Linux reads this, at boot as a Xen guest, 100,000 times if it stays at 0xff.
inline constexpr std::uint16_t pit_counter = 0x42;

// One for all vCPUs, and for whoever types.
class PcPorts {
 public:
  // `ended` may be called from any vCPU's thread.
  PcPorts(const kvm_ioctls::Vm& vm, Console& console, HostErrors& errors,
          std::function<void(Ending)> ended)
      : line_{vm, console, errors}, ended_(std::move(ended)) {}

  bool out(std::uint16_t port, std::span<const std::byte> data) {
    const auto value = std::to_integer<std::uint8_t>(data[0]);
    if (is_serial(port)) {
      write_serial(port, value);
    } else if (is_rtc(port)) {
      const std::scoped_lock lock(mutex_);
      rtc_.write(port - rtc_.first_port, value);
    } else if (port == linux_loader::sleep_control_port && linux_loader::is_poweroff(value)) {
      ended_(Ending::poweroff);
    } else if (vm_superio::i8042_resets(port, value)) {
      ended_(Ending::reboot);
    }
    return true;
  }
  void in(std::uint16_t port, std::span<std::byte> data) {
    std::fill(data.begin(), data.end(), std::byte{0xff});
    const std::scoped_lock lock(mutex_);
    if (is_serial(port)) data[0] = std::byte{serial_.read(port - linux_loader::com1_port)};
    if (is_rtc(port)) data[0] = std::byte{rtc_.read(port - rtc_.first_port)};
    if (port == linux_loader::sleep_status_port || port == pit_counter) data[0] = std::byte{0};
    if (port == vm_superio::i8042_command_port || port == vm_superio::i8042_data_port) {
      data[0] = std::byte{vm_superio::i8042_read(port)};
    }
  }
  // For a snapshot, while no vCPU runs. restore(): EINVAL for a UART that can't be.
  [[nodiscard]] PortsSnapshot save() {
    const std::scoped_lock lock(mutex_);
    return {serial_.state(), rtc_.state()};
  }
  [[nodiscard]] vmm_base::Result<void> restore(const PortsSnapshot& from) {
    const std::scoped_lock lock(mutex_);
    rtc_.restore(from.rtc);
    return serial_.restore(from.serial);
  }
  // What was typed; how much of it was taken.
  std::size_t type(std::span<const std::uint8_t> bytes) {
    const std::scoped_lock lock(mutex_);
    return serial_.receive(bytes);
  }

 private:
  struct Line {
    const kvm_ioctls::Vm& vm;
    Console& console;
    HostErrors& errors;
    void transmit(std::uint8_t byte) { console.write(byte); }
    void set_interrupt(bool level) { errors.note(vm.irq_line(linux_loader::com1_gsi, level)); }
    void ready_for_input() { console.ready_for_input(); }
  };
  void write_serial(std::uint16_t port, std::uint8_t value) {
    {
      const std::scoped_lock lock(mutex_);
      serial_.write(port - linux_loader::com1_port, value);
    }
    line_.console.await_room();
  }
  static constexpr bool is_serial(std::uint16_t port) {
    return port >= linux_loader::com1_port && port < linux_loader::com1_port + 8;
  }
  bool is_rtc(std::uint16_t port) const {
    return port >= rtc_.first_port && port < rtc_.first_port + rtc_.port_count;
  }

  std::mutex mutex_;
  Line line_;
  vm_superio::Serial<Line> serial_{line_};
  vm_superio::Rtc<std::time_t (*)()> rtc_{[] { return std::time(nullptr); }};
  std::function<void(Ending)> ended_;
};

}  // namespace vmm_reference
