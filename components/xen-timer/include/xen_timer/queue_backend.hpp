// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The back end that keeps deadlines in userspace: many vCPUs, one wake-up. What wakes is the
// Alarm's business: a timerfd (timerfd_backend.hpp), a test that moves time by hand
// (virtual_backend.hpp), or the timer of your event loop. A KernelPath beside it raises events of
// single shots with no thread waking (irqfd_backend.hpp, delegated_backend.hpp); what it can't or
// may not have stays here.
//
// vCPU threads arm and cancel while one other thread calls expire(). The lock is never held across
// a call out; instead, a timer that is just being served is waited for before it is armed or
// cancelled, so that no event of an old deadline follows.
#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <utility>

#include "xen_timer/alarm.hpp"
#include "xen_timer/concepts.hpp"
#include "xen_timer/deadline.hpp"
#include "xen_timer/queue_state.hpp"

namespace xen_timer {

template <Alarm A, KernelPath P = NoKernelPath>
class QueueBackend {
  using State = detail::QueueState<A, P>;
  using Timer = typename State::Timer;
  using Vcpu = typename State::Vcpu;
  static constexpr bool has_path = State::has_path;
  struct Nothing {
    void operator()() const noexcept {}
  };

 public:
  // For 1 to max_vcpus vCPUs.
  QueueBackend(A alarm, std::uint32_t vcpu_count, P path = {})
      : state_(std::make_unique<State>(std::move(alarm), std::move(path), vcpu_count)) {}

  [[nodiscard]] std::uint32_t vcpu_count() const noexcept { return state_->count(); }
  [[nodiscard]] EventPort port(XenVcpuId vcpu) const noexcept {
    return EventPort{state_->vcpus[vcpu.value].port.load(std::memory_order_acquire)};
  }

  // --- the single shot: on the vCPU's thread, or while it doesn't run ---

  // `taken`: called where a deadline that waited here was taken out for this one.
  template <std::invocable Taken = Nothing>
  Result<void> arm(XenVcpuId vcpu, GuestTime deadline, GuestTime now, const Taken& taken = {}) {
    if (!in_kernel(vcpu)) return keep(vcpu, deadline, now, taken);
    if (take(vcpu)) taken();
    const bool offer = !state_->paused && xen_clock::time_left(now, deadline) <= P::horizon;
    Result<void> tried = vmm_base::success();
    if (offer) {
      auto given = give(vcpu, deadline, now);
      if (given && given.value()) return vmm_base::success();
      if (!given) tried = given.error();
    }
    return first_error(tried, put(vcpu, deadline, now, !offer));
  }

  template <std::invocable Taken = Nothing>
  Result<void> cancel(XenVcpuId vcpu, const Taken& taken = {}) {
    if (take(vcpu)) taken();
    if (!in_kernel(vcpu)) return vmm_base::success();
    state_->vcpus[vcpu.value].given = false;
    return state_->path.cancel(vcpu, port(vcpu));
  }

  template <std::invocable Taken = Nothing>
  Result<void> keep(XenVcpuId vcpu, GuestTime deadline, GuestTime now, const Taken& taken = {}) {
    if (has_path && take(vcpu)) taken();
    return put(vcpu, deadline, now, false, taken);
  }

  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> bind(XenVcpuId vcpu, EventPort to, Now&& guest_now, Fire&& fire) {
    return move(vcpu, to, state_->vcpus[vcpu.value].may_give, guest_now, fire);
  }

  // Whether the kernel path may have this vCPU's single shots; at first it may. An armed deadline
  // goes over. ENOTSUP, operand the vCPU: there is no such path.
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> hand_over(XenVcpuId vcpu, bool to_kernel, Now&& guest_now, Fire&& fire) {
    if (to_kernel && !has_path) {
      return vmm_base::Error{no_timer_in_kernel, ENOTSUP, vcpu.value};
    }
    return move(vcpu, port(vcpu), to_kernel, guest_now, fire);
  }

  [[nodiscard]] Result<Armed> armed(XenVcpuId vcpu) {
    State& s = *state_;
    Armed found;
    std::unique_lock lock(s.mutex);
    const Timer& single = s.wait_until_idle(lock, vcpu.value);
    if (s.queue.contains(vcpu.value)) {
      found.deadline = single.deadline;
    } else if (in_kernel(vcpu)) {  // out of the queue: expire() leaves it alone
      lock.unlock();
      VMM_TRY(deadline, s.path.armed(vcpu));
      found.deadline = deadline;
      lock.lock();
    }
    const Timer& ticks = s.wait_until_idle(lock, s.ticks_of(vcpu));
    found.period = ticks.period;
    found.last_tick = ticks.last_tick;
    return found;
  }

