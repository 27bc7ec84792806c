// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/state.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <vector>

namespace xen_timer {
namespace {

using xen_clock::guest_time;

constexpr std::int64_t longest = (std::int64_t{1} << 62) - 1;

const VcpuTimers example{.port = EventPort{0x123},
                         .deadline = guest_time(0x0102030405060708),
                         .period = Duration(10'000'000),
                         .last_tick = guest_time(0x1122334455667788),
                         .kvm_xen_id = XenVcpuId{7}};

constexpr std::array<std::uint8_t, encoded_size> example_bytes{
    'X',  'T',  'M',  'R',                           // magic
    0x01, 0x00, 0x28, 0x00,                          // version 1, 40 bytes
    0x23, 0x01, 0x00, 0x00,                          // port
    0x07, 0x00, 0x00, 0x00,                          // kvm_xen_id
    0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01,  // deadline
    0x80, 0x96, 0x98, 0x00, 0x00, 0x00, 0x00, 0x00,  // period
    0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11,  // last_tick
};
constexpr std::array<std::uint8_t, encoded_size> nothing_bytes{
    'X',  'T',  'M',  'R',  0x01, 0x00, 0x28, 0x00,  //
    0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff,  // unbound, no id set
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,  // no deadline
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,  // stopped
    0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
};

using Bytes = std::array<std::byte, encoded_size>;
Bytes bytes(const std::array<std::uint8_t, encoded_size>& values) {
  return std::bit_cast<Bytes>(values);
}
// The example's encoding with `value` at `offset`.
template <class T>
Bytes changed(std::size_t offset, T value) {
  Bytes b = encode(example);
  std::memcpy(b.data() + offset, &value, sizeof(value));
  return b;
}
void expect_error(const Bytes& b, const vmm_base::Error& error) {
  const auto decoded = decode(b);
  ASSERT_FALSE(decoded);
  EXPECT_EQ(decoded.error(), error) << decoded.error().message();
}
std::uint64_t operand(std::int64_t value) { return static_cast<std::uint64_t>(value); }

TEST(TimerState, IsEncodedInTheseBytes) {
  EXPECT_EQ(encode(example), bytes(example_bytes));
  EXPECT_EQ(encode(VcpuTimers{}), bytes(nothing_bytes));
}

TEST(TimerState, IsDecodedFromTheseBytes) {
  EXPECT_EQ(decode(bytes(example_bytes)).value(), example);
  EXPECT_EQ(decode(bytes(nothing_bytes)).value(), VcpuTimers{});
}

TEST(TimerState, WhatFollowsIsNotLookedAt) {
  std::vector<std::byte> longer(encoded_size + 100, std::byte{0xa5});
  std::copy_n(bytes(example_bytes).begin(), encoded_size, longer.begin());
  EXPECT_EQ(decode(longer).value(), example);
}

TEST(TimerState, AnyAlignmentWillDo) {
  std::vector<std::byte> shifted(encoded_size + 1);
  std::copy_n(bytes(example_bytes).begin(), encoded_size, shifted.begin() + 1);
  EXPECT_EQ(decode(std::span(shifted).subspan(1)).value(), example);
}

TEST(TimerState, EveryTruncationIsEinval) {
  const Bytes whole = encode(example);
  for (std::size_t size = 0; size < encoded_size; ++size) {
    const auto decoded = decode(std::span(whole).first(size));
    ASSERT_FALSE(decoded) << size;
    EXPECT_EQ(decoded.error(), (vmm_base::Error{"timer state: size", EINVAL, size}));
  }
}

TEST(TimerState, EveryBitFlipIsAnErrorOrAnotherState) {
  for (const auto& start : {example_bytes, nothing_bytes}) {
    const VcpuTimers before = decode(bytes(start)).value();
    for (std::size_t bit = 0; bit < encoded_size * 8; ++bit) {
      auto flipped = start;
      flipped[bit / 8] ^= static_cast<std::uint8_t>(1u << bit % 8);
      const auto decoded = decode(bytes(flipped));
      if (decoded) {
        EXPECT_TRUE(check(decoded.value())) << bit;
        EXPECT_NE(decoded.value(), before) << bit;
        EXPECT_EQ(encode(decoded.value()), bytes(flipped)) << bit;
      } else {
        EXPECT_TRUE(decoded.error().code == EINVAL || decoded.error().code == ENOTSUP) << bit;
      }
    }
  }
}

TEST(TimerState, AnotherMagicIsEinval) {
  expect_error(changed<std::uint32_t>(0, 0x524d5459), {"timer state: magic", EINVAL, 0x524d5459});
}

TEST(TimerState, ALaterVersionIsEnotsupWhateverElseItSays) {
  for (const std::uint16_t version : {std::uint16_t{2}, std::uint16_t{0xffff}}) {
    expect_error(changed<std::uint16_t>(4, version), {"timer state: version", ENOTSUP, version});
  }
  Bytes later = changed<std::uint16_t>(4, 2);
  later[6] = std::byte{48};
  expect_error(later, {"timer state: version", ENOTSUP, 2});
}

TEST(TimerState, Version0IsEinval) {
  expect_error(changed<std::uint16_t>(4, 0), {"timer state: version", EINVAL, 0});
}

TEST(TimerState, AnotherSizeIsEinval) {
  for (const std::uint16_t size :
       {std::uint16_t{0}, std::uint16_t{39}, std::uint16_t{41}, std::uint16_t{0xffff}}) {
    expect_error(changed<std::uint16_t>(6, size), {"timer state: size", EINVAL, size});
  }
}

TEST(TimerState, APortIsBelow4096) {
  EXPECT_TRUE(decode(changed<std::uint32_t>(8, 4095)));
  for (const std::uint32_t port : {4096u, 0xffff'ffffu}) {
    expect_error(changed<std::uint32_t>(8, port), {"timer state: port", EINVAL, port});
  }
}

TEST(TimerState, ADeadlineIsNotNegative) {
  EXPECT_EQ(decode(changed<std::int64_t>(16, 0)).value().deadline, guest_time(0));
  EXPECT_EQ(decode(changed<std::int64_t>(16, -1)).value().deadline, std::nullopt);
  for (const std::int64_t deadline : {std::int64_t{-2}, INT64_MIN}) {
    expect_error(changed<std::int64_t>(16, deadline),
                 {"timer state: deadline", EINVAL, operand(deadline)});
  }
}

TEST(TimerState, APeriodIsNoneOrWithinXens) {
  for (const std::int64_t period : {std::int64_t{0}, std::int64_t{1'000'000}, longest}) {
    EXPECT_EQ(decode(changed<std::int64_t>(24, period)).value().period, Duration(period));
  }
  for (const std::int64_t period :
       {std::int64_t{1}, std::int64_t{999'999}, longest + 1, std::int64_t{-1}, INT64_MIN}) {
    expect_error(changed<std::int64_t>(24, period),
                 {"timer state: period", EINVAL, operand(period)});
  }
}

TEST(TimerState, TheLastTickIsNotNegative) {
  for (const std::int64_t tick : {std::int64_t{-1}, INT64_MIN}) {
    expect_error(changed<std::int64_t>(32, tick),
                 {"timer state: last tick", EINVAL, operand(tick)});
  }
}

TEST(TimerState, AnUnsetXenIdSurvives) {
  VcpuTimers unset = example;
  unset.kvm_xen_id.reset();
  EXPECT_EQ(VcpuTimers{}.kvm_xen_id, std::nullopt);
  EXPECT_EQ(decode(encode(unset)).value().kvm_xen_id, std::nullopt);
}

VcpuTimers any_state() {
  return {
      .port = EventPort{*rc::gen::inRange(0u, 4096u)},
      .deadline = *rc::gen::arbitrary<bool>()
                      ? std::optional(guest_time(*rc::gen::inRange<std::int64_t>(0, INT64_MAX)))
                      : std::nullopt,
      .period = Duration(*rc::gen::oneOf(rc::gen::just<std::int64_t>(0),
                                         rc::gen::inRange<std::int64_t>(1'000'000, longest + 1))),
      .last_tick = guest_time(*rc::gen::inRange<std::int64_t>(0, INT64_MAX)),
      .kvm_xen_id = XenVcpuId{*rc::gen::inRange(0u, 0xffff'ffffu)}};
}

RC_GTEST_PROP(TimerState, ComesBackAsItWas, ()) {
  const VcpuTimers state = any_state();
  RC_ASSERT(static_cast<bool>(check(state)));
  RC_ASSERT(decode(encode(state)).value() == state);
}

RC_GTEST_PROP(TimerState, AnyBytesAreAnErrorOrAValidState, (std::vector<std::uint8_t> noise)) {
  // Over a good beginning, or all would end at the magic.
  auto b = example_bytes;
  for (std::size_t i = 0; i + 1 < noise.size(); i += 2) b[8 + noise[i] % 32] = noise[i + 1];
  const auto decoded = decode(bytes(b));
  if (decoded) {
    RC_ASSERT(static_cast<bool>(check(decoded.value())));
    RC_ASSERT(encode(decoded.value()) == bytes(b));
  }
}

}  // namespace
}  // namespace xen_timer
