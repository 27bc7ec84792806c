// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What queue_bench measures: our queue, those that lost against it, and what a user would take
// instead. Each has n timers, all pending from the start, and
//   arm(id, due): sets or moves a timer. cancel(id): takes it out.
//   make_due(): sets all, so that they will be due soon, in a random order.
//   wait(): until they are, where that isn't at once.
//   drain(): serves all that are due, the earliest first; how many.
#pragma once

#include <event2/event.h>
#include <sys/timerfd.h>
#include <uv.h>

#include <algorithm>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <queue>
#include <random>
#include <thread>
#include <vector>

#include "xen_timer/timer_queue.hpp"

namespace bench {

using Nanoseconds = std::int64_t;
inline constexpr Nanoseconds span = 1'000'000'000'000;  // deadlines lie within 1000 s

inline std::uint64_t next_random(std::uint64_t& seed) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return seed;
}
// Any time within the span.
inline Nanoseconds random_due(std::uint64_t& seed) {
  return static_cast<Nanoseconds>((next_random(seed) >> 24) % span) + 1;
}

// --- queues whose time is a number: ours and the other candidates ---

template <class Queue>
class Simulated {
 public:
  explicit Simulated(std::uint32_t n) : queue_(n), n_(n) {}
  void arm(std::uint32_t id, Nanoseconds due) {
    queue_.set(id, xen_clock::HostTime(xen_clock::Duration(due)));
  }
  void cancel(std::uint32_t id) { queue_.remove(id); }
  void make_due() {
    for (std::uint32_t id = 0; id < n_; ++id) arm(id, random_due(seed_));
  }
  std::uint32_t drain() {
    std::uint32_t served = 0;
    while (!queue_.empty()) {
      queue_.remove(queue_.first());
      ++served;
    }
    return served;
  }

 private:
  Queue queue_;
  std::uint32_t n_;
  std::uint64_t seed_ = 1;
};

using Ours = Simulated<xen_timer::TimerQueue>;

