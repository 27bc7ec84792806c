// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Loads Linux with all it wants at boot: kernel, initramfs, command line, memory map.
//
//   auto state = linux_loader::load_linux(memory, {.kernel = vmlinuz, .cmdline = "console=ttyS0",
//                                                  .memory_map = pc_memory_map(512 << 20)});
//   if (!state) return fail(state.error().message());
//
// The kernel is a bzImage, as in /boot, or a vmlinux. No byte of it is trusted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "linux_loader/cpu_state.hpp"
#include "linux_loader/guest_memory.hpp"
#include "linux_loader/load_error.hpp"
#include "linux_loader/memory_map.hpp"
#include "vmm_base/guest_address.hpp"

namespace linux_loader {

// How the boot vCPU enters the kernel. The first two unpack a bzImage here, on the host.
enum class Entry {
  pvh,           // 32-bit, at the kernel's PVH note, told by Xen's start info.
  linux64,       // 64-bit, at the entry point of vmlinux, told by boot parameters.
  decompressor,  // 64-bit, at the bzImage's own, which unpacks itself in the guest: slow.
};

struct LinuxConfig {
  std::span<const std::byte> kernel;
  std::span<const std::byte> initramfs = {};     // Empty: none.
  std::string_view cmdline = {};                 // At most 2047 bytes, none of them 0.
  std::span<const MemoryRange> memory_map = {};  // At most 127 ranges.
  vmm_base::Gpa rsdp = {};                       // From write_acpi_tables(); 0: no ACPI.
  Entry entry = Entry::pvh;
};

// What the loader writes below 1 MiB, all within [0x500, 0x21000): the GDT at 0x500, then either
// the start info, or the boot parameters and page tables.
inline constexpr vmm_base::Gpa start_info_gpa{0x6000};
inline constexpr vmm_base::Gpa boot_params_gpa{0x7000};
inline constexpr vmm_base::Gpa cmdline_gpa{0x20000};

// Fills guest memory and says what the boot vCPU starts with. The initramfs goes below 4 GiB, page
// aligned, as high as it can. After an error memory may hold a part; don't run that guest.
[[nodiscard]] LoadResult<CpuState> load_linux(GuestMemoryRef memory, const LinuxConfig& config);

}  // namespace linux_loader
