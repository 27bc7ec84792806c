// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A timer in the kernel beside our queue: who has a deadline, as ports, errors and hand_over() move
// it.
#include <gtest/gtest.h>

#include "double_vmm.hpp"

namespace xen_timer {
namespace {

using xen_clock::guest_time;

template <class>
struct HandOver : testing::Test {};
using InTheKernel = testing::Types<DelegatedPath<DoubleKernel>, NearPath>;
TYPED_TEST_SUITE(HandOver, InTheKernel, PathName);

constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};

template <class Path>
struct Shared : Machine<Path> {
  using Machine<Path>::start, Machine<Path>::ms;

  Result<void> hand_over(bool to_kernel) { return this->timer.hand_over(vcpu0, to_kernel); }
  void expect_kernel(EventPort port, std::optional<GuestTime> deadline) {
    EXPECT_EQ(this->kernel.timers[0].port, port);
    EXPECT_EQ(this->kernel.timers[0].deadline, deadline);
  }
  // By a call that has a host error.
  void expect_error(const Result<void>& result, const char* operation, int code) {
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error(), (vmm_base::Error{operation, code, 0}));
  }
  [[nodiscard]] Times since_start() const {
    Times since;
    for (const std::int64_t time : this->vmm.times) since.push_back(time - start);
    return since;
  }
};

TYPED_TEST(HandOver, FromTheKernelToUsTheDeadlineGoesAlong) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.expect_kernel(EventPort{10}, guest_time(m.start + 10 * m.ms));
  ASSERT_TRUE(m.hand_over(false));
  m.expect_kernel(EventPort{}, std::nullopt);  // so the hypercalls come to us again, too
  EXPECT_EQ(m.ns_to_event(), 10 * m.ms);
  EXPECT_EQ(m.vmm.attempts, 1u);
}

TYPED_TEST(HandOver, WhatIsArmedThenIsOurs) {
  Shared<TypeParam> m;
  ASSERT_TRUE(m.hand_over(false));
  ASSERT_TRUE(m.timer.unbind(vcpu1));
  const unsigned sets = m.kernel.sets;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  ASSERT_TRUE(m.timer.bind(vcpu0, EventPort{42}));
  m.run(10 * m.ms);
  EXPECT_EQ(m.call(m.set_timer_op(m.start + 20 * m.ms)), 0u);
  EXPECT_EQ(m.call(m.stop_singleshot()), 0u);
  ASSERT_TRUE(m.timer.pause());
  ASSERT_TRUE(m.timer.resume());
  EXPECT_EQ(m.vmm.events, (Events{{0, 42}}));
  EXPECT_EQ(m.kernel.sets, sets);
}

TYPED_TEST(HandOver, FromUsToTheKernelTheDeadlineGoesAlong) {
  Shared<TypeParam> m;
  ASSERT_TRUE(m.hand_over(false));
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  ASSERT_TRUE(m.hand_over(true));
  m.expect_kernel(EventPort{10}, guest_time(m.start + 10 * m.ms));
  EXPECT_EQ(m.ns_to_event(), 10 * m.ms);
  EXPECT_EQ(m.vmm.attempts, 0u);
}

TYPED_TEST(HandOver, NothingArmedStaysNothing) {
  Shared<TypeParam> m;
  for (const bool to_kernel : {false, true, true, false, false, true}) {
    ASSERT_TRUE(m.hand_over(to_kernel));
    m.expect_kernel(to_kernel ? EventPort{10} : EventPort{}, std::nullopt);
  }
  m.run(10'000 * m.ms);
  EXPECT_EQ(m.vmm.events, Events{});
}

TYPED_TEST(HandOver, BackAndForthItFiresOnce) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  for (int i = 0; i < 9; ++i) {
    ASSERT_TRUE(m.hand_over(i % 2 != 0));
    m.run(m.ms);
  }
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{10 * m.ms}));
}

TYPED_TEST(HandOver, ADeadlineThatHasPassedIsRaisedByUs) {
  Shared<TypeParam> m;
  ASSERT_TRUE(m.hand_over(false));
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  for (GuestTime& clock : m.vmm.clocks) clock += Duration(20 * m.ms);  // nobody has looked yet
  ASSERT_TRUE(m.hand_over(true));
  m.expect_kernel(EventPort{}, std::nullopt);  // nor answers a call while it waits here
  m.run(0);
  EXPECT_EQ(m.vmm.attempts, 1u);
  m.run(1000 * m.ms);
  EXPECT_EQ(m.vmm.events.size(), 1u);
}

