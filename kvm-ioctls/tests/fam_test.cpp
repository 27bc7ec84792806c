// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Structures of variable length, and a kernel that says what isn't so of theirs.
#include "kvm_ioctls/fam.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace kvm_ioctls {
namespace {

template <class Buffer>
struct EveryBuffer : testing::Test {};
using Buffers =
    testing::Types<Cpuid, Msrs, MsrList, IrqRouting, RegList, PmuEventFilter, SignalMask>;
TYPED_TEST_SUITE(EveryBuffer, Buffers);

TYPED_TEST(EveryBuffer, HasRoomAfterItsHeader) {
  using Entry = typename TypeParam::value_type;
  TypeParam buffer(3);
  EXPECT_EQ(buffer.size(), 3u);
  EXPECT_EQ(buffer.capacity(), 3u);
  EXPECT_EQ(buffer.wanted(), 3u);
  EXPECT_EQ(buffer.end() - buffer.begin(), 3);
  EXPECT_EQ(reinterpret_cast<std::byte*>(buffer.data()),
            reinterpret_cast<std::byte*>(&buffer.header()) + sizeof(buffer.header()));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(buffer.data()) % alignof(Entry), 0u);
  Entry last;
  std::memset(&last, 0x5a, sizeof(last));
  buffer[2] = last;
  EXPECT_EQ(std::memcmp(&buffer[2], &last, sizeof(last)), 0);
  const Entry zero{};
  EXPECT_EQ(std::memcmp(&buffer[0], &zero, sizeof(zero)), 0);
  EXPECT_TRUE(TypeParam().empty());
}

TYPED_TEST(EveryBuffer, SizeIsNeverMoreThanThereIsMemoryFor) {
  TypeParam buffer(2);
  buffer.resize(1);
  EXPECT_EQ(buffer.size(), 1u);
  buffer.resize(1000);
  EXPECT_EQ(buffer.size(), 2u);
  // What a kernel may write there.
  std::memset(buffer.get(), 0xff, sizeof(buffer.header()));
  EXPECT_EQ(buffer.size(), 2u);
  EXPECT_GE(buffer.wanted(), std::numeric_limits<std::uint32_t>::max());
  const TypeParam copy = buffer;
  EXPECT_EQ(copy.size(), 2u);
  EXPECT_EQ(copy.wanted(), 2u);
}

// NOLINTBEGIN(bugprone-use-after-move): what this is about
TYPED_TEST(EveryBuffer, MovedFromIsEmpty) {
  TypeParam buffer(2);
  TypeParam taken = std::move(buffer);
  EXPECT_EQ(taken.size(), 2u);
  for (int i = 0; i != 2; ++i) {
    EXPECT_TRUE(buffer.empty());
    EXPECT_EQ(buffer.capacity(), 0u);
    EXPECT_EQ(buffer.wanted(), 0u);
    EXPECT_EQ(buffer.get(), nullptr);
    EXPECT_EQ(buffer.begin(), buffer.end());
    buffer.resize(1);
    const TypeParam copy = buffer;
    EXPECT_TRUE(copy.empty());
    buffer = TypeParam(std::move(buffer));
  }
  buffer = taken;
  EXPECT_EQ(buffer.size(), 2u);
}
// NOLINTEND(bugprone-use-after-move)

// A size whose bytes don't fit into size_t must not become a small one.
TYPED_TEST(EveryBuffer, TooLargeASizeIsNoMemory) {
  constexpr auto most = std::numeric_limits<std::size_t>::max();
  for (const std::size_t size : {most / sizeof(typename TypeParam::value_type), most}) {
    std::unique_ptr<TypeParam> buffer;  // one that is used, or a compiler needs no memory
    EXPECT_THROW(buffer = std::make_unique<TypeParam>(size), std::bad_alloc);
    EXPECT_EQ(buffer, nullptr);
  }
}

TEST(FamBuffer, CopiesKeepTheRestOfTheHeader) {
  PmuEventFilter filter{0xc0, 0x3c};
  filter.header().action = KVM_PMU_EVENT_DENY;
  const PmuEventFilter copy = filter;
  EXPECT_EQ(copy.header().action, __u32{KVM_PMU_EVENT_DENY});
  EXPECT_EQ(std::vector<__u64>(copy.begin(), copy.end()), (std::vector<__u64>{0xc0, 0x3c}));
  filter[0] = 1;
  EXPECT_EQ(copy[0], 0xc0u);
}

// --- Growing ---

vmm_base::Result<int> too_small() { return vmm_base::Error{"KVM_X", E2BIG, 0}; }

TEST(Grown, UntilThereIsRoom) {
  std::vector<std::size_t> rooms;
  const auto list = detail::grown<MsrList>(4, [&](MsrListHeader* header) {
    rooms.push_back(header->nmsrs);
    if (header->nmsrs < 20) return too_small();
    header->nmsrs = 20;
    return vmm_base::Result<int>(0);
  });
  ASSERT_TRUE(list);
  EXPECT_EQ(list.value().size(), 20u);
  EXPECT_EQ(rooms, (std::vector<std::size_t>{4, 8, 16, 32}));
}

TEST(Grown, ToWhatTheKernelSaysItHas) {
  std::vector<std::size_t> rooms;
  const auto list = detail::grown<RegList>(4, [&](RegListHeader* header) {
    rooms.push_back(header->n);
    const bool fits = header->n >= 100;
    header->n = 100;
    return fits ? vmm_base::Result<int>(0) : too_small();
  });
  ASSERT_TRUE(list);
  EXPECT_EQ(rooms, (std::vector<std::size_t>{4, 100}));
}

// Never more than 65536 entries, and never for ever.
TEST(Grown, NotWithoutEnd) {
  std::vector<std::size_t> rooms;
  const auto list = detail::grown<RegList>(4, [&](RegListHeader* header) {
    rooms.push_back(header->n);
    header->n = ~0ull;
    return too_small();
  });
  EXPECT_EQ(list.error(), (vmm_base::Error{"KVM_X", E2BIG, 0}));
  EXPECT_EQ(rooms, (std::vector<std::size_t>{4, 65536}));
  rooms.clear();
  const auto none = detail::grown<Cpuid>(40000, [&](Cpuid2Header* header) {
    rooms.push_back(header->nent);
    header->nent = 0;
    return too_small();
  });
  EXPECT_EQ(none.error().code, E2BIG);
  EXPECT_EQ(rooms, (std::vector<std::size_t>{40000, 65536}));
}

TEST(Grown, AnotherErrorIsTheCallers) {
  const auto list = detail::grown<MsrList>(4, [](MsrListHeader*) {
    return vmm_base::Result<int>(vmm_base::Error{"KVM_X", EFAULT, 3});
  });
  EXPECT_EQ(list.error(), (vmm_base::Error{"KVM_X", EFAULT, 3}));
}

// A count that is more than there was room for, without an error.
TEST(Grown, AWrongCountIsNotBelieved) {
  const auto list = detail::grown<MsrList>(4, [](MsrListHeader* header) {
    header->nmsrs = 1000;
    return vmm_base::Result<int>(0);
  });
  EXPECT_EQ(list.value().size(), 4u);
}

}  // namespace
}  // namespace kvm_ioctls
