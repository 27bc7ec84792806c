// SPDX-License-Identifier: BSD-3-Clause
#include "xen_hcall/dispatcher.hpp"

#include "double_vmm.hpp"
#include "xen_abi/domain.hpp"
#include "xen_hcall/console_op.hpp"
#include "xen_hcall/multicall_op.hpp"
#include "xen_hcall/sched_op.hpp"

namespace xen_hcall {
namespace {

struct DispatcherTest : Fixture {
  xen_evtchn::Channels channels{64, 2};
  Shutdown<DoubleVmm> shutdown{vmm};
  SchedOp<DoubleVmm> sched{vmm, channels, shutdown};
  ConsoleOp<DoubleVmm> console{vmm};
  Dispatcher<SchedOp<DoubleVmm>, ConsoleOp<DoubleVmm>> calls{sched, console};
  MulticallOp<DoubleVmm, decltype(calls)> multicall{vmm, calls};
  Dispatcher<decltype(multicall), decltype(calls)> dispatcher{multicall, calls};
};

TEST_F(DispatcherTest, OutsideRing0IsEpermWhateverIsAsked) {
  for (const std::uint8_t cpl : {std::uint8_t{1}, std::uint8_t{2}, std::uint8_t{3}}) {
    for (const std::uint64_t number : {9999u, 29u, 13u, 18u}) {
      EXPECT_EQ(dispatcher({0}, Hypercall{number, {0, 1, base}, true, cpl}).guest,
                GuestResult(Errno::perm));
    }
  }
  EXPECT_EQ(said(), Lines{});
}

TEST_F(DispatcherTest, UnknownIsEnosysAndNumbersAre64Bits) {
  EXPECT_EQ(dispatcher({0}, Hypercall{9999}).guest, GuestResult(Errno::nosys));
  EXPECT_EQ(dispatcher({0}, Hypercall{0x1'0000'001d}).guest, GuestResult(Errno::nosys));
  EXPECT_EQ(dispatcher({0}, Hypercall{29, {99}}).guest, GuestResult(Errno::nosys));
  EXPECT_EQ(dispatcher({1}, Hypercall{29, {0}}).guest, GuestResult::ok());
  EXPECT_EQ(said(), Lines{"yield 1"});
}

template <class Word>
struct Multicall : DispatcherTest {
  static constexpr bool long_mode = sizeof(Word) == 8;
  GuestResult multi(std::uint64_t count, std::uint64_t at = base) {
    return dispatcher({1}, Hypercall{13, {at, count}, long_mode, 0}).guest;
  }
};
using Words = testing::Types<std::uint64_t, std::uint32_t>;
TYPED_TEST_SUITE(Multicall, Words);

TYPED_TEST(Multicall, CallsEachAndPutsItsResultIntoItsEntry) {
  using Entry = xen_abi::MulticallEntry<TypeParam>;
  this->put(Entry{29, 0, {0}});                                  // yield
  this->put(Entry{777, 0, {0}}, base + sizeof(Entry));           // nobody's
  this->put(Entry{13, 0, {base, 1}}, base + 2 * sizeof(Entry));  // itself
  this->put(Entry{18, 0, {0, 0x20000, base}}, base + 3 * sizeof(Entry));
  EXPECT_EQ(this->multi(4), GuestResult::ok());
  const auto result = [&](std::uint64_t at) {
    return this->template get<Entry>(base + at * sizeof(Entry)).result;
  };
  EXPECT_EQ(result(0), TypeParam{0});
  EXPECT_EQ(result(1), static_cast<TypeParam>(-38));
  EXPECT_EQ(result(2), static_cast<TypeParam>(-22));
  EXPECT_EQ(result(3), static_cast<TypeParam>(-7));
  EXPECT_EQ(this->said(), Lines{"yield 1"});
}

TYPED_TEST(Multicall, AnEntryThatCantBeReadOrAnsweredEndsIt) {
  using Entry = xen_abi::MulticallEntry<TypeParam>;
  EXPECT_EQ(this->multi(1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(this->multi(0, unmapped), GuestResult::ok());
  const std::uint64_t last = base + memory_size - sizeof(Entry);
  this->put(Entry{29, 0, {0}}, last);
  EXPECT_EQ(this->multi(2, last), GuestResult(Errno::fault));
  EXPECT_EQ(this->said(), Lines{"yield 1"});
  this->vmm.read_only_from = base;
  EXPECT_EQ(this->multi(1, last), GuestResult(Errno::fault));
  EXPECT_EQ(this->multi(1025), GuestResult(Errno::too_big));
}

}  // namespace
}  // namespace xen_hcall