// The same with `arity` children a node.
template <std::uint32_t arity>
class WideHeap {
 public:
  explicit WideHeap(std::uint32_t count) : place_(count, none) { heap_.reserve(count); }
  [[nodiscard]] bool empty() const { return heap_.empty(); }
  [[nodiscard]] std::uint32_t first() const { return heap_.front().id; }
  void set(std::uint32_t id, xen_clock::HostTime due) {
    if (place_[id] == none) {
      place_[id] = static_cast<std::uint32_t>(heap_.size());
      heap_.push_back({due, id});
    } else {
      heap_[place_[id]].due = due;
    }
    settle(place_[id]);
  }
  void remove(std::uint32_t id) {
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
  void put(std::uint32_t at, Entry entry) {
    heap_[at] = entry;
    place_[entry.id] = at;
  }
  void settle(std::uint32_t at) {
    const Entry moving = heap_[at];
    while (at > 0 && moving.due < heap_[(at - 1) / arity].due) {
      put(at, heap_[(at - 1) / arity]);
      at = (at - 1) / arity;
    }
    const auto size = static_cast<std::uint32_t>(heap_.size());
    for (std::uint32_t child = arity * at + 1; child < size; child = arity * at + 1) {
      std::uint32_t least = child;
      const std::uint32_t end = std::min(child + arity, size);
      for (std::uint32_t other = child + 1; other < end; ++other) {
        if (heap_[other].due < heap_[least].due) least = other;
      }
      if (!(heap_[least].due < moving.due)) break;
      put(at, heap_[least]);
      at = least;
    }
    put(at, moving);
  }
  std::vector<Entry> heap_;
  std::vector<std::uint32_t> place_;
};

// A hierarchical wheel of 8 levels with 64 slots each, the finest 2^12 ns wide; the slot that is
// due is searched for its earliest.
class Wheel {
 public:
  explicit Wheel(std::uint32_t count) : nodes_(count) { heads_.fill(none); }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::uint32_t first() {
    for (;;) {
      std::uint32_t level = 0;
      while (occupied_[level] == 0) ++level;
      const auto shift = static_cast<unsigned>(now_ >> (level * 6)) & 63;
      const std::uint64_t ahead =
          (occupied_[level] >> shift) | (shift == 0 ? 0 : occupied_[level] << (64 - shift));
      const auto slot = (static_cast<unsigned>(__builtin_ctzll(ahead)) + shift) & 63;
      const std::uint32_t head = heads_[level * 64 + slot];
      if (level == 0) {
        std::uint32_t best = head;
        for (std::uint32_t id = nodes_[head].next; id != none; id = nodes_[id].next) {
          if (nodes_[id].due < nodes_[best].due) best = id;
        }
        return best;
      }
      // Time moves to the slot's beginning, and what is in it to finer levels.
      std::uint64_t earliest = ~std::uint64_t{0};
      for (std::uint32_t id = head; id != none; id = nodes_[id].next) {
        earliest = std::min(earliest, tick(nodes_[id].due));
      }
      now_ = earliest;
      for (std::uint32_t id = head; id != none;) {
        const std::uint32_t next = nodes_[id].next;
        take(id);
        insert(id);
        id = next;
      }
    }
  }
  void set(std::uint32_t id, xen_clock::HostTime due) {
    remove(id);
    nodes_[id].due = due;
    if (tick(due) < now_) rewind(tick(due));
    insert(id);
    ++size_;
  }
  void remove(std::uint32_t id) {
    if (nodes_[id].slot == none) return;
    take(id);
    --size_;
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  struct Node {
    xen_clock::HostTime due{};
    std::uint32_t next = none;
    std::uint32_t previous = none;
    std::uint32_t slot = none;
  };
  static std::uint64_t tick(xen_clock::HostTime due) {
    return static_cast<std::uint64_t>(due.time_since_epoch().count()) >> 12;
  }
  void insert(std::uint32_t id) {
    const std::uint64_t at = tick(nodes_[id].due);
    const std::uint64_t differs = at ^ now_;
    const std::uint32_t level =
        differs == 0 ? 0 : static_cast<std::uint32_t>(63 - __builtin_clzll(differs)) / 6;
    const std::uint32_t slot = static_cast<std::uint32_t>(at >> (level * 6)) & 63;
    Node& node = nodes_[id];
    node.slot = level * 64 + slot;
    node.previous = none;
    node.next = heads_[node.slot];
    if (node.next != none) nodes_[node.next].previous = id;
    heads_[node.slot] = id;
    occupied_[level] |= std::uint64_t{1} << slot;
  }
  void take(std::uint32_t id) {
    Node& node = nodes_[id];
    if (node.next != none) nodes_[node.next].previous = node.previous;
    if (node.previous != none) {
      nodes_[node.previous].next = node.next;
    } else {
      heads_[node.slot] = node.next;
      if (node.next == none) occupied_[node.slot / 64] &= ~(std::uint64_t{1} << (node.slot & 63));
    }
    node.slot = none;
  }
  // A deadline before the wheel's time: time goes back, and all is sorted in anew.
  void rewind(std::uint64_t to) {
    now_ = to;
    for (std::uint32_t id = 0; id < nodes_.size(); ++id) {
      if (nodes_[id].slot == none) continue;
      take(id);
      insert(id);
    }
  }
  std::vector<Node> nodes_;
  std::array<std::uint32_t, 11 * 64> heads_{};
  std::array<std::uint64_t, 11> occupied_{};
  std::uint64_t now_ = 0;
  std::size_t size_ = 0;
};

// --- what a user would take instead ---

// std::priority_queue: what is cancelled or moved stays in it until it comes up.
class PriorityQueue {
 public:
  explicit PriorityQueue(std::uint32_t n) : current_(n) {}
  void arm(std::uint32_t id, Nanoseconds due) {
    queue_.push({due, id, ++current_[id]});
    compact();
  }
  void cancel(std::uint32_t id) { ++current_[id]; }
  void make_due() {
    for (std::uint32_t id = 0; id < current_.size(); ++id) arm(id, random_due(seed_));
  }
  std::uint32_t drain() {
    std::uint32_t served = 0;
    for (; !queue_.empty(); queue_.pop())
      served += queue_.top().version == current_[queue_.top().id];
    return served;
  }