  // --- the periodic timer: on any thread ---

  // As Xen's (xen/common/sched/core.c, vcpu_set_periodic_timer): the first tick is a period after
  // the last there ever was, and where that has passed it comes now, before this returns.
  template <std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> start_ticks(XenVcpuId vcpu, Duration period, GuestTime now, Fire&& fire) {
    State& s = *state_;
    const std::uint32_t id = s.ticks_of(vcpu);
    std::unique_lock lock(s.mutex);
    Timer& timer = s.wait_until_idle(lock, id);
    timer.period = period;
    timer.deadline = xen_clock::saturating_add(timer.last_tick, period);
    Result<void> fired = vmm_base::success();
    if (timer.deadline <= now) {
      timer.deadline = now;
      if (!s.paused) {
        s.queue.remove(id);
        timer.serving = true;
        lock.unlock();
        fired = fire_at(vcpu, fire, {.deadline = now, .now = now, .periodic = true});
        lock.lock();
        timer.serving = false;
        if (fired) timer.tick(now);
        s.idle.notify_all();
      }
    }
    return first_error(fired, s.put_in(id, now));
  }

  // Goes on as armed() told; period 0 for a stopped one.
  Result<void> restore_ticks(XenVcpuId vcpu, Duration period, GuestTime last_tick, GuestTime now) {
    State& s = *state_;
    const std::uint32_t id = s.ticks_of(vcpu);
    std::unique_lock lock(s.mutex);
    Timer& timer = s.wait_until_idle(lock, id);
    s.queue.remove(id);
    timer.period = period;
    timer.last_tick = last_tick;
    timer.deadline = xen_clock::saturating_add(last_tick, period);
    return period == Duration{} ? vmm_base::success() : s.put_in(id, now);
  }

  Result<void> stop_ticks(XenVcpuId vcpu) {
    State& s = *state_;
    std::unique_lock lock(s.mutex);
    s.wait_until_idle(lock, s.ticks_of(vcpu)).period = {};
    s.queue.remove(s.ticks_of(vcpu));
    return vmm_base::success();
  }

  // --- what is due ---

  // One turn for each timer that waits, at most; what then is due again leaves the alarm readable.
  // Returns the first error met; the other timers are served all the same.
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> expire(Now&& guest_now, Fire&& fire) {
    State& s = *state_;
    // First of all: an alarm set after this is not cleared, one set before is served below.
    if constexpr (requires { s.alarm.clear(); }) s.alarm.clear();
    Result<void> result = vmm_base::success();
    std::unique_lock lock(s.mutex);
    if constexpr (EarlyAlarm<A>) s.alarm.woke();
    for (std::size_t turns = s.queue.size(); turns > 0; --turns) {
      s.wait_for_next(lock);
      if (s.paused || s.next_due() > s.alarm.now()) break;
      const std::uint32_t id = s.queue.first();
      const XenVcpuId vcpu{id % s.count()};
      Timer& timer = s.timers[id];
      s.queue.remove(id);
      timer.serving = true;
      lock.unlock();
      const GuestTime now = guest_now(vcpu);
      Result<void> served = vmm_base::success();
      bool over = false;
      if (now >= timer.deadline) {
        served = fire_at(vcpu, fire,
                         {.deadline = timer.deadline, .now = now, .periodic = id >= s.count()});
        over = served.has_value();
      }
      if (served && now < timer.armed_at) {
        served = vmm_base::Error{clock_went_back, EINVAL, vcpu.value};
      }
      lock.lock();
      timer.serving = false;
      timer.armed_at = now;
      if (over && timer.period != Duration{}) {
        timer.tick(now);
        // At the end of time, where a guest may put its clock, the next would be due at once, too.
        s.queue.set(id, timer.deadline > now
                            ? s.due(timer, now)
                            : xen_clock::saturating_add(s.alarm.now(), timer.period));
      } else if (!over) {
        s.queue.set(id, xen_clock::saturating_add(s.alarm.now(), timer.wait(now)));
      }
      s.idle.notify_all();
      result = first_error(result, served);
    }
    // Also where nothing waits: it is readable until it is set.
    return first_error(result, s.paused ? vmm_base::success() : s.set_alarm_anew(s.next_due()));
  }

