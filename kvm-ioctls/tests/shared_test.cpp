// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the kernel shares by memory or a file, made up here: statistics, rings, registers.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "kvm_ioctls/coalesced_mmio.hpp"
#include "kvm_ioctls/dirty_ring.hpp"
#include "kvm_ioctls/stats.hpp"
#include "kvm_ioctls/sync_regs.hpp"
#include "kvm_ioctls/vm_memory.hpp"
#include "memfd.hpp"

namespace kvm_ioctls {
namespace {

// --- Statistics ---

// A file as KVM_GET_STATS_FD's: header, id, descriptors, data.
struct StatsFile : testing::Test {
  static constexpr std::uint32_t name_size = 16;
  struct Descriptor {
    std::uint32_t flags;
    std::int16_t exponent;
    std::uint16_t size;
    std::uint32_t offset;
    std::uint32_t bucket_size;
    char name[name_size];
  };

  StatsFile() {
    header.name_size = name_size;
    header.id_offset = sizeof(header);
    header.desc_offset = header.id_offset + name_size;
    descriptors = {{KVM_STATS_TYPE_CUMULATIVE, 0, 1, 0, 0, "exits"},
                   {KVM_STATS_TYPE_LOG_HIST | KVM_STATS_UNIT_SECONDS, -9, 3, 8, 0, "halt_wait"},
                   {KVM_STATS_TYPE_LINEAR_HIST | KVM_STATS_UNIT_BYTES | KVM_STATS_BASE_POW2, 12, 2,
                    32, 5, "pages"}};
    data = {41, 1, 2, 3, 7, 8};
  }

  vmm_base::Result<Stats> open() {
    header.num_desc = static_cast<__u32>(descriptors.size());
    header.data_offset =
        static_cast<__u32>(header.desc_offset + descriptors.size() * sizeof(Descriptor));
    return open_as_it_is();
  }
  vmm_base::Result<Stats> open_as_it_is() {
    std::string file(reinterpret_cast<const char*>(&header), sizeof(header));
    char id[name_size] = "kvm-1/vcpu-0";
    file.append(id, sizeof(id));
    file.append(reinterpret_cast<const char*>(descriptors.data()),
                descriptors.size() * sizeof(Descriptor));
    file.append(reinterpret_cast<const char*>(data.data()), data.size() * sizeof(data[0]));
    auto fd = new_memfd(0);
    EXPECT_EQ(::pwrite(fd.get(), file.data(), file.size(), 0), static_cast<ssize_t>(file.size()));
    length = file.size();
    raw = fd.get();
    return Stats::from_fd(std::move(fd));
  }

