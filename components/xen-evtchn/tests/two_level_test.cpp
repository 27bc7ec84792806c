// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <gtest/gtest.h>

#include <memory>

#include "xen_evtchn/two_level.hpp"

namespace xen_evtchn {
namespace {

template <class Word>
struct TwoLevel : testing::Test {
  std::unique_ptr<xen_abi::SharedInfo<Word>> shared{new xen_abi::SharedInfo<Word>{}};
  xen_abi::VcpuInfo<Word> info{};
  static constexpr unsigned bits = 8 * sizeof(Word);
};
using Words = testing::Types<std::uint64_t, std::uint32_t>;
TYPED_TEST_SUITE(TwoLevel, Words);

TYPED_TEST(TwoLevel, SetsPendingSelectorAndUpcallOnce) {
  const unsigned port = 2 * this->bits + 3;
  EXPECT_EQ(raise(*this->shared, this->info, {port}), Raised::upcall);
  EXPECT_EQ(this->shared->evtchn_pending[2], TypeParam{8});
  EXPECT_EQ(this->info.pending_sel, TypeParam{4});
  EXPECT_EQ(this->info.upcall_pending, 1);
  EXPECT_EQ(raise(*this->shared, this->info, {port}), Raised::already_pending);
  EXPECT_EQ(raise(*this->shared, this->info, {port + 1}), Raised::merged);
  EXPECT_EQ(this->shared->evtchn_pending[2], TypeParam{24});
}

TYPED_TEST(TwoLevel, MaskedStaysPendingWithoutAnUpcall) {
  this->shared->evtchn_mask[0] = TypeParam{1} << 5;
  EXPECT_EQ(raise(*this->shared, this->info, {5}), Raised::masked);
  EXPECT_EQ(this->shared->evtchn_pending[0], TypeParam{1} << 5);
  EXPECT_EQ(this->info.pending_sel, TypeParam{0});
  EXPECT_EQ(this->info.upcall_pending, 0);
}

TYPED_TEST(TwoLevel, LastPortIsTheLastBitAndPort0AndBeyondAreRefused) {
  const unsigned count = this->bits * this->bits;
  EXPECT_EQ(raise(*this->shared, this->info, {count - 1}), Raised::upcall);
  EXPECT_EQ(this->shared->evtchn_pending.back(), TypeParam{1} << (this->bits - 1));
  EXPECT_EQ(raise(*this->shared, this->info, {count}), Raised::out_of_range);
  EXPECT_EQ(raise(*this->shared, this->info, {0}), Raised::out_of_range);
}

TYPED_TEST(TwoLevel, UnmaskAsksToRaiseAnewWhatWasPending) {
  this->shared->evtchn_mask[0] = TypeParam{0x60};
  EXPECT_FALSE(unmask(*this->shared, {5}));
  EXPECT_EQ(this->shared->evtchn_mask[0], TypeParam{0x40});
  EXPECT_EQ(raise(*this->shared, this->info, {6}), Raised::masked);
  EXPECT_TRUE(unmask(*this->shared, {6}));
  EXPECT_EQ(this->shared->evtchn_pending[0], TypeParam{0});
  EXPECT_EQ(raise(*this->shared, this->info, {6}), Raised::upcall);
  EXPECT_FALSE(unmask(*this->shared, {6}));  // it isn't masked
  EXPECT_EQ(this->shared->evtchn_pending[0], TypeParam{0x40});
  EXPECT_FALSE(unmask(*this->shared, {0}));
  EXPECT_FALSE(unmask(*this->shared, {this->bits * this->bits}));
}

}  // namespace
}  // namespace xen_evtchn
