// SPDX-License-Identifier: BSD-3-Clause
//
// Where the event goes as ports come and go, and what the VMM is told when the host fails.
#include <gtest/gtest.h>

#include "double_vmm.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace xen_timer {
namespace {

struct Ports : HandlerFixture, testing::Test {};
struct HostErrors : HandlerFixture, testing::Test {};

TEST_F(Ports, AnEventWithoutAPortIsLostAndNotReplayed) {
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{}));
  EXPECT_EQ(call(set_singleshot(start + 1000)), 0u);
  advance(1000);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{10}));
  advance(10'000);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.events, Events{});
}

TEST_F(Ports, APastDeadlineWithoutAPortIsLostAndNotReplayed) {
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{}));
  EXPECT_EQ(call(set_singleshot(start - 1)), 0u);
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{10}));
  advance(10'000);
  EXPECT_EQ(vmm.events, Events{});
}

TEST_F(Ports, ATimerArmedBeforeItsPortIsBoundFiresOnIt) {
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{}));
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
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{}));
  ASSERT_TRUE(timer.bind(vcpu0, EventPort{10}));
  advance(1000);
  EXPECT_EQ(vmm.events, (Events{{0, 10}}));
}

TEST_F(Ports, NothingIsBoundAtFirst) {
  Handler fresh(vmm, backend, vcpus);
  ASSERT_TRUE(fresh.handle(vcpu0, set_singleshot(start - 1)));
  EXPECT_EQ(vmm.events, Events{});
}

TEST_F(Ports, BindingAVcpuThatIsNotIsEinval) {
  const auto bound = timer.bind(XenVcpuId{vcpus}, EventPort{10});
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error(), (vmm_base::Error{"xen_timer bind", EINVAL, vcpus}));
}

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
