// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Handler::save() and restore(): into a fresh handler, for each way of keeping single shots there
// and here.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <functional>
#include <utility>

#include "double_vmm.hpp"

namespace xen_timer {
namespace {

using xen_clock::guest_time;

// What goes over the wire.
VcpuTimers sent(const Result<VcpuTimers>& saved) {
  EXPECT_TRUE(saved);
  const auto received = decode(encode(saved.value()));
  EXPECT_TRUE(received);
  return received.value();
}

template <class From, class To>
struct Migration {
  using Source = From;
  using Target = To;
};
using Migrations = testing::Types<
    Migration<NoKernelPath, NoKernelPath>, Migration<NoKernelPath, DelegatedPath<DoubleKernel>>,
    Migration<NoKernelPath, NearPath>, Migration<DelegatedPath<DoubleKernel>, NoKernelPath>,
    Migration<DelegatedPath<DoubleKernel>, DelegatedPath<DoubleKernel>>,
    Migration<NearPath, NoKernelPath>, Migration<NearPath, NearPath>>;
struct MigrationName {
  template <class M>
  static std::string GetName(int i) {
    return PathName::GetName<typename M::Source>(i) + "To" +
           PathName::GetName<typename M::Target>(i);
  }
};

template <class M>
struct Voyage {
  Machine<typename M::Source> here;
  Machine<typename M::Target> there;

  static constexpr std::int64_t start = Machine<>::start;
  static constexpr std::int64_t ms = Machine<>::ms;

