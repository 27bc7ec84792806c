// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A timerfd whose expiry signals an eventfd inside the kernel: it is polled by kernel AIO.
#pragma once

#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <utility>

#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"
#include "xen_clock/clock.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace xen_timer {

class SignallingTimer {
 public:
  // Errors of timerfd_create, eventfd and io_setup: EMFILE, ENFILE, ENOMEM, EAGAIN where
  // fs.aio-max-nr is used up, ENOSYS or EPERM where there is no kernel AIO. ENOTSUP: its ring isn't
  // the one we know.
  static Result<SignallingTimer> create() {
    VMM_TRY(alarm, TimerfdAlarm::create());
    vmm_base::UniqueFd signal(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!signal) return vmm_base::last_error("eventfd");
    VMM_TRY(ring, set_up_ring());
    return SignallingTimer(std::move(alarm), std::move(signal), ring);
  }
  SignallingTimer(SignallingTimer&& other) noexcept
      : alarm_(std::move(other.alarm_)),
        signal_(std::move(other.signal_)),
        ring_(std::exchange(other.ring_, nullptr)),
        polling_(other.polling_),
        armed_(other.armed_),
        signalling_(other.signalling_) {}
  SignallingTimer& operator=(SignallingTimer&&) = delete;
  ~SignallingTimer() {
    if (ring_ != nullptr) ::syscall(SYS_io_destroy, ring_);
  }

  // Signals once, at `due`; HostTime::max() for not at all. Nothing that was set before signals
  // once it has returned; what was due already has signalled by then, or is doing so on another
  // CPU: kernel AIO tells of a completion just before it signals the eventfd. See drain(). One
  // thread at a time.
  Result<void> set(xen_clock::HostTime due) noexcept {
    const bool stop = due == xen_clock::HostTime::max();
    if (!signalled()) {
      VMM_TRY(left, alarm_.exchange(due));
      const bool expired = std::exchange(armed_, !stop) && left == Duration{};
      if (!expired) return vmm_base::success();  // the poll under way is for the new one
      VMM_CHECK(complete());
    }
    armed_ = false;
    if (stop) return vmm_base::success();
    VMM_CHECK(alarm_.set(due));
    return poll();
  }
  // Whether what was set last has signalled.
  [[nodiscard]] bool signalled() noexcept {
    AioRing& r = *ring_;
    const std::uint32_t tail = __atomic_load_n(&r.tail, __ATOMIC_ACQUIRE);
    if (polling_ && r.head != tail) {
      __atomic_store_n(&r.head, tail, __ATOMIC_RELEASE);
      completed();
    }
    return !polling_;
  }

  // Whether the signal of what was set last is known of, but may not be there yet.
  [[nodiscard]] bool may_be_signalling() const noexcept { return signalling_; }
  // Waits until it is there, if so: some 30 ms. Errors of io_setup; then as if not called.
  Result<void> drain() noexcept {
    if (!signalling_) return vmm_base::success();
    VMM_TRY(fresh, set_up_ring());
    // Returns once the kernel has done with the old one's requests.
    ::syscall(SYS_io_destroy, std::exchange(ring_, fresh));
    signalling_ = false;
    return vmm_base::success();
  }

  [[nodiscard]] int eventfd() const noexcept { return signal_.get(); }

 private:
  // fs/aio.c, struct aio_ring: what io_getevents() reads without a system call, too.
  struct AioRing {
    std::uint32_t id, nr, head, tail, magic, compat_features, incompat_features, header_length;
  };

  SignallingTimer(TimerfdAlarm alarm, vmm_base::UniqueFd signal, AioRing* ring) noexcept
      : alarm_(std::move(alarm)), signal_(std::move(signal)), ring_(ring) {}

  static Result<AioRing*> set_up_ring() noexcept {
    AioRing* ring = nullptr;  // the context is its address
    if (::syscall(SYS_io_setup, 1, &ring) != 0) return vmm_base::last_error("io_setup");
    if (ring->magic == 0xa10a10a1 && ring->incompat_features == 0) return ring;
    const std::uint32_t magic = ring->magic;
    ::syscall(SYS_io_destroy, ring);
    return vmm_base::Error{"io_setup's ring", ENOTSUP, magic};
  }

  // Ends a poll whose timer has expired, or is just about to. Linux (seen on 6.12 and 7.3) signals
  // the eventfd from a worker some time after the expiry.
  Result<void> complete() noexcept {
    // In case the timer was stopped first.
    VMM_CHECK(alarm_.set(xen_clock::HostTime{}));
    io_event done{};
    while (::syscall(SYS_io_getevents, ring_, 1, 1, &done, nullptr) != 1) {
      if (errno != EINTR) return vmm_base::last_error("io_getevents");
    }
    completed();
    return vmm_base::success();
  }
  void completed() noexcept {
    polling_ = false;
    signalling_ = true;
  }
  Result<void> poll() noexcept {
    iocb request{};
    request.aio_lio_opcode = IOCB_CMD_POLL;
    request.aio_fildes = static_cast<std::uint32_t>(alarm_.fd());
    request.aio_buf = POLLIN;
    request.aio_flags = IOCB_FLAG_RESFD;
    request.aio_resfd = static_cast<std::uint32_t>(signal_.get());
    iocb* requests[] = {&request};
    if (::syscall(SYS_io_submit, ring_, 1, requests) != 1) {
      return vmm_base::last_error("io_submit");
    }
    polling_ = true;
    armed_ = true;
    signalling_ = false;  // of one before, which is over long ago, or was replaced
    return vmm_base::success();
  }

  TimerfdAlarm alarm_;
  vmm_base::UniqueFd signal_;
  AioRing* ring_;
  bool polling_ = false;     // a poll is under way, or has ended and was not seen yet
  bool armed_ = false;       // and the timer set; false if it was stopped since
  bool signalling_ = false;  // the last poll has ended, maybe just now
};

}  // namespace xen_timer
