// SPDX-License-Identifier: BSD-3-Clause
//
// At most one deadline for each of n vCPUs, the earliest at hand: an indexed binary heap. Nothing
// is allocated after construction. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "xen_clock/clock.hpp"

namespace xen_timer {

class TimerQueue {
 public:
  explicit TimerQueue(std::uint32_t count) : place_(count, none) { heap_.reserve(count); }

  [[nodiscard]] bool empty() const noexcept { return heap_.empty(); }
  [[nodiscard]] std::size_t size() const noexcept { return heap_.size(); }
  [[nodiscard]] bool contains(std::uint32_t id) const noexcept { return place_[id] != none; }

  // The earliest; not of an empty queue.
  [[nodiscard]] std::uint32_t first() const noexcept { return heap_.front().id; }
  [[nodiscard]] xen_clock::HostTime first_due() const noexcept { return heap_.front().due; }

  // Puts `id` in, or moves it. O(log n).
  void set(std::uint32_t id, xen_clock::HostTime due) noexcept {
    if (!contains(id)) {
      place_[id] = static_cast<std::uint32_t>(heap_.size());
      heap_.push_back({due, id});  // within what was reserved
    } else {
      heap_[place_[id]].due = due;
    }
    settle(place_[id]);
  }

  // Takes `id` out, if it is in. O(log n).
  void remove(std::uint32_t id) noexcept {
    const std::uint32_t hole = place_[id];
    if (hole == none) return;
    place_[id] = none;
    const Entry last = heap_.back();
    heap_.pop_back();
    if (last.id == id) return;
    put(hole, last);
    settle(hole);
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  struct Entry {
    xen_clock::HostTime due;
    std::uint32_t id;
  };

  void put(std::uint32_t at, Entry entry) noexcept {
    heap_[at] = entry;
    place_[entry.id] = at;
  }

  // Restores the order after heap_[at] has changed.
  void settle(std::uint32_t at) noexcept {
    const Entry moving = heap_[at];
    while (at > 0 && moving.due < heap_[(at - 1) / 2].due) {
      put(at, heap_[(at - 1) / 2]);
      at = (at - 1) / 2;
    }
    const auto size = static_cast<std::uint32_t>(heap_.size());
    for (std::uint32_t child = 2 * at + 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && heap_[child + 1].due < heap_[child].due) ++child;
      if (!(heap_[child].due < moving.due)) break;
      put(at, heap_[child]);
      at = child;
    }
    put(at, moving);
  }

  std::vector<Entry> heap_;
  std::vector<std::uint32_t> place_;  // by id: where in heap_
};

}  // namespace xen_timer