  // Both vCPUs go over; what is there was not there before: fresh ports, and a clock of its own.
  void migrate(std::int64_t clock_gain = 0) {
    ASSERT_TRUE(here.timer.pause());
    for (const XenVcpuId vcpu : {here.vcpu0, here.vcpu1}) {
      saved.push_back(sent(here.timer.save(vcpu)));
    }
    there.vmm.clocks = here.vmm.clocks;
    for (GuestTime& clock : there.vmm.clocks) clock += Duration(clock_gain);
    there.backend.alarm().advance(Duration(987'654'321));
    for (const XenVcpuId vcpu : {here.vcpu0, here.vcpu1}) {
      ASSERT_TRUE(there.timer.restore(vcpu, saved[vcpu.value]));
    }
  }
  [[nodiscard]] Times since_start() const {
    Times since;
    for (const std::int64_t time : there.vmm.times) since.push_back(time - start);
    return since;
  }
  std::vector<VcpuTimers> saved;
};
template <class>
struct Migrate : testing::Test {};
TYPED_TEST_SUITE(Migrate, Migrations, MigrationName);

TYPED_TEST(Migrate, AllIsAsItWas) {
  Voyage<TypeParam> voyage;
  auto& here = voyage.here;
  auto& there = voyage.there;
  ASSERT_TRUE(here.timer.bind(here.vcpu0, EventPort{42}));
  EXPECT_EQ(here.call(here.set_singleshot(voyage.start + 25 * voyage.ms)), 0u);
  EXPECT_EQ(here.call(here.set_periodic(10 * voyage.ms)), 0u);
  EXPECT_EQ(here.call(here.set_timer_op(voyage.start + 5000 * voyage.ms), here.vcpu1), 0u);
  here.run(3 * voyage.ms);
  voyage.migrate();
  EXPECT_EQ(voyage.saved[0], (VcpuTimers{.port = EventPort{42},
                                         .deadline = guest_time(voyage.start + 25 * voyage.ms),
                                         .period = Duration(10 * voyage.ms),
                                         .last_tick = guest_time(voyage.start)}));
  EXPECT_EQ(voyage.saved[1], (VcpuTimers{.port = EventPort{11},
                                         .deadline = guest_time(voyage.start + 5000 * voyage.ms)}));
  for (const XenVcpuId vcpu : {here.vcpu0, here.vcpu1}) {
    EXPECT_EQ(there.timer.save(vcpu).value(), voyage.saved[vcpu.value]);
  }
  there.run(32 * voyage.ms);
  EXPECT_EQ(there.vmm.events, (Events{{0, 42}, {0, 42}, {0, 42}, {0, 42}}));
  EXPECT_EQ(voyage.since_start(),
            (Times{10 * voyage.ms, 20 * voyage.ms, 25 * voyage.ms, 30 * voyage.ms}));
  EXPECT_EQ(there.call(there.stop_periodic()), 0u);
  there.vmm.forget_events();
  there.run(6000 * voyage.ms);
  EXPECT_EQ(there.vmm.events, (Events{{1, 11}}));
  EXPECT_EQ(voyage.since_start(), (Times{5000 * voyage.ms}));
}

TYPED_TEST(Migrate, WhatHasPassedOnTheWayComesOnceEach) {
  Voyage<TypeParam> voyage;
  auto& here = voyage.here;
  EXPECT_EQ(here.call(here.set_singleshot(voyage.start + 25 * voyage.ms)), 0u);
  EXPECT_EQ(here.call(here.set_periodic(10 * voyage.ms)), 0u);
  voyage.migrate(3'600'000 * voyage.ms + 1);
  EXPECT_EQ(voyage.there.vmm.events, Events{});
  voyage.there.run(10 * voyage.ms - 2);
  EXPECT_EQ(voyage.there.vmm.events, (Events{{0, 10}, {0, 10}}));
  voyage.there.run(2 * voyage.ms);
  EXPECT_EQ(voyage.since_start().back(), 3'600'010 * voyage.ms);
}

TYPED_TEST(Migrate, WhatIsRestoredReplacesWhatWasThere) {
  Voyage<TypeParam> voyage;
  auto& there = voyage.there;
  EXPECT_EQ(there.call(there.set_singleshot(voyage.start + 10 * voyage.ms)), 0u);
  EXPECT_EQ(there.call(there.set_periodic(voyage.start + 10 * voyage.ms)), 0u);
  EXPECT_EQ(there.call(there.set_periodic(voyage.start + 10 * voyage.ms, there.vcpu1)), 0u);
  ASSERT_TRUE(voyage.here.timer.unbind(voyage.here.vcpu1));
  voyage.migrate();
  there.run(5000 * voyage.ms);
  EXPECT_EQ(there.vmm.events, Events{});
  EXPECT_EQ(there.backend.port(there.vcpu1), EventPort{});
}

// The events may be due before shared_info is there: until then they stay armed.
TYPED_TEST(Migrate, WhatIsDueBeforeItCanBeRaisedStaysArmed) {
  Voyage<TypeParam> voyage;
  auto& here = voyage.here;
  auto& there = voyage.there;
  EXPECT_EQ(here.call(here.set_singleshot(voyage.start + 25 * voyage.ms)), 0u);
  EXPECT_EQ(
      here.call(here.set_singleshot(voyage.start + 20 * voyage.ms, 0, here.vcpu1), here.vcpu1), 0u);
  EXPECT_EQ(here.call(here.set_periodic(voyage.start + 1, here.vcpu1)), 0u);
  there.kernel.deaf = true;
  voyage.migrate(21 * voyage.ms);
  there.vmm.failing_vcpu = 1;
  EXPECT_FALSE(there.timer.expire());  // vCPU 1's two are due
  for (GuestTime& clock : there.vmm.clocks) clock += Duration(10 * voyage.ms);
  there.backend.alarm().advance(Duration(10 * voyage.ms));
  there.vmm.failing_vcpu = 0;
  there.kernel.fire();
  EXPECT_FALSE(there.timer.expire());  // vCPU 0's, too; vCPU 1 is raised
  EXPECT_EQ(there.vmm.events, (Events{{1, 11}, {1, 11}}));
  there.vmm.failing_vcpu.reset();
  there.run(1100 * voyage.ms);
  EXPECT_EQ(there.vmm.events, (Events{{1, 11}, {1, 11}, {0, 10}, {1, 11}}));
}

TYPED_TEST(Migrate, AFarDeadlineIsNotGivenToTheKernelBeforeTheGuestArmsAnew) {
  Voyage<TypeParam> voyage;
  auto& there = voyage.there;
  EXPECT_EQ(voyage.here.call(voyage.here.set_singleshot(voyage.start + 200 * voyage.ms)), 0u);
  voyage.migrate();
  there.kernel.deaf = true;
  there.run(200 * voyage.ms);
  EXPECT_EQ(voyage.since_start(), (Times{200 * voyage.ms}));
  EXPECT_EQ(there.vmm.attempts, 1u);
}

TYPED_TEST(Migrate, OnlyTheKernelsUnsetXenIdIsTheVmms) {
  Voyage<TypeParam> voyage;
  VcpuTimers state{.port = EventPort{42}, .kvm_xen_id = XenVcpuId{3}};
  ASSERT_TRUE(voyage.there.timer.restore(voyage.there.vcpu0, state));
  EXPECT_EQ(voyage.there.timer.save(voyage.there.vcpu0).value().kvm_xen_id, std::nullopt);
}

struct SaveRestore : HandlerFixture, testing::Test {};

TEST_F(SaveRestore, WhatIsNotAStateIsAnErrorAndDoesNothing) {
  EXPECT_EQ(call(set_singleshot(start + 10 * ms)), 0u);
  EXPECT_EQ(call(set_periodic(start + 20 * ms)), 0u);
  const VcpuTimers before = timer.save(vcpu0).value();
  const auto expect = [&](const VcpuTimers& state, const char* what, std::uint64_t operand) {
    const auto restored = timer.restore(vcpu0, state);
    ASSERT_FALSE(restored);
    EXPECT_EQ(restored.error(), (vmm_base::Error{what, EINVAL, operand}));
    EXPECT_EQ(timer.save(vcpu0).value(), before);
  };
  expect({.port = EventPort{4096}}, "timer state: port", 4096);
  expect({.deadline = guest_time(-1)}, "timer state: deadline", ~std::uint64_t{0});
  expect({.period = Duration(999'999)}, "timer state: period", 999'999);
  expect({.last_tick = guest_time(-5)}, "timer state: last tick", ~std::uint64_t{4});
  run(20 * ms);
  EXPECT_EQ(vmm.times, (Times{start + 10 * ms, start + 20 * ms}));
}

// Another thread may call expire() meanwhile: here it does so whenever a guest's clock is read.
TEST_F(SaveRestore, NoTickOfBeforeComesWhileAnotherStateIsRestored) {
  struct ServingVmm : DoubleVmm {
    std::function<void()> serve = [] {};
    GuestTime guest_now(XenVcpuId vcpu) {
      std::exchange(serve, [] {})();
      return clocks[vcpu.value];
    }
  };
  for (int reading = 0; reading < 4; ++reading) {
    ServingVmm there;
    there.clocks.assign(vcpus, guest_time(start));
    VirtualBackend kept(vcpus);
    Handler over(there, kept);
    ASSERT_TRUE(over.bind(vcpu0, EventPort{10}));
    std::memcpy(there.memory.data(), &start, sizeof(start));
    ASSERT_TRUE(over.handle(
        vcpu1, vcpu_op(xen_abi::vcpuop::set_periodic_timer, 0, DoubleVmm::memory_base)));
    there.forget_events();  // the first has come at once
    there.clocks.assign(vcpus, guest_time(3 * start));
    kept.alarm().advance(Duration(2 * start));  // the second is due, and nobody has looked
    int left = reading;
    std::function<void()> serve = [&] {
      if (left-- == 0) {
        EXPECT_TRUE(over.expire());
      } else {
        there.serve = serve;
      }
    };
    there.serve = serve;
    ASSERT_TRUE(over.restore(vcpu0, {.port = EventPort{42}}));
    there.serve = [] {};
    EXPECT_TRUE(over.expire());
    EXPECT_EQ(there.events, Events{}) << "served at reading " << reading;
  }
}

TEST_F(SaveRestore, ADeadlineOfTheLongestPeriodIsKept) {
  EXPECT_EQ(call(set_periodic((1ull << 62) - 1)), 0u);
  EXPECT_EQ(call(set_singleshot(~0ull >> 1)), 0u);
  const VcpuTimers saved = sent(timer.save(vcpu0));
  EXPECT_EQ(saved.deadline, GuestTime::max());
  EXPECT_EQ(saved.period, Duration((std::int64_t{1} << 62) - 1));
  ASSERT_TRUE(timer.restore(vcpu1, saved));
  EXPECT_EQ(timer.save(vcpu1).value(), saved);
}

TEST_F(SaveRestore, AnAlarmThatFailsIsReportedAndTheTimersAreThere) {
  const VcpuTimers state{.port = EventPort{42}, .deadline = guest_time(start + ms)};
  backend.alarm().fail_with(EMFILE);
  const auto restored = timer.restore(vcpu0, state);
  ASSERT_FALSE(restored);
  EXPECT_EQ(restored.error().code, EMFILE);
  backend.alarm().fail_with(0);
  EXPECT_EQ(timer.save(vcpu0).value(), state);
  advance(2 * ms);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.events, (Events{{0, 42}}));
}

TEST(SaveRestoreDelegated, AKernelThatCannotTellIsAnError) {
  Machine<DelegatedPath<DoubleKernel>> m;
  m.kernel.get_failure = EIO;
  const auto saved = m.timer.save(m.vcpu0);
  ASSERT_FALSE(saved);
  EXPECT_EQ(saved.error(), (vmm_base::Error{"KVM_XEN_VCPU_GET_ATTR", EIO, 0}));
}

TEST(SaveRestoreDelegated, TheDeadlineIsTheKernelsOwn) {
  Machine<DelegatedPath<DoubleKernel>> m;
  EXPECT_EQ(m.call(m.set_singleshot(m.start + 10 * m.ms)), 0u);
  m.kernel.timers[0].deadline = guest_time(m.start + 7 * m.ms);  // by a set_timer_op it answered
  EXPECT_EQ(m.timer.save(m.vcpu0).value().deadline, guest_time(m.start + 7 * m.ms));
  m.kernel.timers[0].deadline.reset();
  EXPECT_EQ(m.timer.save(m.vcpu0).value().deadline, std::nullopt);
}

// A guest may put its clock anywhere, and so its deadlines: none may keep it from being migrated.
RC_GTEST_PROP(SaveRestoreProperty, WhatIsSavedCanBeRestored,
              (std::int64_t clock, std::uint8_t shift, std::uint64_t timeout, bool failing)) {
  Machine m;
  m.vmm.clocks[0] = guest_time(clock << shift % 64);
  if (failing) m.vmm.failing_vcpu = 0;
  (void)m.timer.handle(m.vcpu0, m.set_timer_op(timeout << shift % 64));
  (void)m.timer.handle(m.vcpu0, m.set_periodic(1'000'000 + (timeout >> 3)));
  for (int again = 0; again < 2; ++again) {
    const auto saved = m.timer.save(m.vcpu0);
    RC_ASSERT(static_cast<bool>(saved));
    const auto received = decode(encode(saved.value()));
    RC_ASSERT(static_cast<bool>(received));
    RC_ASSERT(received.value() == saved.value());
    RC_ASSERT(static_cast<bool>(m.timer.restore(m.vcpu1, received.value())));
    if (again == 0) (void)m.timer.handle(m.vcpu0, m.set_timer_op(~0ull));
  }
}

}  // namespace
}  // namespace xen_timer
