// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Two clocks that must not be mixed up, and the one function that leads from the one to the other.
// A deadline of the guest's can't be armed on the host's clock by mistake: it doesn't compile.
#pragma once

#include <time.h>

#include <chrono>
#include <cstdint>

namespace xen_clock {

// Guest system time: ns since the domain was started, as the guest's pvclock tells it. It has no
// now(): whose vCPU is meant decides.
struct GuestClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::duration<rep, period>;
  using time_point = std::chrono::time_point<GuestClock>;
  static constexpr bool is_steady = true;
};
using GuestTime = GuestClock::time_point;

// CLOCK_BOOTTIME, ns: it counts on while the host is suspended, as KVM's clock does, and what is
// due by then is due at the resume. A timerfd can count it. NTP slews it, by up to 500 ppm; a
// guest's clock isn't slewed.
struct HostClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::duration<rep, period>;
  using time_point = std::chrono::time_point<HostClock>;
  static constexpr bool is_steady = true;
  static constexpr clockid_t id = CLOCK_BOOTTIME;
  static time_point now() noexcept { return time_point(read(id)); }
  // How long the host has been suspended since its boot, give or take the time between two
  // readings.
  static duration suspended() noexcept { return read(id) - read(CLOCK_MONOTONIC); }

 private:
  static duration read(clockid_t clock) noexcept {
    timespec ts{};
    ::clock_gettime(clock, &ts);  // Can't fail: these clocks are always there.
    return duration(ts.tv_sec * std::int64_t{1'000'000'000} + ts.tv_nsec);
  }
};
using HostTime = HostClock::time_point;

using Duration = GuestClock::duration;  // ns, of either clock

constexpr GuestTime guest_time(std::int64_t ns) noexcept { return GuestTime(Duration(ns)); }

// a + b, b >= 0, stopping at the end of time.
template <class Clock>
constexpr std::chrono::time_point<Clock> saturating_add(std::chrono::time_point<Clock> a,
                                                        Duration b) noexcept {
  using Time = std::chrono::time_point<Clock>;
  return a > Time::max() - b ? Time::max() : a + b;
}

// How far it is from `now` to `deadline`: 0 if that has passed, and no more than there are ns.
constexpr Duration time_left(GuestTime now, GuestTime deadline) noexcept {
  if (deadline <= now) return Duration::zero();
  std::int64_t rest = 0;
  return __builtin_sub_overflow(deadline.time_since_epoch().count(), now.time_since_epoch().count(),
                                &rest)
             ? Duration::max()
             : Duration(rest);
}

// When, on the host's clock, the guest's reads `deadline`, if both go at the same rate from now on.
// `guest_now` must have been read before `host_now`: the time between them then makes it late and
// never early. Deadlines that have passed are due now.
constexpr HostTime host_due(HostTime host_now, GuestTime guest_now, GuestTime deadline) noexcept {
  return saturating_add(host_now, time_left(guest_now, deadline));
}

// When to look at the guest's clock again on the way to `deadline`; read as for host_due(). Up to
// `horizon` away it is host_due() itself; farther deadlines are looked at ahead of time, so that
// the drift between the clocks counts for the last stretch only. The share left over, 1/1024,
// exceeds what NTP slews, so a look is never late, and brings the deadline 650 times closer or to
// the horizon. Never early is up to the caller: it's due only once guest_now >= deadline.
constexpr HostTime check_due(HostTime host_now, GuestTime guest_now, GuestTime deadline,
                             Duration horizon) noexcept {
  const Duration rest = time_left(guest_now, deadline);
  if (rest <= horizon) return saturating_add(host_now, rest);
  const Duration ahead = rest / 1024 > horizon / 2 ? rest / 1024 : horizon / 2;
  return saturating_add(host_now, rest - ahead);
}

// How much the host's clock may gain on the guest's while `rest` passes on the guest's, rounded up:
// added to host_due() where nobody can look at the guest's clock at the expiry.
constexpr Duration slew_margin(Duration rest) noexcept {
  if (rest <= Duration::zero()) return Duration::zero();
  constexpr int per_500_ppm = 2000;
  return rest / per_500_ppm + Duration(rest % per_500_ppm != Duration::zero() ? 1 : 0);
}

}  // namespace xen_clock
