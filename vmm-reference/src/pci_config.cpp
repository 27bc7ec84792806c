// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Registers as in the PCI Local Bus Specification 3.0, chapter 6.
#include "pci_config.hpp"

#include <linux/pci_regs.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "vfio_ioctls/pci_config.hpp"

namespace vmm_reference {

using vmm_base::Gpa;
using vmm_base::Result;

template <class T>
void PciConfig::keep(std::size_t offset, T value, T writable) {
  for (std::size_t i = 0; i < sizeof(T); ++i) ours_[offset + i] = true;
  std::memcpy(&value_[offset], &value, sizeof(T));
  std::memcpy(&writable_[offset], &writable, sizeof(T));
}

template <class T>
T PciConfig::value(std::size_t offset) const {
  T result;
  std::memcpy(&result, &value_[offset], sizeof(T));
  return result;
}

Result<PciConfig> PciConfig::create(std::span<const std::byte, pci_config_size> device,
                                    const std::array<std::uint64_t, 6>& region_sizes) {
  PciConfig config;
  const auto type = std::to_integer<std::uint8_t>(device[PCI_HEADER_TYPE]);
  if ((type & 0x7f) != PCI_HEADER_TYPE_NORMAL) {
    return vmm_base::Error{"PCI header type", EINVAL, type};
  }
  // No second function, whatever the device has on the host.
  config.keep<std::uint8_t>(PCI_HEADER_TYPE, PCI_HEADER_TYPE_NORMAL, 0);
  // What isn't offered reads as 0, as what isn't there does.
  for (std::size_t at = PCI_BASE_ADDRESS_0; at <= PCI_BASE_ADDRESS_5; at += 4) {
    config.keep<std::uint32_t>(at, 0, 0);
  }
  config.keep<std::uint32_t>(PCI_ROM_ADDRESS, 0, 0);
  config.keep<std::uint8_t>(PCI_INTERRUPT_LINE, 0, 0xff);
  config.keep<std::uint8_t>(PCI_INTERRUPT_PIN, 0, 0);
  for (const vfio_ioctls::PciBar& bar : vfio_ioctls::pci_bars(device)) {
    const std::uint64_t size = region_sizes[bar.index];
    if (bar.io || size == 0) continue;
    if (!std::has_single_bit(size)) return vmm_base::Error{"PCI BAR", ENOTSUP, bar.index};
    const std::size_t at = PCI_BASE_ADDRESS_0 + 4 * bar.index;
    std::uint32_t flags = bar.prefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0;
    if (bar.wide) flags |= PCI_BASE_ADDRESS_MEM_TYPE_64;
    // The lowest 4 bits are flags, also of a region of less than 16 bytes.
    const std::uint64_t writable = ~(std::max<std::uint64_t>(size, 16) - 1);
    config.keep<std::uint32_t>(at, flags, static_cast<std::uint32_t>(writable));
    if (bar.wide) config.keep<std::uint32_t>(at + 4, 0, static_cast<std::uint32_t>(writable >> 32));
    config.bars_.push_back({bar.index, size, bar.wide});
  }
  config.keep_msi(device);
  config.keep_capabilities(device);
  return config;
}

// Links the capabilities that are passed on, and leaves the others out.
void PciConfig::keep_capabilities(std::span<const std::byte> device) {
  if ((std::to_integer<unsigned>(device[PCI_STATUS]) & PCI_STATUS_CAP_LIST) == 0) return;
  std::size_t link = PCI_CAPABILITY_LIST;
  const auto next_of = [&](std::size_t at) -> std::size_t {
    return std::to_integer<unsigned>(device[at]) & 0xfcu;
  };
  // No chain without a loop is longer.
  int left = (PCI_CFG_SPACE_SIZE - PCI_STD_HEADER_SIZEOF) / 4;
  for (std::size_t at = next_of(link); at >= PCI_STD_HEADER_SIZEOF && left > 0; --left) {
    const auto id = std::to_integer<std::uint8_t>(device[at + PCI_CAP_LIST_ID]);
    const bool offered = id == PCI_CAP_ID_MSI ? msi_ && msi_->offset == at : id != PCI_CAP_ID_MSIX;
    if (offered) {
      keep<std::uint8_t>(link, static_cast<std::uint8_t>(at), 0);
      link = at + PCI_CAP_LIST_NEXT;
    }
    at = next_of(at + PCI_CAP_LIST_NEXT);
  }
  keep<std::uint8_t>(link, 0, 0);
}

void PciConfig::keep_msi(std::span<const std::byte> device) {
  const auto found = vfio_ioctls::pci_msi(device);
  if (!found) return;
  Msi msi{found->offset, found->vectors, found->wide, found->maskable};
  const std::size_t end = msi.data() + 2 + (msi.maskable ? 10u : 0u);
  if (end > pci_config_size) return;
  const auto log2 = static_cast<std::uint32_t>(std::countr_zero(msi.vectors));
  keep<std::uint16_t>(msi.offset + PCI_MSI_FLAGS,
                      static_cast<std::uint16_t>(log2 << 1 | (msi.wide ? PCI_MSI_FLAGS_64BIT : 0) |
                                                 (msi.maskable ? PCI_MSI_FLAGS_MASKBIT : 0)),
                      PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE);
  keep<std::uint32_t>(msi.offset + PCI_MSI_ADDRESS_LO, 0, ~std::uint32_t{3});
  if (msi.wide) keep<std::uint32_t>(msi.offset + PCI_MSI_ADDRESS_HI, 0, ~std::uint32_t{0});
  keep<std::uint16_t>(msi.data(), 0, 0xffff);
  if (msi.maskable) {
    keep<std::uint16_t>(msi.data() + 2, 0, 0);  // reserved
    keep<std::uint32_t>(msi.mask(), 0,
                        static_cast<std::uint32_t>((std::uint64_t{1} << msi.vectors) - 1));
    // What is pending behind a mask isn't told.
    keep<std::uint32_t>(msi.mask() + 4, 0, 0);
  }
  msi_ = msi;
}

void PciConfig::read(std::size_t offset, std::span<std::byte> bytes) const {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    if (ours_[offset + i]) bytes[i] = std::byte{value_[offset + i]};
  }
}

