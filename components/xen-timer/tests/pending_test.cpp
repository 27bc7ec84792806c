// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// An event that can't be raised stays pending: until it can, or the guest wants it no more.
#include <gtest/gtest.h>

#include <array>
#include <string>

#include "double_vmm.hpp"

namespace xen_timer {
namespace {

// How an event comes to be pending: at its deadline; at once, as that has passed; a tick's, each.
enum class Way { at_deadline, inline_past, tick_at_once, tick };

struct Pending : HandlerFixture, testing::TestWithParam<Way> {
  std::int64_t since = start;  // its deadline

  [[nodiscard]] bool is_tick() const {
    return GetParam() == Way::tick || GetParam() == Way::tick_at_once;
  }
  // vCPU 0 has an event that couldn't be raised; one attempt was made.
  Pending() {
    vmm.failing_vcpu = 0;
    switch (GetParam()) {
      case Way::at_deadline:
        since = start + ms;
        EXPECT_EQ(call(set_singleshot(static_cast<std::uint64_t>(since))), 0u);
        fail_at(since);
        break;
      case Way::inline_past:
        EXPECT_EQ(host_error(set_singleshot(static_cast<std::uint64_t>(start - 1))), EIO);
        break;
      case Way::tick_at_once:
        EXPECT_EQ(host_error(set_periodic(3600'000 * ms)), 0);
        EXPECT_EQ(host_error(stop_periodic()), 0);
        EXPECT_EQ(host_error(set_periodic(1000 * ms)), EIO);
        break;
      case Way::tick:
        since = start + ms;
        EXPECT_EQ(call(set_periodic(1001 * ms)), 0u);
        fail_at(since);
        break;
    }
    EXPECT_EQ(vmm.attempts, 1u);
    EXPECT_EQ(vmm.events, Events{});
  }
  void fail_at(std::int64_t deadline) {
    move(deadline - start);
    const auto expired = timer.expire();
    ASSERT_FALSE(expired);
    EXPECT_EQ(expired.error(), (vmm_base::Error{"raise_event", EIO, 0}));
  }
  void move(std::int64_t ns) {
    for (GuestTime& clock : vmm.clocks) clock += Duration(ns);
    backend.alarm().advance(Duration(ns));
  }
  // Lets time pass, the events failing.
  void fail_for(std::int64_t ns) {
    while (rest() <= Duration(ns)) {
      ns -= rest().count();
      move(rest().count());
      (void)timer.expire();
    }
    move(ns);
  }
};
std::string name_of(const testing::TestParamInfo<Way>& way) {
  constexpr std::array names{"AtItsDeadline", "PastDeadline", "TickAtOnce", "Tick"};
  return names[static_cast<std::size_t>(way.param)];
}
INSTANTIATE_TEST_SUITE_P(Handler, Pending,
                         testing::Values(Way::at_deadline, Way::inline_past, Way::tick_at_once,
                                         Way::tick),
                         name_of);

TEST_P(Pending, IsTriedEverMoreRarely) {
  Duration longest{};
  for (int i = 0; i < 40; ++i) {
    EXPECT_GE(rest(), longest);
    longest = std::max(longest, rest());
    move(rest().count());
    EXPECT_FALSE(timer.expire());
  }
  EXPECT_EQ(vmm.attempts, 41u);
  EXPECT_GT(longest, Duration(std::chrono::milliseconds(900)));
  EXPECT_LT(longest, Duration(std::chrono::milliseconds(1100)));
}

TEST_P(Pending, IsDeliveredOnceAsSoonAsItCanBe) {
  fail_for(700 * ms);
  vmm.failing_vcpu.reset();
  EXPECT_GT(ns_to_event(), 0);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
  if (is_tick()) {
    EXPECT_EQ(call(stop_periodic()), 0u);
  }
  run(10'000 * ms);
  EXPECT_EQ(vmm.events.size(), 1u);
}

TEST_P(Pending, DoesNotHoldUpAnotherVcpu) {
  EXPECT_EQ(call(set_singleshot(static_cast<std::uint64_t>(since + 5 * ms), 0, vcpu1), vcpu1), 0u);
  fail_for(6 * ms);
  EXPECT_EQ(vmm.events, (Events{{1, 11}}));
  EXPECT_EQ(vmm.times, (Times{since + 5 * ms}));
}

TEST_P(Pending, IsDroppedByACancel) {
  EXPECT_EQ(call(is_tick() ? stop_periodic() : stop_singleshot()), 0u);
  vmm.failing_vcpu.reset();
  run(10'000 * ms);
  EXPECT_EQ(vmm.events, Events{});
}

TEST_P(Pending, IsNotDroppedByACancelOfTheOtherTimer) {
  EXPECT_EQ(call(is_tick() ? stop_singleshot() : stop_periodic()), 0u);
  vmm.failing_vcpu.reset();
  EXPECT_GE(ns_to_event(), 0);
}

TEST_P(Pending, IsReplacedByWhatIsSetNext) {
  if (is_tick()) {
    EXPECT_EQ(call(set_periodic(5000 * ms)), 0u);
  } else {
    EXPECT_EQ(call(set_timer_op(static_cast<std::uint64_t>(since + 4000 * ms))), 0u);
  }
  vmm.failing_vcpu.reset();
  run(since + 4000 * ms - vmm.clocks[0].time_since_epoch().count());
  ASSERT_EQ(vmm.events, (Events{{0, 10}}));
  // A period after the last, which for the tick that never came is the beginning.
  EXPECT_EQ(vmm.times[0], is_tick() ? 5000 * ms : since + 4000 * ms);
}

TEST_P(Pending, IsTriedAtOnceAfterABind) {
  fail_for(10'000 * ms);
  vmm.failing_vcpu.reset();
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{42}));
  advance(0);
  EXPECT_EQ(vmm.events, (Events{{0, 42}}));
}

TEST_P(Pending, IsLostWhereThePortIsClosed) {
  ASSERT_TRUE(timer.unbind(vcpu0));
  vmm.failing_vcpu.reset();
  run(0);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{42}));
  run(900 * ms);  // before the next tick
  EXPECT_EQ(vmm.events, Events{});
}

TEST_P(Pending, IsSavedAndRestored) {
  fail_for(ms);
  const auto saved = timer.save(vcpu0);
  ASSERT_TRUE(saved);
  Machine there;
  there.vmm.clocks = vmm.clocks;
  ASSERT_TRUE(there.timer.restore(vcpu0, saved.value()));
  there.run(0);
  EXPECT_EQ(there.vmm.events, (Events{{0, 10}}));
}

struct PendingTick : HandlerFixture, testing::Test {};

TEST_F(PendingTick, TheGridIsThatOfTheTickThatCouldNotBeRaised) {
  vmm.failing_vcpu = 0;
  EXPECT_EQ(host_error(set_periodic(10 * ms)), EIO);
  for (GuestTime& clock : vmm.clocks) clock += Duration(34 * ms);
  backend.alarm().advance(Duration(34 * ms));
  vmm.failing_vcpu.reset();
  EXPECT_TRUE(timer.expire());
  run(6 * ms);
  EXPECT_EQ(vmm.times, (Times{start + 34 * ms, start + 40 * ms}));
}

// Where the kernel has the single shots, which has no second try: what could not be raised stays
// with us.
template <class>
struct PendingBeside : testing::Test {};
TYPED_TEST_SUITE(PendingBeside, Paths, PathName);

TYPED_TEST(PendingBeside, ABindGivesTheKernelNoDeadlineThatHasPassed) {
  Machine<TypeParam> m;
  m.kernel.deaf = true;  // shared_info isn't there yet, for neither
  m.vmm.failing_vcpu = 0;
  EXPECT_EQ(m.host_error(m.set_singleshot(m.start - 1)), EIO);
  ASSERT_TRUE(m.timer.bind(m.vcpu0, EventPort{42}));
  m.kernel.fire();
  EXPECT_FALSE(m.timer.expire());
  m.vmm.failing_vcpu.reset();
  m.kernel.deaf = false;
  EXPECT_GE(m.ns_to_event(), 0);
  EXPECT_EQ(m.vmm.events, (Events{{0, 42}}));
}

TYPED_TEST(PendingBeside, TheNextCallIsTheKernelsAgain) {
  Machine<TypeParam> m;
  m.vmm.failing_vcpu = 0;
  EXPECT_EQ(m.host_error(m.set_singleshot(m.start - 1)), EIO);
  EXPECT_EQ(m.call(m.set_singleshot(m.start + m.ms)), 0u);
  m.vmm.failing_vcpu.reset();
  if (!std::same_as<TypeParam, NoKernelPath>) {
    EXPECT_EQ(m.kernel.timers[0].deadline, xen_clock::guest_time(m.start + m.ms));
  }
  m.run(1000 * m.ms);
  EXPECT_EQ(m.vmm.times, (Times{m.start + m.ms}));
}

}  // namespace
}  // namespace xen_timer
