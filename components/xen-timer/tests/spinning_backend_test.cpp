// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/spinning_backend.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <functional>
#include <vector>

namespace xen_timer {
namespace {

using xen_clock::HostClock;
using xen_clock::HostTime;

static_assert(Backend<SpinningBackend>);
static_assert(EarlyAlarm<SpinningAlarm<TimerfdAlarm>>);
static_assert(!EarlyAlarm<TimerfdAlarm>);

constexpr EventPort port{1};
constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};
constexpr Duration us = std::chrono::microseconds(1);
constexpr Duration ms = std::chrono::milliseconds(1);

// Reading the clock takes its time, so that who waits for it gets on.
struct Time {
  static constexpr Duration reading{100};
  HostTime now = HostTime(ms);
  HostTime due = HostTime::max();
  std::function<void()> on_reading;
};
struct TickingAlarm {
  Time* time;
  HostTime now() {
    time->now += Time::reading;
    if (time->on_reading) time->on_reading();
    return time->now;
  }
  Result<void> set(HostTime due) {
    time->due = due;
    return vmm_base::success();
  }
  int fd() { return -1; }
};

struct Spinning : testing::Test {
  static constexpr SpinLimits limits{.longest = 200 * us, .one_in = 4};
  Time time;
  QueueBackend<SpinningAlarm<TickingAlarm>> backend{SpinningAlarm(TickingAlarm{&time}, limits), 2};
  struct Event {
    std::uint32_t vcpu;
    Duration late;
  };
  std::vector<Event> events;
  GuestTime deadlines[2] = {};

  Spinning() {
    for (const XenVcpuId vcpu : {vcpu0, vcpu1}) {
      EXPECT_TRUE(backend.bind(
          vcpu, port, [this](XenVcpuId) { return guest_now(); },
          [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); }));
    }
  }
  [[nodiscard]] GuestTime guest_now() const { return GuestTime(time.now.time_since_epoch()); }
  void arm(XenVcpuId vcpu, Duration ahead) {
    deadlines[vcpu.value] = guest_now() + ahead;
    EXPECT_TRUE(backend.arm(vcpu, deadlines[vcpu.value], guest_now()));
  }
  void expire() {
    EXPECT_TRUE(
        backend.expire([this](XenVcpuId) { return guest_now(); },
                       [this](XenVcpuId vcpu, EventPort) {
                         events.push_back({vcpu.value, guest_now() - deadlines[vcpu.value]});
                         return Result<void>(vmm_base::success());
                       }));
  }
  // Sleeps until the alarm, and takes `waking` to wake up; true unless there is none.
  bool wake(Duration waking) {
    if (time.due == HostTime::max()) return false;
    time.now = std::max(time.now, time.due) + waking;
    expire();
    return true;
  }
  void fire_one(Duration ahead, Duration waking) {
    const std::size_t before = events.size();
    arm(vcpu0, ahead);
    while (events.size() == before) ASSERT_TRUE(wake(waking));
  }
  // What a deadline that is far away would be woken early by.
  Duration lead() { return backend.alarm().lead(); }
  Duration spun() { return backend.alarm().spun(); }
};

TEST_F(Spinning, LearnsToBeWokenEarlyByAsLongAsWakingTakes) {
  fire_one(10 * ms, 80 * us);
  EXPECT_GE(events.back().late, 80 * us);
  for (int i = 0; i < 300; ++i) fire_one(10 * ms, 80 * us);
  EXPECT_GE(lead(), 75 * us);
  EXPECT_LE(lead(), 95 * us);
  events.clear();
  for (int i = 0; i < 160; ++i) fire_one(10 * ms, 80 * us);
  const auto punctual = std::count_if(events.begin(), events.end(),
                                      [](const Event& event) { return event.late < us; });
  EXPECT_GE(punctual, 140);
  for (int i = 0; i < 1000; ++i) fire_one(10 * ms, 10 * us);
  EXPECT_LE(lead(), 15 * us);
}

TEST_F(Spinning, IsNeverEarly) {
  std::uint64_t seed = 1;
  for (int i = 0; i < 2000; ++i) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    fire_one(Duration(seed >> 44), Duration(seed >> 20 & 0x1ffff));
  }
  for (const Event& event : events) ASSERT_GE(event.late, Duration{});
  EXPECT_GT(spun(), Duration{});
}

TEST_F(Spinning, NoDeadlineIsSpunForLongerThanTheLimit) {
  for (int i = 0; i < 500; ++i) fire_one(10 * ms, 199 * us);
  EXPECT_GE(lead(), 195 * us);
  const Duration before = spun();
  fire_one(10 * ms, Duration{});
  EXPECT_GT(spun() - before, 150 * us);
  EXPECT_LE(spun() - before, limits.longest);
}

TEST_F(Spinning, WhatNoLeadWouldHelpAgainstTeachesNothing) {
  for (int i = 0; i < 100; ++i) fire_one(10 * ms, 4 * ms);
  EXPECT_EQ(lead(), Duration{});
  EXPECT_EQ(spun(), Duration{});
}

