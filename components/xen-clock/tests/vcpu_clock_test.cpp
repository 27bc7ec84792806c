// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_clock/vcpu_clock.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <thread>

namespace xen_clock {
namespace {

using std::chrono::hours;
using std::chrono::seconds;

// A host whose TSC counts ns.
struct FakeHost {
  static inline std::atomic<std::uint64_t> tsc_now;
  static inline HostTime host_now;
  static inline Duration suspended_for;
  static inline Duration reading_takes;

  static std::uint64_t tsc() {
    const std::uint64_t read = tsc_now;
    if (reading_takes != Duration{}) pass(reading_takes);
    return read;
  }
  static HostTime now() {
    const HostTime read = host_now;
    if (reading_takes != Duration{}) pass(reading_takes);
    return read;
  }
  static Duration suspended() { return suspended_for; }

  static void pass(Duration time) {
    tsc_now += static_cast<std::uint64_t>(time.count());
    host_now += time;
  }
};
constexpr std::uint32_t khz = 1'000'000;
constexpr VcpuTsc tsc_at(std::uint64_t offset) { return {{.offset = offset}, khz, true}; }

// As KVM writes it: in words, odd meanwhile.
void write(xen_abi::VcpuTimeInfo& page, std::uint64_t timestamp, std::uint64_t system_time) {
  __atomic_store_n(&page.version, (page.version + 1) | 1, __ATOMIC_SEQ_CST);
  __atomic_store_n(&page.tsc_timestamp, timestamp, __ATOMIC_SEQ_CST);
  __atomic_store_n(&page.system_time, system_time, __ATOMIC_SEQ_CST);
  __atomic_store_n(&page.tsc_to_system_mul, 0x8000'0000, __ATOMIC_SEQ_CST);
  __atomic_store_n(&page.tsc_shift, std::int8_t{1}, __ATOMIC_SEQ_CST);
  __atomic_store_n(&page.version, page.version + 1, __ATOMIC_SEQ_CST);
}

struct VcpuClockTest : testing::Test {
  alignas(8) xen_abi::VcpuTimeInfo page{};
  BasicVcpuClock<FakeHost> clock;
  int asked = 0;

  void SetUp() override {
    FakeHost::tsc_now = 1'000'000;
    FakeHost::host_now = HostTime(seconds(50));
    FakeHost::suspended_for = seconds(7);
    FakeHost::reading_takes = {};
  }
  void refresh(std::optional<VcpuTsc> tsc = tsc_at(0)) {
    clock.refresh([&] {
      ++asked;
      return tsc;
    });
  }
  [[nodiscard]] Reading now(std::int64_t vm_clock = -1) const {
    return clock.now([&] { return guest_time(vm_clock); });
  }
  // The guest's clock is at 500 us, and goes.
  void start() {
    write(page, 1'000'000, 500'000);
    clock.set_page(&page);
    refresh();
  }
};

void expect(const Reading& reading, GuestTime time, Source source) {
  EXPECT_EQ(reading.time.time_since_epoch().count(), time.time_since_epoch().count());
  EXPECT_EQ(reading.source, source);
}
void expect(const Reading& reading, std::int64_t ns, Source source) {
  expect(reading, guest_time(ns), source);
}

TEST_F(VcpuClockTest, IsTheVmsClockUntilThereIsAPage) {
  refresh();
  expect(now(42), 42, Source::vm_clock);
  clock.set_page(&page);  // which KVM hasn't filled
  refresh();
  expect(now(43), 43, Source::vm_clock);
  write(page, 1'000'000, 500'000);  // nor has anybody asked for the offset
  expect(now(44), 44, Source::vm_clock);
  EXPECT_EQ(asked, 0);
}

TEST_F(VcpuClockTest, IsTheGuestsOwnByItsPageAndTsc) {
  write(page, 900, 500'000);
  clock.set_page(&page);
  refresh(tsc_at(-999'000ull));  // the guest's TSC is 1000
  expect(now(), 500'100, Source::pvclock);
  FakeHost::pass(hours(1));
  expect(now(), 500'100 + 3'600'000'000'000, Source::pvclock);
}

TEST_F(VcpuClockTest, IsTheVmsClockWhereKvmsTimerTakesIt) {
  write(page, 1'000'000, 500'000);
  clock.set_page(&page);
  VcpuTsc tsc = tsc_at(0);
  tsc.master_clock = false;
  refresh(tsc);
  expect(now(42), 42, Source::vm_clock);
  write(page, 1'000'001, 500'001);
  refresh(std::nullopt);
  expect(now(43), 43, Source::vm_clock);
  write(page, 1'000'000, 500'000);
  refresh();
  expect(now(), 500'000, Source::pvclock);
}

TEST_F(VcpuClockTest, AsksOnlyWhenThePageHasChanged) {
  start();
  refresh();
  EXPECT_EQ(asked, 1);
  write(page, 1'000'000, 500'000);  // as KVM does every 300 s
  page.flags = xen_abi::pvclock_guest_stopped;
  refresh();
  EXPECT_EQ(asked, 1);
  expect(now(), 500'000, Source::pvclock);
  write(page, 1'000'002, 500'002);
  refresh();
  EXPECT_EQ(asked, 2);
}

TEST_F(VcpuClockTest, EachFieldOfThePageThatMakesTheClockCounts) {
  start();
  int changes = 1;  // the first is start()'s
  const auto changed = [&](auto& field, auto value) {
    field = value;
    expect(now(42), 42, Source::vm_clock);
    refresh();
    EXPECT_EQ(asked, ++changes);
  };
  changed(page.tsc_timestamp, 999'999u);
  changed(page.system_time, 500'001u);
  changed(page.tsc_to_system_mul, 0x8000'0001u);
  changed(page.tsc_shift, std::int8_t{2});
}

// KVM_KVMCLOCK_CTRL, which tells the guest that it was paused: its clock is the same.
TEST_F(VcpuClockTest, ThatTheGuestIsToldOfAPauseChangesNothing) {
  start();
  page.version += 2;
  page.flags = xen_abi::pvclock_guest_stopped;
  expect(now(42), 500'000, Source::pvclock);
  refresh();
  page.version += 2;
  page.flags = 0;  // it has taken note
  expect(now(42), 500'000, Source::pvclock);
  EXPECT_EQ(asked, 1);
}

// The page moves with the guest's TSC; whoever reads by the new page and the old offset is off by
// as much as the guest likes.
TEST_F(VcpuClockTest, AnsweredByTheVmsClockBetweenAChangeAndTheRefresh) {
  start();
  write(page, 77, 600'000);
  FakeHost::pass(Duration(100'000));
  expect(now(600'000), 600'000, Source::vm_clock);
  refresh(tsc_at(77 - 1'100'000ull));
  expect(now(), 600'000, Source::pvclock);
}

TEST_F(VcpuClockTest, APageThatIsAlwaysBeingWrittenIsNotTrusted) {
  start();
  page.version |= 1;
  refresh();
  expect(now(42), 42, Source::vm_clock);
}

// Such a clock would keep whoever waits by it awake: it could stand still 1 ns before the deadline.
TEST_F(VcpuClockTest, ARateThatIsNotKvmsIsNotTrusted) {
  start();
  struct Wrong {
    std::uint32_t mul;
    std::int8_t shift;
  };
  for (const Wrong wrong : {Wrong{1, 0}, Wrong{0x8000'0000, 0}, Wrong{0x8000'0000, -128},
                            Wrong{0x8001'0000, 1}, Wrong{0x7fff'0000, 1}, Wrong{~0u, 127},
                            Wrong{0x8000'0c95, 1}, Wrong{0x7fff'f36b, 1}}) {  // 1.5 ppm
    page.tsc_to_system_mul = wrong.mul;
    page.tsc_shift = wrong.shift;
    refresh();
    expect(now(42), 42, Source::vm_clock);
  }
  page.tsc_shift = 1;
  for (const std::uint32_t mul : {0x8000'078cu, 0x7fff'f874u}) {  // 0.9 ppm
    page.tsc_to_system_mul = mul;
    refresh();
    EXPECT_EQ(now().source, Source::pvclock);
  }
}

TEST_F(VcpuClockTest, KnowsTheRateOfAScaledTsc) {
  // 3 GHz in the guest: mul / 2^32 = 2/3, shift -1.
  page.tsc_to_system_mul = 0xaaaa'aaaa;
  page.tsc_shift = -1;
  page.version = 2;
  clock.set_page(&page);
  refresh(VcpuTsc{tsc_map(3'000'000, khz, 48, 0), khz, true});
  expect(now(), 999'999, Source::pvclock);
  page.tsc_timestamp = 1;
  refresh(tsc_at(0));
  EXPECT_EQ(now().source, Source::vm_clock);
}

TEST_F(VcpuClockTest, ForgetsWhatItKnewBeforeKvmSetClock) {
  start();
  clock.forget();
  expect(now(42), 42, Source::vm_clock);
  refresh();
  expect(now(), 500'000, Source::pvclock);
}

// Any content of the page is a clock of the guest's, and none is undefined behaviour.
TEST_F(VcpuClockTest, ClocksAtTheEndsOfTimeAreDefined) {
  for (const std::uint64_t end : {0ull, ~0ull, 1ull << 63, ~0ull >> 1}) {
    write(page, end, ~end);
    clock.set_page(&page);
    refresh();
    FakeHost::pass(hours(1));
    FakeHost::suspended_for += seconds(1);
    (void)now(INT64_MIN);
    (void)now(INT64_MAX);
  }
}

// --- a host that was suspended ---

TEST_F(VcpuClockTest, ATscThatCountedOnIsStillTheGuestsClock) {
  start();
  FakeHost::pass(hours(2));
  FakeHost::suspended_for += hours(2);
  expect(now(), guest_time(500'000) + hours(2), Source::pvclock);
}

// Seen in the lab: 6.47 s by the TSC, and so by the guest, were 5.54 s by the real-time clock.
TEST_F(VcpuClockTest, ARealTimeClocksRoundingIsNotHeldAgainstIt) {
  start();
  FakeHost::tsc_now += 6'470'000'000;
  FakeHost::host_now += std::chrono::milliseconds(5540);
  FakeHost::suspended_for += std::chrono::milliseconds(5540);
  expect(now(), 500'000 + 6'470'000'000, Source::pvclock);
}

TEST_F(VcpuClockTest, NorIsTheSlewHeldAgainstIt) {
  start();
  FakeHost::pass(hours(30));
  FakeHost::host_now += slew_margin(hours(30));  // 54 s
  FakeHost::suspended_for += seconds(1);
  expect(now(), guest_time(500'000) + hours(30), Source::pvclock);
}

TEST_F(VcpuClockTest, ATscThatBeganAnewIsNot) {
  start();
  FakeHost::pass(hours(3));
  FakeHost::suspended_for += hours(2);
  const GuestTime due = guest_time(500'000) + hours(3);
  for (const std::uint64_t tsc : {0ull, 999'999ull, 3'600'000'000'000ull}) {
    FakeHost::tsc_now = tsc;
    // KVM has noticed; NTP may have slewed the host's clock meanwhile.
    const GuestTime right = due + seconds(1);
    expect(now(right.time_since_epoch().count()), right, Source::vm_clock);
    // It hasn't.
    for (const std::int64_t wrong : {INT64_MIN, std::int64_t{0}, INT64_MAX}) {
      expect(now(wrong), due - slew_margin(hours(3)), Source::host_clock);
    }
  }
}

TEST_F(VcpuClockTest, WhatPassesWhileItIsReadIsNotAheadOfTheGuest) {
  FakeHost::reading_takes = seconds(1);
  const HostTime began = FakeHost::host_now;
  start();
  FakeHost::pass(seconds(10));
  FakeHost::suspended_for += seconds(10);
  FakeHost::tsc_now = 0;  // began anew, and KVM hasn't noticed
  const Reading reading = now(INT64_MAX);
  EXPECT_EQ(reading.source, Source::host_clock);
  EXPECT_LE(reading.time, guest_time(500'000) + (FakeHost::host_now - began));
  FakeHost::reading_takes = {};
  EXPECT_LE(now(INT64_MAX).time, guest_time(500'000) + (FakeHost::host_now - began));
}

TEST_F(VcpuClockTest, AChangedPageIsNotTheGuestsClockAfterAResumeEither) {
  start();
  FakeHost::pass(hours(2));
  FakeHost::suspended_for += hours(2);
  write(page, 77, 600'000);
  const GuestTime right = guest_time(500'000) + hours(2) + seconds(1);
  expect(now(right.time_since_epoch().count()), right, Source::vm_clock);
}

// --- threads ---

// Large enough that a reader is sure to be disturbed.
TEST(Seqlock, ReadsAreWhole) {
  using Value = std::array<std::uint64_t, 512>;
  Seqlock<Value> lock;
  std::atomic<bool> done = false;
  std::atomic<int> whole = 0;
  std::uint64_t torn = 0;
  std::thread reader([&] {
    while (!done) {
      if (const auto value = lock.load()) {
        if (std::count(value->begin(), value->end(), value->front()) != 512) ++torn;
        ++whole;
      }
    }
  });
  Value value{};
  for (std::uint64_t round = 0; round < 20'000 || whole < 1000; ++round) {
    value.fill(round);
    lock.store(value);
    if (round % 8 == 0) std::this_thread::yield();
  }
  done = true;
  reader.join();
  EXPECT_EQ(torn, 0u);
}

TEST(ReadPvclock, ReadsAreWholeWhileItIsWritten) {
  alignas(8) xen_abi::VcpuTimeInfo page{};
  std::atomic<bool> done = false;
  std::atomic<int> whole = 0;
  std::uint64_t torn = 0;
  std::thread reader([&] {
    while (!done) {
      if (const auto info = read_pvclock(&page)) {
        if (info->tsc_timestamp != info->system_time) ++torn;
        ++whole;
      }
    }
  });
  for (std::uint64_t round = 1; round < 20'000 || whole < 1000; ++round) {
    write(page, round, round);
    if (round % 8 == 0) std::this_thread::yield();
  }
  done = true;
  reader.join();
  EXPECT_EQ(torn, 0u);
}

// The guest's clock is the host's TSC all along, while its own TSC jumps: a reading that mixes two
// moments is off by what it jumped.
TEST_F(VcpuClockTest, ReadingsAreWholeWhileItIsRefreshed) {
  clock.set_page(&page);
  std::atomic<bool> done = false;
  std::uint64_t wrong = 0;
  std::atomic<int> exact = 0;
  std::thread reader([&] {
    while (!done) {
      const std::uint64_t before = FakeHost::tsc_now;
      const Reading reading =
          clock.now([] { return guest_time(static_cast<std::int64_t>(FakeHost::tsc_now.load())); });
      const std::uint64_t after = FakeHost::tsc_now;
      const auto ns = static_cast<std::uint64_t>(reading.time.time_since_epoch().count());
      if (ns < before || ns > after) ++wrong;
      if (reading.source == Source::pvclock) ++exact;
    }
  });
  for (std::uint64_t jump = 0; jump < 100'000 || exact < 1000; ++jump) {
    const std::uint64_t offset = jump << 40;
    const std::uint64_t tsc = ++FakeHost::tsc_now;
    write(page, tsc + offset, tsc);
    refresh(tsc_at(offset));
    if (jump % 64 == 0) std::this_thread::yield();
  }
  done = true;
  reader.join();
  EXPECT_EQ(wrong, 0u);
}

TEST(ThisHost, CountsSuspensions) {
  const auto read = [](clockid_t clock) {
    timespec now{};
    ::clock_gettime(clock, &now);
    return seconds(now.tv_sec) + Duration(now.tv_nsec);
  };
  const Duration before = read(CLOCK_BOOTTIME);
  const Duration now = ThisHost::now().time_since_epoch();
  EXPECT_GE(now, before);
  EXPECT_LE(now, read(CLOCK_BOOTTIME));
  const Duration suspended = before - read(CLOCK_MONOTONIC);
  EXPECT_NEAR(static_cast<double>(ThisHost::suspended().count()),
              static_cast<double>(suspended.count()), 1e9);
  const std::uint64_t tsc = ThisHost::tsc();
  EXPECT_GT(ThisHost::tsc(), tsc);
}

}  // namespace
}  // namespace xen_clock
