// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Deadlines on one timerfd for all vCPUs: a pollable fd for any event loop, and no system call when
// the new deadline isn't the earliest. Linux 3.15 and later.
#pragma once

#include <sys/timerfd.h>

#include "vmm_base/unique_fd.hpp"
#include "xen_timer/queue_backend.hpp"

namespace xen_timer {

// On the clock of HostClock, which counts on while the host is suspended, as KVM's clock does.
class TimerfdAlarm {
 public:
  // Errors of timerfd_create(2): EMFILE, ENFILE, ENOMEM.
  static Result<TimerfdAlarm> create() {
    vmm_base::UniqueFd fd(::timerfd_create(xen_clock::HostClock::id, TFD_CLOEXEC | TFD_NONBLOCK));
    if (!fd) return vmm_base::last_error("timerfd_create");
    return TimerfdAlarm(std::move(fd));
  }

  [[nodiscard]] xen_clock::HostTime now() const noexcept { return xen_clock::HostClock::now(); }

  // No longer readable for what was set before, until `due`.
  Result<void> set(xen_clock::HostTime due) noexcept {
    const auto replaced = exchange(due);
    return replaced ? vmm_base::success() : Result<void>(replaced.error());
  }
  // The same; how long until what was set before had expired: 0 if it has, or nothing was set.
  Result<Duration> exchange(xen_clock::HostTime due) noexcept {
    itimerspec spec{};
    itimerspec was{};
    if (due != xen_clock::HostTime::max()) {
      // 0 would disarm; 1 ns has long passed.
      const auto ns = std::max<std::int64_t>(due.time_since_epoch().count(), 1);
      spec.it_value = {ns / 1'000'000'000, ns % 1'000'000'000};
    }
    if (::timerfd_settime(fd_.get(), TFD_TIMER_ABSTIME, &spec, &was) != 0) {
      return vmm_base::last_error("timerfd_settime",
                                  static_cast<std::uint64_t>(due.time_since_epoch().count()));
    }
    return Duration(was.it_value.tv_sec * 1'000'000'000 + was.it_value.tv_nsec);
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  explicit TimerfdAlarm(vmm_base::UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  vmm_base::UniqueFd fd_;
};

class TimerfdBackend : public QueueBackend<TimerfdAlarm> {
 public:
  // Errors of check_vcpu_count() and of TimerfdAlarm::create().
  static Result<TimerfdBackend> create(std::uint32_t vcpu_count) {
    VMM_CHECK(check_vcpu_count(vcpu_count));
    VMM_TRY(alarm, TimerfdAlarm::create());
    return TimerfdBackend(std::move(alarm), vcpu_count);
  }

 private:
  TimerfdBackend(TimerfdAlarm alarm, std::uint32_t vcpu_count)
      : QueueBackend(std::move(alarm), vcpu_count) {}
};

}  // namespace xen_timer
