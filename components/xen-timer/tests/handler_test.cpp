// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a guest is answered, and when its event comes.
#include "xen_timer/handler.hpp"

#include <gtest/gtest.h>

#include "double_vmm.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace xen_timer {
namespace {

using xen_abi::Errno;
using xen_abi::Hypercall;

struct HandlerTest : HandlerFixture, testing::Test {};

// What holds for 64- and 32-bit callers alike.
struct EitherWidth : HandlerFixture, testing::TestWithParam<bool> {
  EitherWidth() { long_mode = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Handler, EitherWidth, testing::Bool(), [](const auto& width) {
  return std::string(width.param ? "Long" : "Compat");
});

// --- whose calls these are ----------------------------------------------------------------------

TEST_P(EitherWidth, OtherHypercallsAreNotAnswered) {
  for (std::uint64_t number = 0; number < 64; ++number) {
    if (number == xen_abi::hypercall::vcpu_op || number == xen_abi::hypercall::set_timer_op) {
      continue;
    }
    EXPECT_FALSE(timer.handle(vcpu0, {.number = number, .long_mode = long_mode})) << number;
  }
}

TEST_P(EitherWidth, OtherVcpuOpsAreNotAnswered) {
  for (std::uint32_t command = 0; command < 32; ++command) {
    if (command >= xen_abi::vcpuop::set_periodic_timer &&
        command <= xen_abi::vcpuop::stop_singleshot_timer) {
      continue;
    }
    EXPECT_FALSE(timer.handle(vcpu0, vcpu_op(command, 0))) << command;
  }
}

TEST_F(HandlerTest, TheHypercallNumberIsNotTruncated) {
  for (const std::uint64_t number :
       {0x1000Full, 1ull << 32 | 24, 1ull << 32 | 15, 1ull << 63 | 15, 0x10018ull}) {
    Hypercall call = set_singleshot(5);
    call.number = number;
    EXPECT_FALSE(timer.handle(vcpu0, call)) << number;
  }
  EXPECT_EQ(vmm.copies, 0u);
}

TEST_F(HandlerTest, UpperHalvesOfCommandAndVcpuIdAreIgnored) {
  Hypercall call = set_singleshot(start + 5);
  call.params[0] |= 0xdead'beef'0000'0000;
  call.params[1] |= 0xdead'beef'0000'0000;
  EXPECT_EQ(this->call(call), 0u);
  EXPECT_EQ(ns_to_event(), 5);
}

TEST_P(EitherWidth, CallersOutsideRing0GetEperm) {
  for (Hypercall call : {set_singleshot(start + 5), stop_singleshot(), set_timer_op(start + 5),
                         set_timer_op(0), vcpu_op(xen_abi::vcpuop::set_singleshot_timer, 99)}) {
    for (std::uint8_t cpl = 1; cpl <= 3; ++cpl) {
      call.cpl = cpl;
      EXPECT_EQ(this->call(call), rax(Errno::perm));
    }
  }
  EXPECT_EQ(vmm.copies, 0u);
  EXPECT_EQ(ns_to_event(), -1);
}

TEST_F(HandlerTest, EpermLeavesAnArmedTimerAlone) {
  EXPECT_EQ(call(set_singleshot(start + 5)), 0u);
  Hypercall stop = stop_singleshot();
  stop.cpl = 3;
  EXPECT_EQ(call(stop), rax(Errno::perm));
  EXPECT_EQ(ns_to_event(), 5);
}

// --- errors, and their order --------------------------------------------------------------------

TEST_P(EitherWidth, NoSuchVcpuComesBeforeABadArgument) {
  for (const std::uint64_t vcpu : {2ull, 3ull, 0x7fff'ffffull, 0xffff'ffffull}) {
    EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::set_singleshot_timer, vcpu, 0)), rax(Errno::noent));
    EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::stop_singleshot_timer, vcpu, 0)), rax(Errno::noent));
  }
  EXPECT_EQ(vmm.copies, 0u);
}

TEST_P(EitherWidth, AnotherVcpusTimerIsEinvalBeforeABadArgument) {
  EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::set_singleshot_timer, 1, 0)), rax(Errno::inval));
  EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::stop_singleshot_timer, 1, 0)), rax(Errno::inval));
  EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::stop_singleshot_timer, 0, 0), vcpu1), rax(Errno::inval));
  EXPECT_EQ(vmm.copies, 0u);
}

TEST_P(EitherWidth, AnotherVcpuCannotStopATimer) {
  EXPECT_EQ(call(set_singleshot(start + 5)), 0u);
  EXPECT_EQ(call(stop_singleshot(vcpu0), vcpu1), rax(Errno::inval));
  EXPECT_EQ(ns_to_event(), 5);
}

