// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/acpi.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <string>

namespace linux_loader {
namespace {

using Bytes = std::vector<std::byte>;
using vmm_base::Gpa;

template <class T>
T get(std::span<const std::byte> bytes, std::size_t at) {
  T value{};
  EXPECT_LE(at + sizeof value, bytes.size());
  if (at + sizeof value <= bytes.size()) std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}
std::string text(std::span<const std::byte> bytes, std::size_t at, std::size_t size) {
  return {reinterpret_cast<const char*>(bytes.data()) + at, size};
}
unsigned sum(std::span<const std::byte> bytes) {
  unsigned total = 0;
  for (const std::byte byte : bytes) total += std::to_integer<unsigned>(byte);
  return total & 0xff;
}
Bytes bytes_of(std::initializer_list<int> values) {
  Bytes bytes;
  for (const int value : values) bytes.push_back(std::byte(value));
  return bytes;
}

// The tables as a guest finds them: from the RSDP, by the XSDT, by signature.
struct Tables {
  explicit Tables(const AcpiConfig& config) : all(acpi_tables(config)) {
    xsdt = table_at(get<std::uint64_t>(all, 24));
    for (std::size_t at = 36; at < xsdt.size(); at += 8) add(get<std::uint64_t>(xsdt, at));
    add(get<std::uint64_t>(tables["FACP"], 140));
  }
  void add(std::uint64_t address) {
    const Bytes table = table_at(address);
    tables[text(table, 0, 4)] = table;
  }
  [[nodiscard]] Bytes table_at(std::uint64_t address) const {
    EXPECT_EQ(address % 8, 0u);
    const std::uint64_t at = address - rsdp_gpa.value;
    const auto size = get<std::uint32_t>(all, at + 4);
    EXPECT_LE(at + size, all.size());
    return {all.begin() + static_cast<long>(at), all.begin() + static_cast<long>(at + size)};
  }

