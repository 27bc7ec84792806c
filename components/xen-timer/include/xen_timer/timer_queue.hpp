// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// At most one deadline for each of n timers, the earliest at hand: an indexed heap of four children
// a node, which lie in one cache line. Nothing is allocated after construction. Not thread-safe.
// Why not a wheel, or a binary heap: README.md, "Speed".
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "xen_clock/clock.hpp"

namespace xen_timer {

class TimerQueue {
 public:
  explicit TimerQueue(std::uint32_t count) : lines_(count / width + 2), places_(count, none) {}

  [[nodiscard]] bool empty() const noexcept { return end_ == root; }
  [[nodiscard]] std::size_t size() const noexcept { return end_ - root; }
  [[nodiscard]] bool contains(std::uint32_t id) const noexcept { return places_[id] != none; }

  // The earliest; not of an empty queue.
  [[nodiscard]] std::uint32_t first() const noexcept { return entry(root).id; }
  [[nodiscard]] xen_clock::HostTime first_due() const noexcept { return entry(root).due; }

  // Puts `id` in, or moves it. O(log n).
  void set(std::uint32_t id, xen_clock::HostTime due) noexcept {
    settle(contains(id) ? places_[id] : end_++, {due, id});
  }

  // Takes `id` out, if it is in. O(log n).
  void remove(std::uint32_t id) noexcept {
    const std::uint32_t hole = places_[id];
    if (hole == none) return;
    places_[id] = none;
    const Entry last = std::exchange(entry(--end_), Entry{});
    if (last.id != id) settle(hole, last);
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  // The root is the last of its line, so that its children, and all others, fill one each.
  static constexpr std::uint32_t width = 4;
  static constexpr std::uint32_t root = width - 1;
  static constexpr std::uint32_t parent(std::uint32_t at) { return at / width + root - 1; }
  static constexpr std::uint32_t children(std::uint32_t at) { return (at - root + 1) * width; }

  struct Entry {
    xen_clock::HostTime due = xen_clock::HostTime::max();
    std::uint32_t id = none;
  };
  struct alignas(64) Line {
    std::array<Entry, width> entries;
  };
  static_assert(sizeof(Line) == 64);

  Entry& entry(std::uint32_t at) noexcept { return lines_[at / width].entries[at % width]; }
  [[nodiscard]] const Entry& entry(std::uint32_t at) const noexcept {
    return lines_[at / width].entries[at % width];
  }
  void put(std::uint32_t at, Entry moved) noexcept {
    entry(at) = moved;
    places_[moved.id] = at;
  }

  // Without a branch, which nobody could predict. Beyond the end is what is never earlier.
  [[nodiscard]] std::uint32_t earlier(std::uint32_t a, std::uint32_t b) const noexcept {
    return a + (b - a) * static_cast<std::uint32_t>(entry(b).due < entry(a).due);
  }

  // Puts `moving` where it belongs, instead of what was at `at`.
  void settle(std::uint32_t at, Entry moving) noexcept {
    while (at > root && moving.due < entry(parent(at)).due) {
      put(at, entry(parent(at)));
      at = parent(at);
    }
    for (std::uint32_t line = children(at); line < end_; line = children(at)) {
      const std::uint32_t earliest = earlier(earlier(line, line + 1), earlier(line + 2, line + 3));
      if (entry(earliest).due >= moving.due) break;
      put(at, entry(earliest));
      at = earliest;
    }
    put(at, moving);
  }

  std::vector<Line> lines_;
  std::vector<std::uint32_t> places_;  // by id: where in lines_
  std::uint32_t end_ = root;
};

}  // namespace xen_timer
