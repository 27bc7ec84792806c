// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <gtest/gtest.h>
#include <linux/pci_regs.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <random>

#include "irq_routes.hpp"
#include "pci_config.hpp"
#include "pci_root.hpp"

namespace vmm_reference {
namespace {

using vmm_base::Gpa;

using Space = std::array<std::byte, pci_config_size>;
template <class T>
void put(Space& space, std::size_t at, T value) {
  std::memcpy(space.data() + at, &value, sizeof(value));
}

constexpr std::size_t pm = 0x40, msi = 0x50, msix = 0x70, express = 0x80;

// A device with all that there is to keep: BAR 0 of 32 bits, BAR 1 of ports, BAR 2 of 64 bits, a
// ROM; INTx; and a chain of power management, MSI, MSI-X and PCI Express.
Space device() {
  Space space{};
  put<std::uint32_t>(space, PCI_VENDOR_ID, 0x11e81234);
  put<std::uint16_t>(space, PCI_STATUS, PCI_STATUS_CAP_LIST);
  put<std::uint8_t>(space, PCI_HEADER_TYPE, 0x80);
  put<std::uint32_t>(space, PCI_BASE_ADDRESS_0, 0xfea00000);
  put<std::uint32_t>(space, PCI_BASE_ADDRESS_1, 0xc001);
  put<std::uint32_t>(space, PCI_BASE_ADDRESS_2, 0x1000000c);
  put<std::uint32_t>(space, PCI_BASE_ADDRESS_3, 0x38);
  put<std::uint32_t>(space, PCI_ROM_ADDRESS, 0xfeb00001);
  put<std::uint8_t>(space, PCI_INTERRUPT_LINE, 11);
  put<std::uint8_t>(space, PCI_INTERRUPT_PIN, 1);
  put<std::uint8_t>(space, PCI_CAPABILITY_LIST, pm);
  put<std::uint16_t>(space, pm, PCI_CAP_ID_PM | msi << 8);
  put<std::uint16_t>(space, msi, PCI_CAP_ID_MSI | msix << 8);
  // Of 4 vectors, 64 bits, maskable; on, to somewhere on the host.
  put<std::uint16_t>(space, msi + PCI_MSI_FLAGS, 0x185);
  put<std::uint32_t>(space, msi + PCI_MSI_ADDRESS_LO, 0xfee01234);
  put<std::uint16_t>(space, msix, PCI_CAP_ID_MSIX | express << 8);
  put<std::uint16_t>(space, express, PCI_CAP_ID_EXP);
  put<std::uint8_t>(space, 0xff, 0x5a);
  return space;
}
constexpr std::array<std::uint64_t, 6> sizes{1 << 20, 32, 1ull << 33, 0, 0, 0};

struct Config : testing::Test {
  Space space = device();
  PciConfig config = PciConfig::create(space, sizes).value();

