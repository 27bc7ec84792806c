// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/delegated_backend.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <chrono>
#include <cstring>
#include <optional>

#include "double_vmm.hpp"
#include "failing_syscall.hpp"

namespace xen_timer {
namespace {

using xen_clock::guest_time;

constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};
constexpr EventPort none{};
constexpr EventPort port5{5};
constexpr EventPort port6{6};

struct DelegatedBackendTest : testing::Test {
  DoubleVmm vmm;
  DoubleKernel kernel{vmm};
  QueueBackend<VirtualAlarm, DelegatedPath<DoubleKernel>> backend{VirtualAlarm{}, 2,
                                                                  DelegatedPath(kernel)};

  Result<void> bind(XenVcpuId vcpu, EventPort port, GuestTime now) {
    return backend.bind(
        vcpu, port, [now](XenVcpuId) { return now; },
        [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); });
  }
  void expect_kernel(EventPort port, std::optional<GuestTime> deadline) {
    EXPECT_EQ(kernel.timers[0].port, port);
    EXPECT_EQ(kernel.timers[0].deadline, deadline);
  }
};

static_assert(Backend<DelegatedBackend<DoubleKernel>>);

TEST_F(DelegatedBackendTest, HasATimerfdForWhatTheKernelCannot) {
  auto created = DelegatedBackend<DoubleKernel>::create(kernel, 2);
  ASSERT_TRUE(created);
  pollfd entry{.fd = created.value().fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(::poll(&entry, 1, 0), 0);
  ASSERT_TRUE(created.value().keep(vcpu0, guest_time(0), guest_time(1)));
  EXPECT_EQ(::poll(&entry, 1, 60'000), 1);
}

TEST_F(DelegatedBackendTest, RefusesCountsOfVcpusThatNoDomainHas) {
  for (const std::uint32_t count : {0u, max_vcpus + 1, 1u << 31, ~0u}) {
    const auto created = DelegatedBackend<DoubleKernel>::create(kernel, count);
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error(), (vmm_base::Error{"xen_timer create: vcpu_count", EINVAL, count}));
  }
}

TEST_F(DelegatedBackendTest, ReportsEmfile) {
  with_failing_syscall(SYS_timerfd_create, EMFILE, [this] {
    const auto created = DelegatedBackend<DoubleKernel>::create(kernel, 2);
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error(), (vmm_base::Error{"timerfd_create", EMFILE, 0}));
  });
}

TEST_F(DelegatedBackendTest, ArmsTheKernelsTimer) {
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  expect_kernel(port5, guest_time(100));
  EXPECT_EQ(kernel.timers[1].deadline, std::nullopt);
}

TEST_F(DelegatedBackendTest, ADeadlineOfZeroDoesNotDisarm) {
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(-5)));
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(0), guest_time(-5)));  // 0 would, to KVM
  expect_kernel(port5, guest_time(1));
}

TEST_F(DelegatedBackendTest, CancelDisarmsAndKeepsThePort) {
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.cancel(vcpu0));
  expect_kernel(port5, std::nullopt);
}

TEST_F(DelegatedBackendTest, RebindingCarriesTheDeadlineOver) {
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  ASSERT_TRUE(bind(vcpu0, port6, guest_time(10)));
  expect_kernel(port6, guest_time(100));
}

TEST_F(DelegatedBackendTest, ADeadlineThatFiredIsNotCarriedOver) {
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  kernel.timers[0].deadline.reset();
  ASSERT_TRUE(bind(vcpu0, port6, guest_time(101)));
  expect_kernel(port6, std::nullopt);
}

TEST_F(DelegatedBackendTest, AnUnboundDeadlineIsKeptFromTheKernelUntilTheBind) {
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  EXPECT_EQ(kernel.sets, 0u);
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(99)));
  expect_kernel(port5, guest_time(100));
}

TEST_F(DelegatedBackendTest, AnUnboundDeadlineThatHasPassedIsLost) {
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(101)));
  expect_kernel(port5, std::nullopt);
  ASSERT_TRUE(bind(vcpu0, port6, guest_time(0)));
  expect_kernel(port6, std::nullopt);
}

TEST_F(DelegatedBackendTest, AnUnboundDeadlineCanBeCancelled) {
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.cancel(vcpu0));
  EXPECT_EQ(kernel.sets, 0u);
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(1)));
  expect_kernel(port5, std::nullopt);
}

TEST_F(DelegatedBackendTest, UnbindingKeepsTheDeadlineForTheNextBind) {
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  ASSERT_TRUE(bind(vcpu0, none, guest_time(10)));
  expect_kernel(none, std::nullopt);
  ASSERT_TRUE(bind(vcpu0, port6, guest_time(20)));
  expect_kernel(port6, guest_time(100));
}

