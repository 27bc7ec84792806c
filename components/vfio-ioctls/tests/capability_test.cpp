// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_ioctls/capability.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include "info.hpp"
#include "print.hpp"

namespace vfio_ioctls {
namespace {

using vmm_base::Error;
using vmm_base::Result;

// An answer of the kernel, put together piece by piece.
class Answer {
 public:
  template <class T>
  Answer& add(const T& piece) {
    const auto* first = reinterpret_cast<const std::byte*>(&piece);
    bytes_.insert(bytes_.end(), first, first + sizeof(T));
    return *this;
  }
  Answer& header(std::uint16_t id, std::uint32_t next) {
    return add(vfio_info_cap_header{id, 1, next});
  }
  Answer& u32(std::uint32_t value) { return add(value); }
  Answer& u64(std::uint64_t value) { return add(value); }
  [[nodiscard]] std::span<const std::byte> span() const { return bytes_; }
  [[nodiscard]] const std::vector<std::byte>& bytes() const { return bytes_; }

 private:
  std::vector<std::byte> bytes_;
};

vfio_region_info region(std::uint64_t size, std::uint32_t cap_offset) {
  vfio_region_info info{};
  info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_MMAP;
  if (cap_offset != 0) info.flags |= VFIO_REGION_INFO_FLAG_CAPS;
  info.index = 2;
  info.cap_offset = cap_offset;
  info.size = size;
  info.offset = 2ULL << 40;
  return info;
}
constexpr std::uint32_t end_of_region = sizeof(vfio_region_info);
static_assert(end_of_region == 32);

constexpr char call[] = "VFIO_DEVICE_GET_REGION_INFO";

// The ids that a walk comes by, or its error.
Result<std::vector<std::uint16_t>> walk(std::span<const std::byte> answer, std::uint32_t first) {
  std::vector<std::uint16_t> ids;
  VMM_CHECK(walk_capabilities(call, answer, end_of_region, first,
                              [&](const Capability& capability) -> Result<void> {
                                ids.push_back(capability.id);
                                return vmm_base::success();
                              }));
  return ids;
}

TEST(Capabilities, AreVisitedInTheChainsOrder) {
  Answer answer;
  answer.add(region(4096, 48)).header(1, 0).u64(0).header(2, 64).u64(0).header(3, 32).u64(0);
  auto ids = walk(answer.span(), 48);
  ASSERT_TRUE(ids);
  EXPECT_EQ(ids.value(), (std::vector<std::uint16_t>{2, 3, 1}));
}

TEST(Capabilities, NoneIsNoError) {
  Answer answer;
  answer.add(region(4096, 0));
  EXPECT_TRUE(walk(answer.span(), 0).value().empty());
}

TEST(Capabilities, ThatLoopEnd) {
  Answer itself, two;
  itself.add(region(4096, 32)).header(7, 32);
  EXPECT_EQ(walk(itself.span(), 32).error(), (Error{call, EBADMSG, 32}));
  two.add(region(4096, 32)).header(7, 40).header(8, 32);
  EXPECT_EQ(walk(two.span(), 32).error().code, EBADMSG);
}

TEST(Capabilities, OutsideTheAnswerAreRefusedNamingTheOffset) {
  Answer answer;
  answer.add(region(4096, 32)).header(1, 0);
  ASSERT_EQ(answer.span().size(), 40U);
  for (const std::uint32_t first : {1U, 8U, 31U, 33U, 39U, 40U, 41U, 0x7fffffffU, 0xffffffffU}) {
    EXPECT_EQ(walk(answer.span(), first).error(), (Error{call, EBADMSG, first})) << first;
  }
  for (const std::uint32_t next : {4U, 36U, 40U, 0xfffffff8U}) {
    Answer second;
    second.add(region(4096, 32)).header(1, next);
    EXPECT_EQ(walk(second.span(), 32).error(), (Error{call, EBADMSG, next})) << next;
  }
}

TEST(Capabilities, AVisitorsErrorEndsTheWalk) {
  Answer answer;
  answer.add(region(4096, 32)).header(1, 40).header(2, 0);
  int visits = 0;
  auto walked = walk_capabilities(call, answer.span(), end_of_region, 32,
                                  [&](const Capability&) -> Result<void> {
                                    ++visits;
                                    return Error{"mine", EIO, 1};
                                  });
  EXPECT_EQ(walked.error(), (Error{"mine", EIO, 1}));
  EXPECT_EQ(visits, 1);
}

TEST(Capabilities, PartsThatDontFitAreNone) {
  Answer answer;
  answer.header(1, 0).u32(11).u32(22);
  const Capability capability{1, 1, answer.span()};
  EXPECT_TRUE(capability.as<vfio_info_cap_header>());
  EXPECT_EQ(capability.as<vfio_region_info_cap_type>()->subtype, 22U);
  EXPECT_FALSE(capability.as<vfio_region_info>());
  EXPECT_EQ(capability.element<std::uint32_t>(8, 1), 22U);
  EXPECT_FALSE(capability.element<std::uint32_t>(8, 2));
  EXPECT_FALSE(capability.element<std::uint32_t>(17, 0));
  EXPECT_FALSE(capability.element<std::uint32_t>(8, std::numeric_limits<std::size_t>::max()));
}

// --- Regions ---------------------------------------------------------------

TEST(RegionInfo, WithoutCapabilities) {
  Answer answer;
  answer.add(region(4096, 0));
  auto info = decode_region_info(answer.span());
  ASSERT_TRUE(info);
  EXPECT_EQ(info.value().index, 2U);
  EXPECT_EQ(info.value().size, 4096U);
  EXPECT_EQ(info.value().offset, 2ULL << 40);
  EXPECT_FALSE(info.value().sparse_areas || info.value().type || info.value().msix_mappable);
}

TEST(RegionInfo, HasAreasTypeAndMsix) {
  Answer answer;
  answer.add(region(0x10000, 32));
  answer.header(VFIO_REGION_INFO_CAP_SPARSE_MMAP, 80).u32(2).u32(0);
  answer.u64(0).u64(0x4000).u64(0x8000).u64(0x8000);
  answer.header(VFIO_REGION_INFO_CAP_TYPE, 96).u32(0x80008086).u32(1);
  answer.header(VFIO_REGION_INFO_CAP_MSIX_MAPPABLE, 104);
  answer.header(999, 0);  // One that isn't known is passed over.
  auto info = decode_region_info(answer.span());
  ASSERT_TRUE(info);
  EXPECT_EQ(info.value().sparse_areas, (std::vector<RegionArea>{{0, 0x4000}, {0x8000, 0x8000}}));
  EXPECT_EQ(info.value().type, (RegionType{0x80008086, 1}));
  EXPECT_TRUE(info.value().msix_mappable);
}

TEST(RegionInfo, NoAreasAtAllIsNotTheSameAsNoSuchCapability) {
  Answer answer;
  answer.add(region(4096, 32)).header(VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0).u32(0).u32(0);
  auto info = decode_region_info(answer.span());
  ASSERT_TRUE(info);
  ASSERT_TRUE(info.value().sparse_areas);
  EXPECT_TRUE(info.value().sparse_areas->empty());
}

TEST(RegionInfo, AreasThatArentThereOrInTheRegionAreRefused) {
  struct {
    std::uint32_t count;
    std::uint64_t offset, size;
  } const wrong[] = {{2, 0, 4096}, {0xffffffff, 0, 4096}, {1, 0, 4097}, {1, 4097, 0},
                     {1, 4095, 2}, {1, ~0ULL, 2},         {1, 1, ~0ULL}};
  for (const auto& area : wrong) {
    Answer answer;
    answer.add(region(4096, 32)).header(VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0).u32(area.count).u32(0);
    answer.u64(area.offset).u64(area.size);
    EXPECT_EQ(decode_region_info(answer.span()).error(), (Error{call, EBADMSG, 32}))
        << area.count << ' ' << area.offset << ' ' << area.size;
  }
}

TEST(RegionInfo, TruncatedCapabilitiesAreRefused) {
  Answer type, sparse;
  type.add(region(4096, 32)).header(VFIO_REGION_INFO_CAP_TYPE, 0).u32(1);
  EXPECT_EQ(decode_region_info(type.span()).error(), (Error{call, EBADMSG, 32}));
  sparse.add(region(4096, 32)).header(VFIO_REGION_INFO_CAP_SPARSE_MMAP, 0);
  EXPECT_EQ(decode_region_info(sparse.span()).error(), (Error{call, EBADMSG, 32}));
  EXPECT_EQ(decode_region_info(sparse.span().first(31)).error(), (Error{call, EBADMSG, 31}));
}

TEST(RegionInfo, MoreThanAFileCanHoldIsRefused) {
  auto info = region(std::uint64_t{1} << 63, 0);
  Answer answer;
  answer.add(info);
  EXPECT_EQ(decode_region_info(answer.span()).error().code, EBADMSG);
  info.size = 4096;
  info.offset = ~0ULL - 100;
  Answer wrapping;
  wrapping.add(info);
  EXPECT_EQ(decode_region_info(wrapping.span()).error().code, EBADMSG);
}

TEST(RegionInfo, AnyBytesAreAnAnswerOrAnError) {
  std::mt19937 engine(20260611);
  const auto random = [&] { return static_cast<std::uint32_t>(engine()); };
  for (int round = 0; round < 20000; ++round) {
    Answer answer;
    auto info = region(random() % 65536, 32 + random() % 8 * 4);
    info.offset = random() % 2 == 0 ? 0 : ~0ULL / (random() % 8 + 1);
    answer.add(info);
    for (unsigned words = random() % 40; words > 0; --words) {
      answer.u32(random() % 2 == 0 ? random() % 160 : random());
    }
    const auto decoded = decode_region_info(answer.span());
    if (!decoded) continue;
    for (const auto& area : decoded.value().sparse_areas.value_or(std::vector<RegionArea>{})) {
      ASSERT_LE(area.offset, decoded.value().size);
      ASSERT_LE(area.size, decoded.value().size - area.offset);
    }
  }
}

// --- IOMMU -----------------------------------------------------------------

vfio_iommu_type1_info iommu(std::uint32_t cap_offset) {
  vfio_iommu_type1_info info{};
  info.flags = VFIO_IOMMU_INFO_PGSIZES | (cap_offset != 0 ? VFIO_IOMMU_INFO_CAPS : 0U);
  info.iova_pgsizes = 0x40201000;
  info.cap_offset = cap_offset;
  return info;
}

TEST(IommuInfo, HasPageSizesRangesAndMappingsLeft) {
  Answer answer;
  answer.add(iommu(24)).header(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 72).u32(2).u32(0);
  answer.u64(0).u64(0xfedfffff).u64(0xfef00000).u64(~0ULL);
  answer.header(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 0).u32(65535);
  auto info = decode_iommu_info(answer.span());
  ASSERT_TRUE(info);
  EXPECT_EQ(info.value().page_sizes, 0x40201000U);
  EXPECT_EQ(info.value().iova_ranges,
            (std::vector<IovaRange>{{Iova{0}, Iova{0xfedfffff}}, {Iova{0xfef00000}, Iova{~0ULL}}}));
  EXPECT_EQ(info.value().dma_available, 65535U);
}

TEST(IommuInfo, WrongSizesAreRefused) {
  Answer ranges, backwards, available;
  ranges.add(iommu(24)).header(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 0).u32(2).u32(0);
  ranges.u64(0).u64(1);
  EXPECT_EQ(decode_iommu_info(ranges.span()).error(), (Error{"VFIO_IOMMU_GET_INFO", EBADMSG, 24}));
  backwards.add(iommu(24)).header(VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE, 0).u32(1).u32(0);
  backwards.u64(2).u64(1);
  EXPECT_EQ(decode_iommu_info(backwards.span()).error().code, EBADMSG);
  available.add(iommu(24)).header(VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL, 0);
  EXPECT_EQ(decode_iommu_info(available.span()).error().code, EBADMSG);
  EXPECT_EQ(decode_iommu_info(available.span().first(23)).error().code, EBADMSG);
}

// --- Reading: a kernel that is made up -------------------------------------

TEST(ReadInfo, AsksAgainWithAllTheRoomThatIsWanted) {
  std::vector<std::uint32_t> rooms;
  auto answer = read_info(call, region(4096, 0), [&](vfio_region_info* info) -> Result<int> {
    rooms.push_back(info->argsz);
    EXPECT_EQ(info->index, 2U);
    if (info->argsz < 100) {
      info->argsz = 100;
    } else {
      reinterpret_cast<char*>(info)[99] = 'x';
    }
    return 0;
  });
  ASSERT_TRUE(answer);
  EXPECT_EQ(rooms, (std::vector<std::uint32_t>{32, 100}));
  ASSERT_EQ(answer.value().size(), 100U);
  EXPECT_EQ(answer.value()[99], std::byte{'x'});
}

TEST(ReadInfo, GivesUpOnAKernelThatWantsEverMoreOrTooMuch) {
  int calls = 0;
  auto ever_more = read_info(call, region(4096, 0), [&](vfio_region_info* info) -> Result<int> {
    ++calls;
    info->argsz += 8;
    return 0;
  });
  EXPECT_EQ(ever_more.error().code, EBADMSG);
  EXPECT_EQ(calls, 4);
  auto too_much = read_info(call, region(4096, 0), [&](vfio_region_info* info) -> Result<int> {
    info->argsz = 0xffffffff;
    return 0;
  });
  EXPECT_EQ(too_much.error(), (Error{call, EBADMSG, 0xffffffff}));
}

TEST(ReadInfo, PassesTheCallsErrorOn) {
  auto failed = read_info(call, region(4096, 0), [](vfio_region_info*) -> Result<int> {
    return Error{call, EINVAL, 9};
  });
  EXPECT_EQ(failed.error(), (Error{call, EINVAL, 9}));
}

}  // namespace
}  // namespace vfio_ioctls
