// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
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
  const HostTime start = host_time(host & INT64_MAX);  // it counts from the boot
  const HostTime due = host_due(start, guest_time(now), guest_time(deadline));
  const auto rest = static_cast<Int128>(deadline) - now;
  RC_ASSERT(due >= start);
  RC_ASSERT(due == HostTime::max() || rest <= 0 ||
            static_cast<Int128>((due - start).count()) == rest);
}

TEST(SaturatingAdd, StopsAtTheEndAndNotBefore) {
  EXPECT_EQ(saturating_add(GuestTime::max() - Duration(6), Duration(5)),
            GuestTime::max() - Duration(1));
  EXPECT_EQ(saturating_add(GuestTime::max() - Duration(5), Duration(5)), GuestTime::max());
  EXPECT_EQ(saturating_add(GuestTime::max() - Duration(4), Duration(5)), GuestTime::max());
  EXPECT_EQ(saturating_add(GuestTime::min(), Duration::max()), guest_time(-1));
}

constexpr Duration horizon = std::chrono::milliseconds(1);

TEST(CheckDue, IsHostDueUpToTheHorizon) {
  EXPECT_EQ(check_due(host_time(7), guest_time(50), guest_time(50) + horizon, horizon),
            host_time(7) + horizon);
  EXPECT_EQ(check_due(host_time(7), guest_time(50), guest_time(50), horizon), host_time(7));
  EXPECT_EQ(check_due(host_time(7), guest_time(50), guest_time(-9), -horizon), host_time(7));
}

TEST(CheckDue, LooksAheadOfTimeBeyondIt) {
  constexpr Duration near = horizon + Duration(1);  // half a horizon is left over
  EXPECT_EQ(check_due(host_time(7), guest_time(50), guest_time(50) + near, horizon),
            host_time(7) + horizon / 2 + Duration(1));
  constexpr Duration far = std::chrono::hours(30);  // 1/1024 is
  EXPECT_EQ(check_due(host_time(7), guest_time(50), guest_time(50) + far, horizon),
            host_time(7) + far - far / 1024);
}

TEST(CheckDue, SaturatesAtTheEndsOfTime) {
  EXPECT_EQ(check_due(HostTime::max(), guest_time(0), GuestTime::max(), horizon), HostTime::max());
  EXPECT_EQ(check_due(host_time(0), GuestTime::min(), GuestTime::max(), horizon),
            host_time(INT64_MAX - INT64_MAX / 1024));
  EXPECT_EQ(check_due(host_time(3), GuestTime::max(), GuestTime::min(), horizon), host_time(3));
  EXPECT_EQ(check_due(host_time(3), guest_time(0), guest_time(5), Duration::max()), host_time(8));
}

