// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/memory_map.hpp"

#include <gtest/gtest.h>

namespace linux_loader {
namespace {

constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t gib = 1 << 30;

TEST(PcMemoryMap, LeavesOutTheHoleBelowOneMebibyte) {
  EXPECT_EQ(pc_memory_map(512 * mib), (std::vector<MemoryRange>{
                                          {{0}, 0xa0000, MemoryType::ram},
                                          {{0xa0000}, 0x60000, MemoryType::reserved},
                                          {{mib}, 511 * mib, MemoryType::ram},
                                      }));
}

TEST(PcMemoryMap, PutsTheRestAboveTheDevices) {
  EXPECT_EQ(pc_memory_map(3 * gib).size(), 3u);
  EXPECT_EQ(pc_memory_map(3 * gib)[2].size, 3 * gib - mib);
  const auto map = pc_memory_map(3 * gib + 2 * mib);
  ASSERT_EQ(map.size(), 4u);
  EXPECT_EQ(map[2], (MemoryRange{{mib}, 3 * gib - mib, MemoryType::ram}));
  EXPECT_EQ(map[3], (MemoryRange{{4 * gib}, 2 * mib, MemoryType::ram}));
}

TEST(PcMemoryMap, IsBackedByAsMuchAsWasAskedFor) {
  for (const std::uint64_t size : {2 * mib, 3 * gib, 3 * gib + mib, 100 * gib}) {
    EXPECT_EQ(pc_ram(size).low + pc_ram(size).high, size);
    EXPECT_LE(pc_ram(size).low, 3 * gib);
  }
  EXPECT_EQ(pc_ram(3 * gib).high, 0u);
}

}  // namespace
}  // namespace linux_loader
