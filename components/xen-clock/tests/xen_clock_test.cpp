// SPDX-License-Identifier: BSD-3-Clause
#include "xen_clock/clock.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <type_traits>

#include "xen_clock/pvclock.hpp"

namespace xen_clock {
namespace {

__extension__ using Int128 = __int128;

static_assert(!std::is_convertible_v<GuestTime, HostTime>);
static_assert(!std::is_constructible_v<HostTime, GuestTime>);

constexpr HostTime host_time(std::int64_t ns) { return HostTime(Duration(ns)); }

TEST(HostDue, KeepsTheDistance) {
  EXPECT_EQ(host_due(host_time(1000), guest_time(50), guest_time(80)), host_time(1030));
}

TEST(HostDue, PastDeadlinesAreDueNow) {
  EXPECT_EQ(host_due(host_time(1000), guest_time(50), guest_time(50)), host_time(1000));
  EXPECT_EQ(host_due(host_time(1000), guest_time(50), guest_time(-7)), host_time(1000));
}

TEST(HostDue, SaturatesAtTheEndOfTime) {
  EXPECT_EQ(host_due(host_time(1000), guest_time(0), GuestTime::max()), HostTime::max());
  EXPECT_EQ(host_due(host_time(1000), guest_time(-5), GuestTime::max()), HostTime::max());
}

RC_GTEST_PROP(HostDue, IsNeverEarlier,
              (std::int64_t host, std::int64_t now, std::int64_t deadline)) {
  const HostTime start = host_time(host >> 2);
  const HostTime due = host_due(start, guest_time(now), guest_time(deadline));
  const auto rest = static_cast<Int128>(deadline) - now;
  RC_ASSERT(due >= start);
  RC_ASSERT(due == HostTime::max() || rest <= 0 ||
            static_cast<Int128>((due - start).count()) == rest);
}

TEST(ScaleTsc, KnownValues) {
  EXPECT_EQ(scale_tsc(1'000'000'000, 0x8000'0000, 1), 1'000'000'000u);  // 1 GHz
  EXPECT_EQ(scale_tsc(3, 0x8000'0000, 0), 1u);                          // rounds down
  EXPECT_EQ(scale_tsc(~0ull, 0xffff'ffff, 0), 0xffff'fffe'ffff'ffffu);
  EXPECT_EQ(scale_tsc(8, 0x8000'0000, -2), 1u);
}

TEST(ScaleTsc, ShiftsOutsideAWordAreDefined) {
  EXPECT_EQ(scale_tsc(~0ull, ~0u, -128), 0u);
  EXPECT_EQ(scale_tsc(~0ull, ~0u, 127), 0u);
}

// Against the definition in 128-bit arithmetic, with any multiplier a real TSC has (shift within
// +-4, mul normalised): an hour's error stays below 1 us, as what is lost is below 1 ns a reading.
RC_GTEST_PROP(ScaleTsc, AnHoursErrorIsBelow1us, (std::uint32_t mul_bits, std::uint8_t shift_bits)) {
  const std::uint32_t mul = mul_bits | 0x8000'0000;
  const int shift = shift_bits % 9 - 4;
  const long double ns_a_cycle = static_cast<long double>(mul) / 4294967296.0L *
                                 (shift < 0 ? 1.0L / (1 << -shift) : 1 << shift);
  const auto cycles = static_cast<std::uint64_t>(3600.0e9L / ns_a_cycle);
  const long double exact = static_cast<long double>(cycles) * ns_a_cycle;
  const auto error = exact - static_cast<long double>(scale_tsc(cycles, mul, shift));
  RC_ASSERT(error > -0.001L && error < 1000.0L);
}

TEST(Pvclock, AddsTheScaledTscToSystemTime) {
  xen_abi::VcpuTimeInfo info{};
  info.tsc_timestamp = 1000;
  info.system_time = 5'000'000;
  info.tsc_to_system_mul = 0x8000'0000;
  info.tsc_shift = 0;
  EXPECT_EQ(pvclock_time(info, 1200), guest_time(5'000'100));
}

TEST(TscMap, OffsetsWrapAndRatiosScale) {
  EXPECT_EQ(TscMap{.offset = -1000ull}.guest_tsc(1500), 500u);
  EXPECT_EQ((TscMap{.offset = 10, .ratio = 3ull << 31, .fraction_bits = 32}.guest_tsc(1000)),
            1510u);
}

struct ReadPvclock : testing::Test {
  alignas(8) xen_abi::VcpuTimeInfo page{};
  void SetUp() override {
    page.version = 2;
    page.tsc_to_system_mul = 7;
    page.system_time = 99;
  }
};

TEST_F(ReadPvclock, CopiesAStablePage) { EXPECT_EQ(read_pvclock(&page)->system_time, 99u); }

TEST_F(ReadPvclock, GivesUpOnAPageThatIsAlwaysBeingWritten) {
  page.version = 3;
  EXPECT_FALSE(read_pvclock(&page));
}

TEST_F(ReadPvclock, RefusesAPageThatWasNeverFilled) {
  page.version = 0;
  EXPECT_FALSE(read_pvclock(&page));
  page.version = 2;
  page.tsc_to_system_mul = 0;
  EXPECT_FALSE(read_pvclock(&page));
}

}  // namespace
}  // namespace xen_clock