  template <class T>
  T read(std::size_t at) {
    std::array<std::byte, sizeof(T)> bytes{};
    std::copy_n(space.begin() + static_cast<long>(at), sizeof(T), bytes.begin());
    config.read(at, bytes);
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }
  template <class T>
  void write(std::size_t at, std::type_identity_t<T> value) {
    config.write(at, std::as_bytes(std::span(&value, 1)));
  }
};

TEST_F(Config, WhatIsntOursIsTheDevices) {
  EXPECT_EQ(read<std::uint32_t>(PCI_VENDOR_ID), 0x11e81234U);
  EXPECT_EQ(read<std::uint8_t>(0xff), 0x5a);
  write<std::uint32_t>(PCI_VENDOR_ID, 0);
  EXPECT_EQ(read<std::uint32_t>(PCI_VENDOR_ID), 0x11e81234U);
  for (const std::size_t at : {0x00u, 0x04u, 0x06u, 0xffu}) {
    EXPECT_FALSE(config.is_ours(at)) << at;
  }
  EXPECT_FALSE(config.is_ours(pm + 4));
  EXPECT_FALSE(config.is_ours(express + 8));
  EXPECT_TRUE(config.is_ours(PCI_BASE_ADDRESS_5));
  EXPECT_TRUE(config.is_ours(msi + PCI_MSI_FLAGS));
}

TEST_F(Config, HasNeitherIntxNorPortsNorRomNorASecondFunction) {
  EXPECT_EQ(read<std::uint8_t>(PCI_INTERRUPT_PIN), 0);
  write<std::uint8_t>(PCI_INTERRUPT_PIN, 1);
  EXPECT_EQ(read<std::uint8_t>(PCI_INTERRUPT_PIN), 0);
  write<std::uint8_t>(PCI_INTERRUPT_LINE, 5);  // The guest's scratch pad.
  EXPECT_EQ(read<std::uint8_t>(PCI_INTERRUPT_LINE), 5);
  for (const std::size_t at : {0x14u, 0x20u, 0x30u}) {  // BARs 1 and 4, the ROM
    write<std::uint32_t>(at, 0xffffffff);
    EXPECT_EQ(read<std::uint32_t>(at), 0U) << at;
  }
  EXPECT_EQ(read<std::uint8_t>(PCI_HEADER_TYPE), 0);
}

TEST_F(Config, BarsAreSizedAndMoved) {
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_0), 0U);
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_2), 0xcU);
  write<std::uint32_t>(PCI_BASE_ADDRESS_0, 0xffffffff);
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_0), 0xfff00000U);
  write<std::uint32_t>(PCI_BASE_ADDRESS_2, 0xffffffff);
  write<std::uint32_t>(PCI_BASE_ADDRESS_3, 0xffffffff);
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_2), 0xcU);
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_3), 0xfffffffeU);

  write<std::uint32_t>(PCI_BASE_ADDRESS_0, 0xc0112345);
  config.set_bar(2, Gpa{0x600000000});
  const std::vector<PciMemoryBar> bars{{0, 1 << 20, Gpa{0xc0100000}},
                                       {2, 1ull << 33, Gpa{0x600000000}}};
  EXPECT_EQ(config.bars(), bars);
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_2), 0xcU);
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_3), 6U);
  // A byte at a time is as good.
  write<std::uint8_t>(PCI_BASE_ADDRESS_0 + 3, 0xd0);
  EXPECT_EQ(config.bars()[0].address, Gpa{0xd0100000});
}

TEST_F(Config, ABarOf32BitsHasNoSecondRegister) {
  config.set_bar(0, Gpa{0x1234'c0100000});
  EXPECT_EQ(config.bars()[0].address, Gpa{0xc0100000});
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_1), 0U);
}

TEST_F(Config, MsixIsTakenOutOfTheChain) {
  EXPECT_EQ(read<std::uint8_t>(PCI_CAPABILITY_LIST), pm);
  EXPECT_EQ(read<std::uint16_t>(pm), PCI_CAP_ID_PM | msi << 8);
  EXPECT_EQ(read<std::uint16_t>(msi), PCI_CAP_ID_MSI | express << 8);
  EXPECT_EQ(read<std::uint16_t>(express), PCI_CAP_ID_EXP);
  write<std::uint8_t>(msi + PCI_CAP_LIST_NEXT, msix);
  EXPECT_EQ(read<std::uint8_t>(msi + PCI_CAP_LIST_NEXT), express);
}

TEST_F(Config, MsixAtTheHeadAndTheEndIsTakenOut) {
  put<std::uint8_t>(space, PCI_CAPABILITY_LIST, msix);
  put<std::uint8_t>(space, msix + 1, 0);
  config = PciConfig::create(space, sizes).value();
  EXPECT_EQ(read<std::uint8_t>(PCI_CAPABILITY_LIST), 0);
}

