// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Xen's timers of one domain, as xen/include/public/vcpu.h and xen/common describe them to a guest,
// and nothing of how we serve them: for each vCPU what it waits for, in plain ns. It is told what
// is called and when, and what events have been seen; it tells what must be answered, and what may,
// must and must not be seen.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

namespace xen_model {

inline constexpr std::int64_t ms = 1'000'000;
inline constexpr std::int64_t longest_period = (std::int64_t{1} << 62) - 1;

// Xen's errors, as they stand in RAX.
inline constexpr std::uint64_t eperm = ~std::uint64_t{0};
inline constexpr std::uint64_t enoent = eperm - 1;
inline constexpr std::uint64_t efault = eperm - 13;
inline constexpr std::uint64_t einval = eperm - 21;

struct Vcpu {
  std::uint32_t port = 0;                // of VIRQ_TIMER, 0: none
  std::optional<std::int64_t> deadline;  // of the single shot
  std::int64_t period = 0;               // 0: stopped
  std::int64_t last_event = 0;           // when the last tick was due
  std::int64_t next = 0;                 // when the next one is
  bool failing = false;                  // its events can't be raised

  [[nodiscard]] bool single_is_due(std::int64_t now) const { return deadline && *deadline <= now; }
  [[nodiscard]] bool tick_is_due(std::int64_t now) const { return period != 0 && next <= now; }
  // The earliest that is still to come.
  [[nodiscard]] std::optional<std::int64_t> next_due(std::int64_t now) const {
    std::optional<std::int64_t> due;
    if (deadline && *deadline > now) due = deadline;
    if (period != 0 && next > now) due = due ? std::min(*due, next) : next;
    return due;
  }
  // Ticks are a period apart however late this one is; those missed meanwhile are one.
  void tick(std::int64_t now) {
    last_event = next + (now - next) / period * period;
    next = last_event + period;
  }
};

// What a call is answered, and whether its event comes before it returns, and if so whose.
struct Answer {
  std::uint64_t rax = 0;
  std::optional<std::uint32_t> event_of{};
  bool failed = false;  // it should have come, but couldn't be raised
  bool kept = false;    // so it is still to come; or because the domain is paused
};

struct Call {
  std::uint32_t caller = 0;
  std::uint32_t target = 0;
  std::uint64_t argument = 0;  // timeout or period
  bool readable = true;        // the argument
  bool ring0 = true;
};

class Domain {
 public:
  explicit Domain(std::uint32_t count) : vcpus(count) {}

  // `now` is what the clock of the vCPU that the timer belongs to reads.

  Answer set_singleshot(const Call& call, std::int64_t now) {
    if (auto wrong = check(call, true)) return {*wrong};
    if (!call.readable) return {efault};
    const auto timeout = static_cast<std::int64_t>(call.argument);
    return start(call.caller, timeout < 0 || timeout < now ? std::nullopt : std::optional(timeout),
                 now);
  }
  Answer stop_singleshot(const Call& call) {
    if (auto wrong = check(call, true)) return {*wrong};
    vcpus[call.caller].deadline.reset();
    return {};
  }
  Answer set_timer_op(const Call& call, std::int64_t now) {
    if (!call.ring0) return {eperm};
    const auto timeout = static_cast<std::int64_t>(call.argument);
    if (timeout == 0) {
      vcpus[call.caller].deadline.reset();
      return {};
    }
    if (timeout < 0 || timeout - now >= std::int64_t{1} << 50) {
      return start(call.caller, now + 100 * ms, now);
    }
    return start(call.caller, timeout < now ? std::nullopt : std::optional(timeout), now);
  }
  Answer set_periodic(const Call& call, std::int64_t now) {
    if (auto wrong = check(call, false)) return {*wrong};
    if (!call.readable) return {efault};
    if (call.argument < std::uint64_t{ms} || call.argument > std::uint64_t{longest_period}) {
      return {einval};
    }
    Vcpu& vcpu = vcpus[call.target];
    vcpu.period = static_cast<std::int64_t>(call.argument);
    vcpu.next = vcpu.last_event + vcpu.period;
    if (vcpu.next > now) return {};
    vcpu.next = now;
    if (paused) return {.kept = true};
    Answer answer = raise(call.target);
    if (!answer.kept) vcpu.tick(now);
    return answer;
  }
  Answer stop_periodic(const Call& call) {
    if (auto wrong = check(call, false)) return {*wrong};
    vcpus[call.target].period = 0;
    return {};
  }

  // Without a port what has passed was lost.
  void bind(std::uint32_t id, std::uint32_t port, std::int64_t now) {
    Vcpu& vcpu = vcpus[id];
    if (vcpu.port == 0) lose(id, now, now - 1);
    vcpu.port = port;
  }
  // Without a port what was due until `then` is consumed.
  void lose(std::uint32_t id, std::int64_t now, std::int64_t then) {
    Vcpu& vcpu = vcpus[id];
    if (vcpu.single_is_due(then)) vcpu.deadline.reset();
    if (vcpu.tick_is_due(then)) vcpu.tick(now);
  }
  // The phase of a restored timer is its last tick's.
  void restore() {
    for (Vcpu& vcpu : vcpus) {
      if (vcpu.period != 0) vcpu.next = vcpu.last_event + vcpu.period;
    }
  }

  std::vector<Vcpu> vcpus;
  bool paused = false;

 private:
  // The order of Xen's checks.
  [[nodiscard]] std::optional<std::uint64_t> check(const Call& call, bool own) const {
    if (!call.ring0) return eperm;
    if (call.target >= vcpus.size()) return enoent;
    if (own && call.target != call.caller) return einval;
    return std::nullopt;
  }
  // nullopt: has passed. One timer for both hypercalls, the last call counts.
  Answer start(std::uint32_t id, std::optional<std::int64_t> deadline, std::int64_t now) {
    vcpus[id].deadline = deadline;
    if (deadline) return {};
    Answer answer = raise(id);
    if (answer.kept) vcpus[id].deadline = now;  // stays due
    return answer;
  }
  [[nodiscard]] Answer raise(std::uint32_t id) const {
    if (vcpus[id].port == 0) return {};
    if (paused) return {.kept = true};
    if (vcpus[id].failing) return {.failed = true, .kept = true};
    return {.event_of = id};
  }
};

}  // namespace xen_model
