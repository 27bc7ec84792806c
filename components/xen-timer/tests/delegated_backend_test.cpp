// SPDX-License-Identifier: BSD-3-Clause
#include "xen_timer/delegated_backend.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <vector>

#include "xen_timer/handler.hpp"

namespace xen_timer {
namespace {

using xen_clock::guest_time;

// KVM's timers: setting one stops it first; a port of 0 has none.
struct DoubleKernel {
  struct Timer {
    EventPort port{};
    std::optional<GuestTime> deadline{};
  };
  std::vector<Timer> timers{std::vector<Timer>(2)};
  unsigned sets = 0;
  int set_failure = 0;
  int get_failure = 0;

  Result<void> set_timer(XenVcpuId vcpu, EventPort port, std::optional<GuestTime> deadline) {
    ++sets;
    if (set_failure != 0) return vmm_base::Error{"KVM_XEN_VCPU_SET_ATTR", set_failure, vcpu.value};
    EXPECT_FALSE(port == EventPort{} && deadline) << "the kernel has no timer without a port";
    timers[vcpu.value] = {port, deadline};
    return vmm_base::success();
  }
  Result<std::optional<GuestTime>> timer(XenVcpuId vcpu) {
    if (get_failure != 0) return vmm_base::Error{"KVM_XEN_VCPU_GET_ATTR", get_failure, vcpu.value};
    return timers[vcpu.value].deadline;
  }
};

constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};
constexpr EventPort none{};
constexpr EventPort port5{5};
constexpr EventPort port6{6};

struct DelegatedBackendTest : testing::Test {
  DoubleKernel kernel;
  DelegatedBackend<DoubleKernel> backend{kernel, 2};

  void expect_kernel(EventPort port, std::optional<GuestTime> deadline) {
    EXPECT_EQ(kernel.timers[0].port, port);
    EXPECT_EQ(kernel.timers[0].deadline, deadline);
  }
};

static_assert(Backend<DelegatedBackend<DoubleKernel>>);

TEST_F(DelegatedBackendTest, ArmsTheKernelsTimer) {
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, port5, guest_time(100), guest_time(0)));
  expect_kernel(port5, guest_time(100));
  EXPECT_EQ(kernel.timers[1].deadline, std::nullopt);
}

TEST_F(DelegatedBackendTest, CancelDisarmsAndKeepsThePort) {
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, port5, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.cancel(vcpu0));
  expect_kernel(port5, std::nullopt);
}

TEST_F(DelegatedBackendTest, RebindingCarriesTheDeadlineOver) {
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, port5, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.bind(vcpu0, port6, guest_time(10)));
  expect_kernel(port6, guest_time(100));
}

TEST_F(DelegatedBackendTest, ADeadlineThatFiredIsNotCarriedOver) {
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, port5, guest_time(100), guest_time(0)));
  kernel.timers[0].deadline.reset();
  ASSERT_TRUE(backend.bind(vcpu0, port6, guest_time(101)));
  expect_kernel(port6, std::nullopt);
}

TEST_F(DelegatedBackendTest, AnUnboundDeadlineIsKeptFromTheKernelUntilTheBind) {
  ASSERT_TRUE(backend.arm(vcpu0, none, guest_time(100), guest_time(0)));
  EXPECT_EQ(kernel.sets, 0u);
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(99)));
  expect_kernel(port5, guest_time(100));
}

TEST_F(DelegatedBackendTest, AnUnboundDeadlineThatHasPassedIsLost) {
  ASSERT_TRUE(backend.arm(vcpu0, none, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(101)));
  expect_kernel(port5, std::nullopt);
  ASSERT_TRUE(backend.bind(vcpu0, port6, guest_time(0)));
  expect_kernel(port6, std::nullopt);
}

TEST_F(DelegatedBackendTest, AnUnboundDeadlineCanBeCancelled) {
  ASSERT_TRUE(backend.arm(vcpu0, none, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.cancel(vcpu0));
  EXPECT_EQ(kernel.sets, 0u);
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(1)));
  expect_kernel(port5, std::nullopt);
}

TEST_F(DelegatedBackendTest, UnbindingKeepsTheDeadlineForTheNextBind) {
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(0)));
  ASSERT_TRUE(backend.arm(vcpu0, port5, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.bind(vcpu0, none, guest_time(10)));
  expect_kernel(none, std::nullopt);
  ASSERT_TRUE(backend.bind(vcpu0, port6, guest_time(20)));
  expect_kernel(port6, guest_time(100));
}

TEST_F(DelegatedBackendTest, UnboundDeadlinesAreEachVcpusOwn) {
  ASSERT_TRUE(backend.arm(vcpu0, none, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.bind(vcpu1, port5, guest_time(0)));
  EXPECT_EQ(kernel.timers[1].deadline, std::nullopt);
}

TEST_F(DelegatedBackendTest, TheKernelsErrorsArePassedOn) {
  ASSERT_TRUE(backend.bind(vcpu0, port5, guest_time(0)));
  kernel.set_failure = EINVAL;
  EXPECT_EQ(backend.arm(vcpu0, port5, guest_time(100), guest_time(0)).error().code, EINVAL);
  EXPECT_EQ(backend.cancel(vcpu0).error().code, EINVAL);
  EXPECT_EQ(backend.bind(vcpu0, port6, guest_time(0)).error().code, EINVAL);
  kernel.get_failure = EIO;
  EXPECT_EQ(backend.bind(vcpu0, port6, guest_time(0)).error().code, EIO);
}

TEST_F(DelegatedBackendTest, WhatWasArmedAfterAFailedBindCanBeCancelled) {
  kernel.set_failure = EINVAL;
  EXPECT_FALSE(backend.bind(vcpu0, port5, guest_time(0)));
  kernel.set_failure = 0;
  ASSERT_TRUE(backend.arm(vcpu0, port5, guest_time(100), guest_time(0)));
  ASSERT_TRUE(backend.cancel(vcpu0));
  EXPECT_EQ(kernel.timers[0].deadline, std::nullopt);
}

// The handler over it needs no expire(), and so has none.
template <class H>
concept Expires = requires(H& handler) {
  handler.expire();
};

struct ClockOnly {
  bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte>) { return false; }
  GuestTime guest_now(XenVcpuId) { return guest_time(1000); }
  Result<void> raise_event(XenVcpuId, EventPort) {
    ++events;
    return vmm_base::success();
  }
  int events = 0;
};
static_assert(!Expires<Handler<ClockOnly, DelegatedBackend<DoubleKernel>>>);

struct DelegatedHandler : DelegatedBackendTest {
  ClockOnly vmm;
  Handler<ClockOnly, DelegatedBackend<DoubleKernel>> timer{vmm, backend, 2};

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
  EXPECT_EQ(vmm.events, 1);
}

TEST_F(DelegatedHandler, TellsTheGuestZeroAndTheVmmTheKernelsError) {
  ASSERT_TRUE(timer.bind(vcpu0, port5));
  kernel.set_failure = EINVAL;
  EXPECT_EQ(set(5000, false), xen_abi::GuestResult::ok());
}

}  // namespace
}  // namespace xen_timer
