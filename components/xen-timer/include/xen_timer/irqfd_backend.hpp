// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Single shots whose event is raised inside the kernel, with no thread of ours waking: a timerfd,
// polled by kernel AIO, which completes into an eventfd that the VMM has made an irqfd with a Xen
// event route. Works on every kernel with KVM_XEN event routes (5.17). Deadlines that are further
// ahead than the horizon are waited for in userspace first, and so is everything that has no route.
#pragma once

#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "vmm_base/unique_fd.hpp"
#include "xen_timer/concepts.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace xen_timer {

// route_event: from now on a signal of `eventfd` raises `port` of the vCPU, until the next call;
// port 0: it raises nothing. KVM_SET_GSI_ROUTING (KVM_IRQ_ROUTING_XEN_EVTCHN) and KVM_IRQFD; on the
// vCPU's thread.
template <class R>
concept EventRouter = requires(R& router, XenVcpuId vcpu, EventPort port, int eventfd) {
  { router.route_event(vcpu, port, eventfd) } -> std::same_as<Result<void>>;
};

// A timerfd whose expiry signals an eventfd, in the kernel.
class SignallingTimer {
 public:
  // Errors of timerfd_create, eventfd and io_setup: EMFILE, ENFILE, ENOMEM, EAGAIN where
  // fs.aio-max-nr is used up, ENOSYS or EPERM where there is no kernel AIO. ENOTSUP: its ring isn't
  // the one we know.
  static Result<SignallingTimer> create() {
    VMM_TRY(alarm, TimerfdAlarm::create());
    vmm_base::UniqueFd signal(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!signal) return vmm_base::last_error("eventfd");
    AioRing* ring = nullptr;  // the context is its address
    if (::syscall(SYS_io_setup, 1, &ring) != 0) return vmm_base::last_error("io_setup");
    SignallingTimer timer(std::move(alarm), std::move(signal), ring);
    if (ring->magic != 0xa10a10a1 || ring->incompat_features != 0) {
      return vmm_base::Error{"io_setup's ring", ENOTSUP, ring->magic};
    }
    return Result<SignallingTimer>(std::move(timer));
  }
  SignallingTimer(SignallingTimer&& other) noexcept
      : alarm_(std::move(other.alarm_)),
        signal_(std::move(other.signal_)),
        ring_(std::exchange(other.ring_, nullptr)),
        polling_(other.polling_),
        armed_(other.armed_) {}
  SignallingTimer& operator=(SignallingTimer&&) = delete;
  ~SignallingTimer() {
    if (ring_ != nullptr) ::syscall(SYS_io_destroy, ring_);
  }

  // Signals once, at `due`; HostTime::max() for not at all. Nothing that was set before signals
  // once it has returned; what was due already has signalled by then, or does so within
  // microseconds on another CPU: kernel AIO tells of a completion just before it signals the
  // eventfd. One thread at a time.
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
      polling_ = false;
    }
    return !polling_;
  }

  [[nodiscard]] int eventfd() const noexcept { return signal_.get(); }

 private:
  // fs/aio.c, struct aio_ring: what io_getevents() reads without a system call, too.
  struct AioRing {
    std::uint32_t id, nr, head, tail, magic, compat_features, incompat_features, header_length;
  };

  SignallingTimer(TimerfdAlarm alarm, vmm_base::UniqueFd signal, AioRing* ring) noexcept
      : alarm_(std::move(alarm)), signal_(std::move(signal)), ring_(ring) {}

  // Ends a poll whose timer has expired, or is just about to. Linux (seen on 6.12 and 7.3) signals
  // the eventfd from a worker some time after the expiry.
  Result<void> complete() noexcept {
    // In case the timer was stopped first.
    VMM_CHECK(alarm_.set(xen_clock::HostTime{}));
    io_event done{};
    while (::syscall(SYS_io_getevents, ring_, 1, 1, &done, nullptr) != 1) {
      if (errno != EINTR) return vmm_base::last_error("io_getevents");
    }
    polling_ = false;
    return vmm_base::success();
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
    return vmm_base::success();
  }

  TimerfdAlarm alarm_;
  vmm_base::UniqueFd signal_;
  AioRing* ring_;
  bool polling_ = false;  // a poll is under way, or has ended and was not seen yet
  bool armed_ = false;    // and the timer set; false if it was stopped since
};

