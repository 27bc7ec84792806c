// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A back end in which each vCPU has an alarm of its own and its own thread serves it:
// spinning_backend.hpp. For each vCPU it is a QueueBackend of one, which calls it vCPU 0.
#pragma once

#include <cerrno>
#include <concepts>
#include <cstdint>
#include <utility>
#include <vector>

#include "xen_timer/alarm.hpp"
#include "xen_timer/concepts.hpp"
#include "xen_timer/queue_backend.hpp"

namespace xen_timer {

template <Alarm A>
class VcpuBackend {
 public:
  // make(): the alarm of the next vCPU; for 1 to max_vcpus of them.
  template <std::invocable Make>
  VcpuBackend(std::uint32_t vcpu_count, const Make& make) {
    queues_.reserve(vcpu_count);
    while (queues_.size() < vcpu_count) queues_.emplace_back(make(), 1u);
  }

  // --- a Backend (concepts.hpp) ---

  [[nodiscard]] std::uint32_t vcpu_count() const noexcept {
    return static_cast<std::uint32_t>(queues_.size());
  }
  [[nodiscard]] EventPort port(XenVcpuId vcpu) const noexcept {
    return queues_[vcpu.value].port(own);
  }
  template <std::invocable... Taken>
  Result<void> arm(XenVcpuId vcpu, GuestTime deadline, GuestTime now, const Taken&... taken) {
    return of(vcpu).arm(own, deadline, now, taken...);
  }
  template <std::invocable... Taken>
  Result<void> cancel(XenVcpuId vcpu, const Taken&... taken) {
    return of(vcpu).cancel(own, taken...);
  }
  template <std::invocable... Taken>
  Result<void> keep(XenVcpuId vcpu, GuestTime deadline, GuestTime now, const Taken&... taken) {
    return of(vcpu).keep(own, deadline, now, taken...);
  }
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> bind(XenVcpuId vcpu, EventPort to, Now&& guest_now, Fire&& fire) {
    return of(vcpu).bind(own, to, reads(vcpu, guest_now), fires(vcpu, fire));
  }
  // ENOTSUP, operand the vCPU, for `to_kernel`: there is no timer in the kernel.
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> hand_over(XenVcpuId vcpu, bool to_kernel, Now&& guest_now, Fire&& fire) {
    return named(vcpu,
                 of(vcpu).hand_over(own, to_kernel, reads(vcpu, guest_now), fires(vcpu, fire)));
  }
  [[nodiscard]] Result<Armed> armed(XenVcpuId vcpu) { return of(vcpu).armed(own); }
  template <std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> start_ticks(XenVcpuId vcpu, Duration period, GuestTime now, Fire&& fire) {
    return of(vcpu).start_ticks(own, period, now, fires(vcpu, fire));
  }
  Result<void> restore_ticks(XenVcpuId vcpu, Duration period, GuestTime last_tick, GuestTime now) {
    return of(vcpu).restore_ticks(own, period, last_tick, now);
  }
  Result<void> stop_ticks(XenVcpuId vcpu) { return of(vcpu).stop_ticks(own); }
  // Every vCPU's, one after the other; while none of their threads serves its own.
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> expire(Now&& guest_now, Fire&& fire) {
    return each([&](XenVcpuId vcpu) { return expire(vcpu, guest_now, fire); });
  }
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> pause(Now&& guest_now, Fire&& fire) {
    return each(
        [&](XenVcpuId vcpu) { return of(vcpu).pause(reads(vcpu, guest_now), fires(vcpu, fire)); });
  }
  [[nodiscard]] bool paused() const noexcept { return queues_.front().paused(); }
  template <std::invocable<XenVcpuId> Now>
  Result<void> resume(Now&& guest_now) {
    return each([&](XenVcpuId vcpu) { return of(vcpu).resume(reads(vcpu, guest_now)); });
  }
  [[nodiscard]] int fd() const noexcept { return -1; }

  // --- and more ---

  // What of this vCPU's is due, on its own thread.
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> expire(XenVcpuId vcpu, Now&& guest_now, Fire&& fire) {
    return named(vcpu, of(vcpu).expire(reads(vcpu, guest_now), fires(vcpu, fire)));
  }
  // Calls use(alarm) of this vCPU's, while nobody sets it.
  template <std::invocable<A&> Use>
  auto with_alarm(XenVcpuId vcpu, Use&& use) {
    return of(vcpu).with_alarm(use);
  }

 private:
  using Queue = QueueBackend<A>;
  static constexpr XenVcpuId own{0};

  Queue& of(XenVcpuId vcpu) noexcept { return queues_[vcpu.value]; }
  template <class Now>
  static auto reads(XenVcpuId vcpu, Now& guest_now) noexcept {
    return [vcpu, &guest_now](XenVcpuId) { return guest_now(vcpu); };
  }
  template <class Fire>
  static auto fires(XenVcpuId vcpu, Fire& fire) noexcept {
    return [vcpu, &fire](XenVcpuId, EventPort port, const Due& due = {}) {
      if constexpr (std::invocable<Fire&, XenVcpuId, EventPort, const Due&>) {
        return fire(vcpu, port, due);
      } else {
        return fire(vcpu, port);
      }
    };
  }
  // An error of the queue's own names its only vCPU; the VMM knows it by another number.
  static Result<void> named(XenVcpuId vcpu, Result<void> result) noexcept {
    if (result) return result;
    vmm_base::Error error = result.assume_error();
    if (error.operation == Queue::clock_went_back || error.operation == Queue::no_timer_in_kernel) {
      error.operand = vcpu.value;
    }
    return error;
  }
  template <class F>
  Result<void> each(const F& f) {
    Result<void> first = vmm_base::success();
    for (std::uint32_t id = 0; id < vcpu_count(); ++id) {
      Result<void> done = f(XenVcpuId{id});
      if (first) first = done;
    }
    return first;
  }

  std::vector<Queue> queues_;  // by Xen vCPU id
};

}  // namespace xen_timer