TEST_F(Spinning, ADeadlineThatIsPastOnceSetTeachesNothing) {
  for (int i = 0; i < 100; ++i) fire_one(Duration{}, 100 * us);
  EXPECT_EQ(lead(), Duration{});
}

TEST_F(Spinning, HoweverOftenAGuestArmsItSpinsNoMoreThanItsShare) {
  for (int i = 0; i < 500; ++i) fire_one(10 * ms, 150 * us);
  for (const Duration ahead : {50 * us, 160 * us, 300 * us, 700 * us}) {
    const HostTime begin = time.now;
    const Duration before = spun();
    for (int i = 0; i < 1000; ++i) fire_one(ahead, Duration{});
    const Duration all = time.now - begin;
    EXPECT_LE(spun() - before, limits.longest + all / limits.one_in) << ahead.count();
    // What it slept instead teaches that waking takes no time.
    for (int i = 0; i < 500; ++i) fire_one(10 * ms, 150 * us);
  }
  EXPECT_GE(lead(), 140 * us);
}

TEST_F(Spinning, WhatWasCancelledIsNotSpunFor) {
  for (int i = 0; i < 300; ++i) fire_one(10 * ms, 80 * us);
  const Duration before = spun();
  arm(vcpu0, 10 * ms);
  ASSERT_TRUE(backend.cancel(vcpu0));
  EXPECT_TRUE(wake({}));
  EXPECT_FALSE(wake({}));
  EXPECT_EQ(spun(), before);
}

TEST_F(Spinning, AnIdleGuestIsNotWokenFor) {
  fire_one(10 * ms, 80 * us);
  EXPECT_EQ(time.due, HostTime::max());
  EXPECT_FALSE(wake({}));
}

TEST_F(Spinning, ADeadlineArmedMeanwhileIsServedInItsTime) {
  for (int i = 0; i < 300; ++i) fire_one(10 * ms, 80 * us);
  events.clear();
  arm(vcpu0, 10 * ms);
  time.now = time.due + 20 * us;
  time.on_reading = [this] {
    if (guest_now() < deadlines[0] - 40 * us) return;
    time.on_reading = {};
    arm(vcpu1, 10 * us);
  };
  while (events.size() < 2) {
    expire();
    time.now = std::max(time.now, time.due);
  }
  EXPECT_EQ(events[0].vcpu, 1u);
  EXPECT_EQ(events[1].vcpu, 0u);
  for (const Event& event : events) {
    EXPECT_GE(event.late, Duration{});
    EXPECT_LT(event.late, us);
  }
}

TEST_F(Spinning, APauseEndsTheWaitWithoutAnEvent) {
  for (int i = 0; i < 300; ++i) fire_one(10 * ms, 80 * us);
  events.clear();
  arm(vcpu0, 10 * ms);
  time.now = time.due;
  time.on_reading = [this] {
    if (guest_now() < deadlines[0] - 40 * us) return;
    time.on_reading = {};
    ASSERT_TRUE(
        backend.pause([this](XenVcpuId) { return guest_now(); },
                      [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); }));
  };
  expire();
  EXPECT_LT(guest_now(), deadlines[0] - 30 * us);
  EXPECT_TRUE(events.empty());
  EXPECT_EQ(time.due, HostTime::max());
  ASSERT_TRUE(backend.resume([this](XenVcpuId) { return guest_now(); }));
  EXPECT_TRUE(wake({}));
  EXPECT_EQ(events.size(), 1u);
}

// On real time, so nothing here says how late is too late.
TEST(SpinningBackendTest, IsNeverEarlyOnRealTime) {
  auto created = SpinningBackend::create(1);
  SpinningBackend& backend = created.value();
  const HostTime begin = HostClock::now();
  const auto now = [&](XenVcpuId) { return GuestTime(HostClock::now() - begin); };
  std::vector<GuestTime> fired;
  const auto fire = [&](XenVcpuId vcpu, EventPort) {
    fired.push_back(now(vcpu));
    return Result<void>(vmm_base::success());
  };
  ASSERT_TRUE(backend.bind(vcpu0, port, now, fire));
  for (int i = 0; i < 50; ++i) {
    fired.clear();
    const GuestTime start = now(vcpu0);
    ASSERT_TRUE(backend.arm(vcpu0, start + ms, start));
    while (fired.empty()) {
      pollfd entry{.fd = backend.fd(), .events = POLLIN, .revents = 0};
      ASSERT_EQ(::poll(&entry, 1, 60'000), 1);
      ASSERT_TRUE(backend.expire(now, fire));
    }
    EXPECT_GE(fired.front(), start + ms);
  }
  EXPECT_GE(backend.spun(), Duration{});
}

TEST(SpinningBackendCreate, RefusesCountsOfVcpusThatNoDomainHas) {
  const auto created = SpinningBackend::create(0);
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error(), (vmm_base::Error{"xen_timer create: vcpu_count", EINVAL, 0}));
}

}  // namespace
}  // namespace xen_timer
