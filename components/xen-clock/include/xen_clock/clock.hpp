// SPDX-License-Identifier: BSD-3-Clause
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

// CLOCK_MONOTONIC, ns: what timerfd counts. It stops while the host is suspended, and NTP slews it
// by up to 500 ppm.
struct HostClock {
  using rep = std::int64_t;
  using period = std::nano;
  using duration = std::chrono::duration<rep, period>;
  using time_point = std::chrono::time_point<HostClock>;
  static constexpr bool is_steady = true;
  static time_point now() noexcept {
    timespec ts{};
    ::clock_gettime(CLOCK_MONOTONIC, &ts);  // Can't fail: the clock is always there.
    return time_point(duration(ts.tv_sec * std::int64_t{1'000'000'000} + ts.tv_nsec));
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

// When, on the host's clock, the guest's reads `deadline`, if both go at the same rate from now on.
// `guest_now` must have been read before `host_now`: the time between them then makes it late and
// never early. Deadlines that have passed are due now.
constexpr HostTime host_due(HostTime host_now, GuestTime guest_now, GuestTime deadline) noexcept {
  if (deadline <= guest_now) return host_now;
  std::int64_t rest = 0;
  if (__builtin_sub_overflow(deadline.time_since_epoch().count(),
                             guest_now.time_since_epoch().count(), &rest)) {
    return HostTime::max();
  }
  return saturating_add(host_now, Duration(rest));
}

}  // namespace xen_clock
