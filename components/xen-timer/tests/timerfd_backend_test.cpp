// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/timerfd_backend.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <fstream>
#include <iterator>
#include <string>
#include <thread>

#include "real_time.hpp"

namespace xen_timer {
namespace {

using xen_clock::Duration;
using xen_clock::HostClock;
using xen_clock::HostTime;

static_assert(Alarm<TimerfdAlarm>);
static_assert(Backend<TimerfdBackend>);

constexpr EventPort port{1};
constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};

struct TimerfdAlarmTest : testing::Test {
  Result<TimerfdAlarm> created = TimerfdAlarm::create();
  TimerfdAlarm& alarm = created.value();
};

// KVM's clock does so, too.
TEST_F(TimerfdAlarmTest, CountsOnWhileTheHostIsSuspended) {
  std::ifstream info("/proc/self/fdinfo/" + std::to_string(alarm.fd()));
  const std::string text((std::istreambuf_iterator<char>(info)), {});
  if (text.find("clockid:") == std::string::npos) GTEST_SKIP() << "no fdinfo of timerfds here";
  EXPECT_NE(text.find("clockid: " + std::to_string(CLOCK_BOOTTIME) + "\n"), std::string::npos);
}

TEST_F(TimerfdAlarmTest, IsReadableWhenItIsDueAndNotBefore) {
  const HostTime due = HostClock::now() + 5 * ms;
  ASSERT_TRUE(alarm.set(due));
  ASSERT_TRUE(readable(alarm.fd(), forever));
  EXPECT_GE(HostClock::now(), due);
}

TEST_F(TimerfdAlarmTest, WhatHasPassedIsReadableAtOnce) {
  for (const HostTime due : {HostClock::now() - ms, HostTime{}, HostTime(-ms), HostTime::min()}) {
    ASSERT_TRUE(alarm.set(due));
    EXPECT_TRUE(readable(alarm.fd(), forever));  // an it_value of 0 would disarm
    ASSERT_TRUE(alarm.set(HostTime::max()));
    EXPECT_FALSE(readable(alarm.fd()));
  }
}

TEST_F(TimerfdAlarmTest, MaxIsNever) {
  ASSERT_TRUE(alarm.set(HostTime{}));
  ASSERT_TRUE(alarm.set(HostTime::max()));
  EXPECT_FALSE(readable(alarm.fd(), 5));
}

TEST_F(TimerfdAlarmTest, TheEndOfTimeIsAccepted) {
  ASSERT_TRUE(alarm.set(HostTime::max() - Duration(1)));
  EXPECT_FALSE(readable(alarm.fd(), 5));
}

TEST_F(TimerfdAlarmTest, SettingAgainReplaces) {
  ASSERT_TRUE(alarm.set(HostTime{}));
  ASSERT_TRUE(alarm.set(HostClock::now() + hour));
  EXPECT_FALSE(readable(alarm.fd()));
}

TEST(TimerfdBackendCreate, ReportsEmfile) {
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  rlimit none = old;
  none.rlim_cur = 0;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &none), 0);
  const auto created = TimerfdBackend::create(1);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error().code, EMFILE);
  EXPECT_STREQ(created.error().operation, "timerfd_create");
}

TEST(TimerfdBackendCreate, RefusesCountsOfVcpusThatNoDomainHas) {
  for (const std::uint32_t count : {0u, max_vcpus + 1, 1u << 31, ~0u}) {
    const auto created = TimerfdBackend::create(count);
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error(), (vmm_base::Error{"xen_timer create: vcpu_count", EINVAL, count}));
  }
  EXPECT_EQ(TimerfdBackend::create(max_vcpus).value().vcpu_count(), max_vcpus);
}

// The guest's clock is the host's, counted from the test's beginning.
struct TimerfdBackendTest : testing::Test {
  Result<TimerfdBackend> created = TimerfdBackend::create(2);
  TimerfdBackend& backend = created.value();
  HostTime begin = HostClock::now();
  std::vector<std::uint32_t> fired;

  TimerfdBackendTest() {
    for (const XenVcpuId vcpu : {vcpu0, vcpu1}) {
      EXPECT_TRUE(backend.bind(
          vcpu, port, [this](XenVcpuId) { return guest_now(); },
          [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); }));
    }
  }
  GuestTime guest_now() { return GuestTime(HostClock::now() - begin); }
  void arm(XenVcpuId vcpu, Duration ahead) {
    const GuestTime now = guest_now();
    ASSERT_TRUE(backend.arm(vcpu, now + ahead, now));
  }
  void expire() {
    EXPECT_TRUE(backend.expire([this](XenVcpuId) { return guest_now(); },
                               [this](XenVcpuId vcpu, EventPort) {
                                 fired.push_back(vcpu.value);
                                 return Result<void>(vmm_base::success());
                               }));
  }
  void expire_until_fired(std::size_t count) {
    while (fired.size() < count) {
      ASSERT_TRUE(readable(backend.fd(), forever));
      expire();
    }
  }
};

using Fired = std::vector<std::uint32_t>;

TEST_F(TimerfdBackendTest, TheFdIsReadableAtTheDeadlineAndNotBefore) {
  const GuestTime now = guest_now();
  const GuestTime deadline = now + 5 * ms;
  ASSERT_TRUE(backend.arm(vcpu0, deadline, now));
  ASSERT_TRUE(readable(backend.fd(), forever));
  EXPECT_GE(guest_now(), deadline);
  expire();
  EXPECT_EQ(fired, Fired{0});
  EXPECT_FALSE(readable(backend.fd()));
}

TEST_F(TimerfdBackendTest, AFarDeadlineDoesNotWake) {
  arm(vcpu0, hour);
  EXPECT_FALSE(readable(backend.fd(), 5));
  expire();
  EXPECT_EQ(fired, Fired{});
}

TEST_F(TimerfdBackendTest, ADeadlineOfNowWakes) {
  arm(vcpu0, Duration(0));
  expire_until_fired(1);
  EXPECT_EQ(fired, Fired{0});
}

TEST_F(TimerfdBackendTest, AnEarlierDeadlineOfAnotherVcpuIsServedFirst) {
  arm(vcpu0, hour);
  arm(vcpu1, ms);
  expire_until_fired(1);
  EXPECT_EQ(fired, Fired{1});
  EXPECT_FALSE(readable(backend.fd()));
  EXPECT_TRUE(backend.cancel(vcpu0));
}

TEST_F(TimerfdBackendTest, AWakeUpAfterACancelFiresNothing) {
  arm(vcpu0, Duration(0));
  EXPECT_TRUE(backend.cancel(vcpu0));
  ASSERT_TRUE(readable(backend.fd(), forever));
  expire();
  EXPECT_EQ(fired, Fired{});
  EXPECT_FALSE(readable(backend.fd()));
}

TEST_F(TimerfdBackendTest, ADeadlineArmedWhileThePollWaitsWakesIt) {
  arm(vcpu0, hour);
  std::thread vcpu_thread([this] { arm(vcpu1, Duration(0)); });
  expire_until_fired(1);
  vcpu_thread.join();
  EXPECT_EQ(fired, Fired{1});
}

}  // namespace
}  // namespace xen_timer