// The kernel says that it is still to come, but may raise it before it is stopped.
TYPED_TEST(HandOver, WhatIsDueWhenItIsTakenBackComesOnceBeforeTheCallReturns) {
  for (const bool by_bind : {false, true}) {
    Shared<TypeParam> m;
    EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
    for (GuestTime& clock : m.vmm.clocks) clock += Duration(10 * m.ms);
    ASSERT_TRUE(by_bind ? m.timer.bind(vcpu0, EventPort{42}) : m.hand_over(false));
    EXPECT_EQ(m.vmm.events, (Events{{0, 10}}));
    EXPECT_EQ(m.timer.save(vcpu0).value().deadline, std::nullopt);
    m.run(1000 * m.ms);
    EXPECT_EQ(m.vmm.events.size(), 1u);
  }
}

TYPED_TEST(HandOver, WithoutAPortTheKernelGetsNothing) {
  Shared<TypeParam> m;
  ASSERT_TRUE(m.timer.unbind(vcpu0));
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  ASSERT_TRUE(m.hand_over(false));
  ASSERT_TRUE(m.hand_over(true));
  m.expect_kernel(EventPort{}, std::nullopt);
  ASSERT_TRUE(m.timer.bind(vcpu0, EventPort{42}));
  m.expect_kernel(EventPort{42}, guest_time(m.start + 10 * m.ms));
}

TYPED_TEST(HandOver, WhatWasRestoredGoesToTheKernelByIt) {
  Shared<TypeParam> m;
  ASSERT_TRUE(
      m.timer.restore(vcpu0, {.port = EventPort{42}, .deadline = guest_time(m.start + 10 * m.ms)}));
  m.expect_kernel(EventPort{}, std::nullopt);
  ASSERT_TRUE(m.hand_over(true));
  m.expect_kernel(EventPort{42}, guest_time(m.start + 10 * m.ms));
}

// --- a kernel that answers the guest's hypercalls itself
// ------------------------------------------

TYPED_TEST(HandOver, ADeadlineThatOnlyTheKernelKnewComesToUs) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.kernel.timers[0].deadline = guest_time(m.start + 7 * m.ms);
  ASSERT_TRUE(m.hand_over(false));
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{7 * m.ms}));
  EXPECT_EQ(m.vmm.attempts, 1u);
}

TYPED_TEST(HandOver, ADeadlineThatTheKernelLetGoDoesNotComeToUs) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.kernel.timers[0].deadline.reset();
  ASSERT_TRUE(m.hand_over(false));
  m.run(1000 * m.ms);
  EXPECT_EQ(m.vmm.events, Events{});
}

TYPED_TEST(HandOver, ACancelReachesADeadlineThatOnlyTheKernelKnew) {
  Shared<TypeParam> m;
  m.kernel.timers[0].deadline = guest_time(m.start + 7 * m.ms);
  EXPECT_EQ(m.call(m.stop_singleshot()), 0u);
  m.run(1000 * m.ms);
  EXPECT_EQ(m.vmm.events, Events{});
}

// --- failures -----------------------------------------------------------------------------------

TYPED_TEST(HandOver, WhereTheKernelCannotTellWhatItWasGivenComesToUs) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.kernel.get_failure = EIO;
  m.expect_error(m.hand_over(false), "KVM_XEN_VCPU_GET_ATTR", EIO);
  m.expect_kernel(EventPort{}, std::nullopt);
  EXPECT_EQ(m.ns_to_event(), 10 * m.ms);
}

TYPED_TEST(HandOver, WhereTheKernelCannotTellWhatWasCancelledStaysSo) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  EXPECT_EQ(m.call(m.stop_singleshot()), 0u);
  m.kernel.get_failure = EIO;
  m.expect_error(m.hand_over(false), "KVM_XEN_VCPU_GET_ATTR", EIO);
  m.run(1000 * m.ms);
  EXPECT_EQ(m.vmm.events, Events{});
}

TYPED_TEST(HandOver, ABindThatFailsIsReportedAndTheEventComesFromUs) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.kernel.set_failure = EINVAL;
  m.expect_error(m.timer.bind(vcpu0, EventPort{42}), "KVM_XEN_VCPU_SET_ATTR", EINVAL);
  m.kernel.timers[0].deadline.reset();  // it stops before it fails
  EXPECT_EQ(m.ns_to_event(), 10 * m.ms);
  EXPECT_EQ(m.vmm.events, (Events{{0, 42}}));
}

