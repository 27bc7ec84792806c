// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What stands in a PCI device's configuration space: pure functions over a copy of it, that trust
// none of it. The numbers' names are those of <linux/pci_regs.h>.
//
//   VMM_TRY(config, read_pci_config(device));
//   if (auto msi = pci_msi(config)) wire_up(msi->vectors);
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

#include "vfio_ioctls/device.hpp"
#include "vmm_base/result.hpp"

namespace vfio_ioctls {

// All of the space: 256 bytes, or 4096 of PCI Express. EBADMSG if the kernel's region is smaller or
// larger than that.
vmm_base::Result<std::vector<std::byte>> read_pci_config(const Device& device);

// The number at `offset`, little-endian; none if it isn't within.
template <class T>
std::optional<T> pci_read(std::span<const std::byte> config, std::size_t offset) noexcept {
  static_assert(std::is_unsigned_v<T>);
  if (offset > config.size() || config.size() - offset < sizeof(T)) return std::nullopt;
  T value;
  std::memcpy(&value, config.data() + offset, sizeof(T));
  return value;
}

// The offset of the first capability with this id (PCI_CAP_ID_*, PCI_EXT_CAP_ID_*); none if there
// is none, also where the chain is broken or loops before it.
std::optional<std::uint8_t> find_pci_capability(std::span<const std::byte> config,
                                                std::uint8_t id) noexcept;
std::optional<std::uint16_t> find_pci_extended_capability(std::span<const std::byte> config,
                                                          std::uint16_t id) noexcept;

// A base address register that is set or has flags; its size is its region's.
struct PciBar {
  std::uint32_t index;  // Of the first register, and of the region.
  bool io;              // Ports, not memory.
  bool wide;            // 64 bits: takes the next register, too.
  bool prefetchable;
  std::uint64_t address;
  friend bool operator==(const PciBar&, const PciBar&) = default;
};
// Of header types 0 and 1; none of others.
std::vector<PciBar> pci_bars(std::span<const std::byte> config);

struct MsiCapability {
  std::uint8_t offset;
  std::uint16_t vectors;  // That the device may use: 1, 2, 4 … 32.
  bool enabled;
  bool wide;      // 64-bit addresses.
  bool maskable;  // Each vector.
  friend bool operator==(const MsiCapability&, const MsiCapability&) = default;
};
// None where there is none, or it isn't within the space, or its number of vectors is reserved.
std::optional<MsiCapability> pci_msi(std::span<const std::byte> config) noexcept;

struct MsixCapability {
  std::uint8_t offset;
  std::uint16_t vectors;  // 1 to 2048.
  bool enabled;
  std::uint8_t table_bar;  // 0 to 5.
  std::uint32_t table_offset;
  std::uint8_t pending_bar;
  std::uint32_t pending_offset;
  friend bool operator==(const MsixCapability&, const MsixCapability&) = default;
};
// None where there is none, or it isn't within the space, or names no BAR.
std::optional<MsixCapability> pci_msix(std::span<const std::byte> config) noexcept;

}  // namespace vfio_ioctls