void PciConfig::write(std::size_t offset, std::span<const std::byte> bytes) {
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const std::uint8_t writable = writable_[offset + i];
    std::uint8_t& value = value_[offset + i];
    value = static_cast<std::uint8_t>((value & ~writable) |
                                      (std::to_integer<unsigned>(bytes[i]) & writable));
  }
}

std::vector<PciMemoryBar> PciConfig::bars() const {
  std::vector<PciMemoryBar> result;
  for (const Bar& bar : bars_) {
    const std::size_t at = PCI_BASE_ADDRESS_0 + 4 * bar.index;
    std::uint64_t address = value<std::uint32_t>(at) & ~std::uint32_t{15};
    if (bar.wide) address |= std::uint64_t{value<std::uint32_t>(at + 4)} << 32;
    result.push_back({bar.index, bar.size, Gpa{address}});
  }
  return result;
}

void PciConfig::set_bar(std::uint32_t index, Gpa address) {
  const std::size_t at = PCI_BASE_ADDRESS_0 + 4 * index;
  const bool wide = std::any_of(bars_.begin(), bars_.end(),
                                [&](const Bar& bar) { return bar.index == index && bar.wide; });
  write(at, std::as_bytes(std::span(&address.value, 1)).first(wide ? 8 : 4));
}

std::vector<PciConfig::MsiVector> PciConfig::msi() const {
  if (!msi_) return {};
  const auto flags = value<std::uint16_t>(msi_->offset + PCI_MSI_FLAGS);
  if ((flags & PCI_MSI_FLAGS_ENABLE) == 0) return {};
  std::uint64_t address = value<std::uint32_t>(msi_->offset + PCI_MSI_ADDRESS_LO);
  if (msi_->wide) {
    address |= std::uint64_t{value<std::uint32_t>(msi_->offset + PCI_MSI_ADDRESS_HI)} << 32;
  }
  const auto data = value<std::uint16_t>(msi_->data());
  const std::uint32_t mask = msi_->maskable ? value<std::uint32_t>(msi_->mask()) : 0;
  const std::uint32_t count =
      std::min(msi_->vectors, std::uint32_t{1} << std::min((flags & PCI_MSI_FLAGS_QSIZE) >> 4, 5));
  std::vector<MsiVector> vectors;
  for (std::uint32_t i = 0; i < count; ++i) {
    // The device puts the vector's number into the lowest bits of the message.
    vectors.push_back({{address, (data & ~(count - 1)) | i}, (mask >> i & 1) != 0});
  }
  return vectors;
}

}  // namespace vmm_reference