TEST_F(DelegatedBackendTest, UnboundDeadlinesAreEachVcpusOwn) {
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  ASSERT_TRUE(bind(vcpu1, port5, guest_time(0)));
  EXPECT_EQ(kernel.timers[1].deadline, std::nullopt);
}

TEST_F(DelegatedBackendTest, TheKernelsErrorsArePassedOn) {
  ASSERT_TRUE(bind(vcpu0, port5, guest_time(0)));
  kernel.set_failure = EINVAL;
  EXPECT_EQ(backend.arm(vcpu0, guest_time(100), guest_time(0)).error().code, EINVAL);
  EXPECT_EQ(backend.cancel(vcpu0).error().code, EINVAL);
  EXPECT_EQ(bind(vcpu0, port6, guest_time(0)).error().code, EINVAL);
  kernel.get_failure = EIO;
  EXPECT_EQ(bind(vcpu0, port6, guest_time(0)).error().code, EIO);
}

TEST_F(DelegatedBackendTest, WhatWasArmedAfterAFailedBindCanBeCancelled) {
  kernel.set_failure = EINVAL;
  EXPECT_FALSE(bind(vcpu0, port5, guest_time(0)));
  kernel.set_failure = 0;
  ASSERT_TRUE(backend.arm(vcpu0, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.cancel(vcpu0));
  EXPECT_EQ(kernel.timers[0].deadline, std::nullopt);
}

struct DelegatedHandler : DelegatedBackendTest {
  Handler<DoubleVmm, decltype(backend)> timer{vmm, backend};

  DelegatedHandler() { vmm.clocks.assign(2, guest_time(1000)); }
  xen_abi::GuestResult set(std::uint64_t timeout, bool host_ok = true) {
    const auto answer =
        timer.handle(vcpu0, {.number = xen_abi::hypercall::set_timer_op, .params = {timeout}});
    EXPECT_EQ(answer->host.has_value(), host_ok);
    return answer->guest;
  }
};

TEST_F(DelegatedHandler, ServesSetTimerOpThroughTheKernel) {
  ASSERT_TRUE(timer.bind(vcpu0, port5));
  EXPECT_EQ(set(5000), xen_abi::GuestResult::ok());
  expect_kernel(port5, guest_time(5000));
  EXPECT_EQ(set(0), xen_abi::GuestResult::ok());
  expect_kernel(port5, std::nullopt);
}

TEST_F(DelegatedHandler, RaisesTheEventOfAPastDeadlineItself) {
  ASSERT_TRUE(timer.bind(vcpu0, port5));
  EXPECT_EQ(set(5000), xen_abi::GuestResult::ok());
  EXPECT_EQ(set(999), xen_abi::GuestResult::ok());
  expect_kernel(port5, std::nullopt);
  EXPECT_EQ(vmm.events, (Events{{0, 5}}));
}

// KVM's vCPU ioctls wait for a vCPU that runs: from no other thread than its own.
TEST_F(DelegatedHandler, WhatOtherThreadsCallLeavesTheKernelAlone) {
  ASSERT_TRUE(timer.bind(vcpu0, port5));
  EXPECT_EQ(set(5000), xen_abi::GuestResult::ok());
  ASSERT_TRUE(timer.restore(vcpu1, {.port = port6, .deadline = guest_time(2000)}));
  const unsigned sets = kernel.sets;
  const std::uint64_t period = 1'000'000;
  std::memcpy(vmm.memory.data(), &period, sizeof(period));
  for (const std::uint32_t command :
       {xen_abi::vcpuop::set_periodic_timer, xen_abi::vcpuop::stop_periodic_timer}) {
    const auto answer = timer.handle(vcpu1, {.number = xen_abi::hypercall::vcpu_op,
                                             .params = {command, 0, DoubleVmm::memory_base}});
    EXPECT_EQ(answer->guest, xen_abi::GuestResult::ok());
  }
  backend.alarm().advance(std::chrono::hours(1));
  vmm.clocks.assign(2, guest_time(100'000));
  EXPECT_TRUE(timer.expire());
  EXPECT_EQ(vmm.events, (Events{{1, 6}}));
  EXPECT_EQ(kernel.sets, sets);
}

TEST_F(DelegatedHandler, TellsTheGuestZeroAndTheVmmTheKernelsError) {
  ASSERT_TRUE(timer.bind(vcpu0, port5));
  kernel.set_failure = EINVAL;
  EXPECT_EQ(set(5000, false), xen_abi::GuestResult::ok());
}

}  // namespace
}  // namespace xen_timer
