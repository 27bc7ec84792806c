// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Handler::pause() and resume(), for each way of keeping single shots: with a guest clock that
// stood still meanwhile, and with one that has gone on.
#include <gtest/gtest.h>

#include "double_vmm.hpp"

namespace xen_timer {
namespace {

using xen_clock::guest_time;
using xen_clock::HostTime;

template <class>
struct Pause : testing::Test {};
TYPED_TEST_SUITE(Pause, Paths, PathName);

template <class Path>
struct Paused : Machine<Path> {
  using Base = Machine<Path>;
  using Base::ms, Base::start;

  // Host time alone: the guests' clocks stand still.
  void stand_still(std::int64_t ns) {
    const bool readable = this->backend.alarm().advance(Duration(ns));
    this->kernel.fire();
    EXPECT_FALSE(readable);
  }
  // Both clocks go on while nothing may be raised.
  void go_on(std::int64_t ns) {
    for (GuestTime& clock : this->vmm.clocks) clock += Duration(ns);
    stand_still(ns);
    EXPECT_TRUE(this->timer.expire());
    EXPECT_EQ(this->vmm.events, Events{});
  }
  // How far after `start` the events came.
  [[nodiscard]] Times since_start() const {
    Times since;
    for (const std::int64_t time : this->vmm.times) since.push_back(time - start);
    return since;
  }
};

TYPED_TEST(Pause, NoEventComesBeforeResumeHoweverLong) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  EXPECT_EQ(m.call(m.set_periodic(m.start + 20 * m.ms, m.vcpu1)), 0u);
  ASSERT_TRUE(m.timer.pause());
  EXPECT_EQ(m.backend.alarm().due(), HostTime::max());
  for (int i = 0; i < 10; ++i) m.go_on(10'000 * m.ms);
}

TYPED_TEST(Pause, WhereTheClockStoodStillEveryDeadlineIsAsFarAheadAsBefore) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms, 0, m.vcpu0), m.vcpu0), 0u);
  EXPECT_EQ(m.call(m.set_timer_op(m.start + 5'000 * m.ms), m.vcpu1), 0u);
  EXPECT_EQ(m.call(m.set_periodic(m.start + 20 * m.ms)), 0u);
  m.run(4 * m.ms);
  ASSERT_TRUE(m.timer.pause());
  m.stand_still(3'600'000 * m.ms);
  EXPECT_TRUE(m.timer.expire());
  ASSERT_TRUE(m.timer.resume());
  EXPECT_EQ(m.vmm.events, Events{});
  m.run(5'500 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{10 * m.ms, 20 * m.ms, 1040 * m.ms, 2060 * m.ms, 3080 * m.ms,
                                    4100 * m.ms, 5000 * m.ms, 5120 * m.ms}));
}

TYPED_TEST(Pause, WhatIsOverdueComesOnceEach) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_periodic(m.ms, m.vcpu0)), 0u);
  EXPECT_EQ(m.call(m.set_periodic(m.ms, m.vcpu1)), 0u);
  EXPECT_EQ(m.call(m.set_singleshot(m.start + m.ms, 0, m.vcpu0), m.vcpu0), 0u);
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 2 * m.ms, 0, m.vcpu1), m.vcpu1), 0u);
  m.vmm.forget_events();
  ASSERT_TRUE(m.timer.pause());
  m.go_on(3'600'000 * m.ms + m.ms / 2);
  ASSERT_TRUE(m.timer.resume());
  EXPECT_EQ(m.vmm.events, Events{});
  m.run(0);
  std::sort(m.vmm.events.begin(), m.vmm.events.end(),
            [](const Event& a, const Event& b) { return a.vcpu < b.vcpu; });
  EXPECT_EQ(m.vmm.events, (Events{{0, 10}, {0, 10}, {1, 11}, {1, 11}}));
  m.run(0);
  EXPECT_EQ(m.vmm.events.size(), 4u);
}

TYPED_TEST(Pause, TicksKeepTheirGrid) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_periodic(10 * m.ms)), 0u);
  m.run(13 * m.ms);
  ASSERT_TRUE(m.timer.pause());
  m.stand_still(77 * m.ms);
  ASSERT_TRUE(m.timer.resume());
  m.run(9 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{0, 10 * m.ms, 20 * m.ms}));
  m.vmm.forget_events();
  ASSERT_TRUE(m.timer.pause());
  m.go_on(35 * m.ms);  // from 22 to 57
  ASSERT_TRUE(m.timer.resume());
  m.run(13 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{57 * m.ms, 60 * m.ms, 70 * m.ms}));
}

