// SPDX-License-Identifier: BSD-3-Clause
//
// What the timer handler asks: three questions of the VMM, and a back end that keeps deadlines.
#pragma once

#include <concepts>
#include <cstddef>
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
using xen_clock::GuestTime;

// copy_from_guest: reads all of `to` at a virtual address of this vCPU's, called on its own thread;
//   false if any byte can't be read.
// guest_now: what this vCPU's Xen clock reads now; any thread.
// raise_event: marks the port pending and lets the guest know; any thread. It must not wait for a
//   vCPU: a vCPU that cancels its timer may be waiting for it.
template <class V>
concept Vmm = requires(V& vmm, XenVcpuId vcpu, Gva from, std::span<std::byte> to, EventPort port) {
  { vmm.copy_from_guest(vcpu, from, to) } -> std::same_as<bool>;
  { vmm.guest_now(vcpu) } -> std::same_as<GuestTime>;
  { vmm.raise_event(vcpu, port) } -> std::same_as<Result<void>>;
};

// One deadline a vCPU. Each call is made on that vCPU's own thread.
// arm: replaces what was armed; `now` is the guest's clock just read, `port` 0 while none is bound.
// cancel: when it has returned, no event of the old deadline follows.
// bind: VIRQ_TIMER of this vCPU moves from one port to another (0: none); an armed deadline stays.
//   When it has returned, no event reaches the old port.
template <class B>
concept Backend = requires(B& backend, XenVcpuId vcpu, EventPort port, GuestTime time) {
  { backend.arm(vcpu, port, time, time) } -> std::same_as<Result<void>>;
  { backend.cancel(vcpu) } -> std::same_as<Result<void>>;
  { backend.bind(vcpu, port, time) } -> std::same_as<Result<void>>;
};

}  // namespace xen_timer
