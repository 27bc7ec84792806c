// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A timer that signals an eventfd in its own interrupt, and that one thread can set: the timeout of
// an io_uring.
#pragma once

#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>

#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"
#include "xen_clock/clock.hpp"
#include "xen_timer/timeout_ring.hpp"

namespace xen_timer {

// One call at a time.
class SignallingTimer {
 public:
  // Errors of eventfd: EMFILE, ENFILE, ENOMEM; of TimeoutRing::create().
  static Result<SignallingTimer> create() noexcept {
    vmm_base::UniqueFd signal(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!signal) return vmm_base::last_error("eventfd");
    VMM_TRY(ring, TimeoutRing::create(signal.get()));
    return SignallingTimer(std::move(signal), std::move(ring));
  }

  // From now on it is the calling thread that can set it, and no other; what is set stays set.
  // Also where that thread has ended. Again for another thread: only then a ring is made. Errors of
  // TimeoutRing, after which all is as before; ENOTSUP where its clock isn't HostClock, as in a
  // time namespace before Linux 7.1.
  Result<void> attach() noexcept {
    const bool waits = armed_ && !signalled();
    std::optional<TimeoutRing> old;  // muted as it goes
    if (started_) {
      VMM_TRY(fresh, TimeoutRing::create(signal_.get()));
      old.emplace(std::exchange(ring_, std::move(fresh)));
    }
    const std::uint64_t was_pending = std::exchange(pending_, 0);
    const auto was_owner = std::exchange(owner_, std::thread::id());
    Result<void> begun = begin(waits);
    if (!begun && old) {
      ring_ = std::move(*old);
      pending_ = was_pending;
      owner_ = was_owner;
      armed_ = waits;
    }
    return begun;
  }

  // Signals at `due`, instead of what was set before: once, or where it passes while this is at
  // work, maybe twice. What was set before may just be signalling on another CPU. False on another
  // thread than attach()'s, which can only stop it. Errors of io_uring_enter; of eventfd_write. In
  // either case nothing is set.
  Result<bool> set(xen_clock::HostTime due) noexcept {
    stop();
    if (owner_ != std::this_thread::get_id()) return false;
    const std::uint64_t was = pending_;
    if (was != 0) ring_.remove(was);
    if (const Result<void> submitted = time_out(due); !submitted) {
      if (submitted.error().code == EEXIST) return false;  // a thread of the same id, since
      return submitted.error();
    }
    VMM_CHECK(complete(was));
    due_ = due;
    armed_ = true;
    ring_.mute(false);
    if (!signalled()) return true;
    ring_.mute(true);  // maybe it wasn't heard
    if (::eventfd_write(signal_.get(), 1) == 0) return true;
    armed_ = false;
    return vmm_base::last_error("eventfd_write");
  }
  // What was set before doesn't signal any more, unless it is doing so on another CPU.
  void stop() noexcept {
    ring_.mute(true);
    armed_ = false;
  }
  // Whether what was set last has expired. The ring may also have been woken, late, by one before.
  [[nodiscard]] bool signalled() const noexcept {
    return pending_ == 0 || (ring_.woken() && xen_clock::HostClock::now() >= due_);
  }

  [[nodiscard]] int eventfd() const noexcept { return signal_.get(); }

 private:
  SignallingTimer(vmm_base::UniqueFd signal, TimeoutRing ring) noexcept
      : signal_(std::move(signal)), ring_(std::move(ring)) {}

  Result<void> time_out(xen_clock::HostTime due) noexcept {
    const auto ns = std::max<std::int64_t>(due.time_since_epoch().count(), 0);
    const __kernel_timespec at{ns / 1'000'000'000, ns % 1'000'000'000};
    ring_.time_out(last_ + 1, at);
    VMM_CHECK(ring_.submit());
    pending_ = ++last_;
    return vmm_base::success();
  }
  // Until `was`, removed or just expiring, has completed, what came after isn't told of; nor what
  // woke the ring while it completed.
  Result<void> complete(std::uint64_t was) noexcept {
    const std::uint64_t now = last_;
    for (bool completed = was == 0;;) {
      while (const auto done = ring_.completion()) {
        if (done->name == was) completed = true;
        if (done->name != now) continue;
        pending_ = 0;
        if (done->error != ETIME) return vmm_base::Error{"io_uring timeout", done->error, now};
      }
      if (completed && (pending_ == 0 || !ring_.woken())) return vmm_base::success();
      VMM_CHECK(ring_.submit(!completed));
    }
  }
  Result<void> begin(bool armed) noexcept {
    VMM_CHECK(ring_.start());
    started_ = true;
    VMM_CHECK(check_clock());
    owner_ = std::this_thread::get_id();
    if (!armed) return vmm_base::success();
    auto again = set(due_);
    return again ? vmm_base::success() : Result<void>(again.error());
  }
  // That the ring expires neither before this thread's clock nor long after it.
  Result<void> check_clock() noexcept {
    using xen_clock::HostClock;
    const auto due = HostClock::now() + std::chrono::microseconds(500);
    const auto late = due + std::chrono::milliseconds(10);
    VMM_CHECK(time_out(due));
    VMM_CHECK(complete(0));
    while (pending_ != 0 && !ring_.woken() && HostClock::now() < late) {
    }
    const auto now = HostClock::now();
    VMM_CHECK(complete(0));
    if (now >= due && pending_ == 0) return vmm_base::success();
    return vmm_base::Error{"io_uring's CLOCK_BOOTTIME", ENOTSUP};
  }

  vmm_base::UniqueFd signal_;
  TimeoutRing ring_;
  bool started_ = false;     // the ring
  std::thread::id owner_{};  // who may submit
  bool armed_ = false;
  std::uint64_t pending_ = 0;  // in the ring, which has completed everything else; 0: nothing
  std::uint64_t last_ = 0;     // name of a timeout
  xen_clock::HostTime due_{};
};

}  // namespace xen_timer