TEST_F(Config, MsiIsTheGuests) {
  // Not what the host has set up.
  EXPECT_EQ(read<std::uint16_t>(msi + PCI_MSI_FLAGS), 0x184);
  EXPECT_EQ(read<std::uint32_t>(msi + PCI_MSI_ADDRESS_LO), 0U);
  EXPECT_TRUE(config.msi().empty());

  write<std::uint32_t>(msi + PCI_MSI_ADDRESS_LO, 0xfee02003);
  write<std::uint32_t>(msi + PCI_MSI_ADDRESS_HI, 1);
  write<std::uint16_t>(msi + PCI_MSI_DATA_64, 0x4142);
  EXPECT_TRUE(config.msi().empty());
  write<std::uint16_t>(msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
  using Vectors = std::vector<PciConfig::MsiVector>;
  EXPECT_EQ(config.msi(), (Vectors{{{0x1fee02000, 0x4142}, false}}));
  EXPECT_EQ(read<std::uint16_t>(msi + PCI_MSI_FLAGS), 0x185);

  // Two vectors, of which the second is masked; the device has the lowest bit of the data.
  write<std::uint16_t>(msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | 1 << 4);
  write<std::uint32_t>(msi + PCI_MSI_MASK_64, 0xfffffff2);
  EXPECT_EQ(read<std::uint32_t>(msi + PCI_MSI_MASK_64), 2U);
  write<std::uint16_t>(msi + PCI_MSI_DATA_64, 0x4143);
  EXPECT_EQ(config.msi(), (Vectors{{{0x1fee02000, 0x4142}, false}, {{0x1fee02000, 0x4143}, true}}));

  // More than there are.
  write<std::uint16_t>(msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE | 7 << 4);
  EXPECT_EQ(config.msi().size(), 4U);
  write<std::uint16_t>(msi + PCI_MSI_FLAGS, 7 << 4);
  EXPECT_TRUE(config.msi().empty());
}

TEST_F(Config, MsiOf32BitsHasItsDataAtTheSecondPlace) {
  put<std::uint16_t>(space, msi + PCI_MSI_FLAGS, 0);
  config = PciConfig::create(space, sizes).value();
  EXPECT_FALSE(config.is_ours(msi + 10));
  write<std::uint32_t>(msi + PCI_MSI_ADDRESS_LO, 0xfee00000);
  write<std::uint16_t>(msi + PCI_MSI_DATA_32, 0x31);
  write<std::uint16_t>(msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_ENABLE);
  EXPECT_EQ(config.msi(), (std::vector<PciConfig::MsiVector>{{{0xfee00000, 0x31}, false}}));
}

TEST_F(Config, MsiThatRunsOutOfTheSpaceIsTakenOut) {
  Space odd = device();
  put<std::uint8_t>(odd, PCI_CAPABILITY_LIST, 0xf8);
  put<std::uint32_t>(odd, 0xf8, PCI_CAP_ID_MSI | PCI_MSI_FLAGS_64BIT << 16);
  space = odd;
  config = PciConfig::create(space, sizes).value();
  EXPECT_EQ(read<std::uint8_t>(PCI_CAPABILITY_LIST), 0);
  EXPECT_FALSE(config.is_ours(0xfa));
}

TEST(PciConfig, BridgesAndOddSizesAreRefused) {
  Space bridge = device();
  put<std::uint8_t>(bridge, PCI_HEADER_TYPE, 1);
  EXPECT_EQ(PciConfig::create(bridge, sizes).error(),
            (vmm_base::Error{"PCI header type", EINVAL, 1}));
  auto odd = sizes;
  odd[2] = 4097;
  EXPECT_EQ(PciConfig::create(device(), odd).error(), (vmm_base::Error{"PCI BAR", ENOTSUP, 2}));
}

// Sanitizers watch.
TEST(PciConfig, TakesAnyBytesOfTheDeviceAndTheGuest) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    Space space{};
    for (auto& byte : space) byte = std::byte(random());
    put<std::uint8_t>(space, PCI_HEADER_TYPE, 0);
    if (round % 2 != 0) put<std::uint16_t>(space, PCI_STATUS, PCI_STATUS_CAP_LIST);
    // So that there are chains.
    for (std::size_t at = 0x34; at < 256; at += 4) {
      if (random() % 3 == 0) space[at] = std::byte(random() % 20);
    }
    std::array<std::uint64_t, 6> any{};
    for (auto& size : any) size = std::uint64_t{1} << random() % 64;
    auto config = PciConfig::create(space, any);
    ASSERT_TRUE(config);
    for (int i = 0; i < 20; ++i) {
      const std::size_t size = std::size_t{1} << random() % 3;
      const std::size_t at = random() % (256 / size) * size;
      const auto value = static_cast<std::uint32_t>(random());
      config.value().write(at, std::as_bytes(std::span(&value, 1)).first(size));
      for (const auto& bar : config.value().bars()) {
        ASSERT_EQ(bar.address.value & (bar.size - 1) & ~std::uint64_t{15}, 0U);
      }
      ASSERT_LE(config.value().msi().size(), 32U);
    }
  }
}