TYPED_TEST(Pause, AClockThatWasSetBackIsNoErrorAndDeadlinesAreOnIt) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.run(5 * m.ms);
  ASSERT_TRUE(m.timer.pause());
  m.vmm.clocks.assign(2, guest_time(m.start - 100 * m.ms));
  ASSERT_TRUE(m.timer.resume());
  EXPECT_EQ(m.ns_to_event(), 110 * m.ms);  // and no expire() says that it went back
}

TYPED_TEST(Pause, WhatHasFiredOrWasCancelledDoesNotComeBack) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + m.ms, 0, m.vcpu0), m.vcpu0), 0u);
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 2 * m.ms, 0, m.vcpu1), m.vcpu1), 0u);
  m.run(m.ms);
  EXPECT_EQ(m.call(m.stop_singleshot(m.vcpu1), m.vcpu1), 0u);
  EXPECT_EQ(m.vmm.events.size(), 1u);
  ASSERT_TRUE(m.timer.pause());
  m.stand_still(m.ms);
  ASSERT_TRUE(m.timer.resume());
  m.run(10'000 * m.ms);
  EXPECT_EQ(m.vmm.events.size(), 1u);
}

TYPED_TEST(Pause, TwiceIsAsOnceAndResumeWithoutItIsHarmless) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  ASSERT_TRUE(m.timer.resume());
  ASSERT_TRUE(m.timer.pause());
  ASSERT_TRUE(m.timer.pause());
  m.stand_still(m.ms);
  ASSERT_TRUE(m.timer.resume());
  ASSERT_TRUE(m.timer.resume());
  EXPECT_EQ(m.ns_to_event(), 10 * m.ms);
  m.run(10'000 * m.ms);
  EXPECT_EQ(m.vmm.events.size(), 1u);
}

TYPED_TEST(Pause, APendingEventWaitsForResumeAndIsTriedAtOnceThen) {
  Paused<TypeParam> m;
  m.vmm.failing_vcpu = 0;
  EXPECT_EQ(m.host_error(m.set_singleshot(m.start - 1)), EIO);
  for (int i = 0; i < 30; ++i) {  // up to one try a second
    for (GuestTime& clock : m.vmm.clocks) clock += m.rest();
    m.backend.alarm().advance(m.rest());
    EXPECT_FALSE(m.timer.expire());
  }
  m.vmm.failing_vcpu.reset();
  ASSERT_TRUE(m.timer.pause());
  m.go_on(100 * m.ms);
  ASSERT_TRUE(m.timer.resume());
  m.run(0);
  EXPECT_EQ(m.vmm.events, (Events{{0, 10}}));
}

// --- what is set meanwhile, by a VMM that puts the guest's state right
// ----------------------------

TYPED_TEST(Pause, WhatIsArmedMeanwhileComesAfterResume) {
  Paused<TypeParam> m;
  ASSERT_TRUE(m.timer.pause());
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  EXPECT_EQ(m.call(m.set_periodic(m.start + 7 * m.ms, m.vcpu1)), 0u);
  m.go_on(10 * m.ms);
  ASSERT_TRUE(m.timer.resume());
  m.run(0);
  EXPECT_EQ(m.vmm.events.size(), 2u);
  EXPECT_EQ(m.since_start(), (Times{10 * m.ms, 10 * m.ms}));
}

TYPED_TEST(Pause, ATickDueAtOnceMeanwhileComesAfterResume) {
  Paused<TypeParam> m;
  ASSERT_TRUE(m.timer.pause());
  EXPECT_EQ(m.call(m.set_periodic(3 * m.ms)), 0u);
  EXPECT_EQ(m.vmm.events, Events{});
  m.go_on(5 * m.ms);
  ASSERT_TRUE(m.timer.resume());
  m.run(4 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{5 * m.ms, 6 * m.ms, 9 * m.ms}));
}

TYPED_TEST(Pause, APastDeadlineMeanwhileComesAfterResume) {
  Paused<TypeParam> m;
  ASSERT_TRUE(m.timer.pause());
  EXPECT_EQ(m.call(m.set_singleshot(m.start - 1)), 0u);
  EXPECT_EQ(m.call(m.set_timer_op(m.start - 1), m.vcpu1), 0u);
  EXPECT_EQ(m.vmm.events, Events{});
  EXPECT_EQ(m.timer.save(m.vcpu0).value().deadline, guest_time(m.start));
  m.go_on(m.ms);
  ASSERT_TRUE(m.timer.resume());
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{m.ms, m.ms}));
}

TYPED_TEST(Pause, APastDeadlineMeanwhileIsLostWithoutAPort) {
  Paused<TypeParam> m;
  ASSERT_TRUE(m.timer.unbind(m.vcpu0));
  ASSERT_TRUE(m.timer.pause());
  EXPECT_EQ(m.call(m.set_singleshot(m.start - 1)), 0u);
  ASSERT_TRUE(m.timer.bind(m.vcpu0, EventPort{42}));
  ASSERT_TRUE(m.timer.resume());
  m.run(1000 * m.ms);
  EXPECT_EQ(m.vmm.events, Events{});
}