  kvm_stats_header header{};
  std::vector<Descriptor> descriptors;
  std::vector<std::uint64_t> data;
  std::size_t length = 0;
  int raw = -1;
};

TEST_F(StatsFile, IsReadAsItDescribesItself) {
  const auto opened = open();
  ASSERT_TRUE(opened) << opened.error().message();
  const Stats& stats = opened.value();
  EXPECT_EQ(stats.id(), "kvm-1/vcpu-0");
  ASSERT_EQ(stats.all().size(), 3u);
  EXPECT_EQ(stats.find("exit"), nullptr);
  EXPECT_EQ(stats.read(*stats.find("exits")).value(), (std::vector<std::uint64_t>{41}));
  const Stat& wait = *stats.find("halt_wait");
  EXPECT_EQ(wait.type, Stat::Type::log_histogram);
  EXPECT_EQ(wait.unit, Stat::Unit::seconds);
  EXPECT_EQ(wait.exponent, -9);
  EXPECT_FALSE(wait.power_of_two);
  EXPECT_EQ(stats.read(wait).value(), (std::vector<std::uint64_t>{1, 2, 3}));
  const Stat& pages = *stats.find("pages");
  EXPECT_EQ(pages.type, Stat::Type::linear_histogram);
  EXPECT_EQ(pages.unit, Stat::Unit::bytes);
  EXPECT_TRUE(pages.power_of_two);
  EXPECT_EQ(pages.exponent, 12);
  EXPECT_EQ(pages.bucket_size, 5u);
  EXPECT_EQ(stats.read(pages).value(), (std::vector<std::uint64_t>{7, 8}));
}

TEST_F(StatsFile, OfANewKernelHasTypesThatAreNotNamedHere) {
  descriptors[0].flags = 9 | 10 << KVM_STATS_UNIT_SHIFT | 11 << KVM_STATS_BASE_SHIFT;
  const auto stats = open();
  const Stat& stat = stats.value().all()[0];
  EXPECT_EQ(static_cast<int>(stat.type), 9);
  EXPECT_EQ(static_cast<int>(stat.unit), 10);
  EXPECT_FALSE(stat.power_of_two);
  EXPECT_EQ(stats.value().read(stat).value().at(0), 41u);
}

TEST_F(StatsFile, ANameWithoutItsEndIsCutOff) {
  std::memset(descriptors[0].name, 'x', name_size);
  const auto stats = open();
  EXPECT_EQ(stats.value().all()[0].name, std::string(name_size, 'x'));
  EXPECT_EQ(stats.value().all()[1].name, "halt_wait");
}

TEST_F(StatsFile, MayBeEmpty) {
  descriptors.clear();
  const auto stats = open();
  ASSERT_TRUE(stats) << stats.error().message();
  EXPECT_TRUE(stats.value().all().empty());
}

TEST_F(StatsFile, SizesThatCantBeAreRefused) {
  for (const std::uint32_t wrong : {0u, 4097u, 0xffffffffu}) {
    header.name_size = wrong;
    EXPECT_EQ(open_as_it_is().error(), (vmm_base::Error{"KVM_GET_STATS_FD", EPROTO, wrong}));
  }
  header.name_size = name_size;
  for (const std::uint32_t wrong : {65537u, 0xffffffffu}) {
    header.num_desc = wrong;
    EXPECT_EQ(open_as_it_is().error(), (vmm_base::Error{"KVM_GET_STATS_FD", EPROTO, wrong}));
  }
}

TEST_F(StatsFile, OffsetsOutsideOfItAreItsEnd) {
  constexpr const char* reading = "pread of KVM statistics";
  header.num_desc = 1;
  header.id_offset = 0xfffffff0;
  EXPECT_EQ(open_as_it_is().error(), (vmm_base::Error{reading, EIO, 0xfffffff0}));
  header.id_offset = sizeof(header);
  header.desc_offset = 0x10000;
  EXPECT_EQ(open_as_it_is().error(), (vmm_base::Error{reading, EIO, 0x10000}));
  header.desc_offset = header.id_offset + name_size;
  header.data_offset = 0xffffffff;
  descriptors[0].offset = 0xffffffff;
  const auto stats = open_as_it_is();
  ASSERT_TRUE(stats);
  EXPECT_EQ(stats.value().read(stats.value().all()[0]).error(),
            (vmm_base::Error{reading, EIO, 0x1fffffffe}));
}

TEST_F(StatsFile, EndsEarlyAtAnyByte) {
  ASSERT_TRUE(open());
  const std::size_t whole = length;
  for (std::size_t cut = 0; cut != whole; ++cut) {
    // The same, only shorter.
    auto fd = new_memfd(0);
    std::string file(whole, '\0');
    const auto stats = open();
    ASSERT_EQ(::pread(raw, file.data(), whole, 0), static_cast<ssize_t>(whole));
    ASSERT_EQ(::pwrite(fd.get(), file.data(), cut, 0), static_cast<ssize_t>(cut));
    const auto shorter = Stats::from_fd(std::move(fd));
    if (cut < header.data_offset) {
      ASSERT_FALSE(shorter) << cut;
      EXPECT_EQ(shorter.error().code, EIO) << cut;
      continue;
    }
    ASSERT_TRUE(shorter) << cut;
    EXPECT_FALSE(shorter.value().read(shorter.value().all()[2])) << cut;
  }
}

TEST_F(StatsFile, OfAPipeOrNothingIsAnError) {
  EXPECT_EQ(Stats::from_fd(vmm_base::UniqueFd(-1)).error().code, EBADF);
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const vmm_base::UniqueFd write(pipe[1]);
  EXPECT_EQ(Stats::from_fd(vmm_base::UniqueFd(pipe[0])).error().code, ESPIPE);
}

TEST_F(StatsFile, MovedFromReadsNothing) {
  auto stats = open().assume_value();
  const Stat exits = *stats.find("exits");
  const Stats taken = std::move(stats);
  EXPECT_EQ(stats.read(exits).error().code, EBADF);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(taken.read(exits).value().at(0), 41u);
}

// --- The dirty ring ---

struct Ring : testing::Test {
  static constexpr std::size_t bytes = 4096;
  static constexpr std::uint32_t entries = bytes / sizeof(kvm_dirty_gfn);
  static constexpr off_t at = KVM_DIRTY_LOG_PAGE_OFFSET * off_t{4096};

  Ring() : vcpu(new_memfd(at + bytes)) {
    void* shared = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.get(), at);
    EXPECT_NE(shared, MAP_FAILED);
    kernel = static_cast<kvm_dirty_gfn*>(shared);
  }
  ~Ring() override { ::munmap(kernel, bytes); }

