// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// QueueBackend's own: the deadlines under their lock, and the alarm that is set for the earliest.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>

#include "xen_clock/clock.hpp"
#include "xen_timer/alarm.hpp"
#include "xen_timer/concepts.hpp"
#include "xen_timer/deadline.hpp"
#include "xen_timer/timer_queue.hpp"

namespace xen_timer::detail {

template <class A, class P>
struct QueueState {
  static constexpr bool has_path = !std::same_as<P, NoKernelPath>;
  // Deadlines that are further ahead than this are looked at again before.
  static constexpr Duration look_ahead = std::chrono::milliseconds(125);

  struct Timer {
    // Served at its deadline, a periodic one: the next tick is a period after the last one due.
    void tick(GuestTime now) noexcept {
      last_tick = xen_timer::last_tick(deadline, period, now);
      deadline = xen_clock::saturating_add(last_tick, period);
      checks = 0;
    }
    // How long to wait after a look that was for nothing: a planned one, or the host's clock was
    // ahead of the guest's, or the event couldn't be raised. The last two wait longer each time,
    // for a guest can make its clock stand still by writing to its page, and must not keep us
    // awake.
    Duration wait(GuestTime now) noexcept {
      const Duration rest = xen_clock::time_left(now, deadline);
      if (rest > look_ahead) {
        return xen_clock::check_due({}, now, deadline, look_ahead).time_since_epoch();
      }
      return std::max(rest, Duration(std::int64_t{1000} << std::min(checks++, 20u)));
    }

    GuestTime deadline{};
    GuestTime armed_at{};      // the guest's clock when last read
    Duration period{};         // 0: a single shot, or stopped
    GuestTime last_tick{};     // Xen's periodic_last_event
    std::uint32_t checks = 0;  // looks for nothing
    bool for_path = false;     // waits here only until resume(), which offers it to the path
    bool serving = false;      // out of the queue, and a call out is being made for it
  };

  struct Vcpu {
    std::atomic<std::uint32_t> port = 0;
    // Used by whoever arms: the vCPU's thread, or any while it doesn't run.
    bool may_give = has_path;
    bool given = false;  // The path has a deadline, unless that has passed; it is the Timer's, too.
  };

  QueueState(A a, P p, std::uint32_t vcpu_count)
      : alarm(std::move(a)),
        path(std::move(p)),
        queue(2 * vcpu_count),
        timers(2 * std::size_t{vcpu_count}),
        vcpus(vcpu_count) {}

  [[nodiscard]] std::uint32_t count() const noexcept {
    return static_cast<std::uint32_t>(vcpus.size());
  }
  [[nodiscard]] std::uint32_t ticks_of(XenVcpuId vcpu) const noexcept {
    return count() + vcpu.value;
  }
  Timer& wait_until_idle(std::unique_lock<std::mutex>& lock, std::uint32_t id) {
    Timer& timer = timers[id];
    idle.wait(lock, [&] { return !timer.serving; });
    return timer;
  }
  [[nodiscard]] xen_clock::HostTime due(const Timer& timer, GuestTime now) noexcept {
    return xen_clock::check_due(alarm.now(), now, timer.deadline, look_ahead);
  }
  [[nodiscard]] xen_clock::HostTime next_due() const noexcept {
    return queue.empty() ? xen_clock::HostTime::max() : queue.first_due();
  }
  // Waits for a timer's deadline from now on. An alarm that is set for earlier does for it, too.
  Result<void> put_in(std::uint32_t id, GuestTime now) {
    Timer& timer = timers[id];
    timer.armed_at = now;
    timer.checks = 0;
    const auto at = due(timer, now);
    queue.set(id, at);
    // Not for `at`: an earlier one may be waiting for an alarm that couldn't be set.
    return paused || at >= alarm_due ? vmm_base::success() : set_alarm(next_due());
  }
  // For the earliest, where the alarm was early and that is near.
  void wait_for_next(std::unique_lock<std::mutex>& lock) {
    if constexpr (EarlyAlarm<A>) {
      while (!paused && !queue.empty() && alarm.begin_wait(queue.first_due())) {
        lock.unlock();
        alarm.wait();
        lock.lock();
        alarm.end_wait();
      }
    }
  }
  Result<void> set_alarm(xen_clock::HostTime at) {
    if (at == alarm_due && at == xen_clock::HostTime::max()) return vmm_base::success();
    return set_alarm_anew(at);
  }
  Result<void> set_alarm_anew(xen_clock::HostTime at) {
    alarm_due = at;
    Result<void> set = alarm.set(at);
    if (!set) alarm_due = xen_clock::HostTime::max();  // so that the next one is tried again
    return set;
  }

  A alarm;
  P path;
  std::mutex mutex;  // of all below but vcpus
  std::condition_variable idle;
  TimerQueue queue;
  std::vector<Timer> timers;  // by Xen vCPU id: single shots, then periodic ones
  xen_clock::HostTime alarm_due = xen_clock::HostTime::max();
  std::atomic<bool> paused = false;  // changed with `mutex` held
  std::vector<Vcpu> vcpus;           // by Xen vCPU id
};

}  // namespace xen_timer::detail