TEST_P(EitherWidth, AnUnreadableArgumentIsEfaultAndLeavesTheTimerAlone) {
  EXPECT_EQ(call(set_singleshot(start + 5)), 0u);
  for (const std::uint64_t address : {std::uint64_t{0}, ~std::uint64_t{0}, ~std::uint64_t{0} - 7,
                                      DoubleVmm::memory_base + vmm.memory.size() - 8}) {
    EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::set_singleshot_timer, 0, address)), rax(Errno::fault));
  }
  EXPECT_EQ(ns_to_event(), 5);
}

TEST_F(HandlerTest, A64BitArgumentIs16BytesLong) {
  const Hypercall set = set_singleshot(start + 5);
  vmm.memory.resize(16);
  EXPECT_EQ(call(set), 0u);
  vmm.memory.resize(15);
  EXPECT_EQ(call(set), rax(Errno::fault));
  vmm.memory.resize(12);
  EXPECT_EQ(call(set), rax(Errno::fault));
}

TEST_F(HandlerTest, A32BitArgumentIs12BytesLong) {
  long_mode = false;
  const Hypercall set = set_singleshot(start + 5);
  vmm.memory.resize(12);
  EXPECT_EQ(call(set), 0u);
  vmm.memory.resize(11);
  EXPECT_EQ(call(set), rax(Errno::fault));
}

TEST_P(EitherWidth, TheArgumentIsCopiedOnce) {
  EXPECT_EQ(call(set_singleshot(start + 5)), 0u);
  EXPECT_EQ(vmm.copies, 1u);
}

TEST_P(EitherWidth, StopReadsNoArgument) {
  EXPECT_EQ(call(vcpu_op(xen_abi::vcpuop::stop_singleshot_timer, 0, 0)), 0u);
  EXPECT_EQ(vmm.copies, 0u);
}

