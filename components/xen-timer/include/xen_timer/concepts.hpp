// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the timer handler asks: three questions of the VMM, and a back end that keeps deadlines.
#pragma once

#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "vmm_base/guest_address.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_clock/clock.hpp"

namespace xen_timer {

using vmm_base::Gva;
using vmm_base::Result;
using vmm_base::XenVcpuId;
using xen_abi::EventPort;
using xen_clock::Duration;
using xen_clock::GuestTime;

// copy_from_guest: reads all of `to` at a virtual address of this vCPU's, called on its own thread;
//   false if any byte can't be read.
// guest_now: what this vCPU's Xen clock reads now; any thread. It must not wait for a vCPU, as
// KVM's
//   vCPU ioctls do for one that runs: a vCPU that cancels its timer may be waiting for it.
// raise_event: marks the port pending and lets the guest know; any thread. Nor must it wait for a
//   vCPU. An error says that it isn't pending:
//   it is tried again, ever more rarely, until it is or the guest wants it no more.
template <class V>
concept Vmm = requires(V& vmm, XenVcpuId vcpu, Gva from, std::span<std::byte> to, EventPort port) {
  { vmm.copy_from_guest(vcpu, from, to) } -> std::same_as<bool>;
  { vmm.guest_now(vcpu) } -> std::same_as<GuestTime>;
  { vmm.raise_event(vcpu, port) } -> std::same_as<Result<void>>;
};

// A timer's event that is to be raised.
struct Due {
  GuestTime deadline{};
  GuestTime now{};        // the guest's clock, looked at just before
  bool periodic = false;  // a tick
};

// A Vmm may have these functions, too, to be told what its timers do; of those that it lacks
// nothing is left. They are called with no lock held, and whoever waits for the timer waits for
// them.
//
// timer_armed(vcpu, GuestTime deadline, GuestTime now): a call of the guest's sets the single shot;
//   before anything comes of it. A deadline that has passed is told as `now`.
// timer_cancelled(vcpu): such a call has stopped or replaced a deadline that waited in userspace.
//   Of one that a timer in the kernel had nobody knows whether it has fired; it isn't told.
// timer_expired(vcpu, const Due&): raise_event comes next, each time that it is tried. Not where
//   the kernel raises it, nor where no port is bound.
// timer_fired(vcpu, const Due&): raise_event has raised it.
//
// The first two on the vCPU's thread, the others on whichever serves the timer: of one vCPU's
// single shot no two of them at a time, nor of its ticks.

// As many as KVM has at most. No back end has more, nor none.
inline constexpr std::uint32_t max_vcpus = 4096;
// EINVAL, operand the count.
inline Result<void> check_vcpu_count(std::uint32_t count) noexcept {
  if (count != 0 && count <= max_vcpus) return vmm_base::success();
  return vmm_base::Error{"xen_timer create: vcpu_count", EINVAL, count};
}

// What a vCPU's timers are waiting for.
struct Armed {
  std::optional<GuestTime> deadline{};  // of the single-shot timer
  Duration period{};                    // of the periodic timer; 0: stopped
  GuestTime last_tick{};                // when it was last due; kept while it is stopped
};

// The two timers of each vCPU. An error is a host's; nothing is lost by it: the deadline is kept
// and served late.
//
// On the vCPU's own thread, or on any while it doesn't run:
//   arm: replaces the single shot's deadline; `now` is the guest's clock just read.
//   cancel: when it has returned, no event of the old deadline follows.
//   keep: as arm, but leaves it to expire() whatever happens: for an event that couldn't be raised,
//     or can't be yet.
//   bind: VIRQ_TIMER moves to another port, 0 for none; an armed deadline goes with it. When it has
//     returned, no event reaches the old port.
//   hand_over: from now on a timer in the kernel may have the single shot's deadlines, or may not.
//   armed: what is still to come.
// On any thread:
//   start_ticks, stop_ticks: the periodic timer.
//   port: where VIRQ_TIMER is bound.
//   expire: serves what is due; one thread at a time.
//   fd: readable when expire() has something to do; -1 where each vCPU's own thread is told so,
//     and calls expire(vcpu, now, fire) (spinning_backend.hpp).
// While no vCPU runs:
//   pause, resume: no event in between. resume() reads the guests' clocks anew.
//   paused: whether it is between the two. It may be missing: then a deadline that has passed when
//     the guest sets it raises its event even there.
// `now` reads a guest's clock, `fire` raises an event. fire(vcpu, port, Due) does so, too, and
// arm, cancel and keep may be given one argument more, to call where they took out a deadline that
// waited: it is by these that the VMM is told.
template <class B>
concept Backend = requires(B& backend, XenVcpuId vcpu, EventPort port, GuestTime time, Duration ns,
                           GuestTime (*now)(XenVcpuId),
                           Result<void> (*fire)(XenVcpuId, EventPort)) {
  { backend.vcpu_count() } -> std::same_as<std::uint32_t>;
  { backend.port(vcpu) } -> std::same_as<EventPort>;
  { backend.arm(vcpu, time, time) } -> std::same_as<Result<void>>;
  { backend.cancel(vcpu) } -> std::same_as<Result<void>>;
  { backend.keep(vcpu, time, time) } -> std::same_as<Result<void>>;
  { backend.bind(vcpu, port, now, fire) } -> std::same_as<Result<void>>;
  { backend.hand_over(vcpu, true, now, fire) } -> std::same_as<Result<void>>;
  { backend.armed(vcpu) } -> std::same_as<Result<Armed>>;
  { backend.start_ticks(vcpu, ns, time, fire) } -> std::same_as<Result<void>>;
  { backend.restore_ticks(vcpu, ns, time, time) } -> std::same_as<Result<void>>;
  { backend.stop_ticks(vcpu) } -> std::same_as<Result<void>>;
  { backend.expire(now, fire) } -> std::same_as<Result<void>>;
  { backend.pause(now, fire) } -> std::same_as<Result<void>>;
  { backend.resume(now) } -> std::same_as<Result<void>>;
  { backend.fd() } -> std::same_as<int>;
};

// One that each vCPU's own thread serves.
template <class B>
concept OwnThreadBackend = Backend<B> &&
    requires(B& backend, XenVcpuId vcpu, GuestTime (*now)(XenVcpuId),
             Result<void> (*fire)(XenVcpuId, EventPort)) {
  { backend.expire(vcpu, now, fire) } -> std::same_as<Result<void>>;
};

}  // namespace xen_timer