  // Readable when expire() has something to do.
  [[nodiscard]] int fd() noexcept { return state_->alarm.fd(); }
  // What wakes this back end; a test's way to its clock.
  [[nodiscard]] A& alarm() noexcept { return state_->alarm; }
  // Calls use(alarm) while nobody sets it.
  template <std::invocable<A&> Use>
  auto with_alarm(Use&& use) {
    const std::scoped_lock lock(state_->mutex);
    return use(state_->alarm);
  }

  // Errors whose operand is the vCPU, by their operation.
  static constexpr const char* clock_went_back = "guest clock went backwards";
  static constexpr const char* no_timer_in_kernel = "xen_timer hand_over: no timer in the kernel";

  // --- while no vCPU runs ---

  // What the kernel path had is kept here meanwhile.
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId, EventPort> Fire>
  Result<void> pause(Now&& guest_now, Fire&& fire) {
    State& s = *state_;
    {
      std::unique_lock lock(s.mutex);
      s.paused = true;
      for (std::uint32_t id = 0; id < s.timers.size(); ++id) (void)s.wait_until_idle(lock, id);
    }
    Result<void> result = vmm_base::success();
    for (std::uint32_t id = 0; id < s.count(); ++id) {
      const XenVcpuId vcpu{id};
      const bool armed = recall(vcpu, guest_now, fire, result, true);
      const std::scoped_lock lock(s.mutex);
      if (!armed) continue;
      s.timers[id].for_path = true;
      s.queue.set(id, xen_clock::HostTime::max());
    }
    const std::scoped_lock lock(s.mutex);
    return first_error(result, s.set_alarm(xen_clock::HostTime::max()));
  }

  [[nodiscard]] bool paused() const noexcept { return state_->paused; }

  // What is overdue on the guest's clock by then comes once each, by the next expire(): if the
  // clock stood still meanwhile, nothing is.
  template <std::invocable<XenVcpuId> Now>
  Result<void> resume(Now&& guest_now) {
    State& s = *state_;
    std::unique_lock lock(s.mutex);
    for (std::uint32_t id = 0; id < s.timers.size(); ++id) {
      if (!s.queue.contains(id)) continue;
      lock.unlock();
      const GuestTime now = guest_now(XenVcpuId{id % s.count()});
      lock.lock();
      (void)s.put_in(id, now);  // The alarm is set below.
    }
    s.paused = false;
    Result<void> result = s.set_alarm(s.next_due());
    for (std::uint32_t id = 0; has_path && id < s.count(); ++id) {
      Timer& timer = s.wait_until_idle(lock, id);
      if (!s.queue.contains(id) || !timer.for_path || timer.deadline <= timer.armed_at) continue;
      s.queue.remove(id);
      lock.unlock();
      result = first_error(result, arm(XenVcpuId{id}, timer.deadline, timer.armed_at));
      lock.lock();
    }
    return result;
  }

 protected:
  P& path() noexcept { return state_->path; }

 private:
  static Result<void> first_error(Result<void> first, Result<void> second) {
    return first ? second : first;
  }

  [[nodiscard]] bool in_kernel(XenVcpuId vcpu) const noexcept {
    return has_path && state_->vcpus[vcpu.value].may_give && port(vcpu) != EventPort{};
  }
  // An event for which no port is bound is lost, as in Xen.
  template <class Fire>
  Result<void> fire_at(XenVcpuId vcpu, Fire& fire, const Due& due) {
    const EventPort to = port(vcpu);
    if (to == EventPort{}) return vmm_base::success();
    if constexpr (std::invocable<Fire&, XenVcpuId, EventPort, const Due&>) {
      return fire(vcpu, to, due);
    } else {
      return fire(vcpu, to);
    }
  }

