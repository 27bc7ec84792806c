// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "grant_frames.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "host.hpp"
#include "kvm_ioctls/double.hpp"
#include "machine.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {
namespace {

using vmm_base::Error;

// As a platform has them.
struct Frames : testing::Test {
  static constexpr std::uint64_t hole = 0x100000;  // a frame without RAM

  kvm_ioctls::KvmDouble kvm;
  Host host = std::get<Host>(Host::open(kvm.path()));
  Machine machine = create_machine(host, {.ram_size = 2 << 20, .vcpu_count = 1}).value();
  IrqRoutes routes{machine.vm};
  HostErrors errors;
  XenPlatform platform{host, machine.vm, routes, machine.memory, machine.vcpus, errors};

  [[nodiscard]] std::vector<kvm_userspace_memory_region> slots() const {
    std::vector<kvm_userspace_memory_region> set;
    for (const auto& call : kvm.calls(KVM_SET_USER_MEMORY_REGION)) {
      const auto region = call.argument<kvm_userspace_memory_region>();
      if (region.slot != 0) set.push_back(region);  // that is RAM
    }
    return set;
  }
  [[nodiscard]] std::uint64_t& word(std::uint64_t gfn) const {
    return *reinterpret_cast<std::uint64_t*>(
        kvm.memory(gfn << vmm_base::page_shift, sizeof(std::uint64_t)));
  }
};

TEST_F(Frames, InRamIsAPageOfIts) {
  word(0x20) = 7;
  ASSERT_TRUE(platform.map_grant_frame(2, 0x20));
  EXPECT_EQ(word(0x20), 0u) << "Xen's page begins empty";
  EXPECT_TRUE(slots().empty());
  EXPECT_EQ(platform.grant_frame(2), 0x20u);
  EXPECT_EQ(platform.grant_frame(1), std::nullopt);
  EXPECT_EQ(platform.grant_table_size().frames, 3u);
  word(0x20) = 8;
  ASSERT_TRUE(platform.map_grant_frame(2, 0x21));
  EXPECT_EQ(word(0x21), 8u) << "it takes along what it was";
}

TEST_F(Frames, WhereThereIsNoRamIsAPageOfOurs) {
  ASSERT_TRUE(platform.map_grant_frame(0, hole));
  ASSERT_EQ(slots().size(), 1u);
  EXPECT_EQ(slots()[0].guest_phys_addr, hole << vmm_base::page_shift);
  EXPECT_EQ(slots()[0].memory_size, vmm_base::page_size);
  word(hole) = 9;
  // To RAM, and its slot is gone; and back.
  ASSERT_TRUE(platform.map_grant_frame(0, 0x20));
  EXPECT_EQ(word(0x20), 9u);
  EXPECT_EQ(slots().back().memory_size, 0u);
  EXPECT_EQ(kvm.memory(hole << vmm_base::page_shift, 8), nullptr);
  word(0x20) = 10;
  ASSERT_TRUE(platform.map_grant_frame(0, hole + 1));
  EXPECT_EQ(word(hole + 1), 10u);
}

TEST_F(Frames, ThatArentThereAreRefused) {
  constexpr std::uint32_t most = GrantFrames::max_frames;
  EXPECT_EQ(platform.map_grant_frame(most, 0x20).error(),
            (Error{"grant table frame", EINVAL, most}));
  EXPECT_EQ(platform.map_grant_frame(0, std::uint64_t{1} << 40).error().code, EINVAL);
  EXPECT_FALSE(platform.grow_grant_table(most + 1));
  EXPECT_TRUE(platform.grow_grant_table(most));
  EXPECT_EQ(platform.grant_table_size().frames, most);
  EXPECT_EQ(platform.grant_frame(most), std::nullopt);
}

TEST_F(Frames, OfASnapshotLieWhereTheyLayWithWhatWasInThem) {
  ASSERT_TRUE(platform.map_grant_frame(0, 0x20));
  ASSERT_TRUE(platform.map_grant_frame(5, hole));
  ASSERT_TRUE(platform.grow_grant_table(9));
  word(0x20) = 11;
  word(hole) = 12;
  GrantFrames frames(machine.vm, machine.memory);
  XenSnapshot snapshot;
  ASSERT_TRUE(platform.save(snapshot));
  ASSERT_EQ(snapshot.grant_frames.size(), 2u);
  EXPECT_EQ(snapshot.grant_frame_count, 9u);
  EXPECT_TRUE(snapshot.grant_frames[0].page.empty()) << "RAM has it";

  word(hole) = 0;
  ASSERT_TRUE(frames.restore(snapshot));
  EXPECT_EQ(frames.frame(0), 0x20u);
  EXPECT_EQ(frames.frame(5), hole);
  EXPECT_EQ(frames.size().frames, 9u);
  EXPECT_EQ(word(0x20), 11u);
  EXPECT_EQ(word(hole), 12u);
}

TEST_F(Frames, OfAForgedSnapshotAreRefused) {
  GrantFrames frames(machine.vm, machine.memory);
  XenSnapshot snapshot;
  snapshot.grant_frames.emplace_back();
  snapshot.grant_frames[0].index = 3;
  snapshot.grant_frames[0].gfn = hole;  // but no page
  EXPECT_EQ(frames.restore(snapshot).error(),
            (Error{"grant table frame of a snapshot", EINVAL, 3}));
  snapshot.grant_frames.clear();
  snapshot.grant_frame_count = GrantFrames::max_frames + 1;
  EXPECT_EQ(frames.restore(snapshot).error().code, EINVAL);
}

TEST_F(Frames, AreGoneOnceReset) {
  ASSERT_TRUE(platform.map_grant_frame(0, 0x20));
  ASSERT_TRUE(platform.map_grant_frame(5, hole));
  ASSERT_TRUE(platform.reset_domain());
  EXPECT_EQ(platform.grant_frame(0), std::nullopt);
  EXPECT_EQ(platform.grant_frame(5), std::nullopt);
  EXPECT_EQ(platform.grant_table_size().frames, 1u);
  EXPECT_EQ(kvm.memory(hole << vmm_base::page_shift, 8), nullptr);
}

}  // namespace
}  // namespace vmm_reference
