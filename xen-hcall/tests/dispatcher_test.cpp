// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
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

struct Counting {
  std::uint64_t first;
  int asked = 0;
  std::optional<Answer> handle(XenVcpuId, const Hypercall& call) {
    ++asked;
    if (call.number < first) return std::nullopt;
    return Answer{GuestResult::ok(static_cast<std::int64_t>(first))};
  }
};
template <std::uint64_t... numbers>
struct Serving : Counting {
  static constexpr bool serves(std::uint64_t number) { return ((number == numbers) || ...); }
};

TEST(Routing, WhoSaysWhatItServesIsAskedForThatAlone) {
  Serving<29, 1000> some{{29}};
  Serving<29, 30> more{{0}};
  Counting any{500};
  Dispatcher dispatcher(some, more, any);
  EXPECT_EQ(dispatcher({0}, Hypercall{29}).guest, GuestResult::ok(29));
  EXPECT_EQ(dispatcher({0}, Hypercall{30}).guest, GuestResult::ok(0));
  EXPECT_EQ(dispatcher({0}, Hypercall{31}).guest, GuestResult(Errno::nosys));
  EXPECT_EQ(dispatcher({0}, Hypercall{0x1'0000'001d}).guest, GuestResult::ok(500));
  EXPECT_EQ(dispatcher({0}, Hypercall{1000}).guest, GuestResult::ok(29));
  EXPECT_EQ(dispatcher({0}, Hypercall{~std::uint64_t{0}}).guest, GuestResult::ok(500));
  EXPECT_EQ(some.asked, 2);
  EXPECT_EQ(more.asked, 1);
  EXPECT_EQ(any.asked, 3);
}

TEST(Routing, WhoServesItButDoesntKnowItLeavesItToTheNext) {
  Serving<24> timers{{~std::uint64_t{0}}};
  Serving<24> others{{24}};
  Dispatcher inner(timers, others);
  static_assert(decltype(inner)::serves(24) && !decltype(inner)::serves(25));
  Dispatcher dispatcher(inner);
  EXPECT_EQ(dispatcher({0}, Hypercall{24}).guest, GuestResult::ok(24));
  EXPECT_EQ(dispatcher({0}, Hypercall{25}).guest, GuestResult(Errno::nosys));
  EXPECT_EQ(timers.asked, 1);
  EXPECT_EQ(others.asked, 1);
}

TEST(Routing, EveryNumberReachesWhoServesIt) {
  for (std::uint64_t number = 0; number < 200; ++number) {
    Counting any{number};
    Dispatcher dispatcher(any);
    EXPECT_EQ(dispatcher({0}, Hypercall{number}).guest,
              GuestResult::ok(static_cast<std::int64_t>(number)));
  }
}

// What the VMM is to know of an answer isn't lost on the way.
TEST(Routing, AHostErrorComesAlong) {
  struct Failing {
    static constexpr bool serves(std::uint64_t) { return true; }
    std::optional<Answer> handle(XenVcpuId, const Hypercall& call) {
      return Answer{GuestResult::ok(7), vmm_base::Error{"it", 5, call.number}};
    }
  } failing;
  Dispatcher dispatcher(failing);
  for (const std::uint64_t number : {29u, 1000u}) {
    const Answer answer = dispatcher({0}, Hypercall{number});
    EXPECT_EQ(answer.guest, GuestResult::ok(7));
    ASSERT_FALSE(answer.host);
    EXPECT_EQ(answer.host.error(), (vmm_base::Error{"it", 5, number}));
  }
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
