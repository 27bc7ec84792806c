// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a PVH guest is told at boot: xen/arch-x86/hvm/start_info.h, version 1.
#pragma once

#include <cstdint>

namespace linux_loader::pvh {

inline constexpr std::uint32_t magic = 0x336ec578;

struct StartInfo {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint32_t flags;
  std::uint32_t nr_modules;
  std::uint64_t modlist_paddr;
  std::uint64_t cmdline_paddr;
  std::uint64_t rsdp_paddr;
  std::uint64_t memmap_paddr;
  std::uint32_t memmap_entries;
  std::uint32_t reserved;
};

struct Module {
  std::uint64_t paddr;
  std::uint64_t size;
  std::uint64_t cmdline_paddr;
  std::uint64_t reserved;
};

struct MemoryMapEntry {
  std::uint64_t addr;
  std::uint64_t size;
  std::uint32_t type;
  std::uint32_t reserved;
};

static_assert(sizeof(StartInfo) == 56 && sizeof(Module) == 32 && sizeof(MemoryMapEntry) == 24);

}  // namespace linux_loader::pvh