  Bytes all;
  Bytes xsdt;
  std::map<std::string, Bytes> tables;
};

constexpr std::array<AcpiCpu, 3> three_cpus{{{{0}, {0}}, {{1}, {2}}, {{2}, {4}}}};

TEST(AcpiTables, AreFoundFromTheRsdp) {
  const Tables found({.cpus = three_cpus});
  EXPECT_EQ(text(found.all, 0, 8), "RSD PTR ");
  EXPECT_EQ(get<std::uint8_t>(found.all, 15), 2);    // revision
  EXPECT_EQ(get<std::uint32_t>(found.all, 16), 0u);  // no RSDT
  EXPECT_EQ(get<std::uint32_t>(found.all, 20), 36u);
  EXPECT_EQ(text(found.xsdt, 0, 4), "XSDT");
  EXPECT_EQ(get<std::uint8_t>(found.xsdt, 8), 1);
  ASSERT_EQ(found.tables.size(), 3u);
  EXPECT_TRUE(found.tables.contains("FACP"));
  EXPECT_TRUE(found.tables.contains("APIC"));
  EXPECT_TRUE(found.tables.contains("DSDT"));
}

TEST(AcpiTables, AddUpToZero) {
  const Tables found({.cpus = three_cpus, .cmos_rtc = true});
  EXPECT_EQ(sum(std::span(found.all).first(20)), 0u);
  EXPECT_EQ(sum(std::span(found.all).first(36)), 0u);
  EXPECT_EQ(sum(found.xsdt), 0u);
  for (const auto& [name, table] : found.tables) EXPECT_EQ(sum(table), 0u) << name;
}

TEST(AcpiTables, FadtNamesTheRegistersForPowerOffAndReset) {
  const Bytes fadt = Tables({.cpus = three_cpus}).tables["FACP"];
  ASSERT_EQ(fadt.size(), 276u);
  EXPECT_EQ(get<std::uint8_t>(fadt, 8), 6);
  EXPECT_EQ(get<std::uint8_t>(fadt, 131), 4);
  EXPECT_EQ(get<std::uint32_t>(fadt, 40), 0u);     // DSDT: by the 64-bit field alone
  EXPECT_EQ(get<std::uint16_t>(fadt, 109), 0x24);  // no VGA, no CMOS RTC; no 8042
  EXPECT_EQ(get<std::uint32_t>(fadt, 112), 0x100431u);
  const auto port_register = [](int low, int high) {
    return bytes_of({1, 8, 0, 1, low, high, 0, 0, 0, 0, 0, 0});
  };
  const auto field = [&](std::size_t at) {
    return Bytes(fadt.begin() + static_cast<long>(at), fadt.begin() + static_cast<long>(at) + 12);
  };
  EXPECT_EQ(field(116), port_register(0x64, 0));
  EXPECT_EQ(get<std::uint8_t>(fadt, 128), 0xfe);
  EXPECT_EQ(field(244), port_register(0x00, 0x06));
  EXPECT_EQ(field(256), port_register(0x01, 0x06));
  for (const std::size_t legacy :
       std::array<std::size_t, 8>{148, 160, 172, 184, 196, 208, 220, 232}) {
    EXPECT_EQ(field(legacy), Bytes(12)) << legacy;
  }
}

TEST(AcpiTables, FadtSaysWhetherThereIsAClock) {
  EXPECT_EQ(get<std::uint16_t>(Tables({.cpus = three_cpus, .cmos_rtc = true}).tables["FACP"], 109),
            0x04);
}

TEST(AcpiTables, MadtHasXensVcpuIdsAsUids) {
  const Bytes madt = Tables({.cpus = three_cpus}).tables["APIC"];
  EXPECT_EQ(get<std::uint8_t>(madt, 8), 5);
  EXPECT_EQ(get<std::uint32_t>(madt, 36), 0xfee00000u);
  EXPECT_EQ(get<std::uint32_t>(madt, 40), 0u);
  EXPECT_EQ(Bytes(madt.begin() + 44, madt.end()),
            bytes_of({
                0, 8,  0,    0, 1, 0, 0,    0,                 // UID 0, APIC id 0, enabled
                0, 8,  1,    2, 1, 0, 0,    0,                 // 1, 2
                0, 8,  2,    4, 1, 0, 0,    0,                 // 2, 4
                1, 12, 0,    0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0,  // IOAPIC
                2, 10, 0,    0, 2, 0, 0,    0,    0, 0,        // ISA 0 is GSI 2
                4, 6,  0xff, 0, 0, 1,                          // NMI
            }));
}

TEST(AcpiTables, MadtTellsIdsFrom255OnByX2Apic) {
  constexpr std::array<AcpiCpu, 4> cpus{{{{0}, {0}}, {{254}, {254}}, {{255}, {3}}, {{2}, {0x1ff}}}};
  const Bytes madt = Tables({.cpus = cpus}).tables["APIC"];
  EXPECT_EQ(Bytes(madt.begin() + 52, madt.begin() + 92),
            bytes_of({
                0, 8,  254, 254, 1,    0, 0, 0,                            //
                9, 16, 0,   0,   3,    0, 0, 0, 1, 0, 0, 0, 255, 0, 0, 0,  //
                9, 16, 0,   0,   0xff, 1, 0, 0, 1, 0, 0, 0, 2,   0, 0, 0,  //
            }));
}

TEST(AcpiTables, DsdtHasS5AndTheSerialPort) {
  const Bytes dsdt = Tables({.cpus = three_cpus}).tables["DSDT"];
  EXPECT_EQ(get<std::uint8_t>(dsdt, 8), 2);
  EXPECT_EQ(Bytes(dsdt.begin() + 36, dsdt.end()),
            bytes_of({
                0x08, '_',  'S',  '5',  '_',  0x12, 7,    4,    0x0a, 5,    0,   0,    0,    //
                0x5b, 0x82, 49,   '\\', '.',  '_',  'S',  'B',  '_',  'C',  'O', 'M',  '1',  //
                0x08, '_',  'H',  'I',  'D',  0x0c, 0x41, 0xd0, 0x05, 0x01,                  //
                0x08, '_',  'U',  'I',  'D',  0x00,                                          //
                0x08, '_',  'C',  'R',  'S',  0x11, 16,   0x0a, 13,                          //
                0x47, 1,    0xf8, 3,    0xf8, 3,    1,    8,    0x22, 0x10, 0,   0x79, 0,    //
            }));
}

TEST(AcpiTables, DsdtHasTheClockWhereThereIsOne) {
  const Bytes dsdt = Tables({.cpus = three_cpus, .cmos_rtc = true}).tables["DSDT"];
  EXPECT_EQ(Bytes(dsdt.begin() + 100, dsdt.end()),
            bytes_of({
                0x5b, 0x82, 46,   '\\', '.',  '_',  'S',  'B',  '_',  'R',  'T', 'C', '_',  //
                0x08, '_',  'H',  'I',  'D',  0x0c, 0x41, 0xd0, 0x0b, 0x00,                 //
                0x08, '_',  'U',  'I',  'D',  0x00,                                         //
                0x08, '_',  'C',  'R',  'S',  0x11, 13,   0x0a, 10,                         //
                0x47, 1,    0x70, 0,    0x70, 0,    1,    2,    0x79, 0,                    //
            }));
}

constexpr AcpiPciRoot pci_root{Gpa{0xc0000000}, 0x3ec00000};

TEST(AcpiTables, DsdtHasThePciRootWhereThereIsOne) {
  const Bytes dsdt = Tables({.cpus = three_cpus, .pci_root = pci_root}).tables["DSDT"];
  EXPECT_EQ(
      Bytes(dsdt.begin() + 100, dsdt.end()),
      bytes_of({
          0x5b, 0x82, 0x49, 0x05, '\\', '.',  '_',  'S',  'B',  '_',  'P',  'C',  'I', '0',   //
          0x08, '_',  'H',  'I',  'D',  0x0c, 0x41, 0xd0, 0x0a, 0x03,                         //
          0x08, '_',  'U',  'I',  'D',  0x00,                                                 //
          0x08, '_',  'C',  'R',  'S',  0x11, 55,   0x0a, 52,                                 //
          0x88, 13,   0,    2,    0x0c, 0,    0,    0,    0,    0,    0,    0,    0,   0,     //
          1,    0,                                                                            //
          0x47, 1,    0xf8, 0x0c, 0xf8, 0x0c, 1,    8,                                        //
          0x87, 23,   0,    0,    0x0c, 1,    0,    0,    0,    0,    0,    0,    0,   0xc0,  //
          0xff, 0xff, 0xbf, 0xfe, 0,    0,    0,    0,    0,    0,    0xc0, 0x3e,             //
          0x79, 0,                                                                            //
      }));
}

TEST(IsPoweroff, IsSleepTypeFiveWithItsEnableBit) {
  for (unsigned value = 0; value < 256; ++value) {
    const bool s5 = (value & 0x20) != 0 && (value >> 2 & 7) == 5;
    EXPECT_EQ(is_poweroff(static_cast<std::uint8_t>(value)), s5) << value;
  }
}

struct Memory {
  vmm_base::Result<void> write(Gpa to, std::span<const std::byte> data) {
    if (full) return vmm_base::Error{"write", EFAULT, to.value};
    if (to == reset_vector_gpa) {
      reset.assign(data.begin(), data.end());
      return vmm_base::success();
    }
    at = to;
    bytes.assign(data.begin(), data.end());
    return vmm_base::success();
  }
  vmm_base::Result<void> fill_zero(Gpa, std::uint64_t) { return vmm_base::success(); }
  Gpa at;
  Bytes bytes;
  Bytes reset;
  bool full = false;
};

TEST(WriteAcpiTables, PutsThemWhereTheRsdpIsToBe) {
  Memory memory;
  ASSERT_TRUE(write_acpi_tables(memory, {.cpus = three_cpus}));
  EXPECT_EQ(memory.at, rsdp_gpa);
  EXPECT_EQ(memory.bytes, acpi_tables({.cpus = three_cpus}));
  // mov al, 0xfe; out 0x64, al; hlt; jmp to the hlt
  EXPECT_EQ(memory.reset, bytes_of({0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd}));
  memory.full = true;
  EXPECT_EQ(write_acpi_tables(memory, {.cpus = three_cpus}).error().code, EFAULT);
}

TEST(WriteAcpiTables, RefusesNoCpusAndIdsGivenTwice) {
  Memory memory;
  const auto code_of = [&](std::span<const AcpiCpu> cpus) {
    return write_acpi_tables(memory, {.cpus = cpus}).error().code;
  };
  EXPECT_EQ(code_of({}), EINVAL);
  EXPECT_EQ(code_of(std::array<AcpiCpu, 2>{{{{0}, {0}}, {{0}, {1}}}}), EINVAL);
  EXPECT_EQ(code_of(std::array<AcpiCpu, 2>{{{{0}, {1}}, {{1}, {1}}}}), EINVAL);
  EXPECT_TRUE(memory.bytes.empty());
}

TEST(WriteAcpiTables, RefusesAPciWindowThatIsEmptyOrNotBelow4GiB) {
  Memory memory;
  const auto with = [&](std::uint64_t start, std::uint64_t size) {
    return write_acpi_tables(memory,
                             {.cpus = three_cpus, .pci_root = AcpiPciRoot{Gpa{start}, size}});
  };
  EXPECT_EQ(with(0xc0000000, 0).error(), (vmm_base::Error{"ACPI tables", EINVAL, 0xc0000000}));
  EXPECT_EQ(with(0xc0000000, 0x40000001).error().code, EINVAL);
  EXPECT_EQ(with(0x100000000, 4096).error().code, EINVAL);
  EXPECT_TRUE(memory.bytes.empty());
  EXPECT_TRUE(with(0xc0000000, 0x40000000));
}

TEST(WriteAcpiTables, HasRoomForAsManyCpusAsKvmAndRefusesMoreThanItHas) {
  Memory memory;
  std::vector<AcpiCpu> cpus;
  for (std::uint32_t i = 0; i < 4096; ++i) cpus.push_back({{i}, {i}});
  EXPECT_TRUE(write_acpi_tables(memory, {.cpus = cpus}));
  EXPECT_LE(memory.bytes.size(), 0x1fff0u);
  for (std::uint32_t i = 4096; i < 8400; ++i) cpus.push_back({{i}, {i}});
  EXPECT_EQ(write_acpi_tables(memory, {.cpus = cpus}).error().code, ENOSPC);
}

// ACPICA, which Linux reads them with, understands all of it and has nothing to object to.
TEST(Iasl, ReadsTheTablesAndWouldWriteTheSame) {
  if (std::system("iasl -v > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << "iasl isn't installed: apt install acpica-tools";
  }
  std::string folder = "/tmp/acpi_test.XXXXXX";
  ASSERT_NE(::mkdtemp(folder.data()), nullptr);
  constexpr std::array<AcpiCpu, 2> cpus{{{{0}, {0}}, {{1}, {300}}}};
  Tables found({.cpus = cpus, .cmos_rtc = true, .pci_root = pci_root});
  found.tables["XSDT"] = found.xsdt;
  for (const auto& [name, table] : found.tables) {
    std::ofstream(folder + "/" + name + ".aml", std::ios::binary)
        .write(reinterpret_cast<const char*>(table.data()), static_cast<long>(table.size()));
    const std::string in = "cd " + folder + " && iasl ";
    const std::string log = " > " + name + ".log 2>&1";
    EXPECT_EQ(std::system((in + "-d " + name + ".aml" + log).c_str()), 0);
    // -oa: without optimizations, so that the bytes can be compared.
    EXPECT_EQ(std::system((in + "-oa -p again " + name + ".dsl >>" + log.substr(2)).c_str()), 0);
    std::ostringstream said;
    said << std::ifstream(folder + "/" + name + ".log").rdbuf();
    EXPECT_EQ(said.str().find("Warning "), std::string::npos) << said.str();
    EXPECT_EQ(said.str().find("Incorrect checksum"), std::string::npos) << said.str();
    EXPECT_NE(said.str().find("0 Errors, 0 Warnings"), std::string::npos) << said.str();
    std::ostringstream again;
    again << std::ifstream(folder + "/again.aml", std::ios::binary).rdbuf();
    // iasl puts its own name and version, and so another sum, into the header.
    const std::string bytes = again.str();
    ASSERT_EQ(bytes.size(), table.size()) << name;
    EXPECT_EQ(bytes.substr(36), text(table, 36, table.size() - 36)) << name;
  }
  EXPECT_EQ(std::system(("rm -rf " + folder).c_str()), 0);
}

}  // namespace
}  // namespace linux_loader