 private:
  struct Entry {
    Nanoseconds due;
    std::uint32_t id;
    std::uint32_t version;
    bool operator<(const Entry& other) const { return due > other.due; }
  };
  // More than half of it is dead: thrown out by the quickest way there is, which looks into the
  // container.
  struct Queue : std::priority_queue<Entry> {
    void keep_if(auto alive) {
      std::erase_if(c, [&](const Entry& entry) { return !alive(entry); });
      std::make_heap(c.begin(), c.end(), comp);
    }
  };
  void compact() {
    if (queue_.size() < 2 * current_.size() + 16) return;
    queue_.keep_if([&](const Entry& entry) { return entry.version == current_[entry.id]; });
  }
  Queue queue_;
  std::vector<std::uint32_t> current_;
  std::uint64_t seed_ = 1;
};

// As QEMU's timer lists: singly linked, in order.
class SortedList {
 public:
  explicit SortedList(std::uint32_t n) : nodes_(n) {}
  void arm(std::uint32_t id, Nanoseconds due) {
    cancel(id);
    nodes_[id].due = due;
    std::uint32_t* at = &first_;
    while (*at != none && nodes_[*at].due <= due) at = &nodes_[*at].next;
    nodes_[id].next = *at;
    *at = id;
  }
  void cancel(std::uint32_t id) {
    for (std::uint32_t* at = &first_; *at != none; at = &nodes_[*at].next) {
      if (*at == id) {
        *at = nodes_[id].next;
        return;
      }
    }
  }
  void make_due() {
    for (std::uint32_t id = 0; id < nodes_.size(); ++id) arm(id, random_due(seed_));
  }
  // By sorting, or a million would take days.
  void fill() {
    std::vector<std::uint32_t> order(nodes_.size());
    for (std::uint32_t id = 0; id < nodes_.size(); ++id) {
      order[id] = id;
      nodes_[id].due = random_due(seed_);
    }
    std::sort(order.begin(), order.end(),
              [&](auto a, auto b) { return nodes_[a].due < nodes_[b].due; });
    first_ = none;
    for (auto id = order.rbegin(); id != order.rend(); ++id) {
      nodes_[*id].next = first_;
      first_ = *id;
    }
  }
  std::uint32_t drain() {
    std::uint32_t served = 0;
    for (; first_ != none; first_ = nodes_[first_].next) ++served;
    return served;
  }

 private:
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  struct Node {
    Nanoseconds due = 0;
    std::uint32_t next = none;
  };
  std::vector<Node> nodes_;
  std::uint32_t first_ = none;
  std::uint64_t seed_ = 1;
};

// Boost.Asio's timers, on a clock that is a number.
struct ManualClock {
  using duration = std::chrono::nanoseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<ManualClock>;
  static constexpr bool is_steady = true;
  static inline time_point time{};
  static time_point now() { return time; }
};
struct NeverWait {
  static ManualClock::duration to_wait_duration(const ManualClock::duration&) { return {}; }
  static ManualClock::duration to_wait_duration(const ManualClock::time_point&) { return {}; }
};
class Asio {
 public:
  explicit Asio(std::uint32_t n) {
    ManualClock::time = {};
    timers_.reserve(n);
    for (std::uint32_t id = 0; id < n; ++id) timers_.emplace_back(io_);
  }
  void arm(std::uint32_t id, Nanoseconds due) {
    timers_[id].expires_at(ManualClock::time_point(std::chrono::nanoseconds(due)));
    timers_[id].async_wait([this](const boost::system::error_code& error) { served_ += !error; });
    run();
  }
  void cancel(std::uint32_t id) {
    timers_[id].cancel();
    run();
  }
  void make_due() {
    ManualClock::time = {};
    for (std::uint32_t id = 0; id < timers_.size(); ++id) arm(id, random_due(seed_));
    run();
  }
  std::uint32_t drain() {
    ManualClock::time = ManualClock::time_point(std::chrono::nanoseconds(span + 1));
    served_ = 0;
    io_.restart();
    io_.poll();
    ManualClock::time = {};
    return served_;
  }

