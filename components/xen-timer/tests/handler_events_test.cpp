// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Where the event goes as ports come and go, and what the VMM is told when the host fails.
#include <gtest/gtest.h>

#include "double_vmm.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace xen_timer {
namespace {

struct Ports : HandlerFixture, testing::Test {};
struct Misuse : HandlerFixture, testing::Test {};
struct HostErrors : HandlerFixture, testing::Test {};

TEST_F(Ports, AnEventWithoutAPortIsLostAndNotReplayed) {
  ASSERT_TRUE(timer.unbind(vcpu0));
  EXPECT_EQ(call(set_singleshot(start + 1000)), 0u);
  advance(1000);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{10}));
  advance(10'000);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.events, Events{});
}

TEST_F(Ports, APastDeadlineWithoutAPortIsLostAndNotReplayed) {
  ASSERT_TRUE(timer.unbind(vcpu0));
  EXPECT_EQ(call(set_singleshot(start - 1)), 0u);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{10}));
  advance(10'000);
  EXPECT_EQ(vmm.events, Events{});
}

TEST_F(Ports, ATimerArmedBeforeItsPortIsBoundFiresOnIt) {
  ASSERT_TRUE(timer.unbind(vcpu0));
  EXPECT_EQ(call(set_timer_op(start + 1000)), 0u);
  advance(500);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{42}));
  advance(500);
  EXPECT_EQ(vmm.events, (Events{{0, 42}}));
}

TEST_F(Ports, RebindingMovesAnArmedTimerToTheNewPort) {
  EXPECT_EQ(call(set_singleshot(start + 1000)), 0u);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{42}));
  advance(1000);
  EXPECT_EQ(vmm.events, (Events{{0, 42}}));
}

TEST_F(Ports, UnbindingDoesNotStopTheTimer) {
  EXPECT_EQ(call(set_singleshot(start + 1000)), 0u);
  ASSERT_TRUE(timer.unbind(vcpu0));
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{10}));
  advance(1000);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_F(Ports, NothingIsBoundAtFirst) {
  VirtualBackend unbound(vcpus);
  Handler fresh(vmm, unbound);
  ASSERT_TRUE(fresh.handle(vcpu0, set_singleshot(start - 1)));
  EXPECT_EQ(vmm.events, Events{});
}

// --- a VMM that errs
// ------------------------------------------------------------------------------

