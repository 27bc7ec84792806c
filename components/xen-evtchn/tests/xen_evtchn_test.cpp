// SPDX-License-Identifier: BSD-3-Clause
#include <gtest/gtest.h>

#include <memory>

#include "xen_evtchn/ports.hpp"
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

TEST(Ports, BindVirqGivesTheLowestFreePortOnceAVcpu) {
  Ports ports(4, 2);
  EXPECT_EQ(std::get<EventPort>(ports.bind_virq(0, {0})), EventPort{1});
  EXPECT_EQ(std::get<Errno>(ports.bind_virq(0, {0})), Errno::exist);
  EXPECT_EQ(std::get<EventPort>(ports.bind_virq(0, {1})), EventPort{2});
  ASSERT_TRUE(ports.close({1}));
  EXPECT_EQ(std::get<EventPort>(ports.bind_virq(1, {0})), EventPort{1});
  EXPECT_EQ(std::get<EventPort>(ports.bind_virq(2, {0})), EventPort{3});
  EXPECT_EQ(std::get<Errno>(ports.bind_virq(3, {0})), Errno::nospc);
}

TEST(Ports, BindVirqRefusesWhatIsNotThere) {
  Ports ports(4, 2);
  EXPECT_EQ(std::get<Errno>(ports.bind_virq(24, {0})), Errno::inval);
  EXPECT_EQ(std::get<Errno>(ports.bind_virq(0, {2})), Errno::noent);
}

TEST(Ports, CloseSaysWhatWasBound) {
  Ports ports(4, 2);
  (void)ports.bind_virq(0, {1});
  EXPECT_EQ(ports.close({1})->vcpu, XenVcpuId{1});
  EXPECT_FALSE(ports.close({1}));
  EXPECT_FALSE(ports.close({0}));
  EXPECT_FALSE(ports.close({4000000000}));
}

}  // namespace
}  // namespace xen_evtchn