TYPED_TEST(Pause, ABindMeanwhileTakesTheDeadlineAlong) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  ASSERT_TRUE(m.timer.pause());
  ASSERT_TRUE(m.timer.bind(m.vcpu0, EventPort{42}));
  m.go_on(10 * m.ms);
  ASSERT_TRUE(m.timer.resume());
  m.run(0);
  EXPECT_EQ(m.vmm.events, (Events{{0, 42}}));
}

TYPED_TEST(Pause, ACancelMeanwhileCancels) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  EXPECT_EQ(m.call(m.set_periodic(m.start + 7 * m.ms)), 0u);
  ASSERT_TRUE(m.timer.pause());
  EXPECT_EQ(m.call(m.stop_singleshot()), 0u);
  EXPECT_EQ(m.call(m.stop_periodic()), 0u);
  ASSERT_TRUE(m.timer.resume());
  m.run(10'000 * m.ms);
  EXPECT_EQ(m.vmm.events, Events{});
}

TYPED_TEST(Pause, WhatIsRestoredMeanwhileComesAfterResume) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 900 * m.ms)), 0u);
  ASSERT_TRUE(m.timer.pause());
  ASSERT_TRUE(m.timer.restore(m.vcpu0, {.port = EventPort{42},
                                        .deadline = guest_time(m.start + 5 * m.ms),
                                        .period = Duration(20 * m.ms),
                                        .last_tick = guest_time(m.start - 7 * m.ms)}));
  m.go_on(6 * m.ms);
  ASSERT_TRUE(m.timer.resume());
  m.run(27 * m.ms);
  EXPECT_EQ(m.vmm.events, (Events{{0, 42}, {0, 42}, {0, 42}}));
  EXPECT_EQ(m.since_start(), (Times{6 * m.ms, 13 * m.ms, 33 * m.ms}));
}

TYPED_TEST(Pause, TheClockMayBeRestoredAfterTheTimersIfBothAreMeanwhile) {
  for (const std::int64_t at_first : {std::int64_t{0}, std::int64_t{1} << 60}) {
    Paused<TypeParam> m;
    ASSERT_TRUE(m.timer.pause());
    m.vmm.clocks.assign(2, guest_time(at_first));
    ASSERT_TRUE(m.timer.restore(m.vcpu0, {.port = EventPort{42},
                                          .deadline = guest_time(m.start + 5 * m.ms),
                                          .period = Duration(20 * m.ms),
                                          .last_tick = guest_time(m.start - 7 * m.ms)}));
    m.vmm.clocks.assign(2, guest_time(m.start));
    ASSERT_TRUE(m.timer.resume());
    EXPECT_EQ(m.vmm.events, Events{});
    m.run(33 * m.ms);
    EXPECT_EQ(m.since_start(), (Times{5 * m.ms, 13 * m.ms, 33 * m.ms}));
  }
}

TYPED_TEST(Pause, SaveMeanwhileTellsWhatWasArmed) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  EXPECT_EQ(m.call(m.set_periodic(40 * m.ms)), 0u);
  const auto before = m.timer.save(m.vcpu0).value();
  ASSERT_TRUE(m.timer.pause());
  EXPECT_EQ(m.timer.save(m.vcpu0).value(), before);
  EXPECT_EQ(before, (VcpuTimers{.port = EventPort{10},
                                .deadline = guest_time(m.start + 5 * m.ms),
                                .period = Duration(40 * m.ms),
                                .last_tick = guest_time(m.start)}));
}

TYPED_TEST(Pause, ReportsAnAlarmItCannotSet) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_periodic(m.start + m.ms)), 0u);
  m.backend.alarm().fail_with(EMFILE);
  const auto paused = m.timer.pause();
  ASSERT_FALSE(paused);
  EXPECT_EQ(paused.error().code, EMFILE);
  const auto resumed = m.timer.resume();
  ASSERT_FALSE(resumed);
  EXPECT_EQ(resumed.error().code, EMFILE);
  m.backend.alarm().fail_with(0);
  m.advance(2 * m.ms);
  EXPECT_TRUE(m.timer.expire());
  EXPECT_EQ(m.vmm.events, (Events{{0, 10}}));  // late, but not lost
}

// --- a timer in the kernel
// ------------------------------------------------------------------------

template <class>
struct PausePath : testing::Test {};
using InTheKernel = testing::Types<DelegatedPath<DoubleKernel>, NearPath>;
TYPED_TEST_SUITE(PausePath, InTheKernel, PathName);

