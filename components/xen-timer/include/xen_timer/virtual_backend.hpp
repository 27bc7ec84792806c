// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Deadlines on a clock that moves when a test says so. For the tests of whoever uses xen-timer.
#pragma once

#include "xen_timer/queue_backend.hpp"

namespace xen_timer {

// Not thread-safe: time is the test's.
class VirtualAlarm {
 public:
  [[nodiscard]] xen_clock::HostTime now() const noexcept { return now_; }
  Result<void> set(xen_clock::HostTime due) noexcept {
    if (failure_) return vmm_base::Error{"VirtualAlarm::set", failure_, 0};
    due_ = due;
    ++sets_;
    return vmm_base::success();
  }
  [[nodiscard]] int fd() const noexcept { return -1; }

  // Moves the host's clock; returns whether the alarm is readable then.
  bool advance(xen_clock::Duration by) noexcept {
    now_ += by;
    return is_set() && due_ <= now_;
  }
  [[nodiscard]] bool is_set() const noexcept { return due_ != xen_clock::HostTime::max(); }
  [[nodiscard]] xen_clock::HostTime due() const noexcept { return due_; }
  [[nodiscard]] unsigned sets() const noexcept { return sets_; }  // calls of set() that succeeded
  void fail_with(int code) noexcept { failure_ = code; }          // errno of each set(); 0: none

 private:
  xen_clock::HostTime now_{};
  xen_clock::HostTime due_ = xen_clock::HostTime::max();
  unsigned sets_ = 0;
  int failure_ = 0;
};

class VirtualBackend : public QueueBackend<VirtualAlarm> {
 public:
  // At most max_vcpus.
  explicit VirtualBackend(std::uint32_t vcpu_count) : QueueBackend(VirtualAlarm{}, vcpu_count) {}
};

}  // namespace xen_timer
