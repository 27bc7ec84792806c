// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/timer_queue.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <set>
#include <tuple>

namespace xen_timer {
namespace {

using xen_clock::HostTime;

constexpr HostTime at(std::int64_t ns) { return HostTime(xen_clock::Duration(ns)); }

TEST(TimerQueue, IsEmptyAtFirst) {
  const TimerQueue queue(3);
  EXPECT_TRUE(queue.empty());
  EXPECT_FALSE(queue.contains(2));
}

TEST(TimerQueue, TheEarliestIsFirst) {
  TimerQueue queue(3);
  queue.set(0, at(30));
  queue.set(1, at(10));
  queue.set(2, at(20));
  EXPECT_EQ(queue.first(), 1u);
  EXPECT_EQ(queue.first_due(), at(10));
}

TEST(TimerQueue, SettingAgainMovesEitherWay) {
  TimerQueue queue(3);
  queue.set(0, at(10));
  queue.set(1, at(20));
  queue.set(0, at(30));
  EXPECT_EQ(queue.first(), 1u);
  queue.set(0, at(5));
  EXPECT_EQ(queue.first(), 0u);
}

TEST(TimerQueue, RemovingWhatIsNotInDoesNothing) {
  TimerQueue queue(2);
  queue.remove(1);
  queue.set(0, at(10));
  queue.remove(1);
  EXPECT_EQ(queue.first(), 0u);
  queue.remove(0);
  queue.remove(0);
  EXPECT_TRUE(queue.empty());
}

TEST(TimerQueue, HoldsTheEndsOfTime) {
  TimerQueue queue(2);
  queue.set(0, HostTime::max());
  queue.set(1, HostTime::min());
  EXPECT_EQ(queue.first(), 1u);
}

TEST(TimerQueue, TwoTakenOutBeforeAnotherComesIn) {
  TimerQueue queue(20);
  for (std::uint32_t id = 0; id < 20; ++id) queue.set(id, at(id));
  queue.remove(7);
  EXPECT_EQ(queue.size(), 19u);
  queue.remove(19);
  queue.remove(7);
  EXPECT_EQ(queue.size(), 18u);
  queue.set(7, at(-1));
  EXPECT_EQ(queue.first(), 7u);
  queue.remove(3);
  queue.remove(7);  // the first, beside a place that is free
  for (std::uint32_t id = 0; id < 19; ++id) {
    if (id == 3 || id == 7) continue;
    EXPECT_EQ(queue.first(), id);
    queue.remove(id);
  }
  EXPECT_TRUE(queue.empty());
}

struct Model {
  std::map<std::uint32_t, HostTime> due;
  std::set<std::pair<HostTime, std::uint32_t>> order;

  void remove(std::uint32_t id) {
    if (const auto found = due.find(id); found != due.end()) {
      order.erase({found->second, id});
      due.erase(found);
    }
  }
  void set(std::uint32_t id, HostTime when) {
    remove(id);
    due[id] = when;
    order.insert({when, id});
  }
};

// Removals one time in four; few distinct times, so that many are equal.
RC_GTEST_PROP(TimerQueue, BehavesAsASortedSet,
              (std::vector<std::tuple<std::uint8_t, std::uint8_t, std::int8_t>> steps)) {
  constexpr std::uint32_t count = 23;
  TimerQueue queue(count);
  Model model;
  for (const auto& [action, number, when] : steps) {
    const std::uint32_t id = number % count;
    if (action % 4 == 0) {
      queue.remove(id);
      model.remove(id);
    } else {
      queue.set(id, at(when));
      model.set(id, at(when));
    }
    RC_ASSERT(queue.empty() == model.order.empty());
    RC_ASSERT(queue.contains(id) == model.due.contains(id));
    if (!queue.empty()) {
      RC_ASSERT(queue.first_due() == model.order.begin()->first);
      RC_ASSERT(model.due.at(queue.first()) == queue.first_due());
    }
  }
  // Emptied from the front, all come in order.
  while (!queue.empty()) {
    RC_ASSERT(queue.first_due() == model.order.begin()->first);
    const std::uint32_t id = queue.first();
    queue.remove(id);
    model.remove(id);
  }
  RC_ASSERT(model.order.empty());
}

}  // namespace
}  // namespace xen_timer
