// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a guest's timeout means: pure functions of it and of the guest's clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>

#include "xen_clock/clock.hpp"

namespace xen_timer {

// VCPUOP_set_singleshot_timer: `timeout` is absolute, ns. nullopt: it has passed, fire at once. A
// value beyond the signed range is negative to Xen's timers, which fire at once, too.
constexpr std::optional<xen_clock::GuestTime> singleshot_deadline(
    std::uint64_t timeout, xen_clock::GuestTime now) noexcept {
  if (timeout > std::numeric_limits<std::int64_t>::max()) return std::nullopt;
  const auto deadline = xen_clock::guest_time(static_cast<std::int64_t>(timeout));
  if (deadline < now) return std::nullopt;
  return deadline;
}

// set_timer_op, timeout not 0: the same, but negative timeouts and those 2^50 ns (13 days) and more
// ahead become 100 ms from now. Guests that wrapped their jiffies asked for those when idle
// (xen/common/sched/core.c, do_set_timer_op).
constexpr std::optional<xen_clock::GuestTime> set_timer_op_deadline(
    std::int64_t timeout, xen_clock::GuestTime now) noexcept {
  const auto deadline = xen_clock::guest_time(timeout);
  const auto ahead = static_cast<std::uint64_t>(timeout) -
                     static_cast<std::uint64_t>(now.time_since_epoch().count());
  if (timeout < 0 || (deadline > now && ahead >> 50 != 0)) {
    return xen_clock::saturating_add(now, std::chrono::milliseconds(100));
  }
  if (deadline < now) return std::nullopt;
  return deadline;
}

// VCPUOP_set_periodic_timer: 1 ms to STIME_DELTA_MAX (xen/common/domain.c).
constexpr bool is_period(std::uint64_t ns) noexcept {
  return ns >= 1'000'000 && ns <= (std::uint64_t{1} << 62) - 1;
}

// The last tick that is due at `now`, which `due`, itself a tick, isn't later than. Ticks are
// `period` apart however late the one before was served: those missed meanwhile are one.
constexpr xen_clock::GuestTime last_tick(xen_clock::GuestTime due, xen_clock::Duration period,
                                         xen_clock::GuestTime now) noexcept {
  return due + (now - due) / period * period;
}

}  // namespace xen_timer
