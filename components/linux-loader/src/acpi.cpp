// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Chapters and tables are those of the ACPI specification, version 6.4.
#include "linux_loader/acpi.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <numeric>
#include <string_view>

namespace linux_loader {
namespace {

using Bytes = std::vector<std::byte>;

constexpr std::size_t header_size = 36;
constexpr std::size_t length_offset = 4;
constexpr std::size_t checksum_offset = 9;
constexpr std::size_t rsdp_size = 36;
constexpr std::uint64_t most_bytes = reset_vector_gpa.value - rsdp_gpa.value;

template <class T>
void put(Bytes& to, std::size_t at, T value) {
  std::memcpy(to.data() + at, &value, sizeof value);
}
void put(Bytes& to, std::size_t at, std::string_view text) {
  std::memcpy(to.data() + at, text.data(), text.size());
}
void append(Bytes& to, std::initializer_list<std::uint8_t> bytes) {
  for (const std::uint8_t byte : bytes) to.push_back(std::byte(byte));
}
template <class T>
void append_value(Bytes& to, T value) {
  to.resize(to.size() + sizeof value);
  put(to, to.size() - sizeof value, value);
}

// What makes the bytes add up to 0.
std::uint8_t checksum(std::span<const std::byte> bytes) {
  return static_cast<std::uint8_t>(-std::accumulate(
      bytes.begin(), bytes.end(), 0u,
      [](unsigned sum, std::byte byte) { return sum + std::to_integer<unsigned>(byte); }));
}

// 5.2.6, System Description Table Header.
Bytes table(std::string_view signature, std::uint8_t revision, std::size_t size = header_size) {
  Bytes bytes(size);
  put(bytes, 0, signature);
  put(bytes, 8, revision);
  put(bytes, 10, std::string_view("CPPVMM"));    // OEM ID
  put(bytes, 16, std::string_view("CPPVMM  "));  // OEM table ID
  put(bytes, 24, std::uint32_t{1});              // OEM revision
  put(bytes, 28, std::string_view("CPPV"));      // creator ID
  put(bytes, 32, std::uint32_t{1});              // creator revision
  return bytes;
}

Bytes finished(Bytes bytes) {
  put(bytes, length_offset, static_cast<std::uint32_t>(bytes.size()));
  put(bytes, checksum_offset, std::uint8_t{0});
  put(bytes, checksum_offset, checksum(bytes));
  return bytes;
}

// 5.2.3.2, Generic Address Structure: an 8-bit port.
void put_port(Bytes& to, std::size_t at, std::uint16_t port) {
  constexpr std::uint8_t system_io = 1;
  constexpr std::uint8_t byte_access = 1;
  put(to, at, system_io);
  put(to, at + 1, std::uint8_t{8});  // bits
  put(to, at + 3, byte_access);
  put(to, at + 4, std::uint64_t{port});
}

// 5.2.9, table 5.9.
Bytes fadt(const AcpiConfig& config, std::uint64_t dsdt) {
  constexpr std::uint16_t no_vga = 1 << 2;
  constexpr std::uint16_t no_cmos_rtc = 1 << 5;
  constexpr std::uint32_t wbinvd = 1 << 0;
  constexpr std::uint32_t no_power_button = 1 << 4;
  constexpr std::uint32_t no_sleep_button = 1 << 5;
  constexpr std::uint32_t reset_register_supported = 1 << 10;
  constexpr std::uint32_t hardware_reduced = 1 << 20;
  Bytes bytes = table("FACP", 6, 276);
  put(bytes, 109, static_cast<std::uint16_t>(no_vga | (config.cmos_rtc ? 0 : no_cmos_rtc)));
  put(bytes, 112,
      wbinvd | no_power_button | no_sleep_button | reset_register_supported | hardware_reduced);
  put_port(bytes, 116, reset_port);
  put(bytes, 128, reset_value);
  put(bytes, 131, std::uint8_t{4});  // minor version
  put(bytes, 140, dsdt);             // X_DSDT
  put_port(bytes, 244, sleep_control_port);
  put_port(bytes, 256, sleep_status_port);
  return finished(std::move(bytes));
}

// 5.2.12.
Bytes madt(const AcpiConfig& config) {
  constexpr std::uint32_t enabled = 1;
  Bytes bytes = table("APIC", 5, header_size + 8);
  put(bytes, 36, static_cast<std::uint32_t>(local_apic_gpa.value));
  for (const AcpiCpu& cpu : config.cpus) {
    // 5.2.12.2; a processor's 8-bit UID and id may not be 255, which means all.
    if (cpu.apic_id.value < 255 && cpu.uid.value < 255) {
      append(bytes, {0, 8, static_cast<std::uint8_t>(cpu.uid.value),
                     static_cast<std::uint8_t>(cpu.apic_id.value)});
      append_value(bytes, enabled);
    } else {  // 5.2.12.12, for x2APIC
      append(bytes, {9, 16, 0, 0});
      append_value(bytes, cpu.apic_id.value);
      append_value(bytes, enabled);
      append_value(bytes, cpu.uid.value);
    }
  }
  append(bytes, {1, 12, 0, 0});  // 5.2.12.3: IOAPIC, id 0, its first GSI is 0
  append_value(bytes, static_cast<std::uint32_t>(ioapic_gpa.value));
  append_value(bytes, std::uint32_t{0});
  // 5.2.12.5: the PIT's interrupt, ISA's 0, is at pin 2, as KVM routes it.
  append(bytes, {2, 10, 0, 0});
  append_value(bytes, std::uint32_t{2});
  append_value(bytes, std::uint16_t{0});
  // 5.2.12.7: NMIs reach LINT1 of all processors.
  append(bytes, {4, 6, 0xff, 0, 0, 1});
  return finished(std::move(bytes));
}

constexpr std::uint8_t name_op = 0x08;
constexpr std::uint8_t byte_prefix = 0x0a;
constexpr std::uint8_t dword_prefix = 0x0c;
constexpr std::uint8_t buffer_op = 0x11;
constexpr std::uint8_t package_op = 0x12;
constexpr std::uint8_t ext_op = 0x5b;
constexpr std::uint8_t device_op = 0x82;

// A package of up to 4093 bytes with its length, 20.2.4.
void append_package(Bytes& to, std::initializer_list<std::uint8_t> op, const Bytes& content) {
  append(to, op);
  if (content.size() + 1 < 0x40) {
    append(to, {static_cast<std::uint8_t>(content.size() + 1)});
  } else {
    const std::size_t length = content.size() + 2;
    append(to, {static_cast<std::uint8_t>(0x40 | (length & 0xf)),
                static_cast<std::uint8_t>(length >> 4)});
  }
  to.insert(to.end(), content.begin(), content.end());
}

// 6.4.2.5: an I/O port descriptor that decodes 16 bits.
void append_ports(Bytes& to, std::uint16_t first, std::uint8_t count) {
  const auto low = static_cast<std::uint8_t>(first & 0xff);
  const auto high = static_cast<std::uint8_t>(first >> 8);
  append(to, {0x47, 1, low, high, low, high, 1, count});
}

// 6.4.3.5.3: a range of bus numbers, as a WORD address space descriptor. Produced, with fixed ends.
void append_bus(Bytes& to, std::uint16_t bus) {
  append(to, {0x88, 13, 0, 2, 0x0c, 0});
  for (const std::uint16_t value :
       {std::uint16_t{0}, bus, bus, std::uint16_t{0}, std::uint16_t{1}}) {
    append_value(to, value);
  }
}

// 6.4.3.5.2: a range of memory, as a DWORD address space descriptor. The same; non-cacheable, to be
// read and written.
void append_memory(Bytes& to, std::uint32_t first, std::uint32_t last) {
  append(to, {0x87, 23, 0, 0, 0x0c, 1});
  for (const std::uint32_t value : {0u, first, last, 0u, last - first + 1}) append_value(to, value);
}

// \_SB_.NAME, the PNP device `pnp`: an EISA id, which has the product's number in the upper half.
void append_device(Bytes& to, std::string_view name, std::uint16_t pnp, Bytes resources) {
  append(resources, {0x79, 0});  // 6.4.2.9: the end
  Bytes buffer;
  append(buffer, {byte_prefix, static_cast<std::uint8_t>(resources.size())});
  buffer.insert(buffer.end(), resources.begin(), resources.end());

  Bytes device;
  append(device, {'\\', '.', '_', 'S', 'B', '_'});
  for (const char c : name) device.push_back(std::byte(c));
  append(device, {name_op, '_', 'H', 'I', 'D', dword_prefix, 0x41, 0xd0,  // "PNP"
                  static_cast<std::uint8_t>(pnp >> 8), static_cast<std::uint8_t>(pnp & 0xff)});
  append(device, {name_op, '_', 'U', 'I', 'D', 0});
  append(device, {name_op, '_', 'C', 'R', 'S'});
  append_package(device, {buffer_op}, buffer);
  append_package(to, {ext_op, device_op}, device);
}

// In ASL:
//   Name (_S5_, Package () {5, 0, 0, 0})
//   Device (\_SB_.COM1) {
//     Name (_HID, EisaId ("PNP0501"))
//     Name (_UID, 0)
//     Name (_CRS, ResourceTemplate () { IO (Decode16, 0x3f8, 0x3f8, 1, 8)  IRQNoFlags () {4} })
//   }
// and with a clock the like for RTC_, PNP0B00, IO (Decode16, 0x70, 0x70, 1, 2). It has no
// interrupt. With a PCI root:
//   Device (\_SB_.PCI0) {
//     Name (_HID, EisaId ("PNP0A03"))
//     Name (_UID, 0)
//     Name (_CRS, ResourceTemplate () {
//       WordBusNumber (ResourceProducer, MinFixed, MaxFixed, PosDecode, 0, 0, 0, 0, 1)
//       IO (Decode16, 0xcf8, 0xcf8, 1, 8)
//       DWordMemory (ResourceProducer, PosDecode, MinFixed, MaxFixed, NonCacheable, ReadWrite,
//                    0, memory, memory + memory_size - 1, 0, memory_size)
//     })
//   }
Bytes dsdt(const AcpiConfig& config) {
  Bytes bytes = table("DSDT", 2);
  append(bytes, {name_op, '_', 'S', '5', '_'});
  Bytes s5;
  append(s5, {4, byte_prefix, 5, 0, 0, 0});
  append_package(bytes, {package_op}, s5);

  Bytes com1;
  append_ports(com1, com1_port, 8);
  append(com1, {0x22, 1 << com1_gsi, 0});  // 6.4.2.1: an IRQ
  append_device(bytes, "COM1", 0x0501, com1);
  if (config.cmos_rtc) {
    Bytes rtc;
    append_ports(rtc, 0x70, 2);
    append_device(bytes, "RTC_", 0x0b00, rtc);
  }
  if (config.pci_root) {
    Bytes root;
    append_bus(root, 0);
    append_ports(root, 0xcf8, 8);
    const std::uint64_t first = config.pci_root->memory.value;
    append_memory(root, static_cast<std::uint32_t>(first),
                  static_cast<std::uint32_t>(first + config.pci_root->memory_size - 1));
    append_device(bytes, "PCI0", 0x0a03, root);
  }
  return finished(std::move(bytes));
}

// Real-mode code: outb(reset_value, reset_port), then hlt for ever.
constexpr std::array<std::uint8_t, 7> reset_code{0xb0, reset_value, 0xe6, reset_port,
                                                 0xf4, 0xeb,        0xfd};
static_assert(reset_port < 256);

}  // namespace

std::vector<std::byte> acpi_tables(const AcpiConfig& config) {
  Bytes all(rsdp_size);
  // Puts a table at the next address that is a multiple of 8.
  const auto place = [&](const Bytes& bytes) {
    all.resize((all.size() + 7) / 8 * 8);
    const std::uint64_t address = rsdp_gpa.value + all.size();
    all.insert(all.end(), bytes.begin(), bytes.end());
    return address;
  };
  const std::uint64_t dsdt_address = place(dsdt(config));
  const std::uint64_t fadt_address = place(fadt(config, dsdt_address));
  const std::uint64_t madt_address = place(madt(config));
  Bytes xsdt = table("XSDT", 1);  // 5.2.8
  append_value(xsdt, fadt_address);
  append_value(xsdt, madt_address);
  const std::uint64_t xsdt_address = place(finished(std::move(xsdt)));

  // 5.2.5.3; the first sum is of the 20 bytes that ACPI 1.0 had, the second of all.
  put(all, 0, std::string_view("RSD PTR "));
  put(all, 9, std::string_view("CPPVMM"));
  put(all, 15, std::uint8_t{2});  // revision
  put(all, 20, static_cast<std::uint32_t>(rsdp_size));
  put(all, 24, xsdt_address);
  put(all, 8, checksum(std::span(all).first(20)));
  put(all, 32, checksum(std::span(all).first(rsdp_size)));
  return all;
}

vmm_base::Result<void> write_acpi_tables(GuestMemoryRef memory, const AcpiConfig& config) {
  const auto is_unique = [&](auto member) {
    std::vector<std::uint32_t> ids;
    for (const AcpiCpu& cpu : config.cpus) ids.push_back((cpu.*member).value);
    std::sort(ids.begin(), ids.end());
    return std::adjacent_find(ids.begin(), ids.end()) == ids.end();
  };
  if (config.cpus.empty() || !is_unique(&AcpiCpu::uid) || !is_unique(&AcpiCpu::apic_id)) {
    return vmm_base::Error{"ACPI tables", EINVAL, config.cpus.size()};
  }
  if (config.pci_root) {
    constexpr std::uint64_t end = std::uint64_t{4} << 30;
    const auto& [start, size] = *config.pci_root;
    if (size == 0 || start.value >= end || size > end - start.value) {
      return vmm_base::Error{"ACPI tables", EINVAL, start.value};
    }
  }
  const Bytes bytes = acpi_tables(config);
  if (bytes.size() > most_bytes) return vmm_base::Error{"ACPI tables", ENOSPC, bytes.size()};
  VMM_CHECK(memory.write(rsdp_gpa, bytes));
  return memory.write(reset_vector_gpa, std::as_bytes(std::span(reset_code)));
}

}  // namespace linux_loader
