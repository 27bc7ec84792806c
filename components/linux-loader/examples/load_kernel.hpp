// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "linux_loader/acpi.hpp"
#include "linux_loader/boot.hpp"

using namespace linux_loader;

// RAM from address 0.
class Memory {
 public:
  explicit Memory(std::size_t size) : bytes_(size) {}

  vmm_base::Result<void> write(vmm_base::Gpa to, std::span<const std::byte> data) {
    if (!contains(to, data.size())) return vmm_base::Error{"write", EFAULT, to.value};
    std::memcpy(bytes_.data() + to.value, data.data(), data.size());
    return vmm_base::success();
  }
  vmm_base::Result<void> fill_zero(vmm_base::Gpa to, std::uint64_t size) {
    if (!contains(to, size)) return vmm_base::Error{"fill_zero", EFAULT, to.value};
    std::memset(bytes_.data() + to.value, 0, size);
    return vmm_base::success();
  }

 private:
  bool contains(vmm_base::Gpa to, std::uint64_t size) const {
    return to.value <= bytes_.size() && size <= bytes_.size() - to.value;
  }
  std::vector<std::byte> bytes_;
};

// Debian's kernel; then set the boot vCPU's registers and segments from the CpuState. The others
// wait for INIT.
template <class Ram>
LoadResult<CpuState> boot_debian(Ram& memory, std::span<const std::byte> vmlinuz,
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
