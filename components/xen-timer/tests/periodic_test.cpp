// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// VCPUOP_set_periodic_timer and VCPUOP_stop_periodic_timer: what the guest is answered, and when
// its ticks come. Xen 4.18, vcpu_set_periodic_timer(), but that a late tick delays no other.
#include <gtest/gtest.h>

#include "double_vmm.hpp"

namespace xen_timer {
namespace {

using xen_abi::Errno;
using xen_abi::Hypercall;
using xen_clock::guest_time;

constexpr std::uint64_t longest = (std::uint64_t{1} << 62) - 1;

struct Periodic : HandlerFixture, testing::Test {
  // How far after `start` the events came.
  [[nodiscard]] Times ticks() const {
    Times since;
    for (const std::int64_t time : vmm.times) since.push_back(time - start);
    return since;
  }
};
struct PeriodicEitherWidth : HandlerFixture, testing::TestWithParam<bool> {
  PeriodicEitherWidth() { long_mode = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Handler, PeriodicEitherWidth, testing::Bool(), [](const auto& width) {
  return std::string(width.param ? "Long" : "Compat");
});

// --- answers ------------------------------------------------------------------------------------

TEST_P(PeriodicEitherWidth, APeriodIs1MsTo2To62Less1Ns) {
  for (const std::uint64_t period : {1'000'000ul, 1'000'001ul, longest - 1, longest}) {
    EXPECT_EQ(call(set_periodic(period)), 0u) << period;
  }
  for (const std::uint64_t period :
       {0ul, 1ul, 999'999ul, longest + 1, longest + 2, 1ul << 63, ~0ul}) {
    EXPECT_EQ(call(set_periodic(period)), rax(Errno::inval)) << period;
  }
}

TEST_P(PeriodicEitherWidth, AnUnreadableArgumentIsEfaultBeforeABadPeriodIsEinval) {
  const Hypercall set = set_periodic(0);
  EXPECT_EQ(call(set), rax(Errno::inval));
  vmm.memory.resize(8);
  EXPECT_EQ(call(set), rax(Errno::inval));
  vmm.memory.resize(7);
  EXPECT_EQ(call(set), rax(Errno::fault));
  EXPECT_EQ(vmm.copies, 3u);
}

TEST_P(PeriodicEitherWidth, NoSuchVcpuIsEnoentFirstOfAll) {
  for (const std::uint64_t vcpu : {2ull, 0x7fff'ffffull, 0xffff'ffffull}) {
    EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::set_periodic_timer, vcpu, 0)), rax(Errno::noent));
    EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::stop_periodic_timer, vcpu, 0)), rax(Errno::noent));
  }
  EXPECT_EQ(vmm.copies, 0u);
}

