// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// ACPI tables for a small machine: what Linux needs to find its CPUs, IOAPIC and serial port, to
// power off and to reboot. ACPI 6.4, the hardware-reduced kind: no PM1 registers, SCI, or PM timer,
// and Linux doesn't look for an 8259 or PIT.
//
//   write_acpi_tables(memory, {.cpus = cpus});   // then tell the kernel where: config.rsdp =
//   rsdp_gpa
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "linux_loader/guest_memory.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"

namespace linux_loader {

// The UID is what Linux, as a Xen guest, calls the vCPU in hypercalls: it has to be what CPUID leaf
// 4 of Xen's says, and KVM's Xen vCPU id.
struct AcpiCpu {
  vmm_base::XenVcpuId uid;
  vmm_base::KvmVcpuId apic_id;
};

// The root of a PCI bus with configuration mechanism #1, at ports 0xcf8 to 0xcff: bus 0, and no
// other. It has no interrupt pins, so devices use MSI.
struct AcpiPciRoot {
  vmm_base::Gpa memory;       // Where BARs are, or may be put by the guest …
  std::uint64_t memory_size;  // … in bytes; whole pages, below 4 GiB.
};

struct AcpiConfig {
  std::span<const AcpiCpu> cpus;  // The boot vCPU first.
  // Whether ports 0x70 and 0x71 are a clock. Linux takes a Xen guest without one for PVH.
  bool cmos_rtc = false;
  std::optional<AcpiPciRoot> pci_root{};
};

// What the tables promise, for the VMM to keep. GSIs are the IOAPIC's pins.
inline constexpr vmm_base::Gpa ioapic_gpa{0xfec00000};  // 24 pins; id 0
inline constexpr vmm_base::Gpa local_apic_gpa{0xfee00000};
inline constexpr std::uint16_t com1_port = 0x3f8;  // 8 ports: a 16550A
inline constexpr std::uint32_t com1_gsi = 4;       // edge-triggered, active high
inline constexpr std::uint16_t sleep_control_port = 0x600;
inline constexpr std::uint16_t sleep_status_port = 0x601;  // Reads as 0.
inline constexpr std::uint16_t reset_port = 0x64;          // An i8042's, as a PC resets by.
inline constexpr std::uint8_t reset_value = 0xfe;

// Whether what the guest wrote to sleep_control_port powers the machine off: state S5.
constexpr bool is_poweroff(std::uint8_t value) noexcept {
  constexpr unsigned sleep_enable = 0x20;
  constexpr unsigned sleep_type = 5 << 2;
  return (value & 0x3c) == (sleep_enable | sleep_type);
}

// The RSDP is the first; all of it lies in [rsdp_gpa, 1 MiB), which the memory map has as reserved.
inline constexpr vmm_base::Gpa rsdp_gpa{0xe0000};

// Where a PC's processor starts after a reset. With hardware-reduced ACPI and without EFI, Linux
// reboots by a jump to it, in real mode: code there writes reset_value to reset_port.
inline constexpr vmm_base::Gpa reset_vector_gpa{0xffff0};

// Writes the tables, and the code at reset_vector_gpa. EINVAL: no CPU, or a CPU's id given twice;
// or, operand its address, a PCI window that is empty or not below 4 GiB. ENOSPC, operand the size
// in bytes: too many CPUs, some 8000. Else what the memory says.
[[nodiscard]] vmm_base::Result<void> write_acpi_tables(GuestMemoryRef memory,
                                                       const AcpiConfig& config);

// The tables as bytes to put at rsdp_gpa. `config` isn't checked.
[[nodiscard]] std::vector<std::byte> acpi_tables(const AcpiConfig& config);

}  // namespace linux_loader
