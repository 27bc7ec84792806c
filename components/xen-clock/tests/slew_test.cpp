// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A timer that does what check_due() is for, on two simulated clocks: the guest's, which is the
// truth, and the host's, which NTP slews against it at a rate that changes with every wait.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>

#include "xen_clock/clock.hpp"

namespace xen_clock {
namespace {

using Real = long double;  // ns: exact to 1/1000 in hours

struct World {
  Real guest = 0;
  Real host = 0;
  Real suspend_at = -1;  // the guest's time
  Real suspended_for = 0;

  [[nodiscard]] GuestTime guest_now() const {
    return guest_time(static_cast<std::int64_t>(std::floor(guest)));
  }
  [[nodiscard]] HostTime host_now() const {
    return HostTime(Duration(static_cast<std::int64_t>(std::floor(host))));
  }

  // Waits like a timerfd on HostClock, which gains `rate` on the guest's. While the host is
  // suspended both count on, and what is due waits for the resume.
  void wait(HostTime due, Real rate) {
    const Real rest = static_cast<Real>(due.time_since_epoch().count()) - host;
    if (rest <= 0) return;
    const Real passes = rest / (1 + rate);
    if (guest <= suspend_at && suspend_at < guest + passes) {
      host += (suspend_at - guest) * (1 + rate) + suspended_for;
      guest = suspend_at + suspended_for;
      suspend_at = -1;
      wait(due, rate);
      return;
    }
    guest += passes;
    host += rest;
  }
};

constexpr Real ntp = 500e-6L;
Real any_slew() {
  // Its ends above all.
  const int ppm = *rc::gen::oneOf(rc::gen::element(-500, 500), rc::gen::inRange(-500, 501));
  return static_cast<Real>(ppm) * 1e-6L;
}

Duration any_duration(Duration longest) {
  const auto bits = *rc::gen::inRange(0, 63);
  const std::int64_t ns = *rc::gen::inRange<std::int64_t>(0, std::int64_t{1} << bits);
  return std::clamp(Duration(ns), Duration(1), longest);
}

constexpr Duration longest = std::chrono::hours(30);
Duration any_horizon() { return Duration(*rc::gen::inRange<std::int64_t>(1'000, 20'000'000)); }

// Waits for the deadline; returns how often it woke.
template <class Meanwhile>
int serve(World& world, GuestTime deadline, Duration horizon, Meanwhile&& meanwhile) {
  int looks = 0;
  while (world.guest_now() < deadline && looks < 100) {
    const GuestTime guest_now = world.guest_now();
    world.wait(check_due(world.host_now(), guest_now, deadline, horizon), any_slew());
    ++looks;
    meanwhile(world);
  }
  return looks;
}

Real late(const World& world, GuestTime deadline) {
  return world.guest - static_cast<Real>(deadline.time_since_epoch().count());
}

RC_GTEST_PROP(Slew, DeadlinesAreMetWithinTheHorizonsShareOfIt, ()) {
  World world{.guest = 12'345, .host = static_cast<Real>(*rc::gen::inRange(0, 1 << 30))};
  const GuestTime deadline = world.guest_now() + any_duration(longest);
  const Duration horizon = any_horizon();
  const int looks = serve(world, deadline, horizon, [](World&) {});
  RC_ASSERT(world.guest_now() >= deadline);
  RC_ASSERT(looks < 8);
  // 3 ns for a reading's ns, the host's and the guest's.
  RC_ASSERT(late(world, deadline) <= static_cast<Real>(horizon.count()) * ntp + 3);
}

RC_GTEST_PROP(Slew, ASuspendedHostIsLateOnlyByTheSuspension, ()) {
  World world{};
  const Duration wait = any_duration(longest);
  const GuestTime deadline = guest_time(0) + wait;
  const Duration horizon = any_horizon();
  world.suspend_at = static_cast<Real>(*rc::gen::inRange<std::int64_t>(0, wait.count()));
  world.suspended_for = static_cast<Real>(any_duration(longest).count());
  const Real resumed = world.suspend_at + world.suspended_for;
  const int looks = serve(world, deadline, horizon, [](World&) {});
  RC_ASSERT(world.guest_now() >= deadline);
  RC_ASSERT(looks < 9);
  const Real due = std::max(static_cast<Real>(wait.count()), resumed);
  RC_ASSERT(world.guest - due <= static_cast<Real>(horizon.count()) * ntp + 3);
}

// KVM_SET_CLOCK, or a guest that writes to its page.
RC_GTEST_PROP(Slew, AJumpOfTheGuestsClockIsSeenAtTheNextLook, (bool forward)) {
  World world{.guest = 1e12L};
  const Duration wait = any_duration(longest);
  const GuestTime deadline = world.guest_now() + wait;
  const Real jump = forward ? 4'294'967'296.0L : -4'294'967'296.0L;
  int when = *rc::gen::inRange(0, 4);
  const int looks = serve(world, deadline, any_horizon(), [&](World& now) {
    if (when-- == 0) now.guest += jump;
  });
  RC_ASSERT(world.guest_now() >= deadline);
  RC_ASSERT(looks < 14);  // the way twice
  RC_ASSERT(late(world, deadline) < 4'294'967'296.0L + 20'000'000.0L * ntp + 3);
  if (!forward) RC_ASSERT(late(world, deadline) < 20'000'000.0L * ntp + 3);
}

// One wait with the margin, and nobody looks: never early, whatever NTP does.
RC_GTEST_PROP(Slew, TheMarginIsEnoughWhereNobodyLooks, ()) {
  World world{};
  const Duration wait = any_duration(longest);
  world.wait(saturating_add(host_due(world.host_now(), world.guest_now(), guest_time(0) + wait),
                            slew_margin(wait)),
             any_slew());
  RC_ASSERT(world.guest_now() >= guest_time(0) + wait);
  RC_ASSERT(late(world, guest_time(0) + wait) <=
            static_cast<Real>(wait.count()) * 2.002L * ntp + 2);
}

}  // namespace
}  // namespace xen_clock