TEST_P(PeriodicEitherWidth, CallersOutsideRing0GetEperm) {
  EXPECT_EQ(call(set_periodic(3'000'000'000)), 0u);
  for (Hypercall call : {set_periodic(1'000'000), stop_periodic(), stop_periodic(XenVcpuId{9})}) {
    for (std::uint8_t cpl = 1; cpl <= 3; ++cpl) {
      call.cpl = cpl;
      EXPECT_EQ(this->call(call), rax(Errno::perm));
    }
  }
  EXPECT_EQ(vmm.copies, 1u);
  EXPECT_EQ(ns_to_event(), 2'000'000'000);  // was left alone
}

TEST_P(PeriodicEitherWidth, ErrorsLeaveTheTicksAlone) {
  EXPECT_EQ(call(set_periodic(3'000'000'000)), 0u);
  EXPECT_EQ(call(set_periodic(999'999)), rax(Errno::inval));
  EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::set_periodic_timer, 0, 0)), rax(Errno::fault));
  EXPECT_EQ(ns_to_event(), 2'000'000'000);
}

TEST_P(PeriodicEitherWidth, StopReturnsZeroAlsoWhereNothingWasStarted) {
  EXPECT_EQ(call(stop_periodic()), 0u);  // Linux takes the single-shot calls only after this
  EXPECT_EQ(call(stop_periodic(vcpu1)), 0u);
  EXPECT_EQ(call(set_periodic(1'000'000)), 0u);
  EXPECT_EQ(call(stop_periodic()), 0u);
  EXPECT_EQ(call(stop_periodic()), 0u);
  vmm.memory.clear();  // has no argument
  EXPECT_EQ(call(stop_periodic()), 0u);
}

TEST_F(Periodic, UpperHalvesOfCommandAndVcpuIdAreIgnored) {
  Hypercall call = set_periodic(3'000'000'000);
  call.params[0] |= 0xdead'beef'0000'0000;
  call.params[1] |= 0xdead'beef'0000'0000;
  EXPECT_EQ(this->call(call), 0u);
  EXPECT_EQ(ns_to_event(), 2'000'000'000);
}

// --- the first tick -----------------------------------------------------------------------------

TEST_F(Periodic, TheFirstTickComesAtOnceWhereAPeriodHasPassedSinceTheLast) {
  EXPECT_EQ(call(set_periodic(700 * ms)), 0u);  // the last was at 0, the clock reads 1 s
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
  run(1400 * ms);
  EXPECT_EQ(ticks(), (Times{0, 700 * ms, 1400 * ms}));
}

TEST_F(Periodic, APeriodThatEndsNowHasPassed) {
  EXPECT_EQ(call(set_periodic(static_cast<std::uint64_t>(start))), 0u);
  EXPECT_EQ(ticks(), (Times{0}));
}

TEST_F(Periodic, TheFirstTickElseComesAPeriodAfterTheLast) {
  EXPECT_EQ(call(set_periodic(start + 1)), 0u);
  EXPECT_EQ(vmm.events, Events{});
  EXPECT_EQ(ns_to_event(), 1);
}

TEST_F(Periodic, TheLastTickCountsThroughAStop) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  run(10 * ms);
  EXPECT_EQ(call(stop_periodic()), 0u);
  run(4 * ms);
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  run(6 * ms);
  EXPECT_EQ(call(stop_periodic()), 0u);
  run(11 * ms);
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);  // more than a period after it
  EXPECT_EQ(ticks(), (Times{0, 10 * ms, 20 * ms, 31 * ms}));
}

TEST_F(Periodic, SetAgainWhileRunningCountsFromTheLastTick) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  run(5 * ms);
  EXPECT_EQ(call(set_periodic(7 * ms)), 0u);
  run(4 * ms);
  EXPECT_EQ(call(set_periodic(2 * ms)), 0u);  // 2 ms since the last have just passed
  EXPECT_EQ(call(set_periodic(2 * ms)), 0u);
  run(2 * ms);
  EXPECT_EQ(call(set_periodic(longest)), 0u);
  run(1000 * ms);
  EXPECT_EQ(ticks(), (Times{0, 7 * ms, 9 * ms, 11 * ms}));
}

// --- the others ---------------------------------------------------------------------------------

TEST_F(Periodic, TicksComeAtStartPlusNPeriods) {
  constexpr std::int64_t period = 1'234'567;
  EXPECT_EQ(call(set_periodic(period)), 0u);
  Times grid;
  for (std::int64_t n = 0; n <= 1000; ++n) grid.push_back(n * period);
  run(1000 * period);
  EXPECT_EQ(ticks(), grid);
}

TEST_F(Periodic, ALateTickDelaysNoOther) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  advance(13 * ms);
  run(7 * ms);
  advance(19 * ms);
  run(1 * ms);
  EXPECT_EQ(ticks(), (Times{0, 13 * ms, 20 * ms, 39 * ms, 40 * ms}));
}

TEST_F(Periodic, MissedTicksAreOne) {
  EXPECT_EQ(call(set_periodic(1 * ms)), 0u);
  advance(3'600'000 * ms + ms / 2);  // the VMM was stopped for an hour
  EXPECT_EQ(ticks(), (Times{0, 3'600'000 * ms + ms / 2}));
  run(ms / 2);
  EXPECT_EQ(ticks().back(), 3'600'001 * ms);  // on the grid again
  EXPECT_EQ(vmm.events.size(), 3u);
}

TEST_F(Periodic, ATickThatIsLateByExactlyAPeriodIsOneAndOnTime) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  advance(20 * ms);
  EXPECT_EQ(ticks(), (Times{0, 20 * ms}));
  run(10 * ms);
  EXPECT_EQ(ticks(), (Times{0, 20 * ms, 30 * ms}));
}

TEST_F(Periodic, NoTickFollowsAStop) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  advance(10 * ms - 1);
  EXPECT_EQ(call(stop_periodic()), 0u);
  run(1000 * ms);
  EXPECT_EQ(ticks(), (Times{0}));
  EXPECT_EQ(backend.alarm().due(), xen_clock::HostTime::max());  // it wakes nobody
}

TEST_F(Periodic, NoTickFollowsAStopThatCameAfterItWasDue) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  for (GuestTime& clock : vmm.clocks) clock += Duration(25 * ms);
  backend.alarm().advance(Duration(25 * ms));  // readable, but nobody has looked yet
  EXPECT_EQ(call(stop_periodic()), 0u);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(ticks(), (Times{0}));
}

// --- whose --------------------------------------------------------------------------------------

TEST_F(Periodic, AnotherVcpusMayBeSetAndStoppedAndCountsOnItsOwnClock) {
  vmm.clocks[0] = guest_time(5 * start);
  EXPECT_EQ(call(set_periodic(start + 1, vcpu1), vcpu0), 0u);
  EXPECT_EQ(vmm.events, Events{});
  EXPECT_EQ(ns_to_event(), 1);
  EXPECT_EQ(vmm.events, (Events{{1, 11}}));
  EXPECT_EQ(call(set_periodic(ms, vcpu1), vcpu0), 0u);
  run(2 * ms);
  EXPECT_EQ(vmm.times, (Times{start + 1, start + 1 + ms, start + 1 + 2 * ms}));
  EXPECT_EQ(call(stop_periodic(vcpu1), vcpu0), 0u);
  run(5 * ms);
  EXPECT_EQ(vmm.events.size(), 3u);
}

TEST_F(Periodic, EachVcpuHasItsOwn) {
  EXPECT_EQ(call(set_periodic(2 * ms, vcpu0)), 0u);
  EXPECT_EQ(call(set_periodic(3 * ms, vcpu1)), 0u);
  run(3 * ms);
  EXPECT_EQ(call(stop_periodic(vcpu0)), 0u);
  run(3 * ms);
  EXPECT_EQ(vmm.events, (Events{{0, 10}, {1, 11}, {0, 10}, {1, 11}, {1, 11}}));
  EXPECT_EQ(ticks(), (Times{0, 0, 2 * ms, 3 * ms, 6 * ms}));
}

TEST_F(Periodic, TicksAndTheSingleShotDoNotDisturbEachOther) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  EXPECT_EQ(call(set_singleshot(start + 15 * ms)), 0u);
  run(10 * ms);
  EXPECT_EQ(call(stop_periodic()), 0u);
  run(5 * ms);
  EXPECT_EQ(ticks(), (Times{0, 10 * ms, 15 * ms}));
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  EXPECT_EQ(call(set_singleshot(start + 18 * ms)), 0u);
  EXPECT_EQ(call(stop_singleshot()), 0u);
  EXPECT_EQ(call(set_timer_op(0)), 0u);
  EXPECT_EQ(call(set_timer_op(1)), 0u);  // past: fires at once
  run(5 * ms);
  EXPECT_EQ(ticks(), (Times{0, 10 * ms, 15 * ms, 15 * ms, 20 * ms}));
}

TEST_F(Periodic, BothDueAtOnceAreTwoEvents) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  EXPECT_EQ(call(set_singleshot(start + 10 * ms)), 0u);
  run(10 * ms);
  EXPECT_EQ(ticks(), (Times{0, 10 * ms, 10 * ms}));
}

// --- ports --------------------------------------------------------------------------------------

TEST_F(Periodic, TicksWithoutAPortAreLostAndGoOn) {
  ASSERT_TRUE(timer.unbind(vcpu0));
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  run(25 * ms);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{42}));
  EXPECT_EQ(vmm.events, Events{});
  run(5 * ms);
  EXPECT_EQ(vmm.events, (Events{{0, 42}}));
  EXPECT_EQ(ticks(), (Times{30 * ms}));
}