// --- the root ---

struct FakeFunction {
  std::map<std::size_t, unsigned>* log;  // offset -> what was written there last
  std::byte name;
  void read_config(std::size_t offset, std::span<std::byte> bytes) {
    for (auto& byte : bytes) byte = name ^ std::byte(offset++);
  }
  void write_config(std::size_t offset, std::span<const std::byte> bytes) {
    unsigned value = 0;
    std::memcpy(&value, bytes.data(), bytes.size());
    log->insert_or_assign(offset, value);
  }
  bool read_memory(Gpa gpa, std::span<std::byte> bytes) {
    std::fill(bytes.begin(), bytes.end(), name);
    return gpa.value == std::to_integer<unsigned>(name);
  }
  bool write_memory(Gpa gpa, std::span<const std::byte> bytes) {
    if (gpa.value != std::to_integer<unsigned>(name)) return false;
    log->insert_or_assign(gpa.value, std::to_integer<unsigned>(bytes[0]));
    return true;
  }
};

struct Root : testing::Test {
  std::map<std::size_t, unsigned> first, second;
  PciRoot<FakeFunction> root{{{&first, std::byte{0xa0}}, {&second, std::byte{0x50}}}};

  void out(std::uint16_t port, std::uint32_t value, std::size_t size) {
    root.out(port, std::as_bytes(std::span(&value, 1)).first(size));
  }
  std::uint32_t in(std::uint16_t port, std::size_t size) {
    std::uint32_t value = 0;
    root.in(port, std::as_writable_bytes(std::span(&value, 1)).first(size));
    return value;
  }
  void address(std::uint32_t device, std::uint32_t offset) {
    out(0xcf8, 1u << 31 | device << 11 | offset, 4);
  }
};

TEST_F(Root, IsAtEightPorts) {
  for (unsigned port = 0; port < 0x10000; ++port) {
    EXPECT_EQ(root.is_port(static_cast<std::uint16_t>(port)), port >= 0xcf8 && port <= 0xcff);
  }
}

TEST_F(Root, TheAddressIsWrittenAsAWholeOnly) {
  out(0xcf8, 0x80000800, 4);
  EXPECT_EQ(in(0xcf8, 4), 0x80000800U);
  out(0xcfb, 0x01, 1);  // How Linux asks whether it is mechanism #1.
  out(0xcf8, 0x1234, 2);
  out(0xcfa, 0, 4);
  EXPECT_EQ(in(0xcf8, 4), 0x80000800U);
  EXPECT_EQ(in(0xcf8, 2), 0xffffU);
  EXPECT_EQ(in(0xcf9, 1), 0xffU);
}

TEST_F(Root, DeviceZeroIsAHostBridge) {
  address(0, 0);
  EXPECT_EQ(in(0xcfc, 4), 0x00081b36U);
  address(0, PCI_CLASS_REVISION);
  EXPECT_EQ(in(0xcfe, 2), 0x0600U);
  address(0, 0x10);
  EXPECT_EQ(in(0xcfc, 4), 0U);
  out(0xcfc, 0xffffffff, 4);
  EXPECT_EQ(in(0xcfc, 4), 0U);
  EXPECT_TRUE(first.empty() && second.empty());
}

