// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "linux_loader/acpi.hpp"
#include "linux_loader/boot.hpp"

using namespace linux_loader;

// Debian's kernel; then set the boot vCPU's registers and segments from the CpuState. The others
// wait for INIT.
template <class Memory>
LoadResult<CpuState> boot_debian(Memory& memory, std::span<const std::byte> vmlinuz,
                                 std::span<const std::byte> initrd, std::uint64_t ram_size,
                                 std::span<const AcpiCpu> cpus) {
  if (!write_acpi_tables(memory, {.cpus = cpus})) {
    return LoadError{"can't hold ACPI tables", rsdp_gpa.value, "guest memory"};
  }
  const auto map = pc_memory_map(ram_size);
  return load_linux(memory, {.kernel = vmlinuz,
                             .initramfs = initrd,
                             .cmdline = "console=ttyS0",
                             .memory_map = map,
                             .rsdp = rsdp_gpa,
                             .entry = Entry::pvh});
}