TEST_F(Misuse, AVcpuThatIsNotIsEinvalEverywhere) {
  for (const std::uint32_t id : {vcpus, vcpus + 1, 0xffff'ffffu}) {
    const XenVcpuId vcpu{id};
    const auto expect = [&](const char* operation, const auto& result) {
      ASSERT_FALSE(result);
      EXPECT_EQ(result.error(), (vmm_base::Error{operation, EINVAL, id}));
    };
    expect("xen_timer bind", timer.bind(vcpu, EventPort{10}));
    expect("xen_timer bind", timer.bind(vcpu, EventPort{0}));
    expect("xen_timer unbind", timer.unbind(vcpu));
    expect("xen_timer hand_over", timer.hand_over(vcpu, false));
    expect("xen_timer save", timer.save(vcpu));
    expect("xen_timer restore", timer.restore(vcpu, {.port = EventPort{10}}));
    for (const auto& hypercall : {set_timer_op(start + 1), set_timer_op(0), set_singleshot(5),
                                  stop_singleshot(), set_periodic(1'000'000), stop_periodic()}) {
      const auto answer = timer.handle(vcpu, hypercall);
      ASSERT_TRUE(answer);
      EXPECT_EQ(answer->guest, xen_abi::Errno::noent);
      expect("xen_timer handle", answer->host);
    }
    EXPECT_FALSE(timer.handle(vcpu, {.number = 17}));
  }
  EXPECT_EQ(vmm.copies, 0u);
  run(1'000'000'000);
  EXPECT_EQ(vmm.events, Events{});
}

TEST_F(Misuse, APortThatCannotBeIsEinvalAndTheOldOneStays) {
  for (const std::uint32_t port : {0u, 4096u, 0xffff'ffffu}) {
    const auto bound = timer.bind(vcpu0, EventPort{port});
    ASSERT_FALSE(bound);
    EXPECT_EQ(bound.error(), (vmm_base::Error{"xen_timer bind: port", EINVAL, port}));
  }
  EXPECT_EQ(timer.save(vcpu0).value().port, EventPort{10});
  EXPECT_TRUE(timer.bind(vcpu0, EventPort{1}));
  EXPECT_TRUE(timer.bind(vcpu0, EventPort{4095}));
}

TEST_F(Misuse, AGuestClockThatGoesBackIsSaidOnceAndTheDeadlineKept) {
  EXPECT_EQ(call(set_singleshot(start + 10 * ms)), 0u);
  EXPECT_EQ(call(set_periodic(start + 5 * ms, vcpu1)), 0u);
  vmm.clocks.assign(vcpus, xen_clock::guest_time(start - 100 * ms));
  backend.alarm().advance(Duration(10 * ms));
  const auto expired = timer.expire();
  ASSERT_FALSE(expired);
  EXPECT_STREQ(expired.error().operation, "guest clock went backwards");
  run(100 * ms + 10 * ms);  // it goes on from there, and nothing more is said
  EXPECT_EQ(vmm.times, (Times{start + 5 * ms, start + 10 * ms}));
}

// --- a host that fails --------------------------------------------------------------------------

TEST_F(HostErrors, AFailingAlarmIsTheVmmsAndNotTheGuests) {
  backend.alarm().fail_with(EMFILE);
  for (const auto& hypercall : {set_singleshot(start + 1000), set_timer_op(start + 1000)}) {
    const auto answer = timer.handle(vcpu0, hypercall);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->guest, xen_abi::GuestResult::ok());
    ASSERT_FALSE(answer->host);
    EXPECT_EQ(answer->host.error().code, EMFILE);
  }
}

TEST_F(HostErrors, TicksWhoseAlarmFailsAreSaidAndServedByTheNextExpire) {
  backend.alarm().fail_with(EMFILE);
  EXPECT_EQ(host_error(set_periodic(10 * ms)), EMFILE);  // and the first has come at once
  for (GuestTime& clock : vmm.clocks) clock += Duration(25 * ms);
  backend.alarm().advance(Duration(25 * ms));
  EXPECT_EQ(timer.expire().error().code, EMFILE);
  backend.alarm().fail_with(0);
  EXPECT_TRUE(timer.expire());
  run(5 * ms);
  EXPECT_EQ(vmm.times, (Times{start, start + 25 * ms, start + 30 * ms}));
}

TEST_F(HostErrors, ADeadlineWhoseAlarmFailedIsServedByTheNextExpire) {
  backend.alarm().fail_with(EMFILE);
  ASSERT_TRUE(timer.handle(vcpu0, set_singleshot(start + 1000)));
  advance(1000);
  EXPECT_EQ(vmm.events, Events{});
  backend.alarm().fail_with(0);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_F(HostErrors, TheAlarmIsTriedAgainWithTheNextCall) {
  backend.alarm().fail_with(EMFILE);
  ASSERT_TRUE(timer.handle(vcpu0, set_singleshot(start + 1000)));
  backend.alarm().fail_with(0);
  EXPECT_EQ(call(set_singleshot(start + 2000)), 0u);
  EXPECT_EQ(ns_to_event(), 2000);
}

TEST_F(HostErrors, TheAlarmIsTriedAgainForTheEarliestWithAnyonesNextCall) {
  backend.alarm().fail_with(EMFILE);
  EXPECT_EQ(host_error(set_singleshot(start + 1000)), EMFILE);
  backend.alarm().fail_with(0);
  EXPECT_EQ(call(set_singleshot(start + 1000 * ms, 0, vcpu1), vcpu1), 0u);
  EXPECT_EQ(ns_to_event(), 1000);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_F(HostErrors, ExpireReportsAnAlarmItCannotSet) {
  EXPECT_EQ(call(set_singleshot(start + 1000, 0, vcpu0), vcpu0), 0u);
  EXPECT_EQ(call(set_singleshot(start + 2000, 0, vcpu1), vcpu1), 0u);
  backend.alarm().fail_with(EMFILE);
  for (GuestTime& clock : vmm.clocks) clock += xen_clock::Duration(1000);
  backend.alarm().advance(xen_clock::Duration(1000));
  const auto expired = timer.expire();
  ASSERT_FALSE(expired);
  EXPECT_EQ(expired.error().code, EMFILE);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_F(HostErrors, ExpireReportsAFailingEventAndServesTheOthers) {
  EXPECT_EQ(call(set_singleshot(start + 1000, 0, vcpu0), vcpu0), 0u);
  EXPECT_EQ(call(set_singleshot(start + 1001, 0, vcpu1), vcpu1), 0u);
  vmm.failing_vcpu = 0;
  for (GuestTime& clock : vmm.clocks) clock += xen_clock::Duration(2000);
  backend.alarm().advance(xen_clock::Duration(2000));
  const auto expired = timer.expire();
  ASSERT_FALSE(expired);
  EXPECT_EQ(expired.error(), (vmm_base::Error{"raise_event", EIO, 0}));
  EXPECT_EQ(vmm.events, (Events{{1, 11}}));
}

TEST_F(HostErrors, AFailingEventOfAPastDeadlineIsInTheAnswer) {
  vmm.failing_vcpu = 0;
  const auto answer = timer.handle(vcpu0, set_singleshot(start - 1));
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->guest, xen_abi::GuestResult::ok());
  ASSERT_FALSE(answer->host);
  EXPECT_EQ(answer->host.error().code, EIO);
}

}  // namespace
}  // namespace xen_timer
