// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/timer_queue.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <random>
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
  TimerQueue queue(3);
  queue.set(0, HostTime::max());
  EXPECT_TRUE(queue.contains(0));
  EXPECT_EQ(queue.first_due(), HostTime::max() - xen_clock::Duration(1));
  queue.set(1, HostTime::min());
  EXPECT_EQ(queue.first(), 1u);
  EXPECT_EQ(queue.first_due(), HostTime::min());
  queue.set(2, HostTime::max());
  EXPECT_EQ(queue.size(), 3u);
  queue.remove(1);
  EXPECT_EQ(queue.first_due(), HostTime::max() - xen_clock::Duration(1));
  queue.remove(0);
  EXPECT_FALSE(queue.contains(0));
  EXPECT_EQ(queue.first(), 2u);
  EXPECT_EQ(queue.size(), 1u);
}

TEST(TimerQueue, OneThatWasAloneIsStillInBesideAnother) {
  TimerQueue queue(100);
  queue.set(99, at(10));
  queue.set(99, at(20));
  EXPECT_EQ(queue.size(), 1u);
  queue.set(0, at(30));
  EXPECT_EQ(queue.size(), 2u);
  EXPECT_EQ(queue.first(), 99u);
  queue.set(99, at(40));
  EXPECT_EQ(queue.first(), 0u);
  queue.remove(0);
  EXPECT_EQ(queue.first(), 99u);
  EXPECT_EQ(queue.first_due(), at(40));
  queue.remove(99);
  EXPECT_TRUE(queue.empty());
  queue.set(0, at(50));
  EXPECT_EQ(queue.size(), 1u);
  EXPECT_FALSE(queue.contains(99));
  EXPECT_EQ(queue.first_due(), at(50));
  queue.set(1, at(45));  // later than what was in last, and earlier than what is
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

// What both say of all that can be asked.
bool agree(const TimerQueue& queue, const Model& model, std::uint32_t id) {
  return queue.empty() == model.order.empty() && queue.size() == model.order.size() &&
         queue.contains(id) == model.due.contains(id) &&
         (queue.empty() || (queue.first_due() == model.order.begin()->first &&
                            model.due.at(queue.first()) == queue.first_due()));
}
// Emptied from the front, all come in order.
bool agree_to_the_end(TimerQueue& queue, Model& model) {
  while (!queue.empty()) {
    if (queue.first_due() != model.order.begin()->first) return false;
    const std::uint32_t id = queue.first();
    queue.remove(id);
    model.remove(id);
    if (!agree(queue, model, id)) return false;
  }
  return model.order.empty();
}

// Removals one time in four; few distinct times, so that many are equal.
RC_GTEST_PROP(TimerQueue, BehavesAsASortedSet,
              (std::vector<std::tuple<std::uint8_t, std::uint16_t, std::int8_t>> steps)) {
  const auto count = *rc::gen::element<std::uint32_t>(1, 2, 3, 8, 9, 23, 64, 65, 600);
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
    RC_ASSERT(agree(queue, model, id));
  }
  RC_ASSERT(agree_to_the_end(queue, model));
}

// Of every number up to what has four levels, and some above, all in; then each is moved, or taken
// out and put in again.
TEST(TimerQueue, HoldsAnyNumberOfThem) {
  std::mt19937 generator(1);
  const auto random = [&](std::uint32_t below) {
    return static_cast<std::uint32_t>(generator() % below);
  };
  for (std::uint32_t count = 1; count < 6000; count += count < 80 ? 1 : 487) {
    TimerQueue queue(count);
    Model model;
    for (std::uint32_t step = 0; step < 3 * count; ++step) {
      const std::uint32_t id = step < count ? count - 1 - step : random(count);
      if (step % 3 == 0) {
        queue.remove(id);
        model.remove(id);
        ASSERT_TRUE(agree(queue, model, id)) << count << " timers, step " << step;
      }
      const HostTime due = at(random(1'000'000));
      queue.set(id, due);
      model.set(id, due);
      ASSERT_TRUE(agree(queue, model, id)) << count << " timers, step " << step;
    }
    ASSERT_TRUE(agree_to_the_end(queue, model)) << count << " timers";
  }
}

}  // namespace
}  // namespace xen_timer