TEST_F(Periodic, RebindingMovesTheTicks) {
  EXPECT_EQ(call(set_periodic(10 * ms)), 0u);
  run(5 * ms);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{42}));
  run(5 * ms);
  EXPECT_EQ(vmm.events, (Events{{0, 10}, {0, 42}}));
  EXPECT_EQ(ticks(), (Times{0, 10 * ms}));
}

// --- what a hostile guest does to its clock
// -------------------------------------------------------

TEST_F(Periodic, AClockAtTheEndOfTimeTicksNoFasterThanThePeriod) {
  vmm.clocks[0] = GuestTime::max();  // and there it stands
  EXPECT_EQ(call(set_periodic(ms)), 0u);
  for (std::int64_t passed = 0; passed < 100 * ms; passed += ms / 10) {
    backend.alarm().advance(Duration(ms / 10));
    for (int i = 0; i < 3; ++i) {
      EXPECT_TRUE(timer.expire());
    }
  }
  EXPECT_LE(vmm.events.size(), 102u);
}

TEST_F(Periodic, AClockThatJumpsFromEndToEndIsHarmless) {
  vmm.clocks[0] = GuestTime::min();
  EXPECT_EQ(call(set_periodic(longest)), 0u);
  EXPECT_EQ(vmm.events, Events{});
  vmm.clocks[0] = GuestTime::max();
  backend.alarm().advance(Duration::max());
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.events.size(), 1u);
  vmm.clocks[0] = GuestTime::min();
  backend.alarm().advance(-Duration(std::chrono::hours(1)));
  EXPECT_EQ(call(set_periodic(longest)), 0u);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.events.size(), 1u);
}

}  // namespace
}  // namespace xen_timer
