// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// At most one deadline for each of n timers, the earliest at hand: an indexed heap of eight
// children a node, whose deadlines lie in one cache line, apart from whose they are. Nothing is
// allocated after construction. Not thread-safe. Why not a wheel, or a narrower heap: README.md,
// "Speed".
#pragma once

#include <sys/mman.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <utility>
#include <vector>

#include "xen_clock/clock.hpp"

namespace xen_timer {

class TimerQueue {
 public:
  explicit TimerQueue(std::uint32_t count)
      : lines_(count / width + 2 + width),  // prefetched as a whole
        ids_(count + width, none),
        places_(count, none) {}

  [[nodiscard]] bool empty() const noexcept { return end_ == root; }
  [[nodiscard]] std::size_t size() const noexcept { return end_ - root - (hole_ == none ? 0 : 1); }
  [[nodiscard]] bool contains(std::uint32_t id) const noexcept { return places_[id] != none; }

  // The earliest; not of an empty queue.
  [[nodiscard]] std::uint32_t first() const noexcept { return ids_[root]; }
  [[nodiscard]] xen_clock::HostTime first_due() const noexcept { return due(root); }

  // Puts `id` in, or moves it. O(log n).
  void set(std::uint32_t id, xen_clock::HostTime due) noexcept {
    if (empty()) {
      put(end_++, due, id);
    } else if (!contains(id)) {
      settle(hole_ == none ? end_++ : std::exchange(hole_, none), due, id);
    } else if (end_ == root + 1) {
      this->due(root) = due;
    } else {
      fill();
      settle(places_[id], due, id);
    }
  }

  // Takes `id` out, if it is in. O(log n).
  void remove(std::uint32_t id) noexcept {
    const std::uint32_t at = places_[id];
    if (at == none) return;
    if (end_ == root + 1) {
      end_ = root;
    } else {
      fill();
      hole_ = places_[id];
      if (hole_ == root) fill();
    }
    places_[id] = none;
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  // The root is the last of its line, so that its children, and all others, fill one each.
  static constexpr std::uint32_t width = 8;
  static constexpr std::uint32_t root = width - 1;
  static constexpr std::uint32_t parent(std::uint32_t at) { return at / width + root - 1; }
  static constexpr std::uint32_t children(std::uint32_t at) { return (at - root + 1) * width; }

  struct alignas(64) Line {
    Line() { due.fill(xen_clock::HostTime::max()); }
    std::array<xen_clock::HostTime, width> due;
  };
  static_assert(sizeof(Line) == 64);

  // Huge pages for what fills some: of a million timers, each is in a page of its own else.
  template <class T>
  struct Pages {
    using value_type = T;
    static constexpr std::size_t huge = std::size_t{2} << 20;
    static constexpr std::align_val_t alignment(std::size_t bytes) {
      return std::align_val_t{bytes < huge ? 64 : huge};
    }
    static T* allocate(std::size_t n) {
      const std::size_t bytes = n * sizeof(T);
      void* const at = ::operator new(bytes, alignment(bytes));
      if (bytes >= huge) (void)::madvise(at, bytes, MADV_HUGEPAGE);
      return static_cast<T*>(at);
    }
    static void deallocate(T* at, std::size_t n) noexcept {
      ::operator delete(at, alignment(n * sizeof(T)));
    }
    bool operator==(const Pages&) const = default;
  };
  template <class T>
  using Array = std::vector<T, Pages<T>>;

  xen_clock::HostTime& due(std::uint32_t at) noexcept { return lines_[at / width].due[at % width]; }
  [[nodiscard]] xen_clock::HostTime due(std::uint32_t at) const noexcept {
    return lines_[at / width].due[at % width];
  }
  void put(std::uint32_t at, xen_clock::HostTime due, std::uint32_t id) noexcept {
    this->due(at) = due;
    ids_[at] = id;
    places_[id] = at;
  }

  // A timer that is stopped is soon set again: its place is left to whoever comes in next, unless
  // it is the first. Nothing else may happen before it is filled.
  void fill() noexcept {
    if (hole_ == none) return;
    const std::uint32_t hole = std::exchange(hole_, none);
    const auto last = std::exchange(due(--end_), xen_clock::HostTime::max());
    if (hole != end_) settle(hole, last, ids_[end_]);
  }

  // The earliest of a line, without a branch, which nobody could predict. Beyond the end is what
  // is never earlier.
  [[nodiscard]] std::uint32_t earliest(std::uint32_t line) const noexcept {
    const auto& d = lines_[line / width].due;
    const auto of = [&](std::uint32_t a, std::uint32_t b) {
      return a + (b - a) * static_cast<std::uint32_t>(d[b] < d[a]);
    };
    return line + of(of(of(0, 1), of(2, 3)), of(of(4, 5), of(6, 7)));
  }
  // The lines of all that may be looked at after this one: where they aren't in a cache, waiting
  // for them would be most of the cost.
  void prefetch(std::uint32_t line) const noexcept {
    const std::uint32_t next = children(line);
    if (next >= end_) return;
    for (std::uint32_t i = 0; i < width; ++i) __builtin_prefetch(&lines_[next / width + i]);
  }

  // Puts `id` where it belongs, instead of what was at `at`.
  void settle(std::uint32_t at, xen_clock::HostTime moving, std::uint32_t id) noexcept {
    while (at > root && moving < due(parent(at))) {
      const std::uint32_t up = parent(at);
      put(at, due(up), ids_[up]);
      at = up;
    }
    for (std::uint32_t line = children(at); line < end_; line = children(at)) {
      prefetch(line);
      const std::uint32_t down = earliest(line);
      if (due(down) >= moving) break;
      put(at, due(down), ids_[down]);
      at = down;
    }
    put(at, moving, id);
  }

  Array<Line> lines_;
  Array<std::uint32_t> ids_;     // by where in lines_
  Array<std::uint32_t> places_;  // by id: where in lines_
  std::uint32_t end_ = root;
  std::uint32_t hole_ = none;  // what was here was taken out; its deadline is still there
};

}  // namespace xen_timer
