// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/deadline.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

namespace xen_timer {
namespace {

using xen_clock::guest_time;
using xen_clock::GuestTime;

__extension__ using Int128 = __int128;

constexpr GuestTime now = guest_time(1000);
constexpr std::int64_t clamp = std::int64_t{1} << 50;
constexpr std::int64_t ms100 = 100'000'000;

// Both are usable at compile time.
static_assert(singleshot_deadline(1001, now) == guest_time(1001));
static_assert(singleshot_deadline(1000, now) == guest_time(1000));
static_assert(singleshot_deadline(999, now) == std::nullopt);
static_assert(singleshot_deadline(0, now) == std::nullopt);
static_assert(set_timer_op_deadline(1001, now) == guest_time(1001));
static_assert(set_timer_op_deadline(999, now) == std::nullopt);

TEST(SingleshotDeadline, IsTheTimeoutUpToTheLargestSignedValue) {
  EXPECT_EQ(singleshot_deadline(~0ull >> 1, now), GuestTime::max());
  EXPECT_EQ(singleshot_deadline(1ull << 63, now), std::nullopt);
  EXPECT_EQ(singleshot_deadline(~0ull, now), std::nullopt);
  EXPECT_EQ(singleshot_deadline(~0ull, GuestTime::min()), std::nullopt);  // whatever the clock says
}

TEST(SingleshotDeadline, IsNotClamped) {
  EXPECT_EQ(singleshot_deadline(1000 + (1ull << 50), now), guest_time(1000 + clamp));
}

TEST(SetTimerOpDeadline, IsClampedFrom2To50OnExactly) {
  EXPECT_EQ(set_timer_op_deadline(1000 + clamp - 1, now), guest_time(1000 + clamp - 1));
  EXPECT_EQ(set_timer_op_deadline(1000 + clamp, now), guest_time(1000 + ms100));
  EXPECT_EQ(set_timer_op_deadline(std::numeric_limits<std::int64_t>::max(), now),
            guest_time(1000 + ms100));
}

TEST(SetTimerOpDeadline, NegativeIs100MsFromNow) {
  EXPECT_EQ(set_timer_op_deadline(-1, now), guest_time(1000 + ms100));
  EXPECT_EQ(set_timer_op_deadline(std::numeric_limits<std::int64_t>::min(), now),
            guest_time(1000 + ms100));
}

// A hostile guest's clock may be anywhere.
TEST(SetTimerOpDeadline, TheClampStopsAtTheEndOfTime) {
  EXPECT_EQ(set_timer_op_deadline(-1, GuestTime::max()), GuestTime::max());
  EXPECT_EQ(set_timer_op_deadline(std::numeric_limits<std::int64_t>::max(), GuestTime::min()),
            GuestTime::min() + xen_clock::Duration(ms100));
}

RC_GTEST_PROP(SingleshotDeadline, IsTheTimeoutOrHasPassed,
              (std::uint64_t timeout, std::int64_t at)) {
  const auto deadline = singleshot_deadline(timeout, guest_time(at));
  const auto as_signed = static_cast<std::int64_t>(timeout);
  if (deadline) {
    RC_ASSERT(as_signed >= 0 && as_signed >= at && *deadline == guest_time(as_signed));
  } else {
    RC_ASSERT(as_signed < 0 || as_signed < at);
  }
}

// do_set_timer_op in 128 bits.
RC_GTEST_PROP(SetTimerOpDeadline, IsXens,
              (std::int64_t bits, std::uint8_t shift, std::int64_t at)) {
  const std::int64_t timeout = bits >> (shift % 64);
  const Int128 offset = static_cast<Int128>(timeout) - at;
  const auto deadline = set_timer_op_deadline(timeout, guest_time(at));
  if (timeout < 0 || offset >= clamp) {
    RC_ASSERT(deadline ==
              xen_clock::saturating_add(guest_time(at), std::chrono::milliseconds(100)));
  } else if (offset < 0) {
    RC_ASSERT(!deadline);
  } else {
    RC_ASSERT(deadline == guest_time(timeout));
  }
}

}  // namespace
}  // namespace xen_timer