TEST_F(HandlerTest, ErrorsFillAll64BitsOfRax) {
  EXPECT_EQ(call(set_singleshot(0, 0, vcpu1)), 0xffff'ffff'ffff'ffeaull);
}

// --- set_singleshot_timer -----------------------------------------------------------------------

TEST_P(EitherWidth, SingleshotFiresOnceAtItsDeadline) {
  EXPECT_EQ(call(set_singleshot(start + 1'000'000)), 0u);
  EXPECT_EQ(ns_to_event(), 1'000'000);
  advance(10'000'000'000);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_P(EitherWidth, APastDeadlineFiresBeforeTheCallReturns) {
  EXPECT_EQ(call(set_singleshot(start - 1)), 0u);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
  advance(10'000'000'000);
  EXPECT_EQ(vmm.events.size(), 1u);
}

TEST_P(EitherWidth, ADeadlineOfNowFiresWithoutTimePassing) {
  EXPECT_EQ(call(set_singleshot(start)), 0u);
  advance(0);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_P(EitherWidth, SingleshotOfZeroFiresAtOnce) {
  EXPECT_EQ(call(set_singleshot(0)), 0u);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_P(EitherWidth, ValuesBeyondTheSignedRangeFireAtOnce) {
  EXPECT_EQ(call(set_singleshot(1ull << 63)), 0u);
  EXPECT_EQ(call(set_singleshot((1ull << 63) + 1)), 0u);
  EXPECT_EQ(call(set_singleshot(~0ull)), 0u);
  EXPECT_EQ(vmm.events.size(), 3u);
}

TEST_P(EitherWidth, TheLargestSignedValueNeverFires) {
  EXPECT_EQ(call(set_singleshot(~0ull >> 1)), 0u);
  advance(1ll << 55);
  EXPECT_EQ(vmm.events, Events{});
}

TEST_P(EitherWidth, SingleshotHasNoClampAt2To50) {
  for (const std::int64_t ahead : {(1ll << 50) - 1, 1ll << 50, 1ll << 60}) {
    EXPECT_EQ(call(set_singleshot(static_cast<std::uint64_t>(start + ahead))), 0u);
    EXPECT_EQ(timer.save(vcpu0).value().deadline, xen_clock::guest_time(start + ahead));
    EXPECT_EQ(call(stop_singleshot()), 0u);
    EXPECT_TRUE(timer.expire());  // lets go of the alarm
  }
  EXPECT_EQ(vmm.events, Events{});
}

TEST_P(EitherWidth, FlagsAreIgnored) {
  for (const std::uint32_t flags : {1u, 2u, ~0u}) {
    EXPECT_EQ(call(set_singleshot(start - 1, flags)), 0u);  // not -ETIME, which panics Linux
  }
  EXPECT_EQ(vmm.events.size(), 3u);
}

TEST_P(EitherWidth, APastDeadlineReplacesWhatWasArmed) {
  EXPECT_EQ(call(set_singleshot(start + 1000)), 0u);
  EXPECT_EQ(call(set_singleshot(start - 1)), 0u);
  advance(5000);
  EXPECT_EQ(vmm.events.size(), 1u);
}

// --- stop_singleshot_timer ----------------------------------------------------------------------

TEST_P(EitherWidth, StopCancels) {
  EXPECT_EQ(call(set_singleshot(start + 1000)), 0u);
  EXPECT_EQ(call(stop_singleshot()), 0u);
  advance(5000);
  EXPECT_EQ(vmm.events, Events{});
}

TEST_P(EitherWidth, StopOfAnIdleTimerReturnsZero) {
  EXPECT_EQ(call(stop_singleshot()), 0u);
  EXPECT_EQ(call(stop_singleshot()), 0u);
  EXPECT_EQ(call(set_singleshot(start + 1)), 0u);
  EXPECT_EQ(ns_to_event(), 1);
  EXPECT_EQ(call(stop_singleshot()), 0u);
}

// --- set_timer_op -------------------------------------------------------------------------------

TEST_P(EitherWidth, SetTimerOpFiresOnceAtItsDeadline) {
  // Beyond 2^32 ns, so that both halves of a 32-bit caller's count.
  EXPECT_EQ(call(set_timer_op(start + 5'000'000'001)), 0u);
  EXPECT_EQ(ns_to_event(), 5'000'000'001);
  advance(10'000'000'000);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_P(EitherWidth, SetTimerOpOfZeroCancels) {
  EXPECT_EQ(call(set_timer_op(start + 1000)), 0u);
  EXPECT_EQ(call(set_timer_op(0)), 0u);
  EXPECT_EQ(call(set_timer_op(0)), 0u);
  advance(5000);
  EXPECT_EQ(vmm.events, Events{});
}

TEST_P(EitherWidth, SetTimerOpInThePastFiresBeforeTheCallReturns) {
  EXPECT_EQ(call(set_timer_op(1)), 0u);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
  EXPECT_EQ(call(set_timer_op(start - 1)), 0u);
  EXPECT_EQ(vmm.events.size(), 2u);
}

TEST_P(EitherWidth, SetTimerOpOfNegativeTimeoutsWaits100Ms) {
  for (const std::uint64_t timeout : {1ull << 63, ~0ull}) {
    vmm.events.clear();
    EXPECT_EQ(call(set_timer_op(timeout)), 0u);
    EXPECT_EQ(vmm.events, Events{});
    EXPECT_EQ(ns_to_event(), 100'000'000);
  }
}

TEST_P(EitherWidth, SetTimerOp2To50AheadWaits100Ms) {
  for (const std::int64_t ahead : {1ll << 50, (1ll << 50) + 1, 1ll << 62}) {
    vmm.events.clear();
    vmm.clocks.assign(vcpus, xen_clock::guest_time(start));
    EXPECT_EQ(call(set_timer_op(static_cast<std::uint64_t>(start + ahead))), 0u);
    EXPECT_EQ(ns_to_event(), 100'000'000);
  }
}

TEST_P(EitherWidth, SetTimerOpJustBelow2To50AheadIsArmedAsItIs) {
  EXPECT_EQ(call(set_timer_op(start + (1ull << 50) - 1)), 0u);
  EXPECT_EQ(ns_to_event(), (1ll << 50) - 1);
}

TEST_F(HandlerTest, A64BitSetTimerOpHasOneParameter) {
  Hypercall call = set_timer_op(start + 7);
  call.params[1] = ~0ull;
  EXPECT_EQ(this->call(call), 0u);
  EXPECT_EQ(ns_to_event(), 7);
}

// --- one timer ----------------------------------------------------------------------------------

TEST_P(EitherWidth, BothHypercallsShareOneTimerAndTheLastCallWins) {
  EXPECT_EQ(call(set_singleshot(start + 1000)), 0u);
  EXPECT_EQ(call(set_timer_op(start + 3000)), 0u);
  advance(2000);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.events, Events{});
  EXPECT_EQ(call(set_singleshot(start + 2500)), 0u);
  advance(500);
  EXPECT_EQ(vmm.events.size(), 1u);
  advance(5000);
  EXPECT_EQ(vmm.events.size(), 1u);
}

TEST_P(EitherWidth, EachHypercallCancelsTheOthersTimer) {
  EXPECT_EQ(call(set_singleshot(start + 1000)), 0u);
  EXPECT_EQ(call(set_timer_op(0)), 0u);
  EXPECT_EQ(call(set_timer_op(start + 1000)), 0u);
  EXPECT_EQ(call(stop_singleshot()), 0u);
  advance(5000);
  EXPECT_EQ(vmm.events, Events{});
}

TEST_P(EitherWidth, EachVcpuHasATimerOfItsOwnOnItsOwnClock) {
  vmm.clocks[1] = xen_clock::guest_time(5 * start);
  EXPECT_EQ(call(set_singleshot(start + 1000, 0, vcpu0), vcpu0), 0u);
  EXPECT_EQ(call(set_singleshot(5 * start + 400, 0, vcpu1), vcpu1), 0u);
  advance(400);
  EXPECT_EQ(vmm.events, (Events{{1, 11}}));
  EXPECT_EQ(call(stop_singleshot(vcpu1), vcpu1), 0u);
  advance(600);
  EXPECT_EQ(vmm.events, (Events{{1, 11}, {0, 10}}));
}

}  // namespace
}  // namespace xen_timer
