// SPDX-License-Identifier: BSD-3-Clause
//
// The handler of Xen's single-shot timer hypercalls, for any VMM whose kernel sends them to
// userspace: VCPUOP_set_singleshot_timer, VCPUOP_stop_singleshot_timer and set_timer_op, from 64-
// and 32-bit guests. Take this when the VMM has a run loop of its own:
//
//   auto backend = xen_timer::TimerfdBackend::create(vcpus);
//   xen_timer::Handler timer(my_vmm, backend.value(), vcpus);
//   …
//   if (auto answer = timer.handle(vcpu, call)) exit.result = answer->guest.rax();
//   …
//   timer.expire();  // whenever backend.value().fd() is readable
//
// The behaviour is Xen's (xen/common/domain.c, xen/common/sched/core.c) as of 4.18.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "xen_abi/hypercall.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_timer/concepts.hpp"
#include "xen_timer/deadline.hpp"

namespace xen_timer {

// Keeps references to the VMM and the back end; both must outlive it.
template <Vmm V, Backend B>
class Handler {
 public:
  // For Xen vCPU ids 0 to `vcpu_count` - 1.
  Handler(V& vmm, B& backend, std::uint32_t vcpu_count)
      : vmm_(vmm), backend_(backend), ports_(vcpu_count) {}

  // Answers `call`, made by `vcpu`, on that vCPU's thread; nullopt if it isn't a timer call. The
  // guest's answer is final even where the host had an error; the answer carries both.
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (call.number == xen_abi::hypercall::set_timer_op) {
      if (call.cpl != 0) return xen_abi::Answer{xen_abi::Errno::perm};
      return set_timer_op(vcpu, call);
    }
    if (call.number != xen_abi::hypercall::vcpu_op) return std::nullopt;
    const auto command = static_cast<std::uint32_t>(call.params[0]);
    if (command != xen_abi::vcpuop::set_singleshot_timer &&
        command != xen_abi::vcpuop::stop_singleshot_timer) {
      return std::nullopt;
    }
    if (call.cpl != 0) return xen_abi::Answer{xen_abi::Errno::perm};

    // Xen's order: no such vCPU, not the caller's own, only then the argument.
    const XenVcpuId target{static_cast<std::uint32_t>(call.params[1])};
    if (target.value >= ports_.size()) return xen_abi::Answer{xen_abi::Errno::noent};
    if (target != vcpu) return xen_abi::Answer{xen_abi::Errno::inval};
    if (command == xen_abi::vcpuop::stop_singleshot_timer) return done(backend_.cancel(vcpu));
    return set_singleshot(vcpu, call);
  }

  // VIRQ_TIMER of `vcpu` is now bound to `port`; 0 for unbound. On that vCPU's thread. An armed
  // deadline stays armed. EINVAL, operand the id, for a vCPU that isn't.
  Result<void> bind(XenVcpuId vcpu, EventPort port) {
    if (vcpu.value >= ports_.size()) {
      return vmm_base::Error{"xen_timer bind", EINVAL, vcpu.value};
    }
    ports_[vcpu.value].store(port.value, std::memory_order_release);
    return backend_.bind(vcpu, port, vmm_.guest_now(vcpu));
  }

  // Raises the events of all deadlines that have passed on their guest's clock. Any one thread,
  // whenever the back end's fd is readable; calling it for nothing is harmless. Returns the first
  // host error met; the other deadlines are still served.
  Result<void> expire() requires requires(B& backend) { backend.fd(); }
  {
    return backend_.expire([this](XenVcpuId vcpu) { return vmm_.guest_now(vcpu); },
                           [this](XenVcpuId vcpu) { return fire(vcpu); });
  }

 private:
  static xen_abi::Answer done(Result<void> host) {
    return xen_abi::Answer{xen_abi::GuestResult::ok(), host};
  }

  xen_abi::Answer set_singleshot(XenVcpuId vcpu, const xen_abi::Hypercall& call) {
    std::array<std::byte, xen_abi::set_singleshot_timer_size_64> argument;
    const std::size_t size = call.long_mode ? xen_abi::set_singleshot_timer_size_64
                                            : xen_abi::set_singleshot_timer_size_32;
    if (!vmm_.copy_from_guest(vcpu, Gva{call.params[2]}, std::span(argument).first(size))) {
      return xen_abi::Answer{xen_abi::Errno::fault};
    }
    std::uint64_t timeout = 0;
    std::memcpy(&timeout, argument.data(), sizeof(timeout));
    const GuestTime now = vmm_.guest_now(vcpu);
    return start(vcpu, singleshot_deadline(timeout, now), now);
  }

  xen_abi::Answer set_timer_op(XenVcpuId vcpu, const xen_abi::Hypercall& call) {
    const std::uint64_t timeout =
        call.long_mode ? call.params[0] : call.params[0] | call.params[1] << 32;
    if (timeout == 0) return done(backend_.cancel(vcpu));
    const GuestTime now = vmm_.guest_now(vcpu);
    return start(vcpu, set_timer_op_deadline(static_cast<std::int64_t>(timeout), now), now);
  }

  // nullopt: the deadline has passed, so the event comes before the call returns.
  xen_abi::Answer start(XenVcpuId vcpu, std::optional<GuestTime> deadline, GuestTime now) {
    if (deadline) return done(backend_.arm(vcpu, port(vcpu), *deadline, now));
    Result<void> cancelled = backend_.cancel(vcpu);
    Result<void> fired = fire(vcpu);
    return done(cancelled ? fired : cancelled);
  }

  // An event for which no port is bound is lost, as in Xen.
  Result<void> fire(XenVcpuId vcpu) {
    const EventPort to = port(vcpu);
    if (to == EventPort{}) return vmm_base::success();
    return vmm_.raise_event(vcpu, to);
  }

  [[nodiscard]] EventPort port(XenVcpuId vcpu) const noexcept {
    return EventPort{ports_[vcpu.value].load(std::memory_order_acquire)};
  }

  V& vmm_;
  B& backend_;
  std::vector<std::atomic<std::uint32_t>> ports_;  // by Xen vCPU id; 0: none bound
};

}  // namespace xen_timer