  template <class Taken = Nothing>
  Result<void> put(XenVcpuId vcpu, GuestTime deadline, GuestTime now, bool for_path,
                   const Taken& taken = {}) {
    State& s = *state_;
    Result<void> parked = park(vcpu);
    std::unique_lock lock(s.mutex);
    Timer& timer = s.wait_until_idle(lock, vcpu.value);
    timer.deadline = deadline;
    timer.for_path = for_path;
    const bool waited = s.queue.contains(vcpu.value);
    Result<void> set = s.put_in(vcpu.value, now);
    lock.unlock();
    if (waited) taken();
    return first_error(parked, set);
  }
  // Out of the queue; whether it was in it.
  bool take(XenVcpuId vcpu) {
    State& s = *state_;
    std::unique_lock lock(s.mutex);
    (void)s.wait_until_idle(lock, vcpu.value);
    const bool waiting = s.queue.contains(vcpu.value);
    s.queue.remove(vcpu.value);
    return waiting;
  }
  // Whether the path has it now.
  Result<bool> give(XenVcpuId vcpu, GuestTime deadline, GuestTime now) {
    State& s = *state_;
    Result<bool> armed = s.path.arm(vcpu, port(vcpu), deadline, now);
    const bool given = armed && armed.value();
    s.vcpus[vcpu.value].given = given;
    if (given) s.timers[vcpu.value].deadline = deadline;
    return armed;
  }
  Result<void> park(XenVcpuId vcpu) {
    if (!in_kernel(vcpu)) return vmm_base::success();
    VMM_CHECK(state_->path.park(vcpu));
    state_->vcpus[vcpu.value].given = false;
    return vmm_base::success();
  }
  // Stops the path's timer, if there is one; whether its deadline, the timer's then, is still to
  // come. `may_stay`: one that can't be stopped is left to the path, which raises its event.
  template <class Now, class Fire>
  bool recall(XenVcpuId vcpu, Now& guest_now, Fire& fire, Result<void>& result,
              bool may_stay = false) {
    State& s = *state_;
    if (!in_kernel(vcpu)) return false;
    auto told = s.path.armed(vcpu);
    // Where the path can't tell, what it was given: an event twice rather than never.
    bool armed = s.vcpus[vcpu.value].given;
    GuestTime& deadline = s.timers[vcpu.value].deadline;
    if (told) {
      armed = told.value().has_value();
      // A kernel that answers the hypercalls itself may have another than it was given.
      if (armed) deadline = *told.value();
    } else {
      result = first_error(result, told.error());
    }
    const Result<void> parked = park(vcpu);
    result = first_error(result, parked);
    if (!parked && may_stay) return false;
    if constexpr (requires { s.path.settle(vcpu, port(vcpu)); }) {
      result = first_error(result, s.path.settle(vcpu, port(vcpu)));
    }
    const GuestTime now = armed ? guest_now(vcpu) : GuestTime{};
    if (!armed || deadline > now) return armed;
    // It may have fired since it was asked. Twice is once as long as the vCPU doesn't run.
    Result<void> fired = fire_at(vcpu, fire, {.deadline = deadline, .now = now});
    result = first_error(result, fired);
    return !fired;
  }

  template <class Now, class Fire>
  Result<void> move(XenVcpuId vcpu, EventPort to, bool may_give, Now& guest_now, Fire& fire) {
    State& s = *state_;
    Vcpu& v = s.vcpus[vcpu.value];
    Result<void> result = vmm_base::success();
    const bool was_in_kernel = in_kernel(vcpu);
    const bool waiting = take(vcpu);
    const bool armed = recall(vcpu, guest_now, fire, result) || waiting;
    const GuestTime now = guest_now(vcpu);
    const GuestTime deadline = s.timers[vcpu.value].deadline;
    // Without a port an event was lost, as in Xen, even if nobody has looked yet.
    const bool had_port = port(vcpu) != EventPort{};
    const bool lost = !had_port && deadline < now;

    v.port.store(to.value, std::memory_order_release);
    v.may_give = may_give;
    if (was_in_kernel || in_kernel(vcpu)) {
      result = first_error(result, s.path.bind(vcpu, may_give ? to : EventPort{}));
    }
    {
      // Waits for a tick that is on its way to the old port; one that is due is tried at once.
      const std::uint32_t id = s.ticks_of(vcpu);
      std::unique_lock lock(s.mutex);
      Timer& ticks = s.wait_until_idle(lock, id);
      if (s.queue.contains(id)) {
        if (!had_port && ticks.deadline < now) ticks.tick(now);
        result = first_error(result, s.put_in(id, now));
      }
    }
    if (!armed || lost) return result;
    // What is due may be what couldn't be raised: not to a timer in the kernel, which tries once.
    return first_error(result,
                       deadline > now ? arm(vcpu, deadline, now) : keep(vcpu, deadline, now));
  }

  std::unique_ptr<State> state_;
};

}  // namespace xen_timer
