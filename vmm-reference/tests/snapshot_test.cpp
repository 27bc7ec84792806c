// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "snapshot_format.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "saved_guest.hpp"
#include "snapshot_file.hpp"
#include "snapshot_sample.hpp"

namespace vmm_reference {
namespace {

using vmm_base::Result;

std::string refusal(const FileBytes& bytes) {
  const auto read = read_snapshot(bytes);
  return read ? "taken" : read.error().message();
}

// The first section of that name, to be changed and sealed.
std::size_t section_named(const FileBytes& bytes, const char* name) {
  for (const std::size_t at : sections_of(bytes)) {
    if (std::memcmp(bytes.data() + at, name, 4) == 0) return at;
  }
  ADD_FAILURE() << "no section " << name;
  return 16;
}
// What is said of a snapshot with these bytes at that place of that section's content.
template <class T>
std::string said_of(const char* name, std::size_t offset, T value) {
  FileBytes bytes = bytes_of(sample());
  std::memcpy(bytes.data() + section_named(bytes, name) + 24 + offset, &value, sizeof(value));
  seal(bytes);
  return refusal(bytes);
}

TEST(SnapshotFormat, WhatIsWrittenIsReadAndWrittenAgainByteForByte) {
  for (const Boot boot : {Boot::pvh, Boot::hvm, Boot::native}) {
    const FileBytes bytes = bytes_of(sample(boot));
    const auto read = read_snapshot(bytes);
    ASSERT_TRUE(read) << read.error().message();
    EXPECT_EQ(bytes_of(read.value()), bytes);
  }
}

TEST(SnapshotFormat, EveryPartComesBack) {
  const FileBytes bytes = bytes_of(sample());
  const auto read = read_snapshot(bytes);
  ASSERT_TRUE(read);
  const Snapshot& s = read.value();
  EXPECT_EQ(s.boot, Boot::pvh);
  EXPECT_EQ(s.mode, TimerMode::userspace);
  EXPECT_EQ(s.clock.guest, 5'000'000'000u);
  ASSERT_EQ(s.vcpus.size(), 2u);
  EXPECT_EQ(s.vcpus[1].regs.rip, 0xffffffff81000001u);
  EXPECT_EQ(s.vcpus[1].msrs.at(0).data, 0x500u);
  ASSERT_TRUE(s.xen && s.ports);
  EXPECT_EQ(s.xen->shared_info, 0x123u);
  EXPECT_EQ(s.xen->watchdogs[1], 7'000'000'000);
  EXPECT_FALSE(s.xen->watchdogs[0]);
  EXPECT_EQ(s.xen->channels[4].kind, xen_evtchn::Kind::ipi);
  EXPECT_EQ(s.xen->grant_frames.at(1).page.size(), vmm_base::page_size);
  EXPECT_EQ(s.xen->vcpus[0].timers, sample().xen->vcpus[0].timers);
  // Nobody had set it: it isn't 0, nor anything else, afterwards.
  EXPECT_FALSE(s.xen->vcpus[0].timers.kvm_xen_id);
  EXPECT_EQ(s.ports->serial, sample().ports->serial);
  ASSERT_EQ(s.ram.at(0).runs.size(), 2u);
  EXPECT_EQ(s.ram[0].runs[1].offset, 0x10000u);
  EXPECT_TRUE(std::equal(sample_pages().begin(), sample_pages().end(),
                         s.ram[0].runs[0].bytes.begin(), s.ram[0].runs[0].bytes.end()));
}

TEST(SnapshotFormat, ACutOneIsRefusedWhereverItWasCut) {
  const FileBytes bytes = bytes_of(sample());
  for (std::size_t size = 0; size < bytes.size(); size += size < 4096 ? 1 : 61) {
    const FileBytes cut(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(size));
    ASSERT_NE(refusal(cut), "taken") << size;
  }
  EXPECT_EQ(refusal({}), "at byte 0x0: too short for a snapshot");
  EXPECT_EQ(refusal({bytes.begin(), bytes.begin() + 40}), "at byte 0x10: ends within section CONF");
}

TEST(SnapshotFormat, AFlippedBitIsRefusedWhereverItIs) {
  FileBytes bytes = bytes_of(sample());
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    const std::byte bit = std::byte{1} << (at * 5 % 8);
    bytes[at] ^= bit;
    ASSERT_NE(refusal(bytes), "taken") << at;
    bytes[at] ^= bit;
  }
  const std::size_t apic = section_named(bytes, "APIC");
  bytes[apic + 100] ^= std::byte{1};
  char expected[80];
  std::snprintf(expected, sizeof(expected),
                "at byte 0x%zx: section APIC of 0: its checksum is wrong", apic + 24);
  EXPECT_EQ(refusal(bytes), expected);
}

TEST(SnapshotFormat, AForeignFileIsRefused) {
  EXPECT_EQ(refusal(FileBytes(4096, std::byte{0x7f})),
            "at byte 0x0: not a snapshot of vmm-reference");
  FileBytes longer = bytes_of(sample());
  longer.resize(longer.size() + 8);
  EXPECT_NE(refusal(longer).find("goes on after its end"), std::string::npos);
  FileBytes other = bytes_of(sample());
  other[8] = std::byte{2};
  seal(other);
  EXPECT_EQ(refusal(other), "at byte 0x8: a snapshot of version 2, of which only 1 can be read");
}

TEST(SnapshotFormat, SectionsThatArentKnownOrDueAreNamed) {
  FileBytes bytes = bytes_of(sample());
  const std::size_t time = section_named(bytes, "TIME");
  std::memcpy(bytes.data() + time, "HPET", 4);
  seal(bytes);
  EXPECT_NE(refusal(bytes).find("an unknown section, HPET"), std::string::npos);
  std::memcpy(bytes.data() + time, "RTC ", 4);
  seal(bytes);
  EXPECT_NE(refusal(bytes).find("section RTC of 0 where TIME of 0 is due"), std::string::npos);
  // One that has gone altogether.
  bytes = bytes_of(sample());
  const std::size_t end = section_named(bytes, "END ");
  bytes.erase(bytes.begin() + static_cast<std::ptrdiff_t>(end), bytes.end());
  EXPECT_NE(refusal(bytes).find("ends within section END"), std::string::npos);
}

TEST(SnapshotFormat, AStateThatCantBeIsRefused) {
  const auto is_in = [](const std::string& said, const char* what) {
    return said.find(what) != std::string::npos;
  };
  EXPECT_TRUE(is_in(said_of("CONF", 8, std::uint32_t{65}), "section CONF of 0: 65 vCPUs"));
  EXPECT_TRUE(is_in(said_of("CONF", 0, std::uint32_t{3}), "a guest of another kind"));
  EXPECT_TRUE(is_in(said_of("CONF", 16, std::uint64_t{4097}), "4097 bytes of RAM"));
  EXPECT_TRUE(
      is_in(said_of("CONF", 16, std::uint64_t{4 << 20}), "section RAM of 0: another region"));
  EXPECT_TRUE(is_in(said_of("EVTC", 4, std::uint32_t{7}), "port 1 can't be so"));
  EXPECT_TRUE(is_in(said_of("EVTC", 0, std::uint32_t{4096}), "a port that can't be"));
  EXPECT_TRUE(is_in(said_of("TIMR", 4, std::uint16_t{2}), "timer state: version"));
  EXPECT_TRUE(is_in(said_of("XCPU", 24, std::uint64_t{4}), "a runstate that can't be"));
  EXPECT_TRUE(is_in(said_of("UART", 16, std::uint8_t{17}), "a UART that can't be"));
  EXPECT_TRUE(is_in(said_of("GRNT", 8, std::uint32_t{2}), "a frame that can't be"));
  EXPECT_TRUE(is_in(said_of("RAM ", 24, std::uint64_t{1}), "pages that aren't the region's"));
  EXPECT_TRUE(is_in(said_of("RAM ", 16, ~std::uint64_t{0}), "bytes can't be it"));
  EXPECT_TRUE(is_in(said_of("END ", 0, std::uint64_t{5}), "before, not 5"));
}

// --- the file ------------------------------------------------------------------------------------

struct SnapshotFile : testing::Test {
  std::string folder = [] {
    char name[] = "/tmp/snapshot-test.XXXXXX";
    return std::string(::mkdtemp(name));
  }();
  std::string path = folder + "/guest";
  ~SnapshotFile() override { std::filesystem::remove_all(folder); }

  // Of the `number`th guest, by its clock.
  static Snapshot numbered(std::uint64_t number) {
    Snapshot snapshot = sample();
    snapshot.clock.guest = number;
    return snapshot;
  }
  // Calls before_write(n) before the nth write of the sink.
  template <class F>
  [[nodiscard]] Result<void> save(std::uint64_t number, F before_write) const {
    return replace_file(path, [&](const ByteSink& file) -> Result<void> {
      const FileBytes bytes = bytes_of(numbered(number));
      // In small pieces, for there to be many places to be killed at.
      constexpr std::size_t piece = 1000;
      unsigned n = 0;
      for (std::size_t at = 0; at < bytes.size(); at += piece) {
        before_write(n++);
        VMM_CHECK(file(std::span(bytes).subspan(at, std::min(piece, bytes.size() - at))));
      }
      before_write(n);
      return vmm_base::success();
    });
  }
  [[nodiscard]] Result<void> save(std::uint64_t number) const {
    return save(number, [](unsigned) {});
  }
  // Which guest is in the file; 0 for none, and a failure for one that isn't whole.
  [[nodiscard]] std::uint64_t saved() const {
    auto opened = SavedGuest::open(path);
    if (const auto* message = std::get_if<std::string>(&opened)) {
      ADD_FAILURE() << *message;
      return 0;
    }
    return std::get<SavedGuest>(opened).snapshot().clock.guest;
  }
  [[nodiscard]] std::size_t files() const {
    const std::filesystem::directory_iterator all(folder);
    return static_cast<std::size_t>(std::distance(begin(all), end(all)));
  }
};

TEST_F(SnapshotFile, IsReplacedByTheNextOne) {
  ASSERT_TRUE(save(1));
  EXPECT_EQ(saved(), 1u);
  ASSERT_TRUE(save(2));
  EXPECT_EQ(saved(), 2u);
  EXPECT_EQ(files(), 1u);
  // Guest memory is in it.
  EXPECT_EQ(std::filesystem::status(path).permissions(),
            std::filesystem::perms::owner_read | std::filesystem::perms::owner_write);
}

TEST_F(SnapshotFile, AProcessKilledBeforeAnyOfItsWritesLeavesTheOldOne) {
  ASSERT_TRUE(save(1));
  unsigned killed = 0;
  for (bool go_on = true; go_on; ++killed) {
    const pid_t child = ::fork();
    if (child == 0) {
      (void)save(2, [&](unsigned n) {
        if (n == killed) ::kill(::getpid(), SIGKILL);
      });
      ::_exit(0);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    go_on = WIFSIGNALED(status);
    ASSERT_EQ(saved(), go_on ? 1u : 2u) << "killed before write " << killed;
  }
  EXPECT_GT(killed, 20u);
  EXPECT_EQ(files(), 1u);  // the last one took what the others had left
}

TEST_F(SnapshotFile, AProcessKilledAtAnyMomentLeavesOneThatIsWhole) {
  ASSERT_TRUE(save(1));
  std::minstd_rand random(7);
  std::uint64_t last = 1;
  // Longer each time, for on a busy host a process may not get to anything for long.
  for (unsigned round = 0; round < 60 || (last == 1 && round < 600); ++round) {
    const pid_t child = ::fork();
    if (child == 0) {
      for (std::uint64_t number = last + 1;; ++number) (void)save(number);
    }
    ::usleep(static_cast<useconds_t>(random() % 5000 * (1 + round / 20)));
    ::kill(child, SIGKILL);
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    const std::uint64_t now = saved();
    ASSERT_GE(now, last);
    last = now;
  }
  EXPECT_GT(last, 1u);
}

TEST_F(SnapshotFile, WhatCantBeWrittenIsSaidAndTheOldOneStays) {
  ASSERT_TRUE(save(1));
  const pid_t child = ::fork();
  if (child == 0) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{10'000, 10'000};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const auto failed = save(2);
    ::_exit(!failed && failed.error().code == EFBIG ? 0 : 1);
  }
  int status = 1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(saved(), 1u);
  EXPECT_EQ(files(), 1u);

  const auto stopped = replace_file(path, [](const ByteSink&) -> Result<void> {
    return vmm_base::Error{"the guest", EIO, 3};
  });
  ASSERT_FALSE(stopped);
  EXPECT_STREQ(stopped.error().operation, "the guest");
  EXPECT_EQ(saved(), 1u);
  EXPECT_EQ(files(), 1u);
  EXPECT_FALSE(replace_file(folder + "/no/such/folder",
                            [](const ByteSink&) { return Result<void>(vmm_base::success()); }));
}

TEST_F(SnapshotFile, IsOneWritersAtATime) {
  ASSERT_TRUE(save(1));
  const auto outer = save(2, [&](unsigned n) {
    if (n != 3) return;
    const auto inner = save(3);
    ASSERT_FALSE(inner);
    EXPECT_EQ(inner.error().code, EWOULDBLOCK);
  });
  EXPECT_TRUE(outer);
  EXPECT_EQ(saved(), 2u);
}

TEST_F(SnapshotFile, AFileThatIsNoSnapshotIsNamed) {
  const auto said = [&] {
    auto opened = SavedGuest::open(path);
    const auto* message = std::get_if<std::string>(&opened);
    return message == nullptr ? "taken" : *message;
  };
  EXPECT_EQ(said(), path + ": open(0x0): No such file or directory");
  std::ofstream(path) << "#!/bin/sh\necho a script, long enough to be looked at\n";
  EXPECT_EQ(said(), path + ": at byte 0x0: not a snapshot of vmm-reference");
}

}  // namespace
}  // namespace vmm_reference
