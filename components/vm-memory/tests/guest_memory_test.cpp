// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vm_memory/guest_memory.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

namespace vm_memory {
namespace {

constexpr std::uint64_t page = vmm_base::page_size;

// Two adjoining regions, a hole, a third.
struct Memory : testing::Test {
  GuestMemory memory =
      GuestMemory::create({{Gpa{0}, page}, {Gpa{page}, page}, {Gpa{4 * page}, page}}).value();
  std::array<std::byte, 16> bytes{};
};

TEST_F(Memory, ReadsBackWhatWasWritten) {
  bytes.fill(std::byte{0x5a});
  ASSERT_TRUE(memory.write(Gpa{100}, bytes));
  std::array<std::byte, 16> back{};
  ASSERT_TRUE(memory.read(Gpa{100}, back));
  EXPECT_EQ(back, bytes);
}

TEST_F(Memory, CopiesAcrossAdjoiningRegions) {
  bytes.fill(std::byte{7});
  ASSERT_TRUE(memory.write(Gpa{page - 8}, bytes));
  EXPECT_EQ(*memory.host(Gpa{page - 1}, 1), std::byte{7});
  EXPECT_EQ(*memory.host(Gpa{page + 7}, 1), std::byte{7});
  EXPECT_EQ(*memory.host(Gpa{page + 8}, 1), std::byte{0});
}

TEST_F(Memory, RefusesHolesEndsAndWrapAroundNamingTheAddress) {
  EXPECT_EQ(memory.read(Gpa{2 * page - 8}, bytes).error(),
            (vmm_base::Error{"guest memory access", EFAULT, 2 * page}));
  EXPECT_EQ(memory.read(Gpa{3 * page}, bytes).error().operand, 3 * page);
  EXPECT_FALSE(memory.write(Gpa{5 * page - 1}, bytes));
  EXPECT_FALSE(memory.read(Gpa{~0ull - 3}, bytes));
  EXPECT_FALSE(memory.fill_zero(Gpa{4 * page}, ~0ull));
}

TEST_F(Memory, HostPointersStayWithinOneRegion) {
  EXPECT_NE(memory.host(Gpa{4 * page}, page), nullptr);
  EXPECT_EQ(memory.host(Gpa{4 * page}, page + 1), nullptr);
  EXPECT_EQ(memory.host(Gpa{4 * page + 1}, ~0ull), nullptr);
  EXPECT_EQ(memory.host(Gpa{2 * page}, 1), nullptr);
}

TEST_F(Memory, AnEmptyCopyTouchesNothing) {
  EXPECT_TRUE(memory.read(Gpa{3 * page}, std::span<std::byte>{}));
}

TEST(GuestMemoryCreate, RefusesBadRanges) {
  EXPECT_FALSE(GuestMemory::create({{Gpa{0}, 0}}));
  EXPECT_FALSE(GuestMemory::create({{Gpa{1}, page}}));
  EXPECT_FALSE(GuestMemory::create({{Gpa{0}, page + 1}}));
  EXPECT_FALSE(GuestMemory::create({{Gpa{0}, 2 * page}, {Gpa{page}, page}}));
  EXPECT_FALSE(GuestMemory::create({{Gpa{~0ull << 12}, page}}));
}

// proc(5): "dd" is VM_DONTDUMP.
TEST(GuestMemoryCreate, KeepsGuestMemoryOutOfCoreDumps) {
  const auto memory = GuestMemory::create({{Gpa{0}, 16 * page}}).value();
  std::ostringstream start;
  start << std::hex << reinterpret_cast<std::uintptr_t>(memory.host(Gpa{0}, page)) << '-';
  std::ifstream smaps("/proc/self/smaps");
  bool ours = false;
  std::string flags;
  for (std::string line; std::getline(smaps, line);) {
    if (line.find('-') == line.find_first_not_of("0123456789abcdef")) {
      ours = line.compare(0, start.str().size(), start.str()) == 0;
    } else if (ours && line.compare(0, 8, "VmFlags:") == 0) {
      flags = line;
    }
  }
  EXPECT_NE(flags.find(" dd"), std::string::npos) << flags;
}

}  // namespace
}  // namespace vm_memory
