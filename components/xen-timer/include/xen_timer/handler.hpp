// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The handler of Xen's timer hypercalls, for any VMM whose kernel sends them to userspace: the four
// VCPUOPs of the single-shot and the periodic timer, and set_timer_op, from 64- and 32-bit guests.
// Take this when the VMM has a run loop of its own:
//
//   auto backend = xen_timer::TimerfdBackend::create(vcpus);
//   xen_timer::Handler timer(my_vmm, backend.value());
//   …
//   if (auto answer = timer.handle(vcpu, call)) exit.result = answer->guest.rax();
//   …
//   timer.expire();  // whenever backend.value().fd() is readable
//
// The behaviour is Xen's (xen/common/domain.c, xen/common/sched/core.c) as of 4.18.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <concepts>
#include <cstdint>
#include <cstring>
#include <optional>

#include "xen_abi/hypercall.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_timer/concepts.hpp"
#include "xen_timer/deadline.hpp"
#include "xen_timer/state.hpp"

namespace xen_timer {

// Keeps references to the VMM and the back end; both must outlive it. Every error is a host's, and
// names what failed; a deadline is kept through it and served late. A vCPU id that isn't below the
// back end's count is EINVAL, operand the id, and nothing is done.
template <Vmm V, Backend B>
class Handler {
 public:
  Handler(V& vmm, B& backend) noexcept : vmm_(vmm), backend_(backend) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::vcpu_op || number == xen_abi::hypercall::set_timer_op;
  }
  // Answers `call`, made by `vcpu`, on that vCPU's thread; nullopt if it isn't a timer call. The
  // guest's answer is final even where the host had an error; the answer carries both.
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    namespace op = xen_abi::vcpuop;
    const auto command = static_cast<std::uint32_t>(call.params[0]);
    const bool is_vcpu_op = call.number == xen_abi::hypercall::vcpu_op &&
                            command >= op::set_periodic_timer &&
                            command <= op::stop_singleshot_timer;
    if (!is_vcpu_op && call.number != xen_abi::hypercall::set_timer_op) return std::nullopt;
    if (Result<void> known = check_vcpu("xen_timer handle", vcpu); !known) {
      return xen_abi::Answer{xen_abi::Errno::noent, known};
    }
    if (call.cpl != 0) return xen_abi::Answer{xen_abi::Errno::perm};
    if (!is_vcpu_op) return set_timer_op(vcpu, call);

