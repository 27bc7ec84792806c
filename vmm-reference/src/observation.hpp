// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a domain's hypercalls and timers do: counters that anybody may read at any time, a trace
// where one is recorded, and probes. Where they pass through nothing is locked, allocated or
// virtual; without a trace no clock is read either.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "call_kind.hpp"
#include "probes.hpp"
#include "trace_ring.hpp"
#include "vmm_base/ids.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_clock/clock.hpp"
#include "xen_timer/concepts.hpp"

namespace vmm_reference {

// Upper bounds of how late an event was, ns; what was later is in one bucket more.
inline constexpr std::array<std::int64_t, 6> late_bounds = {1'000,     10'000,     100'000,
                                                            1'000'000, 10'000'000, 100'000'000};
inline constexpr std::size_t late_buckets = late_bounds.size() + 1;

// As read at one time.
struct VcpuCounts {
  std::uint64_t armed = 0;                         // single shots that the guest has set
  std::uint64_t cancelled = 0;                     // of those, stopped or replaced
  std::uint64_t late_ns = 0;                       // sum
  std::array<std::uint64_t, late_buckets> late{};  // events that we have raised, by lateness
  std::array<std::uint64_t, call_kinds> calls{};   // hypercalls that came to us

  [[nodiscard]] std::uint64_t fired() const noexcept;
  [[nodiscard]] std::uint64_t all_calls() const noexcept;
  VcpuCounts& operator+=(const VcpuCounts& other) noexcept;
};

// Written by one thread at a time, so that no locked instruction is needed.
class Counter {
 public:
  void add(std::uint64_t n = 1) noexcept { value_.store(get() + n, std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t get() const noexcept {
    return value_.load(std::memory_order_relaxed);
  }

 private:
  std::atomic<std::uint64_t> value_ = 0;
};

class VcpuObservation {
 public:
  using Due = xen_timer::Due;
  using GuestTime = xen_clock::GuestTime;

  // --- on the vCPU's thread ---

  // A hypercall that came to us; it is answered when this goes.
  class Call {
   public:
    Call(const Call&) = delete;
    Call& operator=(const Call&) = delete;
    ~Call() {
      if (trace_ == nullptr) return;
      trace_->own.add({begin_, trace_now() - begin_, TraceEvent::Kind::hypercall,
                       static_cast<std::uint8_t>(kind_)});
    }

   private:
    friend class VcpuObservation;
    Call(VcpuTrace* trace, std::size_t kind) noexcept
        : trace_(trace), kind_(kind), begin_(trace == nullptr ? 0 : trace_now()) {}
    VcpuTrace* trace_;
    std::size_t kind_;
    std::int64_t begin_;
  };
  [[nodiscard]] Call hypercall(vmm_base::XenVcpuId id, const xen_abi::Hypercall& call) noexcept {
    VMM_PROBE(hypercall__in, id.value, call.number, call.params[0]);
    const std::size_t kind = call_kind(call);
    calls_[kind].add();
    return {trace_.get(), kind};
  }
  void armed(vmm_base::XenVcpuId id, GuestTime deadline, GuestTime now) noexcept {
    VMM_PROBE(timer__armed, id.value, deadline.time_since_epoch().count(),
              now.time_since_epoch().count());
    armed_.add();
    if (trace_) {
      trace_->own.add(
          {trace_now(), xen_clock::time_left(now, deadline).count(), TraceEvent::Kind::armed});
    }
  }
  void cancelled() noexcept {
    cancelled_.add();
    if (trace_) trace_->own.add({trace_now(), 0, TraceEvent::Kind::cancelled});
  }

  // --- on the thread that serves the timer ---

  void expired(vmm_base::XenVcpuId id, const Due& due) noexcept {
    VMM_PROBE(timer__expired, id.value, due.deadline.time_since_epoch().count(),
              due.now.time_since_epoch().count());
    if (trace_) add_to_trace(TraceEvent::Kind::expired, due);
  }
  void raised(vmm_base::XenVcpuId id, const Due& due) noexcept {
    const std::int64_t late = late_by(due);
    VMM_PROBE(event__raised, id.value, late, due.periodic);
    Timer& timer = timers_[due.periodic ? 1 : 0];
    // A guest may have its clock jump as far as it likes.
    timer.late_ns.add(
        std::min(static_cast<std::uint64_t>(late), most_late_ns - timer.late_ns.get()));
    std::size_t bucket = 0;
    while (bucket < late_bounds.size() && late > late_bounds[bucket]) ++bucket;
    timer.late[bucket].add();
    if (trace_) add_to_trace(TraceEvent::Kind::raised, due);
  }

  // --- on any thread ---

  [[nodiscard]] VcpuCounts counts() const noexcept;

  // --- while no vCPU runs ---

  void record() { trace_ = std::make_unique<VcpuTrace>(); }
  [[nodiscard]] const VcpuTrace* trace() const noexcept { return trace_.get(); }

 private:
  static std::int64_t late_by(const Due& due) noexcept {
    return xen_clock::time_left(due.deadline, due.now).count();
  }
  void add_to_trace(TraceEvent::Kind kind, const Due& due) noexcept {
    trace_->timers[due.periodic ? 1 : 0].add({trace_now(), late_by(due), kind});
  }

  static constexpr std::size_t cache_line = 64;
  static constexpr std::uint64_t most_late_ns = std::uint64_t{1} << 62;
  // Of the single shot, and of the ticks: each may be served by another thread.
  struct alignas(cache_line) Timer {
    Counter late_ns;
    std::array<Counter, late_buckets> late;
  };
  static_assert(sizeof(Timer) == cache_line);

  alignas(cache_line) Counter armed_;
  Counter cancelled_;
  std::array<Counter, call_kinds> calls_;
  std::unique_ptr<VcpuTrace> trace_;
  std::array<Timer, 2> timers_;
};

// By Xen vCPU id.
using Observation = std::vector<VcpuObservation>;

[[nodiscard]] std::vector<VcpuCounts> read_counts(const Observation& observation);

}  // namespace vmm_reference
