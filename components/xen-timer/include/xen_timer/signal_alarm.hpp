// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// An Alarm that is a signal to one thread: a vCPU's own, which it takes out of KVM_RUN, also where
// the guest is halted in the kernel. No other thread wakes.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdint>
#include <ctime>
#include <utility>

#include "vmm_base/result.hpp"
#include "xen_clock/clock.hpp"
#include "xen_timer/concepts.hpp"

namespace xen_timer {

// A POSIX timer on the clock of HostClock. Until attach() it keeps what it was set for.
class SignalAlarm {
 public:
  SignalAlarm() noexcept = default;
  SignalAlarm(SignalAlarm&& other) noexcept
      : timer_(other.timer_), attached_(std::exchange(other.attached_, false)), due_(other.due_) {}
  SignalAlarm& operator=(SignalAlarm&&) = delete;
  ~SignalAlarm() {
    if (attached_) ::timer_delete(timer_);
  }

  // From now on the calling thread is signalled, and no other, whoever calls set(); at once where
  // that was due before. The signal's si_code is SI_TIMER, its si_value `value`. Errors of
  // timer_create: EAGAIN where RLIMIT_SIGPENDING is used up, EINVAL for no signal; of
  // timer_settime.
  Result<void> attach(int signal, void* value) noexcept {
    sigevent event{};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = signal;
    event.sigev_value.sival_ptr = value;
    event._sigev_un._tid = ::gettid();  // sigev_notify_thread_id, which glibc doesn't define
    timer_t timer{};
    if (::timer_create(xen_clock::HostClock::id, &event, &timer) != 0) {
      return vmm_base::last_error("timer_create", static_cast<std::uint64_t>(signal));
    }
    if (attached_) ::timer_delete(timer_);
    timer_ = timer;
    attached_ = true;
    return due_ == xen_clock::HostTime::max() ? vmm_base::success() : settime(due_);
  }

  [[nodiscard]] xen_clock::HostTime now() const noexcept { return xen_clock::HostClock::now(); }

  Result<void> set(xen_clock::HostTime due) noexcept {
    const auto was = std::exchange(due_, due);
    if (!attached_) return vmm_base::success();
    // What has fired needn't be stopped.
    if (due == xen_clock::HostTime::max() && was <= now()) return vmm_base::success();
    return settime(due);
  }

  [[nodiscard]] int fd() const noexcept { return -1; }

 private:
  Result<void> settime(xen_clock::HostTime due) noexcept {
    itimerspec spec{};
    if (due != xen_clock::HostTime::max()) {
      // 0 would disarm; 1 ns has long passed.
      const auto ns = std::max<std::int64_t>(due.time_since_epoch().count(), 1);
      spec.it_value = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    if (::timer_settime(timer_, TIMER_ABSTIME, &spec, nullptr) != 0) {
      return vmm_base::last_error("timer_settime",
                                  static_cast<std::uint64_t>(due.time_since_epoch().count()));
    }
    return vmm_base::success();
  }

  timer_t timer_{};
  bool attached_ = false;
  xen_clock::HostTime due_ = xen_clock::HostTime::max();
};

}  // namespace xen_timer
