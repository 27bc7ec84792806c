// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// As TimerfdBackend, but woken before a deadline by as much as waking has taken of late; expire()
// spins for the rest. More punctual than the kernel, and paid for with CPU time: spun() says how
// much. Never early.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

#include "xen_timer/queue_backend.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace xen_timer {

// What expire()'s thread may spend.
struct SpinLimits {
  // The longest that one deadline is spun for, > 0. Whoever is woken later than that stays late.
  Duration longest = std::chrono::microseconds(500);
  // Of all time at most 1/n, >= 1, but for `longest` at once: what a guest that arms incessantly
  // can have, whatever it does.
  std::uint32_t one_in = 4;
};

// Any Alarm, before its time: an EarlyAlarm.
template <Alarm A>
class SpinningAlarm {
 public:
  explicit SpinningAlarm(A alarm, SpinLimits limits = {})
      : alarm_(std::move(alarm)),
        limits_(limits),
        shared_(std::make_unique<Shared>()),
        allowance_(limits.longest),
        counted_to_(alarm_.now()) {}

  [[nodiscard]] xen_clock::HostTime now() noexcept { return alarm_.now(); }
  [[nodiscard]] int fd() noexcept { return alarm_.fd(); }

  Result<void> set(xen_clock::HostTime due) {
    shared_->moved.store(true, std::memory_order_relaxed);
    set_for_ = due;
    granted_ = {};
    wakes_at_ = xen_clock::HostTime::max();
    if (due == xen_clock::HostTime::max()) return disarm();
    granted_ = lead_for(due);
    // How long waking takes is told only by who has really slept.
    if (due - granted_ > alarm_.now()) wakes_at_ = due - granted_;
    disarmed_ = false;
    return alarm_.set(due - granted_);
  }

  void woke() noexcept {
    const auto now = alarm_.now();
    if (now < wakes_at_) return;
    const Duration late = now - std::exchange(wakes_at_, xen_clock::HostTime::max());
    if (late > limits_.longest) return;  // No lead would have helped.
    // Comes to rest where 15 of 16 are less late.
    const Duration step = lead_ / 256 + Duration(100);
    lead_ =
        std::clamp(late > lead_ ? lead_ + 15 * step : lead_ - step, Duration{}, limits_.longest);
  }

  [[nodiscard]] bool begin_wait(xen_clock::HostTime due) {
    start_ = alarm_.now();
    if (due <= start_ || due - start_ > (due == set_for_ ? granted_ : lead_for(due))) return false;
    // While it costs nothing: else it would have to be after the event, where nothing else waits.
    (void)disarm();
    until_ = due;
    shared_->moved.store(false, std::memory_order_relaxed);
    return true;
  }
  void wait() noexcept {
    for (end_ = start_; end_ < until_ && !shared_->moved.load(std::memory_order_relaxed);) {
#ifdef __x86_64__
      __builtin_ia32_pause();
#endif
      end_ = alarm_.now();
    }
  }
  void end_wait() noexcept {
    const Duration spun = std::min(end_, until_) - start_;
    allowance_ = allowance_at(end_) - spun;
    counted_to_ = end_;
    shared_->spun_ns.fetch_add(spun.count(), std::memory_order_relaxed);
  }

  // What begin_wait() would grant a deadline that is far away.
  [[nodiscard]] Duration lead() const noexcept { return lead_; }
  // All of it since the beginning; any thread.
  [[nodiscard]] Duration spun() const noexcept {
    return Duration(shared_->spun_ns.load(std::memory_order_relaxed));
  }

 private:
  struct Shared {
    std::atomic<bool> moved = false;  // set() was called since begin_wait()
    std::atomic<std::int64_t> spun_ns = 0;
  };

  Result<void> disarm() {
    Result<void> set = vmm_base::success();
    if (!disarmed_) set = alarm_.set(xen_clock::HostTime::max());
    disarmed_ = set.has_value();
    return set;
  }
  [[nodiscard]] Duration allowance_at(xen_clock::HostTime at) const noexcept {
    const Duration since = std::max(at - counted_to_, Duration{});
    return std::min(allowance_ + since / limits_.one_in, limits_.longest);
  }
  // The whole of it may be spun away by then, so it is never more than is allowed then.
  [[nodiscard]] Duration lead_for(xen_clock::HostTime due) const noexcept {
    return std::min(lead_, std::max(allowance_at(due), Duration{}));
  }

  A alarm_;
  SpinLimits limits_;
  std::unique_ptr<Shared> shared_;
  bool disarmed_ = false;
  Duration lead_{};                 // by how much to wake early
  Duration allowance_;              // that was left …
  xen_clock::HostTime counted_to_;  // … then
  xen_clock::HostTime set_for_ = xen_clock::HostTime::max();
  Duration granted_{};  // to that
  xen_clock::HostTime wakes_at_ = xen_clock::HostTime::max();
  xen_clock::HostTime start_{};  // of the wait
  xen_clock::HostTime until_{};
  xen_clock::HostTime end_{};
};

class SpinningBackend : public QueueBackend<SpinningAlarm<TimerfdAlarm>> {
 public:
  // Errors of check_vcpu_count() and of TimerfdAlarm::create().
  static Result<SpinningBackend> create(std::uint32_t vcpu_count, SpinLimits limits = {}) {
    VMM_CHECK(check_vcpu_count(vcpu_count));
    VMM_TRY(alarm, TimerfdAlarm::create());
    return SpinningBackend(SpinningAlarm(std::move(alarm), limits), vcpu_count);
  }
  // The time spent spinning since it was created; any thread.
  [[nodiscard]] Duration spun() noexcept { return alarm().spun(); }

 private:
  SpinningBackend(SpinningAlarm<TimerfdAlarm> alarm, std::uint32_t vcpu_count)
      : QueueBackend(std::move(alarm), vcpu_count) {}
};

}  // namespace xen_timer
