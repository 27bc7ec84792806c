// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A vCPU's timers on their way: from the kernel's timer to userspace and back, through a pause, and
// into another VM.
#include <poll.h>

#include <thread>

#include "host.hpp"
#include "micro_vm.hpp"
#include "xen_platform.hpp"
#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"

namespace conformance {
namespace {

using namespace std::chrono_literals;
using kvm_ioctls::XenSharedInfo;
using kvm_ioctls::XenTimer;
using kvm_ioctls::XenVcpuIdAttr;
using vmm_base::XenVcpuId;
using xen_abi::EventPort;
using xen_timer::VcpuTimers;

constexpr XenVcpuId vcpu0{0};
constexpr EventPort port9{9};

// A VM that never runs, with the timers of its one vCPU delegated to the kernel.
struct TimedVm : MicroVm {
  vmm_reference::Host host = std::get<vmm_reference::Host>(vmm_reference::Host::open("/dev/kvm"));
  vmm_reference::IrqRoutes routes{vm};
  vmm_reference::HostErrors errors;
  vmm_reference::XenPlatform platform{host, vm, routes, memory, vcpus, errors};
  xen_timer::DelegatedBackend<vmm_reference::XenPlatform> backend =
      must(xen_timer::DelegatedBackend<vmm_reference::XenPlatform>::create(platform, 1));
  xen_timer::Handler<vmm_reference::XenPlatform, decltype(backend)> timer{platform, backend};

  TimedVm() : MicroVm(1) {
    platform.on_timer_bound([](auto, auto) { return must_not(); });
  }

