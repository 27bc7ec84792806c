// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A kernel of each form, the RAM that it is loaded to, and whether it is there.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <vector>

#include "fake_kernel.hpp"
#include "linux_loader/boot.hpp"

namespace linux_loader::test {

inline constexpr std::uint64_t ram_size = 8 << 20;
inline const std::vector<MemoryRange> map = pc_memory_map(ram_size);
inline const Bytes vmlinux = Vmlinux().with_pvh().bytes();
inline const Bytes vmlinuz = bzimage(pack(Codec::zstd, vmlinux));

inline LinuxConfig config(std::span<const std::byte> kernel, Entry entry = Entry::pvh) {
  return {.kernel = kernel, .memory_map = map, .entry = entry};
}

inline void expect_refused(const LinuxConfig& config, const char* message) {
  MappedRam ram;
  const auto state = load_linux(ram, config);
  ASSERT_FALSE(state) << message;
  EXPECT_EQ(state.error().message(), message);
}

// The segments of Vmlinux, and zeros between and after them.
inline void expect_loaded(const Ram& ram, std::uint64_t from = 0x101000,
                          std::uint64_t until = 0x106800) {
  for (std::uint64_t at = from; at < until; ++at) {
    std::byte expected{};
    if (at >= 0x101000 && at < 0x103800) expected = Vmlinux::content(at - 0x101000 + 0x1000);
    if (at >= 0x103800 && at < 0x104a34) expected = Vmlinux::content(at - 0x103800 + 0x4000);
    ASSERT_EQ(ram.get<std::byte>(at), expected) << std::hex << at;
  }
}

}  // namespace linux_loader::test