TYPED_TEST(PausePath, TheKernelsTimerIsStoppedAndSetAgainByResume) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  EXPECT_EQ(m.kernel.timers[0].deadline, guest_time(m.start + 5 * m.ms));
  ASSERT_TRUE(m.timer.pause());
  EXPECT_EQ(m.kernel.timers[0].deadline, std::nullopt);
  ASSERT_TRUE(m.timer.resume());
  // Else a kernel that answers some of the hypercalls itself would not know of it.
  EXPECT_EQ(m.kernel.timers[0].deadline, guest_time(m.start + 5 * m.ms));
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{5 * m.ms}));
}

TYPED_TEST(PausePath, WhatWasRestoredIsNotTheKernelsAfterResumeEither) {
  for (const bool meanwhile : {false, true}) {
    Paused<TypeParam> m;
    if (meanwhile) {
      ASSERT_TRUE(m.timer.pause());
    }
    ASSERT_TRUE(m.timer.restore(
        m.vcpu0, {.port = EventPort{42}, .deadline = guest_time(m.start + 5 * m.ms)}));
    if (!meanwhile) {
      ASSERT_TRUE(m.timer.pause());
    }
    ASSERT_TRUE(m.timer.resume());
    m.kernel.deaf = true;  // shared_info isn't there yet
    m.run(1000 * m.ms);
    EXPECT_EQ(m.since_start(), (Times{5 * m.ms}));
  }
}

TYPED_TEST(PausePath, AnOverdueDeadlineIsRaisedByUs) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  ASSERT_TRUE(m.timer.pause());
  m.go_on(5 * m.ms);
  ASSERT_TRUE(m.timer.resume());
  EXPECT_EQ(m.kernel.timers[0].deadline, std::nullopt);
  m.run(0);
  EXPECT_EQ(m.vmm.attempts, 1u);
  EXPECT_EQ(m.since_start(), (Times{5 * m.ms}));
}

TYPED_TEST(PausePath, WhereTheKernelCannotTellWhatItWasGivenComes) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  m.kernel.get_failure = EIO;
  const auto paused = m.timer.pause();
  ASSERT_FALSE(paused);
  EXPECT_EQ(paused.error(), (vmm_base::Error{"KVM_XEN_VCPU_GET_ATTR", EIO, 0}));
  EXPECT_EQ(m.kernel.timers[0].deadline, std::nullopt);
  m.kernel.get_failure = 0;
  ASSERT_TRUE(m.timer.resume());
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{5 * m.ms}));
}

TYPED_TEST(PausePath, WhereTheKernelCannotTellWhatItWasNotGivenDoesNotCome) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  EXPECT_EQ(m.call(m.stop_singleshot()), 0u);
  m.kernel.get_failure = EIO;
  EXPECT_FALSE(m.timer.pause());
  ASSERT_TRUE(m.timer.resume());
  m.run(1000 * m.ms);
  EXPECT_EQ(m.vmm.events, Events{});
}

TYPED_TEST(PausePath, AKernelThatCannotStopItsTimerIsReported) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  m.kernel.set_failure = EIO;
  const auto paused = m.timer.pause();
  ASSERT_FALSE(paused);
  EXPECT_EQ(paused.error(), (vmm_base::Error{"KVM_XEN_VCPU_SET_ATTR", EIO, 0}));
}

TYPED_TEST(PausePath, WhatTheKernelRefusesAtResumeIsReportedAndComesOnTime) {
  Paused<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 5 * m.ms)), 0u);
  ASSERT_TRUE(m.timer.pause());
  m.kernel.set_failure = ENOSPC;
  const auto resumed = m.timer.resume();
  ASSERT_FALSE(resumed);
  EXPECT_EQ(resumed.error(), (vmm_base::Error{"KVM_XEN_VCPU_SET_ATTR", ENOSPC, 0}));
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{5 * m.ms}));
}

TYPED_TEST(PausePath, ADeadlineThatOnlyTheKernelKnewIsKept) {
  Paused<TypeParam> m;
  // It answered the guest's hypercall itself.
  m.kernel.timers[0].deadline = guest_time(m.start + 5 * m.ms);
  ASSERT_TRUE(m.timer.pause());
  m.stand_still(100 * m.ms);
  EXPECT_EQ(m.timer.save(m.vcpu0).value().deadline, guest_time(m.start + 5 * m.ms));
  ASSERT_TRUE(m.timer.resume());
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{5 * m.ms}));
}

TEST(PauseNear, AFarDeadlineThatHasComeNearIsGivenToTheKernelAtResume) {
  Paused<NearPath> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 1000 * m.ms)), 0u);
  m.run(990 * m.ms);
  ASSERT_TRUE(m.timer.pause());
  ASSERT_TRUE(m.timer.resume());
  EXPECT_EQ(m.kernel.timers[0].deadline, guest_time(m.start + 1000 * m.ms));
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{1000 * m.ms}));
}

}  // namespace
}  // namespace xen_timer