TEST(SlewMargin, Is500PpmRoundedUp) {
  EXPECT_EQ(slew_margin(Duration(0)), Duration(0));
  EXPECT_EQ(slew_margin(Duration(-2001)), Duration(0));
  EXPECT_EQ(slew_margin(Duration(1)), Duration(1));
  EXPECT_EQ(slew_margin(Duration(2000)), Duration(1));
  EXPECT_EQ(slew_margin(Duration(2001)), Duration(2));
  EXPECT_EQ(slew_margin(std::chrono::hours(1)), std::chrono::milliseconds(1800));
  EXPECT_EQ(slew_margin(Duration::max()), Duration(INT64_MAX / 2000 + 1));
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
  EXPECT_EQ(scale_tsc(~0ull, ~0u, 64), 0u);
  EXPECT_EQ(scale_tsc(~0ull, ~0u, -64), 0u);
  EXPECT_EQ(scale_tsc(3, 0x8000'0000, 63), 1ull << 62);
  EXPECT_EQ(scale_tsc(~0ull, ~0u, -63), 0u);
}

// A clock of 50 MHz to 20 GHz, as KVM describes it: mul is normalised, ns a cycle are mul / 2^32 *
// 2^shift, 20 at most.
struct Rate {
  std::uint32_t mul;
  std::int8_t shift;
};
Rate any_rate() {
  return {*rc::gen::arbitrary<std::uint32_t>() | 0x8000'0000,
          *rc::gen::inRange<std::int8_t>(-4, 6)};
}
std::uint64_t cycles_in(Duration time, Rate rate) {
  const auto ns = static_cast<Int128>(time.count()) << 32;
  return static_cast<std::uint64_t>((rate.shift < 0 ? ns << -rate.shift : ns >> rate.shift) /
                                    rate.mul);
}

// What the exact number of ns, cycles * mul * 2^shift / 2^32, is above `ns`, in 2^-40 ns.
Int128 error(std::uint64_t cycles, Rate rate, std::int64_t ns) {
  const Int128 exact = static_cast<Int128>(cycles) * rate.mul << (40 - 32 + rate.shift);
  return exact - (static_cast<Int128>(ns) << 40);
}
constexpr Int128 one_ns = Int128{1} << 40;

// Any rate, TSC and TSC offset, at any time of the first year: at most 2 ns are cut off, so an
// hour's error, and a year's, is far below 1 us.
RC_GTEST_PROP(Pvclock, DoesNotDrift, (std::uint64_t timestamp, std::uint64_t offset)) {
  const Rate rate = any_rate();
  const std::int64_t uptime = *rc::gen::inRange<std::int64_t>(0, std::int64_t{1} << 55);
  const std::int64_t started = *rc::gen::inRange<std::int64_t>(0, std::int64_t{1} << 62);
  const std::uint64_t cycles = cycles_in(Duration(uptime >> *rc::gen::inRange(0, 50)), rate);
  xen_abi::VcpuTimeInfo info{};
  info.tsc_timestamp = timestamp;
  info.system_time = static_cast<std::uint64_t>(started);
  info.tsc_to_system_mul = rate.mul;
  info.tsc_shift = rate.shift;
  const TscMap map{.offset = offset};
  const GuestTime now = pvclock_time(info, map.guest_tsc(timestamp + cycles - offset));
  const Int128 lost = error(cycles, rate, (now - guest_time(started)).count());
  RC_ASSERT(lost >= 0);
  RC_ASSERT(lost < 2 * one_ns);
}

// The same of a scaled TSC, on either vendor's processors: another cycle is cut off.
RC_GTEST_PROP(Pvclock, DoesNotDriftOnAScaledTsc, (std::uint64_t offset, bool intel)) {
  const auto host_khz = *rc::gen::inRange<std::uint32_t>(500'000, 8'000'000);
  const auto guest_khz = *rc::gen::inRange<std::uint32_t>(100'000, 20'000'000);
  const TscMap map =
      tsc_map(guest_khz, host_khz, intel ? vmx_tsc_fraction_bits : svm_tsc_fraction_bits, offset);
  const Rate rate = any_rate();
  const std::uint64_t begin = *rc::gen::inRange<std::uint64_t>(0, 1ull << 62);
  const std::uint64_t hour = host_khz * 3'600'000ull;
  const std::uint64_t passed = *rc::gen::inRange<std::uint64_t>(0, hour);
  xen_abi::VcpuTimeInfo info{};
  info.tsc_timestamp = map.guest_tsc(begin);
  info.tsc_to_system_mul = rate.mul;
  info.tsc_shift = rate.shift;

  const Int128 exact = static_cast<Int128>(passed) * static_cast<Int128>(map.ratio);
  const std::uint64_t cycles = map.guest_tsc(begin + passed) - info.tsc_timestamp;
  const Int128 cut = exact - (static_cast<Int128>(cycles) << map.fraction_bits);
  const Int128 one_cycle = Int128{1} << map.fraction_bits;
  RC_ASSERT(cut < one_cycle);
  RC_ASSERT(-cut < one_cycle);
  const GuestTime now = pvclock_time(info, map.guest_tsc(begin + passed));
  const Int128 lost = error(cycles, rate, now.time_since_epoch().count());
  RC_ASSERT(lost >= 0);
  RC_ASSERT(lost < 2 * one_ns);
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

TEST(TscMap, ScalesBeyondKvmsToleranceOnly) {
  constexpr std::uint32_t host = 2'000'000;  // 250 ppm are 500 kHz
  for (const std::uint32_t near : {host - 500, host, host + 500}) {
    EXPECT_EQ(tsc_map(near, host, 48, 7).fraction_bits, 0) << near;
    EXPECT_EQ(tsc_map(near, host, 48, 7).guest_tsc(1000), 1007u) << near;
  }
  for (const std::uint32_t far : {host - 501, host + 501}) {
    EXPECT_EQ(tsc_map(far, host, 48, 7).fraction_bits, 48) << far;
    EXPECT_EQ(tsc_map(far, host, 48, 7).scale(host), far - 1) << far;  // rounded down
  }
  EXPECT_EQ(tsc_map(host + 1, host, 32, 0, 0).fraction_bits, 32);
  EXPECT_EQ(tsc_map(1, host, 32, 0, 2'000'000).fraction_bits, 0);
}

TEST(TscMap, HasTheRatioThatKvmHas) {
  EXPECT_EQ(tsc_map(1'500'000, 1'000'000, 32, 0).ratio, 3ull << 31);
  EXPECT_EQ(tsc_map(1'000'000, 3'000'000, 48, 0).ratio, (1ull << 48) / 3);
  EXPECT_EQ(tsc_map(3'000'000, 0, 48, 5).guest_tsc(3), 8u);  // KVM can't say the host's
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
