// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// At most one deadline for each of n timers, the earliest at hand: a tournament of eights. A
// timer's leaf is where its id says; each node above has the earliest of eight, whose deadlines lie
// in one cache line, and whose that is. So nothing is searched for, and nothing else moves. Who
// waits alone isn't in the tree. Nothing is allocated after construction. Not thread-safe. Why not
// a heap or a wheel: README.md, "Speed".
#pragma once

#include <sys/mman.h>

#include <algorithm>
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
      : leaves_(root + (count + width - 3) / (width - 1)),
        dues_((leaves_ + count) / width * width + width, never),
        winners_(leaves_) {}

  [[nodiscard]] bool empty() const noexcept { return first_ == none; }
  [[nodiscard]] std::size_t size() const noexcept {
    return std::max(in_tree_, empty() ? std::uint32_t{0} : std::uint32_t{1});
  }
  [[nodiscard]] bool contains(std::uint32_t id) const noexcept {
    return id == first_ || dues_[leaves_ + id] != never;
  }

  // The earliest; not of an empty queue.
  [[nodiscard]] std::uint32_t first() const noexcept { return first_; }
  [[nodiscard]] xen_clock::HostTime first_due() const noexcept { return first_due_; }

  // Puts `id` in, or moves it. The end of time is a nanosecond before HostTime's. O(log n).
  void set(std::uint32_t id, xen_clock::HostTime due) noexcept {
    due = std::min(due, never - xen_clock::Duration(1));
    if (in_tree_ == 0 && (empty() || id == first_)) {
      first_ = id;
      first_due_ = due;
    } else {
      put(id, due);
    }
  }

  // Takes `id` out, if it is in. O(log n).
  void remove(std::uint32_t id) noexcept {
    if (in_tree_ != 0) {
      take(id);
    } else if (id == first_) {
      first_ = none;
    }
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  static constexpr xen_clock::HostTime never = xen_clock::HostTime::max();  // of what isn't in
  // Of a cache line. The root is the last of its line, so that its children, and all others, fill
  // one each.
  static constexpr std::uint32_t width = 8;
  static constexpr std::uint32_t root = width - 1;
  static constexpr std::uint32_t parent(std::uint32_t at) { return at / width + root - 1; }

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

  // Out of line, so that a timer that is alone, which needs none of it, costs little.
  [[gnu::noinline]] void put(std::uint32_t id, xen_clock::HostTime due) noexcept {
    if (in_tree_ == 0) return join(id, due);
    const std::uint32_t leaf = leaves_ + id;
    if (dues_[leaf] == never) ++in_tree_;
    dues_[leaf] = due;
    if (due < dues_[parent(leaf)]) {
      rise(leaf, due);
    } else if (winners_[parent(leaf)] == leaf) {
      replay(leaf, due);
    }
  }
  [[gnu::noinline]] void join(std::uint32_t id, xen_clock::HostTime due) noexcept {
    in_tree_ = 1;
    dues_[leaves_ + first_] = first_due_;
    rise(leaves_ + first_, first_due_);
    put(id, due);
  }
  [[gnu::noinline]] void take(std::uint32_t id) noexcept {
    const std::uint32_t leaf = leaves_ + id;
    if (dues_[leaf] == never) return;
    if (--in_tree_ == 0) {
      for (std::uint32_t at = leaf; at >= root; at = parent(at)) dues_[at] = never;
      first_ = none;
      return;
    }
    dues_[leaf] = never;
    if (winners_[parent(leaf)] == leaf) replay(leaf, never);
  }

  // `leaf` is earlier than what its parent has.
  void rise(std::uint32_t leaf, xen_clock::HostTime due) noexcept {
    std::uint32_t at = leaf;
    do {
      at = parent(at);
      win(at, due, leaf);
    } while (at != root && due < dues_[parent(at)]);
  }
  // `leaf` has become later, and its parent has it.
  void replay(std::uint32_t leaf, xen_clock::HostTime due) noexcept {
    std::uint32_t at = leaf;
    std::uint32_t winner = leaf;
    do {
      // The others' earliest doesn't depend on the level below, and needn't be waited for.
      dues_[at] = never;
      const std::uint32_t other = earliest(at);
      const xen_clock::HostTime other_due = dues_[other];
      dues_[at] = due;
      const std::uint32_t others = other < leaves_ ? winners_[other] : other;
      winner += (others - winner) * static_cast<std::uint32_t>(other_due < due);
      due = std::min(due, other_due);
      // Should it come to be the first, it will soon be taken out.
      __builtin_prefetch(&dues_[winner]);
      at = parent(at);
      win(at, due, winner);
    } while (at != root && winners_[parent(at)] == leaf);
  }
  void win(std::uint32_t at, xen_clock::HostTime due, std::uint32_t leaf) noexcept {
    dues_[at] = due;
    winners_[at] = leaf;
    if (at == root) {
      first_ = leaf - leaves_;
      first_due_ = due;
    }
  }
  // Of the line of `at`, without a branch, which nobody could predict.
  [[nodiscard]] std::uint32_t earliest(std::uint32_t at) const noexcept {
    const std::uint32_t line = at / width * width;
    const xen_clock::HostTime* const d = &dues_[line];
    const auto of = [d](std::size_t a, std::size_t b) {
      return a + (b - a) * static_cast<std::size_t>(d[b] < d[a]);
    };
    const auto of_four = [&](std::size_t i) {
      const std::size_t a = of(i, i + 1);
      const std::size_t b = of(i + 2, i + 3);
      return std::pair(of(a, b), std::min(d[b], d[a]));
    };
    const auto [left, left_due] = of_four(0);
    const auto [right, right_due] = of_four(4);
    const std::size_t best = left + (right - left) * static_cast<std::size_t>(right_due < left_due);
    return line + static_cast<std::uint32_t>(best);
  }

  std::uint32_t leaves_;  // where they begin in dues_
  Array<xen_clock::HostTime> dues_;
  Array<std::uint32_t> winners_;  // the leaf whose deadline a node has
  std::uint32_t in_tree_ = 0;     // none, while no more than one waits
  std::uint32_t first_ = none;
  xen_clock::HostTime first_due_{};
};

}  // namespace xen_timer
