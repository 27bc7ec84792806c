// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/queue_backend.hpp"

#include <gtest/gtest.h>

#include <chrono>
#include <vector>

#include "xen_timer/virtual_backend.hpp"

namespace xen_timer {
namespace {

using xen_clock::Duration;
using xen_clock::guest_time;
using xen_clock::HostTime;

static_assert(Backend<VirtualBackend>);

constexpr EventPort port{1};
Result<void> no_event(XenVcpuId, EventPort) { return vmm_base::success(); }

// A back end, the guests' clock apart from the host's, and what has fired.
struct Queue : testing::Test {
  static constexpr std::uint32_t vcpus = 64;
  VirtualBackend backend{vcpus};
  GuestTime guest_clock = guest_time(1'000'000);
  std::vector<std::uint32_t> fired;
  unsigned reads = 0;  // of the guest's clock

  Queue() {
    for (std::uint32_t vcpu = 0; vcpu < vcpus; ++vcpu) {
      EXPECT_TRUE(backend.bind(
          XenVcpuId{vcpu}, port, [this](XenVcpuId) { return guest_clock; }, no_event));
    }
  }
  void arm(std::uint32_t vcpu, std::int64_t ahead) {
    EXPECT_TRUE(backend.arm(XenVcpuId{vcpu}, guest_clock + Duration(ahead), guest_clock));
  }
  Result<void> serve() {
    return backend.expire(
        [this](XenVcpuId) {
          ++reads;
          return guest_clock;
        },
        [this](XenVcpuId vcpu, EventPort) {
          fired.push_back(vcpu.value);
          return Result<void>(vmm_base::success());
        });
  }
  void expire() { EXPECT_TRUE(serve()); }
  // Moves the host's clock, and the guests' by `guest_ns`; wakes up if the alarm does.
  void advance(std::int64_t host_ns, std::int64_t guest_ns) {
    guest_clock += Duration(guest_ns);
    if (backend.alarm().advance(Duration(host_ns))) expire();
  }
  std::int64_t ns_to_alarm() { return (backend.alarm().due() - backend.alarm().now()).count(); }
};

using Fired = std::vector<std::uint32_t>;

// --- never early --------------------------------------------------------------------------------

TEST_F(Queue, WaitsForTheRestWhenTheGuestsClockLags) {
  arm(3, 1'000'000);
  advance(1'000'000, 999'000);
  EXPECT_EQ(fired, Fired{});
  EXPECT_EQ(ns_to_alarm(), 1000);
  advance(1000, 999);  // still 1 ns short
  EXPECT_EQ(fired, Fired{});
  advance(ns_to_alarm(), 1);
  EXPECT_EQ(fired, Fired{3});
  EXPECT_EQ(reads, 3u);
}

TEST_F(Queue, ADeadlineReachedExactlyFires) {
  arm(0, 5000);
  advance(5000, 5000);
  EXPECT_EQ(fired, Fired{0});
}

TEST_F(Queue, AClockThatStandsStillIsReadEverMoreRarely) {
  arm(0, 1);
  constexpr std::int64_t minute = 60'000'000'000;
  for (std::int64_t passed = 0; passed < minute;) {
    const std::int64_t ns = ns_to_alarm();
    ASSERT_GT(ns, 0);
    advance(ns, 0);
    passed += ns;
    ASSERT_LE(reads, 20u + 60u);  // doubling from 1 us to 1 s, then about one a second
  }
  EXPECT_EQ(fired, Fired{});
  guest_clock += Duration(1);
  advance(ns_to_alarm(), 0);
  EXPECT_EQ(fired, Fired{0});
}

TEST_F(Queue, ANewDeadlineIsPunctualAgainAfterAClockStoodStill) {
  arm(0, 1);
  for (int i = 0; i < 30; ++i) advance(ns_to_alarm(), 0);
  arm(0, 5000);
  advance(5000, 4990);
  EXPECT_EQ(ns_to_alarm(), 1000);
}

TEST_F(Queue, AClockThatWentBackIsReportedOnceAndWaitedFor) {
  arm(0, 5000);
  guest_clock -= Duration(std::chrono::hours(24 * 365));
  backend.alarm().advance(Duration(5000));
  const auto expired = serve();
  ASSERT_FALSE(expired);  // once; then the clock goes on from there
  EXPECT_EQ(expired.error(), (vmm_base::Error{"guest clock went backwards", EINVAL, 0}));
  const auto year = Duration(std::chrono::hours(24 * 365)).count();
  EXPECT_EQ(ns_to_alarm(), year + 5000 - (year + 5000) / 1024);
  advance(ns_to_alarm(), 0);
  EXPECT_EQ(fired, Fired{});
}

TEST_F(Queue, AClockThatWentToTheBeginningOfTimeDoesNotKeepALongRunningHostAwake) {
  backend.alarm().advance(Duration(std::chrono::hours(24 * 365)));
  guest_clock = guest_time(std::int64_t{1} << 62);
  arm(0, 5000);
  guest_clock = GuestTime::min();
  backend.alarm().advance(Duration(5000));
  EXPECT_FALSE(serve());
  EXPECT_GT(backend.alarm().due(), HostTime(Duration(std::int64_t{1} << 62)));
}

TEST_F(Queue, ClocksThatJumpBy2To32FireOnTheGuestsTime) {
  arm(0, 1000);
  arm(1, (1ll << 32) + 1000);
  advance(1000, 1ll << 32);
  EXPECT_EQ(fired, Fired{0});
  advance(1ll << 32, 1000);
  EXPECT_EQ(fired, (Fired{0, 1}));
}

TEST_F(Queue, AClockThatJumpsBackBy2To32IsFollowed) {
  arm(0, 1000);
  guest_clock -= Duration(1ll << 32);
  backend.alarm().advance(Duration(1000));
  EXPECT_FALSE(serve());  // says so
  for (int looks = 0; fired.empty(); ++looks) {
    ASSERT_LT(looks, 10);
    const std::int64_t ns = ns_to_alarm();
    advance(ns, ns);
  }
  EXPECT_EQ(backend.alarm().now(), HostTime(Duration(1000 + (1ll << 32) + 1000)));
}

TEST_F(Queue, ADeadlineBeyondTheHostsTimeIsFarAhead) {
  EXPECT_TRUE(backend.arm(XenVcpuId{0}, GuestTime::max(), GuestTime::min()));
  EXPECT_GT(ns_to_alarm(), std::int64_t{1} << 62);
  expire();
  EXPECT_EQ(fired, Fired{});
}

TEST_F(Queue, AVirtualAlarmThatIsNotSetIsNotReadableAtTheEndOfTimeEither) {
  EXPECT_FALSE(backend.alarm().advance(HostTime::max() - backend.alarm().now()));
  EXPECT_FALSE(backend.alarm().is_set());
}

TEST_F(Queue, AVirtualAlarmHasNoFd) { EXPECT_EQ(backend.fd(), -1); }

// --- wake-ups -----------------------------------------------------------------------------------

TEST_F(Queue, AStaleWakeUpIsHarmless) {
  expire();
  arm(0, 1000);
  expire();
  EXPECT_EQ(fired, Fired{});
  EXPECT_EQ(ns_to_alarm(), 1000);
  advance(1000, 1000);
  expire();
  expire();
  EXPECT_EQ(fired, Fired{0});
}

TEST_F(Queue, AWakeUpForADeadlineMovedAwayDoesNotFire) {
  arm(0, 1000);
  arm(0, 9000);
  advance(1000, 1000);
  EXPECT_EQ(fired, Fired{});
  EXPECT_EQ(ns_to_alarm(), 8000);
}

TEST_F(Queue, ALaterDeadlineSetsNoAlarm) {
  arm(0, 1000);
  EXPECT_EQ(backend.alarm().sets(), 1u);
  for (std::uint32_t vcpu = 1; vcpu < vcpus; ++vcpu) arm(vcpu, 1000 + vcpu / 2);
  arm(0, 1500);
  EXPECT_EQ(backend.alarm().sets(), 1u);
  arm(0, 999);
  EXPECT_EQ(backend.alarm().sets(), 2u);
}

TEST_F(Queue, CancelSetsNoAlarm) {
  arm(0, 1000);
  EXPECT_TRUE(backend.cancel(XenVcpuId{0}));
  EXPECT_TRUE(backend.cancel(XenVcpuId{1}));
  EXPECT_EQ(backend.alarm().sets(), 1u);
  advance(1000, 1000);
  EXPECT_EQ(fired, Fired{});
  EXPECT_EQ(backend.alarm().due(), HostTime::max());
}

TEST_F(Queue, AnEarlierDeadlineMovesTheAlarmForward) {
  arm(0, 1000);
  arm(1, 400);
  EXPECT_EQ(ns_to_alarm(), 400);
  advance(400, 400);
  EXPECT_EQ(ns_to_alarm(), 600);
  advance(600, 600);
  EXPECT_EQ(fired, (Fired{1, 0}));
}

// --- many at once -------------------------------------------------------------------------------

TEST_F(Queue, ManyDueAtOnceFireOnceEachInTheirOrder) {
  for (std::uint32_t vcpu = 0; vcpu < vcpus; ++vcpu) arm(vcpu, 10'000 - vcpu);
  advance(3'600'000'000'000, 3'600'000'000'000);  // the VMM was stopped for an hour
  Fired expected;
  for (std::uint32_t vcpu = vcpus; vcpu-- > 0;) expected.push_back(vcpu);
  EXPECT_EQ(fired, expected);
  EXPECT_EQ(reads, vcpus);
  EXPECT_EQ(backend.alarm().due(), HostTime::max());
}

TEST_F(Queue, OneExpireHasAtMostOneTurnATimer) {
  // An alarm clock that runs on while it is served: everything is due again at once.
  arm(0, 1);
  arm(1, 1);
  backend.alarm().advance(Duration(1));
  unsigned turns = 0;
  EXPECT_TRUE(backend.expire(
      [&](XenVcpuId) {
        ++turns;
        backend.alarm().advance(Duration(std::chrono::seconds(100)));
        return guest_clock;
      },
      [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); }));
  EXPECT_LE(turns, 2u);
  EXPECT_NE(backend.alarm().due(), HostTime::max());  // the rest is not forgotten
}

TEST_F(Queue, RearmingFromTheEventIsServedByALaterExpire) {
  arm(0, 1000);
  guest_clock += Duration(1000);
  backend.alarm().advance(Duration(1000));
  EXPECT_TRUE(backend.expire([this](XenVcpuId) { return guest_clock; },
                             [this](XenVcpuId, EventPort) {
                               arm(7, 500);  // another vCPU's, from within
                               return Result<void>(vmm_base::success());
                             }));
  EXPECT_EQ(ns_to_alarm(), 500);
}

TEST_F(Queue, WhatIsArmedMeanwhileForTheMomentOfTheAlarmHasAnotherAlarm) {
  arm(0, 1000);
  guest_clock += Duration(1000);
  backend.alarm().advance(Duration(1000));
  EXPECT_EQ(backend.alarm().sets(), 1u);
  EXPECT_TRUE(backend.expire([this](XenVcpuId) { return guest_clock; },
                             [this](XenVcpuId, EventPort) {
                               arm(7, 0);  // due when the alarm was, which has been cleared
                               return Result<void>(vmm_base::success());
                             }));
  EXPECT_EQ(backend.alarm().sets(), 2u);
  EXPECT_EQ(ns_to_alarm(), 0);
}

}  // namespace
}  // namespace xen_timer
