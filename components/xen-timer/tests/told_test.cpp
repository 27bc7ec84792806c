// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a VMM is told of its timers, if it wants to be.
#include <gtest/gtest.h>

#include <string>
#include <type_traits>
#include <vector>

#include "double_vmm.hpp"

namespace xen_timer {
namespace {

constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};

std::string ns(GuestTime time) {
  return std::to_string(time.time_since_epoch().count() - Machine<>::start);
}

// Writes down what it is told, times since the guest's start.
struct ToldVmm : DoubleVmm {
  std::vector<std::string> told;

  void timer_armed(XenVcpuId vcpu, GuestTime deadline, GuestTime now) {
    say("armed", vcpu, ns(deadline) + " at " + ns(now));
  }
  void timer_cancelled(XenVcpuId vcpu) { say("cancelled", vcpu, ""); }
  void timer_expired(XenVcpuId vcpu, const Due& due) { say("expired", vcpu, text(due)); }
  void timer_fired(XenVcpuId vcpu, const Due& due) { say("fired", vcpu, text(due)); }

  std::vector<std::string> forget() { return std::exchange(told, {}); }

 private:
  static std::string text(const Due& due) {
    return ns(due.deadline) + " at " + ns(due.now) + (due.periodic ? ", a tick" : "");
  }
  void say(const char* what, XenVcpuId vcpu, const std::string& text) {
    told.push_back(std::string(what) + " " + std::to_string(vcpu.value) +
                   (text.empty() ? "" : ": ") + text);
  }
};

using Said = std::vector<std::string>;

template <class Path>
struct Told : testing::Test {
  Told() {
    vmm.clocks.assign(2, xen_clock::guest_time(Machine<>::start));
    EXPECT_TRUE(timer.bind(vcpu0, EventPort{10}));
    EXPECT_TRUE(timer.bind(vcpu1, EventPort{11}));
  }

  ToldVmm vmm;
  DoubleKernel kernel{vmm};
  decltype(make_backend<Path>(kernel, 2)) backend = make_backend<Path>(kernel, 2);
  Handler<ToldVmm, decltype(backend)> timer{vmm, backend};

  void call(std::uint64_t number, std::initializer_list<std::uint64_t> params,
            XenVcpuId vcpu = vcpu0) {
    xen_abi::Hypercall hypercall{.number = number};
    std::copy(params.begin(), params.end(), hypercall.params.begin());
    const auto answer = timer.handle(vcpu, hypercall);
    ASSERT_TRUE(answer);
    EXPECT_EQ(answer->guest.rax(), 0u);
  }
  void set(std::int64_t after) {  // the start; in ns
    call(xen_abi::hypercall::set_timer_op, {static_cast<std::uint64_t>(Machine<>::start + after)});
  }
  void stop() { call(xen_abi::hypercall::vcpu_op, {xen_abi::vcpuop::stop_singleshot_timer, 0}); }
  void pass(std::int64_t by) {
    for (GuestTime& clock : vmm.clocks) clock += Duration(by);
    backend.alarm().advance(Duration(by));
    kernel.fire();
  }
};
using ToldInUserspace = Told<NoKernelPath>;
using ToldWithKernel = Told<DelegatedPath<DoubleKernel>>;

TEST_F(ToldInUserspace, OfWhatWasArmedAndHowLateItFired) {
  set(5000);
  EXPECT_EQ(vmm.forget(), Said{"armed 0: 5000 at 0"});
  pass(5300);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.forget(), (Said{"expired 0: 5000 at 5300", "fired 0: 5000 at 5300"}));
}

TEST_F(ToldInUserspace, OfAnEventBeforeTheCallReturns) {
  pass(100);
  set(50);
  EXPECT_EQ(vmm.forget(),
            (Said{"armed 0: 100 at 100", "expired 0: 100 at 100", "fired 0: 100 at 100"}));
}

TEST_F(ToldInUserspace, OfACancelOnlyWhereADeadlineWaited) {
  stop();
  EXPECT_EQ(vmm.forget(), Said{});
  set(5000);
  stop();
  stop();
  EXPECT_EQ(vmm.forget(), (Said{"armed 0: 5000 at 0", "cancelled 0"}));
  set(5000);
  pass(5000);
  EXPECT_TRUE(timer.expire());
  vmm.told.clear();
  stop();
  EXPECT_EQ(vmm.forget(), Said{});
}

TEST_F(ToldInUserspace, OfACancelWhereADeadlineIsReplaced) {
  set(5000);
  vmm.told.clear();
  set(6000);
  EXPECT_EQ(vmm.forget(), (Said{"armed 0: 6000 at 0", "cancelled 0"}));
  pass(10);
  set(5);
  EXPECT_EQ(vmm.forget(),
            (Said{"armed 0: 10 at 10", "cancelled 0", "expired 0: 10 at 10", "fired 0: 10 at 10"}));
}

TEST_F(ToldInUserspace, OfEachTryOfAnEventThatCannotBeRaised) {
  vmm.failing_vcpu = 0;
  set(5000);
  pass(5000);
  EXPECT_FALSE(timer.expire());
  EXPECT_EQ(vmm.forget(), (Said{"armed 0: 5000 at 0", "expired 0: 5000 at 5000"}));
  vmm.failing_vcpu.reset();
  pass(2000);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.forget(), (Said{"expired 0: 5000 at 7000", "fired 0: 5000 at 7000"}));
}

TEST_F(ToldInUserspace, OfNoEventThatHasNoPort) {
  EXPECT_TRUE(timer.unbind(vcpu0));
  set(5000);
  pass(5000);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.forget(), Said{"armed 0: 5000 at 0"});
}

TEST_F(ToldInUserspace, OfTicks) {
  pass(1'000'000);
  const std::uint64_t period = 1'000'000;
  std::memcpy(vmm.memory.data(), &period, sizeof(period));
  call(xen_abi::hypercall::vcpu_op,
       {xen_abi::vcpuop::set_periodic_timer, 1, DoubleVmm::memory_base}, vcpu1);
  EXPECT_EQ(vmm.forget(),
            (Said{"expired 1: 1000000 at 1000000, a tick", "fired 1: 1000000 at 1000000, a tick"}));
  pass(1'000'700);
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.forget(),
            (Said{"expired 1: 2000000 at 2000700, a tick", "fired 1: 2000000 at 2000700, a tick"}));
}

TEST_F(ToldWithKernel, OfWhatTheKernelHasOnlyThatItWasArmed) {
  set(5000);
  pass(5000);
  EXPECT_EQ(vmm.events.size(), 1u);
  set(7000);
  stop();
  EXPECT_EQ(vmm.forget(), (Said{"armed 0: 5000 at 0", "armed 0: 7000 at 5000"}));
}

TEST_F(ToldWithKernel, OfWhatTheKernelRefusesAsOfAnyOther) {
  kernel.set_failure = EIO;
  xen_abi::Hypercall hypercall{.number = xen_abi::hypercall::set_timer_op};
  hypercall.params[0] = Machine<>::start + 5000;
  ASSERT_TRUE(timer.handle(vcpu0, hypercall));
  kernel.set_failure = 0;
  stop();
  EXPECT_EQ(vmm.forget(), (Said{"armed 0: 5000 at 0", "cancelled 0"}));
}

TEST(NotTold, AVmmThatAsksNothingIsTheSameVmm) {
  static_assert(Vmm<DoubleVmm> && Vmm<ToldVmm>);
  // Nothing is kept for it.
  static_assert(sizeof(Handler<DoubleVmm, VirtualBackend>) == 2 * sizeof(void*));
}

}  // namespace
}  // namespace xen_timer
