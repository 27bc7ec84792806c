// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// On real time and real fds, so nothing here says how late is too late.
#include "xen_timer/signalling_timer.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <random>
#include <utility>

#include "failing_syscall.hpp"
#include "kernel_aio.hpp"

// What the next timerfd_settime() does first.
static std::function<void()> before_settime;
extern "C" int timerfd_settime(int fd, int flags, const itimerspec* to, itimerspec* from) noexcept {
  if (before_settime) std::exchange(before_settime, {})();
  return static_cast<int>(::syscall(SYS_timerfd_settime, fd, flags, to, from));
}

namespace xen_timer {
namespace {

using xen_clock::Duration;
using xen_clock::HostClock;
using xen_clock::HostTime;

void spin_until(HostTime time) {
  while (HostClock::now() < time) {
  }
}

struct Signalling : NeedsKernelAio {
  std::optional<SignallingTimer> timer;
  int fd = -1;

  void SetUp() override {
    NeedsKernelAio::SetUp();
    if (IsSkipped()) return;
    auto created = SignallingTimer::create();
    ASSERT_TRUE(created) << created.error().message();
    timer.emplace(std::move(created.value()));
    fd = timer->eventfd();
  }
  void set(HostTime due) { ASSERT_TRUE(timer->set(due)); }
};

TEST_F(Signalling, OnceWhenItIsDueAndNotBefore) {
  for (int i = 0; i < 20; ++i) {
    const HostTime due = HostClock::now() + ms;
    set(due);
    EXPECT_FALSE(HostClock::now() < due && timer->signalled());
    ASSERT_TRUE(readable(fd, forever));
    EXPECT_GE(HostClock::now(), due);
    EXPECT_TRUE(timer->signalled());
    EXPECT_EQ(signals(fd), 1u);
    EXPECT_FALSE(readable(fd, 1));
  }
}

TEST_F(Signalling, WhatHasPassedSignalsAtOnce) {
  for (const HostTime due : {HostClock::now() - ms, HostTime{}, HostTime(-ms), HostTime::min()}) {
    set(due);
    ASSERT_TRUE(readable(fd, forever));
    EXPECT_EQ(signals(fd), 1u);
  }
}

TEST_F(Signalling, NothingAtFirstAndNothingAfterMax) {
  EXPECT_TRUE(timer->signalled());
  EXPECT_FALSE(readable(fd));
  set(HostTime::max());
  for (int i = 0; i < 3; ++i) {
    set(HostClock::now() + 1000 * ms);
    set(HostTime::max());
    EXPECT_FALSE(readable(fd, 5));
  }
  set(HostClock::now());  // and it works again
  ASSERT_TRUE(readable(fd, forever));
}

TEST_F(Signalling, SetAgainBeforeItsExpiryTheLastCounts) {
  set(HostClock::now() + ms);
  set(HostClock::now() + hour);
  EXPECT_FALSE(readable(fd, 5));
  EXPECT_FALSE(timer->signalled());
  const HostTime due = HostClock::now() + ms;
  set(due);
  ASSERT_TRUE(readable(fd, forever));
  EXPECT_GE(HostClock::now(), due);
  EXPECT_EQ(signals(fd), 1u);
}

// The poll of a deadline that is waited for serves the next: its signal is the only one.
TEST_F(Signalling, OneThatIsDueAtOnceInPlaceOfOneThatIsWaitedForSignalsOnce) {
  for (int i = 0; i < 2000; ++i) {
    set(HostClock::now() + hour);
    set(HostClock::now() + Duration(i % 50 * 100));
    ASSERT_TRUE(readable(fd, forever));
    EXPECT_TRUE(timer->signalled());
    ASSERT_EQ(signals(fd), 1u) << i;
  }
  EXPECT_FALSE(readable(fd, 1));
}

TEST_F(Signalling, SetAgainAfterItsExpiryUnseenItSignalsForEach) {
  for (int i = 1; i <= 1000; ++i) {
    set(HostClock::now());
    ASSERT_TRUE(readable(fd, forever));
    set(HostClock::now() + hour);  // before anybody has read the eventfd
    ASSERT_EQ(signals(fd), 1u) << i;
  }
}

// Deadlines of a few microseconds, replaced at any moment around their expiry.
TEST_F(Signalling, ThousandsOfTimesReplacedAroundItsExpiryEachSignalsOnceOrWasReplaced) {
  std::mt19937 random(1);
  const auto few = [&] { return Duration(std::uniform_int_distribution(0, 30'000)(random)); };
  unsigned replaced = 0;
  unsigned signalled = 0;
  for (int i = 0; i < 20'000; ++i) {
    const HostTime first = HostClock::now() + few();
    set(first);
    spin_until(HostClock::now() + few());
    const bool cancel = i % 2 == 0;
    set(cancel ? HostTime::max() : HostClock::now() + few());
    const bool in_time = HostClock::now() < first;  // replaced before it can have signalled
    std::uint64_t count = signals(fd);
    if (in_time) ++replaced;
    if (!cancel) {
      while (!timer->signalled()) {
      }
      if (count == 0) {  // signalled() may know before the eventfd does
        ASSERT_TRUE(readable(fd, forever));
      }
      count += signals(fd);
      ASSERT_GE(count, 1u) << i;
    }
    const std::uint64_t most = (in_time ? 0U : 1U) + (cancel ? 0U : 1U);
    if (count < most && readable(fd, i % 50 == 0 ? 20 : 1))
      count += signals(fd);  // the same of `first`
    ASSERT_LE(count, most) << i;
    if (cancel) signalled += count != 0;
  }
  EXPECT_FALSE(readable(fd, 5));
  EXPECT_GT(replaced, 0u);   // the test has seen
  EXPECT_GT(signalled, 0u);  // both
}

// It was still to come when it was looked at, and has signalled when it is stopped.
TEST_F(Signalling, ADeadlineThatExpiresJustAsItIsReplacedIsNotTakenForTheNext) {
  for (int i = 0; i < 20; ++i) {
    set(HostClock::now() + ms);
    before_settime = [&] { ASSERT_TRUE(readable(fd, forever)); };
    const HostTime second = HostClock::now() + 5 * ms;
    set(second);
    (void)signals(fd);
    if (HostClock::now() >= second) continue;  // a busy machine: they can't be told apart
    ASSERT_TRUE(readable(fd, forever));
    EXPECT_GE(HostClock::now(), second);
    EXPECT_EQ(signals(fd), 1u);
  }
}

TEST_F(Signalling, MovesWithWhatItWaitsFor) {
  set(HostClock::now() + 2 * ms);
  SignallingTimer moved(std::move(*timer));
  timer.reset();
  EXPECT_EQ(moved.eventfd(), fd);
  ASSERT_TRUE(readable(fd, forever));
  EXPECT_EQ(signals(fd), 1u);
  ASSERT_TRUE(moved.set(HostClock::now()));
  ASSERT_TRUE(readable(fd, forever));
}

TEST_F(Signalling, WhatItCannotSetItSays) {
  with_failing_syscall(SYS_io_submit, EAGAIN, [&] {
    const auto set = timer->set(HostClock::now() + ms);
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error(), (vmm_base::Error{"io_submit", EAGAIN, 0}));
    EXPECT_TRUE(timer->signalled());
  });
  with_failing_syscall(SYS_timerfd_settime, ENOSPC, [&] {
    const auto set = timer->set(HostTime(ms));
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error(), (vmm_base::Error{"timerfd_settime", ENOSPC, 1'000'000}));
  });
  if (IsSkipped()) return;
  set(HostClock::now() + 1000 * ms);  // more than a thread takes to start
  with_failing_syscall(SYS_io_getevents, EINVAL, [&] {
    before_settime = [&] { ASSERT_TRUE(readable(fd, forever)); };
    const auto set = timer->set(HostTime::max());
    ASSERT_FALSE(set);
    EXPECT_EQ(set.error(), (vmm_base::Error{"io_getevents", EINVAL, 0}));
  });
  before_settime = {};
  EXPECT_EQ(signals(fd), 1u);
  EXPECT_FALSE(readable(fd, 5));
  set(HostClock::now());
  ASSERT_TRUE(readable(fd, forever));
  EXPECT_EQ(signals(fd), 1u);
}

// What has signalled is there once drain() has returned, however busy the kernel's worker was.
TEST_F(Signalling, ADrainedSignalIsThere) {
  for (int i = 0; i < 50; ++i) {
    set(HostClock::now() + Duration(i % 10 * 10'000));
    while (!timer->signalled()) {
    }
    EXPECT_TRUE(timer->may_be_signalling());
    ASSERT_TRUE(timer->drain());
    EXPECT_FALSE(timer->may_be_signalling());
    ASSERT_EQ(signals(fd), 1u) << i;
  }
  set(HostClock::now());  // and it works again
  ASSERT_TRUE(readable(fd, forever));
}

TEST_F(Signalling, NothingIsDrainedOfWhatIsStillToCome) {
  set(HostClock::now());
  ASSERT_TRUE(readable(fd, forever));
  EXPECT_EQ(signals(fd), 1u);
  set(HostClock::now() + hour);
  EXPECT_FALSE(timer->may_be_signalling());
  ASSERT_TRUE(timer->drain());
  EXPECT_FALSE(readable(fd, 5));
  EXPECT_FALSE(timer->signalled());
}

TEST_F(Signalling, WithoutAnotherContextItGoesOnWithTheOld) {
  with_failing_syscall(SYS_io_setup, EAGAIN, [&] {
    set(HostClock::now());
    ASSERT_TRUE(readable(fd, forever));
    ASSERT_TRUE(timer->signalled());
    const auto drained = timer->drain();
    ASSERT_FALSE(drained);
    EXPECT_EQ(drained.error(), (vmm_base::Error{"io_setup", EAGAIN, 0}));
    EXPECT_TRUE(timer->may_be_signalling());
    EXPECT_EQ(signals(fd), 1u);
    set(HostClock::now());
    ASSERT_TRUE(readable(fd, forever));
    EXPECT_EQ(signals(fd), 1u);
  });
}

}  // namespace
}  // namespace xen_timer