  void dirty(std::uint32_t slot, std::uint64_t page) {
    kernel[next % entries] = {KVM_DIRTY_GFN_F_DIRTY, slot, page};
    ++next;
  }
  std::vector<std::pair<std::uint32_t, std::uint64_t>> harvested(DirtyRing& ring) {
    std::vector<std::pair<std::uint32_t, std::uint64_t>> pages;
    const auto count = ring.harvest(
        [&](std::uint32_t slot, std::uint64_t page) { pages.emplace_back(slot, page); });
    EXPECT_EQ(count, pages.size());
    return pages;
  }

  vmm_base::UniqueFd vcpu;
  kvm_dirty_gfn* kernel;
  std::uint32_t next = 0;
};

TEST_F(Ring, IsHarvestedInOrderAndRound) {
  auto ring = DirtyRing::from_fd(vcpu.get(), bytes).assume_value();
  EXPECT_TRUE(harvested(ring).empty());
  std::uint64_t expected = 0;
  for (std::uint32_t round = 0; round != 5; ++round) {
    for (std::uint32_t i = 0; i != 100; ++i) dirty(0x10002, round * 100 + i);
    for (const auto& [slot, page] : harvested(ring)) {
      EXPECT_EQ(slot, 0x10002u);
      EXPECT_EQ(page, expected++);
    }
    for (std::uint32_t i = 0; i != entries; ++i) {
      const auto flags = kernel[i].flags;
      EXPECT_TRUE(flags == 0 || flags == KVM_DIRTY_GFN_F_RESET) << flags;
      if (flags == KVM_DIRTY_GFN_F_RESET) kernel[i].flags = 0;  // as KVM_RESET_DIRTY_RINGS does
    }
  }
  EXPECT_EQ(expected, 500u);
}

TEST_F(Ring, FullOfEntriesIsHarvestedOnce) {
  auto ring = DirtyRing::from_fd(vcpu.get(), bytes).assume_value();
  for (std::uint32_t i = 0; i != entries; ++i) dirty(1, i);
  EXPECT_EQ(harvested(ring).size(), entries);
  EXPECT_TRUE(harvested(ring).empty()) << "not before they are reset";
}

// A kernel that fills entries as fast as they are harvested keeps nobody for ever.
TEST_F(Ring, HarvestEnds) {
  auto ring = DirtyRing::from_fd(vcpu.get(), bytes).assume_value();
  dirty(1, 0);
  const auto count = ring.harvest([&](std::uint32_t, std::uint64_t) { dirty(1, 0); });
  EXPECT_EQ(count, entries);
}

TEST_F(Ring, FlagsThatCantBeAreNoPage) {
  auto ring = DirtyRing::from_fd(vcpu.get(), bytes).assume_value();
  for (const std::uint32_t flags : {__u32{KVM_DIRTY_GFN_F_RESET}, 3u, 0u, 4u}) {
    kernel[0] = {flags, 1, 2};
    EXPECT_TRUE(harvested(ring).empty()) << flags;
    EXPECT_EQ(kernel[0].flags, flags);
  }
}

TEST_F(Ring, MovedFromHasNoEntries) {
  auto ring = DirtyRing::from_fd(vcpu.get(), bytes).assume_value();
  auto taken = std::move(ring);
  dirty(1, 2);
  EXPECT_TRUE(harvested(ring).empty());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(harvested(taken).size(), 1u);
}

TEST_F(Ring, OfNoBytesOrNoVcpuIsAnError) {
  EXPECT_EQ(DirtyRing::from_fd(vcpu.get(), 0).error(),
            (vmm_base::Error{"mmap of the dirty ring", EINVAL, 0}));
  EXPECT_EQ(DirtyRing::from_fd(-1, bytes).error(),
            (vmm_base::Error{"mmap of the dirty ring", EBADF, bytes}));
}

// --- The ring of coalesced writes ---

struct Coalesced : testing::Test {
  static constexpr std::uint32_t entries = (4096 - 8) / sizeof(kvm_coalesced_mmio);
  struct alignas(8) Page {
    std::uint32_t first;
    std::uint32_t last;
    kvm_coalesced_mmio entry[entries];
    char rest[4096 - 8 - sizeof(kvm_coalesced_mmio) * entries];
  };
  static_assert(sizeof(Page) == 4096);
  Page page{};
  CoalescedMmioRing ring{reinterpret_cast<std::byte*>(&page)};