TYPED_TEST(HandOver, WhatTheKernelRefusesIsSaidAndComesOnTimeFromUs) {
  Shared<TypeParam> m;
  m.kernel.set_failure = ENOSPC;
  EXPECT_EQ(m.host_error(m.set_singleshot(m.start + 10 * m.ms)), ENOSPC);
  EXPECT_EQ(m.timer.save(vcpu0).value().deadline, guest_time(m.start + 10 * m.ms));
  EXPECT_EQ(m.ns_to_event(), 10 * m.ms);
  EXPECT_EQ(m.vmm.attempts, 1u);
}

TYPED_TEST(HandOver, WhatTheKernelRefusesReplacesWhatItHad) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.kernel.set_failure = ENOSPC;
  EXPECT_EQ(m.host_error(m.set_singleshot(m.start + 20 * m.ms)), ENOSPC);
  m.kernel.timers[0].deadline.reset();  // it stops before it fails
  m.kernel.set_failure = 0;
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{20 * m.ms}));
}

TYPED_TEST(HandOver, ACancelThatFailsIsSaidAndZeroToTheGuest) {
  Shared<TypeParam> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.kernel.set_failure = EIO;
  EXPECT_EQ(m.host_error(m.stop_singleshot()), EIO);
  EXPECT_EQ(m.host_error(m.set_timer_op(0)), EIO);
  EXPECT_EQ(m.host_error(m.set_singleshot(m.start - 1)), EIO);
  EXPECT_EQ(m.vmm.events, (Events{{0, 10}}));  // the event all the same
}

TEST(HandOverNear, ANearDeadlineThatTheKernelRefusesIsSaidAndComesOnTime) {
  Shared<NearPath> m;
  m.kernel.set_failure = ENOSPC;
  EXPECT_EQ(m.host_error(m.set_singleshot(m.start + 30 * m.ms)), ENOSPC);
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{30 * m.ms}));
}

TEST(HandOverNear, ANearDeadlineThatTheKernelCannotHaveComesOnTimeAndNothingIsSaid) {
  Shared<NearPath> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 20 * m.ms + 1)), 0u);
  m.expect_kernel(EventPort{}, std::nullopt);
  EXPECT_EQ(m.timer.save(vcpu0).value().deadline, guest_time(m.start + 20 * m.ms + 1));
  m.run(1000 * m.ms);
  EXPECT_EQ(m.since_start(), (Times{20 * m.ms + 1}));
}

TEST(HandOverNear, AKernelThatDoesNotLetGoForAFarDeadlineIsReported) {
  Shared<NearPath> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.kernel.set_failure = EIO;
  EXPECT_EQ(m.host_error(m.set_singleshot(m.start + 1000 * m.ms)), EIO);
  EXPECT_EQ(m.timer.save(vcpu0).value().deadline, guest_time(m.start + 1000 * m.ms));
}

TEST(HandOverNear, OnlyWhatIsNearIsInTheKernel) {
  Shared<NearPath> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 32 * m.ms + 1)), 0u);
  m.expect_kernel(EventPort{}, std::nullopt);
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 32 * m.ms)), 0u);
  m.expect_kernel(EventPort{10}, guest_time(m.start + 32 * m.ms));
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 3'600'000 * m.ms)), 0u);
  m.expect_kernel(EventPort{}, std::nullopt);  // the far one has replaced it
  m.run(3'600'000 * m.ms - 1);
  m.expect_kernel(EventPort{}, std::nullopt);  // nobody arms but the vCPU's thread
  m.run(1);
  EXPECT_EQ(m.since_start(), (Times{3'600'000 * m.ms}));
}

TEST(HandOverNear, AFarDeadlineCanBeCancelledAndMovedBeforeAndAfterItHasComeNear) {
  for (const std::int64_t before : {1, 99}) {  // ms after which it is cancelled
    Shared<NearPath> m;
    EXPECT_EQ(m.call(m.set_singleshot(m.start + 100 * m.ms)), 0u);
    m.run(before * m.ms);
    ASSERT_TRUE(m.timer.bind(vcpu0, EventPort{42}));
    EXPECT_EQ(m.timer.save(vcpu0).value().deadline, guest_time(m.start + 100 * m.ms));
    EXPECT_EQ(m.call(m.stop_singleshot()), 0u);
    m.run(1000 * m.ms);
    EXPECT_EQ(m.vmm.events, Events{});
    EXPECT_EQ(m.call(m.set_singleshot(m.start + 2000 * m.ms)), 0u);
    m.run(1000 * m.ms);
    EXPECT_EQ(m.vmm.events, (Events{{0, 42}}));
  }
}

}  // namespace
}  // namespace xen_timer