 private:
  // The handlers of what was replaced or cancelled, 64 at a time, as they would be in a loop.
  void run() {
    if (++calls_ % 64 != 0) return;
    io_.restart();
    io_.poll();
  }
  boost::asio::io_context io_{1};
  std::vector<boost::asio::basic_waitable_timer<ManualClock, NeverWait>> timers_;
  std::uint32_t served_ = 0;
  std::uint32_t calls_ = 0;
  std::uint64_t seed_ = 1;
};

// libevent and libuv have no clock of one's own: what is to be drained is due within 5 ms.
inline std::uint64_t soon_ms(std::uint64_t& seed) { return next_random(seed) >> 32 & 3; }
inline void wait_until_due() { std::this_thread::sleep_for(std::chrono::milliseconds(10)); }

class Libevent {
 public:
  explicit Libevent(std::uint32_t n) : base_(event_base_new()), events_(n) {
    for (event*& e : events_) {
      e = event_new(
          base_, -1, 0,
          [](evutil_socket_t, short, void* self) { ++static_cast<Libevent*>(self)->served_; },
          this);
    }
  }
  ~Libevent() {
    for (event* e : events_) event_free(e);
    event_base_free(base_);
  }
  void arm(std::uint32_t id, Nanoseconds due) {
    const timeval timeout{due / 1'000'000'000 + 1000, due % 1'000'000'000 / 1000};
    event_add(events_[id], &timeout);
  }
  void cancel(std::uint32_t id) { event_del(events_[id]); }
  void make_due() {
    for (event* e : events_) {
      const timeval timeout{
          0, static_cast<suseconds_t>(soon_ms(seed_) * 1000 + (next_random(seed_) >> 32) % 1000)};
      event_add(e, &timeout);
    }
  }
  static void wait() { wait_until_due(); }
  std::uint32_t drain() {
    served_ = 0;
    event_base_loop(base_, EVLOOP_NONBLOCK);
    return served_;
  }

 private:
  event_base* base_;
  std::vector<event*> events_;
  std::uint32_t served_ = 0;
  std::uint64_t seed_ = 1;
};

class Libuv {
 public:
  explicit Libuv(std::uint32_t n) : timers_(n) {
    uv_loop_init(&loop_);
    for (uv_timer_t& timer : timers_) {
      uv_timer_init(&loop_, &timer);
      timer.data = this;
    }
  }
  ~Libuv() {
    for (uv_timer_t& timer : timers_) uv_close(reinterpret_cast<uv_handle_t*>(&timer), nullptr);
    uv_run(&loop_, UV_RUN_NOWAIT);
    uv_loop_close(&loop_);
  }
  void arm(std::uint32_t id, Nanoseconds due) {
    uv_timer_start(&timers_[id], served, static_cast<std::uint64_t>(due / 1'000'000 + 1'000'000),
                   0);
  }
  void cancel(std::uint32_t id) { uv_timer_stop(&timers_[id]); }
  void make_due() {
    uv_update_time(&loop_);
    for (uv_timer_t& timer : timers_) uv_timer_start(&timer, served, soon_ms(seed_), 0);
  }
  static void wait() { wait_until_due(); }
  std::uint32_t drain() {
    served_ = 0;
    uv_run(&loop_, UV_RUN_NOWAIT);
    return served_;
  }

 private:
  static void served(uv_timer_t* timer) { ++static_cast<Libuv*>(timer->data)->served_; }
  uv_loop_t loop_{};
  std::vector<uv_timer_t> timers_;
  std::uint32_t served_ = 0;
  std::uint64_t seed_ = 1;
};

}  // namespace bench