    // Xen's order: no such vCPU, not the caller's own, only then the argument.
    const XenVcpuId target{static_cast<std::uint32_t>(call.params[1])};
    if (target.value >= backend_.vcpu_count()) return xen_abi::Answer{xen_abi::Errno::noent};
    if (command == op::set_periodic_timer) return set_periodic(vcpu, target, call);
    if (command == op::stop_periodic_timer) return done(backend_.stop_ticks(target));
    if (target != vcpu) return xen_abi::Answer{xen_abi::Errno::inval};
    if (command == op::stop_singleshot_timer) return done(cancel(vcpu));
    return set_singleshot(vcpu, call);
  }

  // VIRQ_TIMER of `vcpu` is now bound to `port`, on that vCPU's thread. An armed deadline stays
  // armed. EINVAL, operand the port, for one that can't be: 0, or 4096 and above.
  Result<void> bind(XenVcpuId vcpu, EventPort port) {
    VMM_CHECK(check_vcpu("xen_timer bind", vcpu));
    if (port == EventPort{} || port.value >= xen_abi::event_ports_64) {
      return vmm_base::Error{"xen_timer bind: port", EINVAL, port.value};
    }
    return backend_.bind(vcpu, port, now(), fire());
  }
  // The port has been closed: from now on events are lost, as in Xen. On the vCPU's thread.
  Result<void> unbind(XenVcpuId vcpu) {
    VMM_CHECK(check_vcpu("xen_timer unbind", vcpu));
    return backend_.bind(vcpu, EventPort{}, now(), fire());
  }
  // Whether a timer in the kernel may have this vCPU's single shots, as it may at first where the
  // back end knows one. An armed deadline goes over, and the guest notices nothing. On the vCPU's
  // thread.
  Result<void> hand_over(XenVcpuId vcpu, bool to_kernel) {
    VMM_CHECK(check_vcpu("xen_timer hand_over", vcpu));
    return backend_.hand_over(vcpu, to_kernel, now(), fire());
  }

  // Raises the events of all deadlines that have passed on their guest's clock. Any one thread,
  // whenever the back end's fd is readable; calling it for nothing is harmless. Returns the first
  // host error met; the other deadlines are still served. A guest can cause errors at will: say so
  // once, not each time. After an error call it again before long, for where the back end couldn't
  // set its alarm, the fd doesn't become readable.
  Result<void> expire() { return backend_.expire(now(), fire()); }
  // The same of one vCPU, on its own thread, whenever its signal has come; where the back end has
  // its timers served there (spinning_backend.hpp). After an error call it again before long.
  template <OwnThreadBackend Own = B>
  Result<void> expire(XenVcpuId vcpu) {
    VMM_CHECK(check_vcpu("xen_timer expire", vcpu));
    return backend_.expire(vcpu, now(), fire());
  }

  // --- while no vCPU runs ---

  // Between pause() and resume() no event is raised. What the guest's clock does meanwhile is the
  // VMM's choice: if it stands still (KVM_SET_CLOCK), every deadline is as far ahead as before; if
  // it has gone on, what is overdue comes once each, and periodic ticks keep their grid. Call the
  // pair round every change of a guest's clock.
  Result<void> pause() { return backend_.pause(now(), fire()); }
  Result<void> resume() { return backend_.resume(now()); }

  // What a vCPU's timers wait for; also on the vCPU's own thread while others run.
  [[nodiscard]] Result<VcpuTimers> save(XenVcpuId vcpu) {
    VMM_CHECK(check_vcpu("xen_timer save", vcpu));
    VMM_TRY(armed, backend_.armed(vcpu));
    // By a clock that it put before its beginning, a guest can have got such a deadline.
    if (armed.deadline) armed.deadline = std::max(*armed.deadline, GuestTime{});
    return VcpuTimers{.port = backend_.port(vcpu),
                      .deadline = armed.deadline,
                      .period = armed.period,
                      .last_tick = armed.last_tick};
  }
  // Replaces a vCPU's timers, after its clock has been restored. The events may be due before they
  // can be raised: until then they stay armed. Errors of check(), with nothing done. Also on the
  // vCPU's own thread while others run: with none of them, as where a guest is reset.
  Result<void> restore(XenVcpuId vcpu, const VcpuTimers& timers) {
    VMM_CHECK(check_vcpu("xen_timer restore", vcpu));
    VMM_CHECK(check(timers));
    // First what may be due, so that no event of before comes to the new port.
    Result<void> result = backend_.stop_ticks(vcpu);
    const auto also = [&result](Result<void> next) {
      if (result) result = next;
    };
    also(backend_.cancel(vcpu));
    also(backend_.bind(vcpu, timers.port, now(), fire()));
    const GuestTime at = vmm_.guest_now(vcpu);
    // Not to a timer in the kernel, which has no second try.
    if (timers.deadline) also(backend_.keep(vcpu, *timers.deadline, at));
    also(backend_.restore_ticks(vcpu, timers.period, timers.last_tick, at));
    return result;
  }

 private:
  auto now() noexcept {
    return [this](XenVcpuId vcpu) { return vmm_.guest_now(vcpu); };
  }
  struct Fire {
    V& vmm;
    Result<void> operator()(XenVcpuId vcpu, EventPort port) const {
      return vmm.raise_event(vcpu, port);
    }
    Result<void> operator()(XenVcpuId vcpu, EventPort port, const Due& due) const {
      if constexpr (requires { vmm.timer_expired(vcpu, due); }) vmm.timer_expired(vcpu, due);
      Result<void> raised = vmm.raise_event(vcpu, port);
      if constexpr (requires { vmm.timer_fired(vcpu, due); }) {
        if (raised) vmm.timer_fired(vcpu, due);
      }
      return raised;
    }
  };
  Fire fire() noexcept { return {vmm_}; }

  Result<void> arm(XenVcpuId vcpu, GuestTime deadline, GuestTime now) {
    const auto cancelled = [&] { tell_cancelled(vcpu); };
    if constexpr (tells_cancelled && requires { backend_.arm(vcpu, deadline, now, cancelled); }) {
      return backend_.arm(vcpu, deadline, now, cancelled);
    } else {
      return backend_.arm(vcpu, deadline, now);
    }
  }
  Result<void> cancel(XenVcpuId vcpu) {
    const auto cancelled = [&] { tell_cancelled(vcpu); };
    if constexpr (tells_cancelled && requires { backend_.cancel(vcpu, cancelled); }) {
      return backend_.cancel(vcpu, cancelled);
    } else {
      return backend_.cancel(vcpu);
    }
  }
  static constexpr bool tells_cancelled = requires(V & vmm, XenVcpuId vcpu) {
    {vmm.timer_cancelled(vcpu)};
  };
  void tell_cancelled(XenVcpuId vcpu) {
    if constexpr (tells_cancelled) vmm_.timer_cancelled(vcpu);
  }
  Result<void> check_vcpu(const char* operation, XenVcpuId vcpu) const {
    if (vcpu.value < backend_.vcpu_count()) return vmm_base::success();
    return vmm_base::Error{operation, EINVAL, vcpu.value};
  }
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
    if (timeout == 0) return done(cancel(vcpu));
    const GuestTime now = vmm_.guest_now(vcpu);
    return start(vcpu, set_timer_op_deadline(static_cast<std::int64_t>(timeout), now), now);
  }

  xen_abi::Answer set_periodic(XenVcpuId vcpu, XenVcpuId target, const xen_abi::Hypercall& call) {
    std::array<std::byte, sizeof(xen_abi::SetPeriodicTimer)> argument;
    if (!vmm_.copy_from_guest(vcpu, Gva{call.params[2]}, argument)) {
      return xen_abi::Answer{xen_abi::Errno::fault};
    }
    std::uint64_t period = 0;
    std::memcpy(&period, argument.data(), sizeof(period));
    if (!is_period(period)) return xen_abi::Answer{xen_abi::Errno::inval};
    return done(backend_.start_ticks(target, Duration(static_cast<std::int64_t>(period)),
                                     vmm_.guest_now(target), fire()));
  }

  bool is_paused() const {
    if constexpr (requires {
                    { backend_.paused() } -> std::same_as<bool>;
                  }) {
      return backend_.paused();
    } else {
      return false;
    }
  }

  // nullopt: the deadline has passed, so the event comes before the call returns. If it can't be
  // raised, or may not be, it stays due.
  xen_abi::Answer start(XenVcpuId vcpu, std::optional<GuestTime> deadline, GuestTime now) {
    if constexpr (requires { vmm_.timer_armed(vcpu, now, now); }) {
      vmm_.timer_armed(vcpu, deadline.value_or(now), now);
    }
    if (deadline) return done(arm(vcpu, *deadline, now));
    Result<void> cancelled = cancel(vcpu);
    const EventPort port = backend_.port(vcpu);
    if (port == EventPort{}) return done(cancelled);  // lost, as in Xen
    const bool paused = is_paused();
    Result<void> raised =
        paused ? vmm_base::success() : fire()(vcpu, port, {.deadline = now, .now = now});
    Result<void> kept = vmm_base::success();
    if (paused || !raised) kept = backend_.keep(vcpu, now, now);
    for (const auto& failed : {cancelled, raised}) {
      if (!failed) return done(failed);
    }
    return done(kept);
  }

  V& vmm_;
  B& backend_;
};

}  // namespace xen_timer
