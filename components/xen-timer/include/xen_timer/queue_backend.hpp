// SPDX-License-Identifier: BSD-3-Clause
//
// The back ends that keep deadlines in userspace: many vCPUs, one wake-up. What wakes is the
// Alarm's business: a timerfd (timerfd_backend.hpp), or a test that moves time by hand
// (virtual_backend.hpp).
//
// vCPU threads arm and cancel while one other thread calls expire(). The lock is never held across
// a call out; instead, a vCPU whose deadline is just being served waits for that to end before it
// arms or cancels, so that no event of an old deadline follows.
#pragma once

#include <algorithm>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "xen_timer/concepts.hpp"
#include "xen_timer/timer_queue.hpp"

namespace xen_timer {

// now: the host's clock. set: be readable from then on, HostTime::max() for never. clear: be no
// longer readable for what has passed.
template <class A>
concept Alarm = requires(A& alarm, xen_clock::HostTime due) {
  { alarm.now() } -> std::same_as<xen_clock::HostTime>;
  { alarm.set(due) } -> std::same_as<Result<void>>;
  {alarm.clear()};
};

template <Alarm A>
class QueueBackend {
 public:
  QueueBackend(A alarm, std::uint32_t vcpu_count)
      : state_(std::make_unique<State>(std::move(alarm), vcpu_count)) {}

  // Error: the alarm couldn't be set. The deadline is kept all the same, and served late, by the
  // next expire().
  Result<void> arm(XenVcpuId vcpu, EventPort /*port*/, GuestTime deadline, GuestTime now) {
    State& s = *state_;
    std::unique_lock lock(s.mutex);
    Slot& slot = s.wait_until_idle(lock, vcpu);
    slot.deadline = deadline;
    slot.rechecks = 0;
    const auto due = xen_clock::host_due(s.alarm.now(), now, deadline);
    s.queue.set(vcpu.value, due);
    // An alarm that is set for earlier does for this one, too.
    return due < s.alarm_due ? s.set_alarm(due) : vmm_base::success();
  }

  // The alarm is left as it is: re-arming is what mostly follows.
  Result<void> cancel(XenVcpuId vcpu) {
    State& s = *state_;
    std::unique_lock lock(s.mutex);
    s.wait_until_idle(lock, vcpu);
    s.queue.remove(vcpu.value);
    return vmm_base::success();
  }

  // The handler knows the port when it fires; only one that is just being raised is waited for.
  Result<void> bind(XenVcpuId vcpu, EventPort, GuestTime) {
    std::unique_lock lock(state_->mutex);
    state_->wait_until_idle(lock, vcpu);
    return vmm_base::success();
  }

  // Serves what is due: `guest_now(vcpu)` tells whether it is, on the guest's own clock, and
  // `fire(vcpu)` raises the event. One thread at a time. At most one turn a vCPU; what then is due
  // again leaves the alarm readable.
  template <std::invocable<XenVcpuId> Now, std::invocable<XenVcpuId> Fire>
  Result<void> expire(Now&& guest_now, Fire&& fire) {
    State& s = *state_;
    Result<void> result = vmm_base::success();
    // First of all: an alarm set after this is not cleared, one set before is served below.
    s.alarm.clear();
    std::unique_lock lock(s.mutex);
    for (std::size_t turns = s.slots.size(); turns > 0; --turns) {
      if (s.queue.empty() || s.queue.first_due() > s.alarm.now()) break;
      const XenVcpuId vcpu{s.queue.first()};
      Slot& slot = s.slots[vcpu.value];
      s.queue.remove(vcpu.value);
      slot.serving = true;
      const GuestTime deadline = slot.deadline;
      lock.unlock();
      const GuestTime now = guest_now(vcpu);
      Result<void> fired = now >= deadline ? fire(vcpu) : vmm_base::success();
      lock.lock();
      slot.serving = false;
      if (now < deadline) {
        s.queue.set(vcpu.value, s.alarm.now() + rest(slot, deadline, now));
      }
      s.idle.notify_all();
      if (!fired && result) result = fired;
    }
    Result<void> set =
        s.set_alarm(s.queue.empty() ? xen_clock::HostTime::max() : s.queue.first_due());
    return result ? set : result;
  }

  // Readable when expire() has something to do.
  [[nodiscard]] int fd() const noexcept requires requires(const A& alarm) { alarm.fd(); }
  { return state_->alarm.fd(); }
  // What wakes this back end; a test's way to its clock.
  [[nodiscard]] A& alarm() noexcept { return state_->alarm; }

 private:
  struct Slot {
    GuestTime deadline{};
    std::uint32_t rechecks = 0;  // wake-ups that came before the guest's clock had reached it
    bool serving = false;        // expire() has taken it out and is calling out
  };

  struct State {
    State(A a, std::uint32_t count) : alarm(std::move(a)), queue(count), slots(count) {}

    Slot& wait_until_idle(std::unique_lock<std::mutex>& lock, XenVcpuId vcpu) {
      Slot& slot = slots[vcpu.value];
      idle.wait(lock, [&] { return !slot.serving; });
      return slot;
    }
    Result<void> set_alarm(xen_clock::HostTime due) {
      if (due == alarm_due && due == xen_clock::HostTime::max()) return vmm_base::success();
      alarm_due = due;
      Result<void> set = alarm.set(due);
      if (!set) alarm_due = xen_clock::HostTime::max();  // so that the next one is tried again
      return set;
    }

    A alarm;
    std::mutex mutex;
    std::condition_variable idle;
    TimerQueue queue;
    std::vector<Slot> slots;  // by Xen vCPU id
    xen_clock::HostTime alarm_due = xen_clock::HostTime::max();
  };

  // The host's clock was ahead of the guest's. Wait for the rest; and longer each time, for a guest
  // can make its clock stand still by writing to its page, and must not keep us awake with it.
  static xen_clock::Duration rest(Slot& slot, GuestTime deadline, GuestTime now) {
    const auto at_least = xen_clock::Duration(std::int64_t{1000} << std::min(slot.rechecks, 20u));
    ++slot.rechecks;
    // A deadline far ahead of a clock that was set back is looked at again once a minute.
    const auto at_most = xen_clock::Duration(std::chrono::minutes(1));
    return std::clamp(xen_clock::host_due({}, now, deadline).time_since_epoch(), at_least, at_most);
  }

  std::unique_ptr<State> state_;
};

}  // namespace xen_timer