  void written(std::uint64_t address, std::uint32_t size) {
    auto& entry = page.entry[page.last];
    entry = {};
    entry.phys_addr = address;
    entry.len = size;
    entry.data[0] = static_cast<__u8>(address);
    page.last = (page.last + 1) % entries;
  }
};

TEST_F(Coalesced, WritesAreDrainedInOrderAndRound) {
  std::uint64_t expected = 0;
  for (std::uint64_t round = 0; round != 4; ++round) {
    for (std::uint64_t i = 0; i != 100; ++i) written(round * 100 + i, 1 + i % 8);
    EXPECT_EQ(ring.drain([&](const CoalescedWrite& write) {
      EXPECT_EQ(write.address, expected);
      EXPECT_EQ(write.data.size(), 1 + expected % 100 % 8);
      EXPECT_EQ(write.data[0], std::byte(expected & 0xff));
      ++expected;
    }),
              100u);
    EXPECT_EQ(page.first, page.last);
  }
}

TEST_F(Coalesced, IndicesThatCantBeAreNoWrites) {
  const auto drained = [&] { return ring.drain([](const CoalescedWrite&) {}); };
  page.last = entries;
  EXPECT_EQ(drained(), 0u);
  page.last = 0xffffffff;
  EXPECT_EQ(drained(), 0u);
  page.last = 1;
  page.first = entries;
  EXPECT_EQ(drained(), 0u);
  page.first = 0xffffffff;
  EXPECT_EQ(drained(), 0u);
}

TEST_F(Coalesced, ALengthThatCantBeIsCutOff) {
  written(1, 0xffffffff);
  EXPECT_EQ(ring.drain([](const CoalescedWrite& write) { EXPECT_EQ(write.data.size(), 8u); }), 1u);
}

TEST_F(Coalesced, DrainEndsWhileTheGuestWrites) {
  written(1, 1);
  EXPECT_EQ(ring.drain([&](const CoalescedWrite&) { written(1, 1); }), entries);
}

// --- Registers in the page ---

TEST(SyncRegs, EditsAreToldToTheKernelAndReadingIsNot) {
  kvm_run run{};
  SyncRegs regs(run);
  regs.request(SyncRegs::regs_set | SyncRegs::events_set);
  EXPECT_EQ(run.kvm_valid_regs, 5u);
  run.s.regs.regs.rip = 0x1234;
  EXPECT_EQ(regs.regs().rip, 0x1234u);
  run.s.regs.sregs.cr2 = 0x5678;
  EXPECT_EQ(regs.sregs().cr2, 0x5678u);
  run.s.regs.events.nmi.pending = 1;
  EXPECT_EQ(regs.events().nmi.pending, 1);
  EXPECT_EQ(run.kvm_dirty_regs, 0u);

  regs.edit_regs().rax = 1;
  EXPECT_EQ(run.kvm_dirty_regs, SyncRegs::regs_set);
  regs.edit_sregs().cr3 = 0x2000;
  EXPECT_EQ(run.kvm_dirty_regs, SyncRegs::regs_set | SyncRegs::sregs_set);
  regs.edit_events().nmi.masked = 1;
  EXPECT_EQ(run.kvm_dirty_regs, 7u);
  EXPECT_EQ(run.s.regs.regs.rax, 1u);
  EXPECT_EQ(run.s.regs.sregs.cr3, 0x2000u);
  EXPECT_EQ(run.s.regs.events.nmi.masked, 1);
  regs.request(0);
  EXPECT_EQ(run.kvm_valid_regs, 0u);
}

// --- The bitmap of dirty pages ---

TEST(DirtyBitmap, HasABitForEachPage) {
  DirtyBitmap pages(130);
  EXPECT_EQ(pages.pages(), 130u);
  for (const std::uint64_t page : {0u, 63u, 64u, 129u}) pages.set(page);
  pages.set(130);
  pages.set(~0ull);
  EXPECT_TRUE(pages.test(129));
  EXPECT_FALSE(pages.test(130));
  EXPECT_FALSE(pages.test(~0ull));
  std::vector<std::uint64_t> seen;
  pages.for_each([&](std::uint64_t page) { seen.push_back(page); });
  EXPECT_EQ(seen, (std::vector<std::uint64_t>{0, 63, 64, 129}));
  // The kernel's bit n is bit n % 8 of byte n / 8, little-endian.
  EXPECT_EQ(static_cast<const unsigned char*>(pages.data())[7], 0x80);

  const DirtyBitmap taken = std::move(pages);
  EXPECT_EQ(taken.pages(), 130u);
  pages.set(3);  // NOLINT(bugprone-use-after-move): what this is about
  EXPECT_EQ(pages.pages(), 0u);
  EXPECT_FALSE(pages.test(3));
}

}  // namespace
}  // namespace kvm_ioctls