  void arm(std::chrono::nanoseconds ahead) {
    const auto deadline = platform.guest_now(vcpu0) + ahead;
    const auto answer = timer.handle(
        vcpu0, {.number = xen_abi::hypercall::set_timer_op,
                .params = {static_cast<std::uint64_t>(deadline.time_since_epoch().count())}});
    ASSERT_TRUE(answer && answer->host);
    ASSERT_EQ(answer->guest.rax(), 0u);
  }
  XenTimer in_kernel() { return must(vcpus[0].xen_vcpu_get_attr<XenTimer>()); }
  std::uint64_t& pending() {
    using Shared = xen_abi::SharedInfo<std::uint64_t>;
    return reinterpret_cast<Shared*>(memory.host(shared_info, sizeof(Shared)))->evtchn_pending[0];
  }
  bool take_event() { return (__atomic_exchange_n(&pending(), 0, __ATOMIC_SEQ_CST) & 1 << 9) != 0; }
  void take_clock_of(const TimedVm& other, std::chrono::nanoseconds ahead = 0ns) {
    kvm_clock_data clock{};
    clock.clock = must(other.vm.get_clock()).clock + static_cast<std::uint64_t>(ahead.count());
    must(vm.set_clock(clock));
  }
  // A far deadline has the back end look at the guest's clock on the way.
  bool serve_until_event() {
    for (int wake_ups = 0; wake_ups < 10 && wait_for_fd(); ++wake_ups) {
      must(timer.expire());
      if (take_event()) return true;
    }
    return false;
  }
  bool wait_for_fd() {
    pollfd fd{backend.fd(), POLLIN, 0};
    return ::poll(&fd, 1, 10'000) == 1;
  }
  void map_shared_info(bool mapped) {
    must(vm.xen_hvm_set_attr(mapped ? XenSharedInfo{shared_info.value >> vmm_base::page_shift}
                                    : XenSharedInfo{}));
  }

 private:
  static vmm_base::Result<void> must_not() {
    ADD_FAILURE() << "no guest binds anything here";
    return vmm_base::success();
  }
};

struct TimerState : testing::Test {
  TimedVm vm;
  void SetUp() override { must(vm.timer.bind(vcpu0, port9)); }
};

TEST_F(TimerState, ADeadlineMovesFromTheKernelToUserspaceAndBack) {
  vm.arm(1h);
  const XenTimer armed = vm.in_kernel();
  ASSERT_EQ(armed.port, port9.value);
  ASSERT_NE(armed.expires_ns, 0u);
  ASSERT_TRUE(vm.timer.hand_over(vcpu0, false));
  EXPECT_EQ(vm.in_kernel().port, 0u);  // from here on the kernel answers no timer call
  EXPECT_EQ(vm.in_kernel().expires_ns, 0u);
  EXPECT_EQ(must(vm.timer.save(vcpu0)).deadline,
            xen_clock::guest_time(static_cast<std::int64_t>(armed.expires_ns)));
  ASSERT_TRUE(vm.timer.hand_over(vcpu0, true));
  EXPECT_EQ(vm.in_kernel().port, port9.value);
  EXPECT_EQ(vm.in_kernel().expires_ns, armed.expires_ns);
}

TEST_F(TimerState, TheEventComesOnceWhereverTheDeadlineWentLast) {
  for (const bool back : {false, true}) {
    vm.arm(200ms);
    const auto deadline = must(vm.timer.save(vcpu0)).deadline.value();
    ASSERT_TRUE(vm.timer.hand_over(vcpu0, false));
    if (back) {
      ASSERT_TRUE(vm.timer.hand_over(vcpu0, true));
    }
    EXPECT_FALSE(vm.take_event());
    while (vm.platform.guest_now(vcpu0) < deadline) std::this_thread::sleep_for(1ms);
    std::this_thread::sleep_for(20ms);
    must(vm.timer.expire());
    // The kernel delivers what its interrupt couldn't when it is asked for its state.
    (void)vm.in_kernel();
    EXPECT_TRUE(vm.take_event()) << "back in the kernel: " << back;
    EXPECT_FALSE(must(vm.timer.save(vcpu0)).deadline);
  }
}

TEST_F(TimerState, APauseHoldsTheKernelsEventBackAndItComesOnceAfterwards) {
  vm.arm(200ms);
  must(vm.timer.pause());
  EXPECT_EQ(vm.in_kernel().expires_ns, 0u);
  std::this_thread::sleep_for(250ms);
  must(vm.timer.expire());
  EXPECT_FALSE(vm.take_event());
  must(vm.timer.resume());
  EXPECT_TRUE(vm.serve_until_event());
  must(vm.timer.expire());
  EXPECT_FALSE(vm.take_event());
}

TEST_F(TimerState, AnotherVmGoesOnWithTheBytesAndAnUnsetIdStaysUnset) {
  vm.arm(300ms);
  must(vm.timer.pause());
  VcpuTimers state = must(vm.timer.save(vcpu0));
  state.kvm_xen_id = must(vm.vcpus[0].xen_vcpu_get_attr<XenVcpuIdAttr>()).id;
  const auto bytes = xen_timer::encode(state);

  TimedVm next;
  next.take_clock_of(vm);
  const VcpuTimers read = must(xen_timer::decode(bytes));
  EXPECT_EQ(read, state);
  EXPECT_EQ(read.kvm_xen_id.has_value(), vm.host.id_rule != kvm_ioctls::XenIdRule::unset);
  if (read.kvm_xen_id) {
    must(next.vcpus[0].xen_vcpu_set_attr(XenVcpuIdAttr{read.kvm_xen_id}));
  } else {  // Why it isn't simply set again.
    EXPECT_EQ(next.vcpus[0].xen_vcpu_set_attr(XenVcpuIdAttr{}).error().code, EINVAL);
  }
  EXPECT_EQ(must(next.vcpus[0].xen_vcpu_get_attr<XenVcpuIdAttr>()).id, state.kvm_xen_id);
  must(next.timer.restore(vcpu0, read));
  EXPECT_TRUE(next.serve_until_event());
  EXPECT_GE(next.platform.guest_now(vcpu0), *state.deadline);
}

TEST_F(TimerState, RestoredBeforeSharedInfoIsThereTheEventWaitsForIt) {
  vm.arm(1h);
  must(vm.timer.pause());
  const VcpuTimers state = must(vm.timer.save(vcpu0));
  ASSERT_TRUE(state.deadline);

  TimedVm next;
  next.map_shared_info(false);
  next.take_clock_of(vm, 1h);
  must(next.timer.restore(vcpu0, state));
  ASSERT_TRUE(next.wait_for_fd());
  const auto failed = next.timer.expire();
  ASSERT_FALSE(failed);
  EXPECT_STREQ(failed.error().operation, "KVM_XEN_HVM_EVTCHN_SEND");
  EXPECT_EQ(must(next.timer.save(vcpu0)).deadline, state.deadline);
  next.map_shared_info(true);
  EXPECT_TRUE(next.serve_until_event());
  EXPECT_FALSE(must(next.timer.save(vcpu0)).deadline);
}

TEST_F(TimerState, WhileUserspaceKeepsADeadlineTheKernelAnswersNoTimerCall) {
  vm.arm(1h);
  must(vm.timer.restore(vcpu0, must(vm.timer.save(vcpu0))));
  EXPECT_EQ(vm.in_kernel().port, 0u);
  vm.arm(2h);  // The last call wins, and the kernel has it again.
  EXPECT_EQ(vm.in_kernel().port, port9.value);
  EXPECT_NE(vm.in_kernel().expires_ns, 0u);
}

// Why a restored deadline isn't the kernel's at once: its timer waits as long as nobody looks, and
// then has no second try.
TEST_F(TimerState, TheKernelLosesATimerThatFiresBeforeSharedInfoIsThere) {
  for (const bool looked_at : {false, true}) {
    vm.map_shared_info(false);
    must(vm.vcpus[0].xen_vcpu_set_attr(XenTimer{.port = port9.value, .expires_ns = 1}));
    std::this_thread::sleep_for(10ms);
    if (looked_at) (void)vm.in_kernel();  // as KVM_RUN does
    vm.map_shared_info(true);
    EXPECT_EQ(vm.in_kernel().expires_ns, 0u);
    EXPECT_EQ(vm.take_event(), !looked_at);
  }
}

}  // namespace
}  // namespace conformance
