// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_ioctls/pci_config.hpp"

#include <gtest/gtest.h>
#include <linux/pci_regs.h>

#include <random>

namespace vfio_ioctls {
namespace {

class Config {
 public:
  explicit Config(std::size_t size = 256) : bytes_(size) {}
  template <class T>
  Config& set(std::size_t offset, T value) {
    std::memcpy(bytes_.data() + offset, &value, sizeof(T));
    return *this;
  }
  Config& u8(std::size_t offset, std::uint8_t value) { return set(offset, value); }
  Config& u16(std::size_t offset, std::uint16_t value) { return set(offset, value); }
  Config& u32(std::size_t offset, std::uint32_t value) { return set(offset, value); }
  // A capability, with the offset of the next.
  Config& capability(std::uint8_t at, std::uint8_t id, std::uint8_t next) {
    u16(PCI_STATUS, PCI_STATUS_CAP_LIST);
    return u8(at, id).u8(at + 1U, next);
  }
  operator std::span<const std::byte>() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

TEST(PciRead, EndsWithTheSpace) {
  Config config;
  config.u32(252, 0x11223344);
  EXPECT_EQ(pci_read<std::uint32_t>(config, 252), 0x11223344U);
  EXPECT_EQ(pci_read<std::uint8_t>(config, 255), 0x11U);
  EXPECT_FALSE(pci_read<std::uint32_t>(config, 253));
  EXPECT_FALSE(pci_read<std::uint8_t>(config, 256));
  EXPECT_FALSE(pci_read<std::uint8_t>(config, ~std::size_t{0}));
}

TEST(PciCapability, IsFoundAlongTheChain) {
  Config config;
  config.u8(PCI_CAPABILITY_LIST, 0x90).capability(0x90, PCI_CAP_ID_PM, 0x40);
  config.capability(0x40, PCI_CAP_ID_MSI, 0);
  EXPECT_EQ(find_pci_capability(config, PCI_CAP_ID_MSI), 0x40);
  EXPECT_EQ(find_pci_capability(config, PCI_CAP_ID_PM), 0x90);
  EXPECT_FALSE(find_pci_capability(config, PCI_CAP_ID_MSIX));
}

TEST(PciCapability, NeedsTheStatusBit) {
  Config config;
  config.u8(PCI_CAPABILITY_LIST, 0x40).capability(0x40, PCI_CAP_ID_MSI, 0).u16(PCI_STATUS, 0);
  EXPECT_FALSE(find_pci_capability(config, PCI_CAP_ID_MSI));
}

TEST(PciCapability, ALoopABrokenPointerOrATruncatedSpaceEnd) {
  Config loop;
  loop.u8(PCI_CAPABILITY_LIST, 0x40).capability(0x40, PCI_CAP_ID_PM, 0x50);
  loop.capability(0x50, PCI_CAP_ID_VPD, 0x40);
  EXPECT_FALSE(find_pci_capability(loop, PCI_CAP_ID_MSI));

  Config into_the_header;
  into_the_header.capability(0x40, PCI_CAP_ID_PM, 0).u8(PCI_CAPABILITY_LIST, 0x10);
  into_the_header.u8(0x10, PCI_CAP_ID_MSI);
  EXPECT_FALSE(find_pci_capability(into_the_header, PCI_CAP_ID_MSI));

  Config whole;
  whole.u8(PCI_CAPABILITY_LIST, 0xfc).capability(0xfc, PCI_CAP_ID_MSI, 0);
  const std::span<const std::byte> bytes = whole;
  EXPECT_EQ(find_pci_capability(bytes, PCI_CAP_ID_MSI), 0xfc);
  for (const std::size_t size : {0U, 6U, 7U, 0x34U, 0x40U, 0xfcU}) {
    EXPECT_FALSE(find_pci_capability(bytes.first(size), PCI_CAP_ID_MSI)) << size;
  }
}

TEST(PciExtendedCapability, IsFoundAlongTheChain) {
  Config config(4096);
  config.u32(0x100, 0x14810001).u32(0x148, 0x00010003);
  EXPECT_EQ(find_pci_extended_capability(config, 3), 0x148);
  EXPECT_EQ(find_pci_extended_capability(config, 1), 0x100);
  EXPECT_FALSE(find_pci_extended_capability(config, 2));
  EXPECT_FALSE(find_pci_extended_capability(Config(256), 1));
  EXPECT_FALSE(find_pci_extended_capability(Config(4096), 0));
}

TEST(PciExtendedCapability, ALoopEndsAndSilenceIsNone) {
  Config loop(4096);
  loop.u32(0x100, 0x10010001);
  EXPECT_FALSE(find_pci_extended_capability(loop, 3));
  Config silent(4096);
  silent.u32(0x100, 0xffffffff);
  EXPECT_FALSE(find_pci_extended_capability(silent, 0xffff));
}

TEST(PciBars, OfAllKinds) {
  Config config;
  config.u32(0x10, 0xfea00000).u32(0x14, 0xc001).u32(0x18, 0x0000000c).u32(0x1c, 0x38);
  config.u32(0x24, 0xfeb00008);
  EXPECT_EQ(pci_bars(config), (std::vector<PciBar>{{0, false, false, false, 0xfea00000},
                                                   {1, true, false, false, 0xc000},
                                                   {2, false, true, true, 0x3800000000},
                                                   {5, false, false, true, 0xfeb00000}}));
}

TEST(PciBars, A64BitOneInTheLastRegisterIsNotReadPastIt) {
  Config config;
  config.u32(0x24, 0xfeb00004).u32(0x28, 0xffffffff);
  EXPECT_EQ(pci_bars(config), (std::vector<PciBar>{{5, false, false, false, 0xfeb00000}}));
}

TEST(PciBars, OfABridgeAndOfWhatIsNeither) {
  Config config;
  for (std::size_t at = 0x10; at < 0x28; at += 4) config.u32(at, 0xfea00000);
  EXPECT_EQ(pci_bars(config).size(), 6U);
  EXPECT_EQ(pci_bars(config.u8(PCI_HEADER_TYPE, 0x81)).size(), 2U);
  EXPECT_TRUE(pci_bars(config.u8(PCI_HEADER_TYPE, 2)).empty());
  EXPECT_TRUE(pci_bars({}).empty());
}

TEST(PciMsi, TellsItsVectorsAndFlags) {
  Config config;
  config.u8(PCI_CAPABILITY_LIST, 0x40).capability(0x40, PCI_CAP_ID_MSI, 0);
  EXPECT_EQ(pci_msi(config.u16(0x42, 0x018b)), (MsiCapability{0x40, 32, true, true, true}));
  EXPECT_EQ(pci_msi(config.u16(0x42, 0)), (MsiCapability{0x40, 1, false, false, false}));
  EXPECT_FALSE(pci_msi(config.u16(0x42, 6 << 1)));
  EXPECT_FALSE(pci_msi(Config()));
}

TEST(PciMsix, TellsWhereItsTablesAre) {
  Config config;
  config.u8(PCI_CAPABILITY_LIST, 0x40).capability(0x40, PCI_CAP_ID_MSIX, 0);
  config.u16(0x42, 0x87ff).u32(0x44, 0x2004).u32(0x48, 0x3005);
  EXPECT_EQ(pci_msix(config), (MsixCapability{0x40, 2048, true, 4, 0x2000, 5, 0x3000}));
  EXPECT_FALSE(pci_msix(config.u32(0x48, 0x3006)));
  Config cut;
  cut.u8(PCI_CAPABILITY_LIST, 0xf8).capability(0xf8, PCI_CAP_ID_MSIX, 0);
  EXPECT_FALSE(pci_msix(cut));
}

TEST(PciConfig, AnyBytesAreTaken) {
  std::mt19937 engine(20260611);
  const auto random = [&] { return static_cast<std::uint32_t>(engine()); };
  std::vector<std::byte> bytes(4096);
  for (int round = 0; round < 300; ++round) {
    for (auto& byte : bytes) byte = static_cast<std::byte>(random() & 0xff);
    for (const std::size_t size : {0U, 64U, 200U, 256U, 300U, 4096U}) {
      const auto config = std::span<const std::byte>(bytes).first(size);
      EXPECT_LE(pci_bars(config).size(), 6U);
      pci_msi(config);
      pci_msix(config);
      for (std::uint16_t id = 0; id < 32; ++id) {
        const auto at = find_pci_extended_capability(config, id);
        EXPECT_LT(at.value_or(0), size + (at ? 0 : 1));
      }
    }
  }
}

}  // namespace
}  // namespace vfio_ioctls
