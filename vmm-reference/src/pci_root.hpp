// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The root of a PCI bus: configuration mechanism #1 (PCI Local Bus Specification 3.0, 3.2.2.3.2),
// a host bridge as device 0, by which Linux knows that there is a bus, and functions behind it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "linux_loader/acpi.hpp"
#include "linux_loader/memory_map.hpp"
#include "pci_config.hpp"
#include "vmm_base/guest_address.hpp"

namespace vmm_reference {

// Where BARs may be: from the end of low RAM to the IOAPIC. ACPI tells the guest so.
inline constexpr linux_loader::AcpiPciRoot pci_window{
    linux_loader::device_memory,
    linux_loader::ioapic_gpa.value - linux_loader::device_memory.value};

// One for all vCPUs. A Function is a device's: read_config(offset, bytes), write_config(offset,
// bytes), both within pci_config_size; and read_memory(gpa, bytes), write_memory(gpa, bytes), which
// say whether that was for it.
template <class Function>
class PciRoot {
 public:
  static constexpr std::size_t max_functions = 31;
  // The first is device 1, and so on.
  explicit PciRoot(std::vector<Function> functions) : functions_(std::move(functions)) {}

  static constexpr bool is_port(std::uint16_t port) { return port >= 0xcf8 && port < 0xd00; }

  void out(std::uint16_t port, std::span<const std::byte> data) {
    const std::scoped_lock lock(mutex_);
    if (is_address(port, data.size())) {
      std::memcpy(&address_, data.data(), sizeof(address_));
    } else if (const auto target = find(port, data.size()); target && target->device != 0) {
      functions_[target->device - 1].write_config(target->offset, data);
    }
  }
  void in(std::uint16_t port, std::span<std::byte> data) {
    const std::scoped_lock lock(mutex_);
    const auto target = find(port, data.size());
    if (is_address(port, data.size())) {
      std::memcpy(data.data(), &address_, sizeof(address_));
    } else if (!target) {
      std::fill(data.begin(), data.end(), std::byte{0xff});  // as on a PC, nobody is at home there
    } else if (target->device == 0) {
      for (std::size_t i = 0; i < data.size(); ++i) {
        const std::size_t at = target->offset + i;
        data[i] = std::byte(at < host_bridge.size() ? host_bridge[at] : 0);
      }
    } else {
      functions_[target->device - 1].read_config(target->offset, data);
    }
  }

  void read_memory(vmm_base::Gpa gpa, std::span<std::byte> data) {
    const std::scoped_lock lock(mutex_);
    for (Function& function : functions_) {
      if (function.read_memory(gpa, data)) return;
    }
    std::fill(data.begin(), data.end(), std::byte{0xff});
  }
  void write_memory(vmm_base::Gpa gpa, std::span<const std::byte> data) {
    const std::scoped_lock lock(mutex_);
    for (Function& function : functions_) {
      if (function.write_memory(gpa, data)) return;
    }
  }

 private:
  // 1b36:0008, a host bridge of no particular kind, as QEMU's machines have it.
  static constexpr std::array<std::uint8_t, 16> host_bridge{0x36, 0x1b, 0x08, 0x00, 0, 0,    0, 0,
                                                            0,    0,    0x00, 0x06, 0, 0x00, 0, 0};

  struct Target {
    std::size_t device;
    std::size_t offset;
  };
  static bool is_address(std::uint16_t port, std::size_t size) {
    return port == 0xcf8 && size == 4;
  }
  // What an access to the data port is for.
  std::optional<Target> find(std::uint16_t port, std::size_t size) const {
    constexpr std::uint32_t enable = 1u << 31;
    const std::size_t byte = port & 3u;
    if (port < 0xcfc || byte + size > 4) return std::nullopt;
    // The bus is 0, and so are the function and the reserved bits, in which AMD has the number of a
    // register behind the first 256.
    const std::uint32_t device = address_ >> 11 & 0x1f;
    if ((address_ & ~(0x1fu << 11 | 0xffu)) != enable || device > functions_.size()) {
      return std::nullopt;
    }
    return Target{device, (address_ & 0xfcu) + byte};
  }

  std::mutex mutex_;
  std::uint32_t address_ = 0;
  std::vector<Function> functions_;
};

}  // namespace vmm_reference
