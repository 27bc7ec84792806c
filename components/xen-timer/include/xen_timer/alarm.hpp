// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a QueueBackend (queue_backend.hpp) is put together of: an Alarm that wakes it, and where
// there is one, a KernelPath that raises events of single shots with no thread waking.
#pragma once

#include <concepts>
#include <optional>

#include "xen_timer/concepts.hpp"
#include "xen_timer/deadline.hpp"

namespace xen_timer {

// now: the host's clock. set: be readable from then on, HostTime::max() for never, and no longer
// for what was set before. fd: what is readable, -1 if that isn't a file descriptor. There may be a
// clear, too, which expire() calls first: be no longer readable for what has passed.
template <class A>
concept Alarm = requires(A& alarm, xen_clock::HostTime due) {
  { alarm.now() } -> std::same_as<xen_clock::HostTime>;
  { alarm.set(due) } -> std::same_as<Result<void>>;
  { alarm.fd() } -> std::same_as<int>;
};

// One that is readable before it is due, and has the rest waited for by expire():
// spinning_backend.hpp. woke: expire() has begun. begin_wait: whether the rest until `due` is to be
// waited for now. wait: does so, until it is due or set() is called; the only one during which
// others may be. end_wait: it has ended.
template <class A>
concept EarlyAlarm = Alarm<A> && requires(A& alarm, xen_clock::HostTime due) {
  {alarm.woke()};
  { alarm.begin_wait(due) } -> std::same_as<bool>;
  {alarm.wait()};
  {alarm.end_wait()};
};

// A timer in the kernel for each vCPU's single shot. Calls for one vCPU never overlap; all but bind
// are made only while a port is bound. No event of an old deadline follows any but armed, unless it
// is just being raised.
// horizon: how far ahead a deadline may be; max() for any.
// bind: the port that the event goes to, 0 for none; stops the timer.
// arm: false where it can't have this deadline now, which stays with us; nothing is armed then.
// arm, cancel: the guest's call has been served so.
// park: stops the timer, as its deadline is kept elsewhere; the guest's next call must come to us.
// armed: the deadline, none if it has fired.
// settle: after park, where the kernel may know that a deadline has passed before its event is
//   there: waits until it is. It may be missing; called by pause, bind and hand_over.
template <class P>
concept KernelPath = requires(P& path, XenVcpuId vcpu, EventPort port, GuestTime time) {
  { P::horizon } -> std::convertible_to<Duration>;
  { path.bind(vcpu, port) } -> std::same_as<Result<void>>;
  { path.arm(vcpu, port, time, time) } -> std::same_as<Result<bool>>;
  { path.cancel(vcpu, port) } -> std::same_as<Result<void>>;
  { path.park(vcpu) } -> std::same_as<Result<void>>;
  { path.armed(vcpu) } -> std::same_as<Result<std::optional<GuestTime>>>;
};

struct NoKernelPath {
  // Nothing is given to it.
  static constexpr Duration horizon{};
  static Result<void> bind(XenVcpuId, EventPort) { return vmm_base::success(); }
  static Result<bool> arm(XenVcpuId, EventPort, GuestTime, GuestTime) { return false; }
  static Result<void> cancel(XenVcpuId, EventPort) { return vmm_base::success(); }
  static Result<void> park(XenVcpuId) { return vmm_base::success(); }
  static Result<std::optional<GuestTime>> armed(XenVcpuId) { return std::optional<GuestTime>{}; }
};

}  // namespace xen_timer
