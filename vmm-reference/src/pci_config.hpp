// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a guest sees of a device's configuration space, and what it makes of it: the BARs and MSI
// are ours to keep, as the device's own speak of the host. Pure: knows neither VFIO nor KVM.
//
// Not offered: INTx (the interrupt pin reads as 0), MSI-X, I/O BARs, the expansion ROM, and what
// PCI Express has behind the first 256 bytes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "irq_routes.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

inline constexpr std::size_t pci_config_size = 256;

// A memory BAR. `index` is its first register's, and its region's.
struct PciMemoryBar {
  std::uint32_t index;
  std::uint64_t size;       // bytes, a power of two
  vmm_base::Gpa address{};  // where the guest has put it
  friend bool operator==(const PciMemoryBar&, const PciMemoryBar&) = default;
};

class PciConfig {
 public:
  // `device`: the configuration space as VFIO tells it. `region_sizes`: of regions 0 to 5, in
  // bytes. EINVAL, operand the header's type, for a bridge; ENOTSUP, operand its index, for a BAR
  // whose size is no power of two.
  static vmm_base::Result<PciConfig> create(std::span<const std::byte, pci_config_size> device,
                                            const std::array<std::uint64_t, 6>& region_sizes);

  // [offset, offset + size) must lie within the space, in all of these.

  // Puts our bytes over those of the device, which are at `offset`.
  void read(std::size_t offset, std::span<std::byte> bytes) const;
  // The guest's write to what is ours.
  void write(std::size_t offset, std::span<const std::byte> bytes);
  // Whether the byte is ours: then the device isn't told.
  [[nodiscard]] bool is_ours(std::size_t offset) const { return ours_[offset]; }

  [[nodiscard]] std::vector<PciMemoryBar> bars() const;
  void set_bar(std::uint32_t index, vmm_base::Gpa address);

  // What the guest has asked for: the vectors' messages. Empty while MSI is off.
  struct MsiVector {
    MsiRoute route;
    bool masked;
    friend bool operator==(const MsiVector&, const MsiVector&) = default;
  };
  [[nodiscard]] std::vector<MsiVector> msi() const;

 private:
  struct Bar {
    std::uint32_t index;
    std::uint64_t size;
    bool wide;
  };
  struct Msi {
    std::size_t offset;
    std::uint32_t vectors;
    bool wide;
    bool maskable;
    [[nodiscard]] std::size_t data() const { return offset + (wide ? 12u : 8u); }
    [[nodiscard]] std::size_t mask() const { return data() + 4; }
  };

  // Bytes that are ours: what they read as, and which of their bits the guest can write.
  template <class T>
  void keep(std::size_t offset, T value, T writable);
  template <class T>
  [[nodiscard]] T value(std::size_t offset) const;
  void keep_capabilities(std::span<const std::byte> device);
  void keep_msi(std::span<const std::byte> device);

  std::array<bool, pci_config_size> ours_{};
  std::array<std::uint8_t, pci_config_size> value_{};
  std::array<std::uint8_t, pci_config_size> writable_{};
  std::vector<Bar> bars_;
  std::optional<Msi> msi_;
};

}  // namespace vmm_reference
