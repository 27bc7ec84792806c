// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_ioctls/pci_config.hpp"

#include <linux/pci_regs.h>

namespace vfio_ioctls {

using vmm_base::Error;
using vmm_base::Result;

Result<std::vector<std::byte>> read_pci_config(const Device& device) {
  VMM_TRY(region, device.get_region_info(VFIO_PCI_CONFIG_REGION_INDEX));
  if (region.size < PCI_CFG_SPACE_SIZE || region.size > PCI_CFG_SPACE_EXP_SIZE) {
    return Error{"VFIO_DEVICE_GET_REGION_INFO", EBADMSG, region.size};
  }
  std::vector<std::byte> config(region.size);
  VMM_CHECK(device.read(region, 0, config));
  return config;
}

std::optional<std::uint8_t> find_pci_capability(std::span<const std::byte> config,
                                                std::uint8_t id) noexcept {
  const auto status = pci_read<std::uint16_t>(config, PCI_STATUS);
  if (!status || (*status & PCI_STATUS_CAP_LIST) == 0) return std::nullopt;
  auto next = pci_read<std::uint8_t>(config, PCI_CAPABILITY_LIST);
  // No chain without a loop has more: they stand behind the header, four bytes each at least.
  constexpr int most = (PCI_CFG_SPACE_SIZE - PCI_STD_HEADER_SIZEOF) / 4;
  for (int left = most; next && left > 0; --left) {
    const auto at = static_cast<std::uint8_t>(*next & ~3U);
    if (at < PCI_STD_HEADER_SIZEOF) return std::nullopt;
    const auto found = pci_read<std::uint8_t>(config, at + PCI_CAP_LIST_ID);
    if (!found) return std::nullopt;
    if (*found == id) return at;
    next = pci_read<std::uint8_t>(config, at + PCI_CAP_LIST_NEXT);
  }
  return std::nullopt;
}

std::optional<std::uint16_t> find_pci_extended_capability(std::span<const std::byte> config,
                                                          std::uint16_t id) noexcept {
  constexpr int most = (PCI_CFG_SPACE_EXP_SIZE - PCI_CFG_SPACE_SIZE) / 8;
  std::uint32_t at = PCI_CFG_SPACE_SIZE;
  for (int left = most; left > 0 && at >= PCI_CFG_SPACE_SIZE; --left) {
    const auto header = pci_read<std::uint32_t>(config, at);
    // All clear: an empty chain. All set: a device that doesn't answer.
    if (!header || *header == 0 || *header == ~std::uint32_t{0}) return std::nullopt;
    if ((*header & 0xffff) == id) return static_cast<std::uint16_t>(at);
    at = (*header >> 20) & 0xffc;
  }
  return std::nullopt;
}

std::vector<PciBar> pci_bars(std::span<const std::byte> config) {
  const auto type = pci_read<std::uint8_t>(config, PCI_HEADER_TYPE);
  if (!type) return {};
  const std::uint32_t layout = *type & 0x7f;
  const std::uint32_t registers = layout == PCI_HEADER_TYPE_NORMAL   ? 6
                                  : layout == PCI_HEADER_TYPE_BRIDGE ? 2
                                                                     : 0;
  std::vector<PciBar> bars;
  for (std::uint32_t index = 0; index < registers; ++index) {
    const auto value = pci_read<std::uint32_t>(config, PCI_BASE_ADDRESS_0 + 4 * index);
    if (!value || *value == 0) continue;
    PciBar bar{};
    bar.index = index;
    if ((*value & PCI_BASE_ADDRESS_SPACE_IO) != 0) {
      bar.io = true;
      bar.address = *value & ~std::uint32_t{3};
    } else {
      bar.prefetchable = (*value & PCI_BASE_ADDRESS_MEM_PREFETCH) != 0;
      bar.address = *value & ~std::uint32_t{15};
      if ((*value & PCI_BASE_ADDRESS_MEM_TYPE_MASK) == PCI_BASE_ADDRESS_MEM_TYPE_64 &&
          index + 1 < registers) {
        const auto high = pci_read<std::uint32_t>(config, PCI_BASE_ADDRESS_0 + 4 * ++index);
        bar.wide = true;
        bar.address |= std::uint64_t{high.value_or(0)} << 32;
      }
    }
    bars.push_back(bar);
  }
  return bars;
}

std::optional<MsiCapability> pci_msi(std::span<const std::byte> config) noexcept {
  const auto at = find_pci_capability(config, PCI_CAP_ID_MSI);
  if (!at) return std::nullopt;
  const auto flags = pci_read<std::uint16_t>(config, *at + PCI_MSI_FLAGS);
  if (!flags) return std::nullopt;
  const auto order = (*flags & PCI_MSI_FLAGS_QMASK) >> 1;
  if (order > 5) return std::nullopt;
  MsiCapability msi{};
  msi.offset = *at;
  msi.vectors = static_cast<std::uint16_t>(1 << order);
  msi.enabled = (*flags & PCI_MSI_FLAGS_ENABLE) != 0;
  msi.wide = (*flags & PCI_MSI_FLAGS_64BIT) != 0;
  msi.maskable = (*flags & PCI_MSI_FLAGS_MASKBIT) != 0;
  return msi;
}

std::optional<MsixCapability> pci_msix(std::span<const std::byte> config) noexcept {
  const auto at = find_pci_capability(config, PCI_CAP_ID_MSIX);
  if (!at) return std::nullopt;
  const auto flags = pci_read<std::uint16_t>(config, *at + PCI_MSIX_FLAGS);
  const auto table = pci_read<std::uint32_t>(config, *at + PCI_MSIX_TABLE);
  const auto pending = pci_read<std::uint32_t>(config, *at + PCI_MSIX_PBA);
  if (!flags || !table || !pending) return std::nullopt;
  MsixCapability msix{};
  msix.offset = *at;
  msix.vectors = static_cast<std::uint16_t>((*flags & PCI_MSIX_FLAGS_QSIZE) + 1);
  msix.enabled = (*flags & PCI_MSIX_FLAGS_ENABLE) != 0;
  msix.table_bar = static_cast<std::uint8_t>(*table & PCI_MSIX_TABLE_BIR);
  msix.table_offset = *table & PCI_MSIX_TABLE_OFFSET;
  msix.pending_bar = static_cast<std::uint8_t>(*pending & PCI_MSIX_PBA_BIR);
  msix.pending_offset = *pending & PCI_MSIX_PBA_OFFSET;
  if (msix.table_bar > 5 || msix.pending_bar > 5) return std::nullopt;
  return msix;
}

}  // namespace vfio_ioctls
