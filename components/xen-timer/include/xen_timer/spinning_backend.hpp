// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Each vCPU's own thread serves its deadlines: a signal takes it out of KVM_RUN, before a deadline
// by as much as that has taken of late, and it spins for the rest. No second thread has to wake.
// More punctual than the kernel, and paid for with the vCPU's time: spun() says how much. Never
// early.
//
//   // Once: with SA_SIGINFO | SA_RESTART, so that no signal is lost on the way into KVM_RUN.
//   void interrupt(int, siginfo_t* info, void*) {
//     if (info->si_code != SI_TIMER) return;  // anybody's signal, which has no such value
//     static_cast<kvm_run*>(info->si_value.sival_ptr)->immediate_exit = 1;
//   }
//   // On each vCPU's thread:
//   if (auto attached = backend.attach(id, SIGUSR1, run); !attached) …
//   for (;;) {
//     if (ioctl(vcpu, KVM_RUN, 0) < 0) {
//       if (errno != EINTR) …
//       run->immediate_exit = 0;
//       timer.expire(id);
//     } else …
//   }
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

#include "xen_timer/alarm.hpp"
#include "xen_timer/concepts.hpp"
#include "xen_timer/signal_alarm.hpp"
#include "xen_timer/vcpu_backend.hpp"

namespace xen_timer {

// What a vCPU's thread may spend.
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
  [[nodiscard]] A& inner() noexcept { return alarm_; }

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

class SpinningBackend : public VcpuBackend<SpinningAlarm<SignalAlarm>> {
 public:
  // Errors of check_vcpu_count().
  static Result<SpinningBackend> create(std::uint32_t vcpu_count, SpinLimits limits = {}) {
    VMM_CHECK(check_vcpu_count(vcpu_count));
    return SpinningBackend(vcpu_count, limits);
  }

  // The calling thread runs this vCPU from now on: `signal` comes to it, with `value`, whenever it
  // is to call expire(vcpu). Before that nothing does; what is armed is kept. It may be called
  // again, on another thread. Errors of SignalAlarm::attach(), after which it may be called
  // again.
  Result<void> attach(XenVcpuId vcpu, int signal, void* value = nullptr) {
    return with_alarm(vcpu, [&](auto& alarm) { return alarm.inner().attach(signal, value); });
  }
  // The time spent spinning since it was created, all threads together; any thread.
  [[nodiscard]] Duration spun() {
    Duration all{};
    for (std::uint32_t id = 0; id < vcpu_count(); ++id) {
      all += with_alarm(XenVcpuId{id}, [](auto& alarm) { return alarm.spun(); });
    }
    return all;
  }

 private:
  SpinningBackend(std::uint32_t vcpu_count, SpinLimits limits)
      : VcpuBackend(vcpu_count, [&] { return SpinningAlarm(SignalAlarm(), limits); }) {}
};

}  // namespace xen_timer