template <EventRouter R>
class IrqfdPath {
 public:
  // Nobody looks at the guest's clock when it fires, so what NTP may have slewed is added: 16 us
  // for this, and less for less.
  static constexpr Duration horizon = std::chrono::milliseconds(32);

  static Result<IrqfdPath> create(R& router, std::uint32_t vcpu_count) {
    IrqfdPath path(router);
    for (std::uint32_t vcpu = 0; vcpu < vcpu_count; ++vcpu) {
      VMM_TRY(timer, SignallingTimer::create());
      path.vcpus_.push_back({std::move(timer)});
    }
    return path;
  }

  Result<void> bind(XenVcpuId vcpu, EventPort port) {
    Vcpu& v = vcpus_[vcpu.value];
    v.deadline.reset();
    v.routed = false;
    VMM_CHECK(v.timer.set(xen_clock::HostTime::max()));
    VMM_CHECK(router_->route_event(vcpu, port, v.timer.eventfd()));
    v.routed = port != EventPort{};
    return vmm_base::success();
  }

  // ENOTCONN, operand the vCPU: the route couldn't be set.
  Result<void> arm(XenVcpuId vcpu, EventPort /*port*/, GuestTime deadline, GuestTime now) {
    Vcpu& v = vcpus_[vcpu.value];
    if (!v.routed) return vmm_base::Error{"event route", ENOTCONN, vcpu.value};
    const auto due = xen_clock::host_due(xen_clock::HostClock::now(), now, deadline);
    const auto margin = xen_clock::slew_margin(xen_clock::time_left(now, deadline));
    VMM_CHECK(v.timer.set(xen_clock::saturating_add(due, margin)));
    v.deadline = deadline;
    return vmm_base::success();
  }

  Result<void> cancel(XenVcpuId vcpu, EventPort /*port*/) { return park(vcpu); }
  Result<void> park(XenVcpuId vcpu) {
    Vcpu& v = vcpus_[vcpu.value];
    if (!v.deadline) return vmm_base::success();
    v.deadline.reset();
    return v.timer.set(xen_clock::HostTime::max());
  }

  Result<std::optional<GuestTime>> armed(XenVcpuId vcpu) {
    Vcpu& v = vcpus_[vcpu.value];
    if (v.deadline && v.timer.signalled()) v.deadline.reset();
    return v.deadline;
  }

 private:
  explicit IrqfdPath(R& router) noexcept : router_(&router) {}

  struct Vcpu {
    SignallingTimer timer;
    std::optional<GuestTime> deadline{};  // last armed; it may have passed
    bool routed = false;
  };
  R* router_;
  std::vector<Vcpu> vcpus_;  // by Xen vCPU id
};

template <EventRouter R>
class IrqfdBackend : public QueueBackend<TimerfdAlarm, IrqfdPath<R>> {
 public:
  // `router` must outlive it. Two fds and a kernel AIO context a vCPU, and one fd more. Errors of
  // check_vcpu_count() and of SignallingTimer::create(). When it is destroyed, the eventfds may be
  // signalled once more: unbind before where the guest lives on.
  static Result<IrqfdBackend> create(R& router, std::uint32_t vcpu_count) {
    VMM_CHECK(check_vcpu_count(vcpu_count));
    VMM_TRY(alarm, TimerfdAlarm::create());
    VMM_TRY(path, IrqfdPath<R>::create(router, vcpu_count));
    return IrqfdBackend(std::move(alarm), vcpu_count, std::move(path));
  }

 private:
  using Base = QueueBackend<TimerfdAlarm, IrqfdPath<R>>;
  IrqfdBackend(TimerfdAlarm alarm, std::uint32_t vcpu_count, IrqfdPath<R> path)
      : Base(std::move(alarm), vcpu_count, std::move(path)) {}
};

}  // namespace xen_timer
