// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Single shots whose event is raised inside the kernel, with no thread of ours waking: an
// io_uring's timeout signals an eventfd that the VMM has made an irqfd with a Xen event route.
// Linux 6.1 and later. expire() serves what is further ahead than the horizon, what has no route,
// and what another thread than the vCPU's own has armed.
//
//   // On each vCPU's thread, before it runs:
//   if (auto attached = backend.attach(id); !attached) …
#pragma once

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "xen_timer/concepts.hpp"
#include "xen_timer/signalling_timer.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace xen_timer {

// route_event: from now on a signal of `eventfd` raises `port` of the vCPU, until the next call;
// port 0: it raises nothing, and what was signalled before has been raised when this returns:
// KVM_IRQFD_FLAG_DEASSIGN sees to it. KVM_SET_GSI_ROUTING (KVM_IRQ_ROUTING_XEN_EVTCHN) and
// KVM_IRQFD; on the vCPU's thread, or while it doesn't run.
template <class R>
concept EventRouter = requires(R& router, XenVcpuId vcpu, EventPort port, int eventfd) {
  { router.route_event(vcpu, port, eventfd) } -> std::same_as<Result<void>>;
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

  Result<void> attach(XenVcpuId vcpu) { return vcpus_[vcpu.value].timer.attach(); }

  Result<void> bind(XenVcpuId vcpu, EventPort port) {
    VMM_CHECK(park(vcpu));
    return route(vcpu, port);
  }

  // What has expired may still be at its signal on another CPU, in an interrupt, and KVM raises
  // some events from a worker later.
  Result<void> settle(XenVcpuId vcpu, EventPort port) {
    Vcpu& v = vcpus_[vcpu.value];
    if (!v.timer.signalled() || !std::exchange(v.unsettled, false)) return vmm_base::success();
    // Waits for every interrupt that is under way. A nohz_full kernel doesn't: twice is once as
    // long as the vCPU doesn't run.
    if (::syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) != 0 &&
        ::eventfd_write(v.timer.eventfd(), 1) != 0) {
      return vmm_base::last_error("eventfd_write", vcpu.value);
    }
    VMM_CHECK(route(vcpu, EventPort{}));
    return route(vcpu, port);
  }

  // ENOTCONN, operand the vCPU: the route couldn't be set.
  Result<bool> arm(XenVcpuId vcpu, EventPort /*port*/, GuestTime deadline, GuestTime now) {
    Vcpu& v = vcpus_[vcpu.value];
    if (!v.routed) return vmm_base::Error{"event route", ENOTCONN, vcpu.value};
    const auto due = xen_clock::host_due(xen_clock::HostClock::now(), now, deadline);
    const auto margin = xen_clock::slew_margin(xen_clock::time_left(now, deadline));
    VMM_TRY(set, v.timer.set(xen_clock::saturating_add(due, margin)));
    v.deadline = set ? std::optional(deadline) : std::nullopt;
    v.unsettled |= set;
    return set;
  }

  Result<void> cancel(XenVcpuId vcpu, EventPort /*port*/) { return park(vcpu); }
  Result<void> park(XenVcpuId vcpu) {
    vcpus_[vcpu.value].deadline.reset();
    vcpus_[vcpu.value].timer.stop();
    return vmm_base::success();
  }

  Result<std::optional<GuestTime>> armed(XenVcpuId vcpu) {
    Vcpu& v = vcpus_[vcpu.value];
    if (v.deadline && v.timer.signalled()) v.deadline.reset();
    return v.deadline;
  }

 private:
  explicit IrqfdPath(R& router) noexcept : router_(&router) {}

  Result<void> route(XenVcpuId vcpu, EventPort port) {
    Vcpu& v = vcpus_[vcpu.value];
    v.routed = false;
    VMM_CHECK(router_->route_event(vcpu, port, v.timer.eventfd()));
    v.routed = port != EventPort{};
    return vmm_base::success();
  }

  struct Vcpu {
    SignallingTimer timer;
    std::optional<GuestTime> deadline{};  // last armed; it may have passed
    bool routed = false;
    bool unsettled = false;  // there may have been a signal since settle()
  };
  R* router_;
  std::vector<Vcpu> vcpus_;  // by Xen vCPU id
};

template <EventRouter R>
class IrqfdBackend : public QueueBackend<TimerfdAlarm, IrqfdPath<R>> {
 public:
  // `router` must outlive it. Two fds and two pages of memory a vCPU, and one fd more. Errors of
  // check_vcpu_count() and of SignallingTimer::create().
  static Result<IrqfdBackend> create(R& router, std::uint32_t vcpu_count) {
    VMM_CHECK(check_vcpu_count(vcpu_count));
    VMM_TRY(alarm, TimerfdAlarm::create());
    VMM_TRY(path, IrqfdPath<R>::create(router, vcpu_count));
    return IrqfdBackend(std::move(alarm), vcpu_count, std::move(path));
  }

  // The calling thread runs this vCPU from now on, and arms its timer in the kernel; before that,
  // and after an error, all that it arms is served by expire(). It may be called again, on another
  // thread; what a thread that ends has armed still comes. Spins for half a millisecond, to see
  // that the kernel's clock is HostClock. Errors of SignallingTimer::attach().
  Result<void> attach(XenVcpuId vcpu) { return this->path().attach(vcpu); }

 private:
  using Base = QueueBackend<TimerfdAlarm, IrqfdPath<R>>;
  IrqfdBackend(TimerfdAlarm alarm, std::uint32_t vcpu_count, IrqfdPath<R> path)
      : Base(std::move(alarm), vcpu_count, std::move(path)) {}
};

}  // namespace xen_timer