TEST_F(Root, FunctionsFollowInTheirOrder) {
  address(1, 0x44);
  EXPECT_EQ(in(0xcfc, 4), 0xe7e6e5e4U);
  EXPECT_EQ(in(0xcfd, 1), 0xe5U);
  EXPECT_EQ(in(0xcfe, 2), 0xe7e6U);
  out(0xcfe, 0xabcd, 2);
  EXPECT_EQ(first[0x46], 0xabcdU);
  address(2, 0xfc);
  out(0xcff, 0x77, 1);
  EXPECT_EQ(second[0xff], 0x77U);
  EXPECT_EQ(first.size() + second.size(), 2U);
}

TEST_F(Root, ElsewhereNobodyIsAtHome) {
  const auto nobody = [&](std::uint32_t value) {
    out(0xcf8, value, 4);
    out(0xcfc, 1, 4);
    EXPECT_EQ(in(0xcfc, 4), 0xffffffffU) << std::hex << value;
  };
  nobody(0x80001800);  // device 3
  nobody(0x80000900);  // function 1
  nobody(0x80010800);  // bus 1
  nobody(0x81000800);  // register 0x100, as AMD has it
  nobody(0x00000800);  // not enabled
  address(1, 0x40);
  EXPECT_EQ(in(0xcfe, 4), 0xffffffffU);  // beyond the register
  out(0xcff, 1, 2);
  EXPECT_TRUE(first.empty() && second.empty());
}

TEST_F(Root, MemoryIsTheFunctionsThatTakesIt) {
  std::array<std::byte, 4> bytes{};
  root.read_memory(Gpa{0x50}, bytes);
  EXPECT_EQ(bytes[3], std::byte{0x50});
  root.read_memory(Gpa{0x60}, bytes);
  EXPECT_EQ(bytes[3], std::byte{0xff});
  bytes[0] = std::byte{9};
  root.write_memory(Gpa{0xa0}, bytes);
  root.write_memory(Gpa{0x60}, bytes);
  EXPECT_EQ(first[0xa0], 9U);
  EXPECT_EQ(first.size() + second.size(), 1U);
}

// --- the routing table ---

TEST(GsiRoutingTable, BeginsWithThePinsAsKvmRoutesThem) {
  const auto table = gsi_routing_table({});
  ASSERT_EQ(table.size(), 40U);
  const auto is = [&](std::uint32_t gsi, std::uint32_t chip, std::uint32_t pin) {
    return std::any_of(table.begin(), table.end(), [&](const kvm_irq_routing_entry& entry) {
      return entry.gsi == gsi && entry.type == KVM_IRQ_ROUTING_IRQCHIP &&
             entry.u.irqchip.irqchip == chip && entry.u.irqchip.pin == pin;
    });
  };
  EXPECT_TRUE(is(4, KVM_IRQCHIP_PIC_MASTER, 4));
  EXPECT_TRUE(is(12, KVM_IRQCHIP_PIC_SLAVE, 4));
  EXPECT_TRUE(is(4, KVM_IRQCHIP_IOAPIC, 4));
  EXPECT_TRUE(is(23, KVM_IRQCHIP_IOAPIC, 23));
}

TEST(GsiRoutingTable, HasEachRouteThatWasSet) {
  const auto table =
      gsi_routing_table({{24, MsiRoute{0x1fee02000, 0x4142}}, {26, EventRoute{{9}, {3}}}});
  ASSERT_EQ(table.size(), 42U);
  EXPECT_EQ(table[40].gsi, 24U);
  EXPECT_EQ(table[40].type, std::uint32_t{KVM_IRQ_ROUTING_MSI});
  EXPECT_EQ(table[40].u.msi.address_lo, 0xfee02000U);
  EXPECT_EQ(table[40].u.msi.address_hi, 1U);
  EXPECT_EQ(table[40].u.msi.data, 0x4142U);
  EXPECT_EQ(table[41].gsi, 26U);
  EXPECT_EQ(table[41].type, std::uint32_t{KVM_IRQ_ROUTING_XEN_EVTCHN});
  EXPECT_EQ(table[41].u.xen_evtchn.port, 9U);
  EXPECT_EQ(table[41].u.xen_evtchn.vcpu, 3U);
}

}  // namespace
}  // namespace vmm_reference
