// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The last that happened to a vCPU, kept without a lock, an allocation or a system call.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace vmm_reference {

// ns, of the host's steady clock.
inline std::int64_t trace_now() noexcept {
  return std::chrono::steady_clock::now().time_since_epoch().count();
}

struct TraceEvent {
  enum class Kind : std::uint8_t { hypercall, armed, cancelled, expired, raised };

  std::int64_t at = 0;     // trace_now()
  std::int64_t value = 0;  // ns: a hypercall's duration, how far ahead, how late
  Kind kind{};
  std::uint8_t call = 0;  // of a hypercall: call_kind()
};

// One thread at a time adds; it is read when all of them have ended.
class TraceRing {
 public:
  static constexpr std::size_t capacity = 1 << 15;

  void add(const TraceEvent& event) noexcept { events_[added_++ % capacity] = event; }

  [[nodiscard]] std::uint64_t overwritten() const noexcept {
    return added_ - std::min<std::uint64_t>(added_, capacity);
  }
  // Calls use(event) for each, the oldest first.
  template <class Use>
  void each(Use&& use) const {
    for (std::uint64_t n = overwritten(); n < added_; ++n) use(events_[n % capacity]);
  }

 private:
  // All of it is touched here, so that no page has to be found later.
  std::unique_ptr<TraceEvent[]> events_ = std::make_unique<TraceEvent[]>(capacity);
  std::uint64_t added_ = 0;
};

// By who adds: the vCPU's own thread; who serves its single shot; who serves its ticks.
struct VcpuTrace {
  TraceRing own;
  TraceRing timers[2];
};

}  // namespace vmm_reference
