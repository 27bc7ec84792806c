// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VMM whose guest clocks, memory and failures a test sets, a kernel that keeps timers for it, and
// a handler over both.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstring>
#include <optional>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace xen_timer {

struct Event {
  std::uint32_t vcpu;
  std::uint32_t port;
  friend bool operator==(const Event&, const Event&) = default;
  friend std::ostream& operator<<(std::ostream& out, const Event& event) {
    return out << "vCPU " << event.vcpu << " port " << event.port;
  }
};
using Events = std::vector<Event>;
using Times = std::vector<std::int64_t>;

struct DoubleVmm {
  static constexpr std::uint64_t memory_base = 0x7fff'0000'1000;

  std::vector<GuestTime> clocks;                              // by Xen vCPU id
  std::vector<std::byte> memory{std::vector<std::byte>(64)};  // from memory_base on
  Events events;
  Times times;                                // of the events, on the vCPU's clock, ns
  std::optional<std::uint32_t> failing_vcpu;  // raise_event of this one says EIO
  unsigned attempts = 0;                      // calls of raise_event
  unsigned copies = 0;

  bool copy_from_guest(XenVcpuId, Gva from, std::span<std::byte> to) {
    ++copies;
    const std::uint64_t offset = from.value - memory_base;
    if (offset > memory.size() || to.size() > memory.size() - offset) return false;
    std::memcpy(to.data(), memory.data() + offset, to.size());
    return true;
  }
  GuestTime guest_now(XenVcpuId vcpu) { return clocks[vcpu.value]; }
  Result<void> raise_event(XenVcpuId vcpu, EventPort port) {
    ++attempts;
    if (failing_vcpu == vcpu.value) return vmm_base::Error{"raise_event", EIO, vcpu.value};
    note(vcpu, port);
    return vmm_base::success();
  }
  void note(XenVcpuId vcpu, EventPort port) {
    events.push_back({vcpu.value, port.value});
    times.push_back(clocks[vcpu.value].time_since_epoch().count());
  }
  void forget_events() {
    events.clear();
    times.clear();
  }
};

// KVM's timers: setting one stops it first; without a port there is none. They fire by themselves.
struct DoubleKernel {
  struct Timer {
    EventPort port{};
    std::optional<GuestTime> deadline{};
  };
  DoubleVmm& vmm;
  std::vector<Timer> timers{std::vector<Timer>(8)};  // by Xen vCPU id
  unsigned sets = 0;
  int set_failure = 0;  // errno of each set_timer(); 0: none
  int get_failure = 0;
  bool deaf = false;  // shared_info isn't there: what fires is lost

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

  // Raises what is due on the guests' clocks.
  void fire() {
    for (std::uint32_t id = 0; id < vmm.clocks.size(); ++id) {
      Timer& timer = timers[id];
      if (!timer.deadline || *timer.deadline > vmm.clocks[id]) continue;
      timer.deadline.reset();
      if (!deaf) vmm.note(XenVcpuId{id}, timer.port);
    }
  }
  // How long until the next of them; max() for never.
  [[nodiscard]] Duration rest() const {
    Duration least = Duration::max();
    for (std::uint32_t id = 0; id < vmm.clocks.size(); ++id) {
      if (!timers[id].deadline) continue;
      least = std::min(least, xen_clock::time_left(vmm.clocks[id], *timers[id].deadline));
    }
    return least;
  }
};

// What the kernel keeps only when it's near, as an irqfd's timer; and not at an odd nanosecond, as
// if another thread than the vCPU's had armed it.
struct NearPath : DelegatedPath<DoubleKernel> {
  static constexpr Duration horizon = std::chrono::milliseconds(32);
  using DelegatedPath::DelegatedPath;
  Result<bool> arm(XenVcpuId vcpu, EventPort port, GuestTime deadline, GuestTime now) {
    if (deadline.time_since_epoch().count() % 2 == 0) {
      return DelegatedPath::arm(vcpu, port, deadline, now);
    }
    VMM_CHECK(park(vcpu));
    return false;
  }
};

constexpr std::uint64_t rax(xen_abi::Errno error) {
  return static_cast<std::uint64_t>(-static_cast<std::int64_t>(error));
}

// Of `path`: NoKernelPath, DelegatedPath<DoubleKernel> or NearPath.
template <class Path>
auto make_backend(DoubleKernel& kernel, std::uint32_t vcpus) {
  if constexpr (std::same_as<Path, NoKernelPath>) {
    return VirtualBackend(vcpus);
  } else {
    return QueueBackend<VirtualAlarm, Path>(VirtualAlarm{}, vcpus, Path(kernel));
  }
}

// Two vCPUs, VIRQ_TIMER of vCPU n bound to port 10 + n, both guest clocks at 1 s, the host's at 0.
template <class Path = NoKernelPath>
struct Machine {
  static constexpr std::uint32_t vcpus = 2;
  static constexpr XenVcpuId vcpu0{0};
  static constexpr XenVcpuId vcpu1{1};
  static constexpr std::int64_t start = 1'000'000'000;
  static constexpr std::int64_t ms = 1'000'000;

  using Kept = decltype(make_backend<Path>(std::declval<DoubleKernel&>(), vcpus));

  DoubleVmm vmm;
  DoubleKernel kernel{vmm};
  Kept backend = make_backend<Path>(kernel, vcpus);
  Handler<DoubleVmm, Kept> timer{vmm, backend};
  bool long_mode = true;

  Machine() {
    vmm.clocks.assign(vcpus, xen_clock::guest_time(start));
    EXPECT_TRUE(timer.bind(vcpu0, EventPort{10}));
    EXPECT_TRUE(timer.bind(vcpu1, EventPort{11}));
  }

  xen_abi::Hypercall vcpu_op(std::uint32_t command, std::uint64_t vcpu,
                             std::uint64_t argument = DoubleVmm::memory_base) {
    return {.number = xen_abi::hypercall::vcpu_op,
            .params = {command, vcpu, argument},
            .long_mode = long_mode};
  }
  // With its argument put into the guest's memory.
  xen_abi::Hypercall set_singleshot(std::uint64_t timeout, std::uint32_t flags = 0,
                                    XenVcpuId vcpu = vcpu0) {
    std::memcpy(vmm.memory.data(), &timeout, sizeof(timeout));
    std::memcpy(vmm.memory.data() + sizeof(timeout), &flags, sizeof(flags));
    return vcpu_op(xen_abi::vcpuop::set_singleshot_timer, vcpu.value);
  }
  xen_abi::Hypercall stop_singleshot(XenVcpuId vcpu = vcpu0) {
    return vcpu_op(xen_abi::vcpuop::stop_singleshot_timer, vcpu.value);
  }
  xen_abi::Hypercall set_periodic(std::uint64_t period, XenVcpuId vcpu = vcpu0) {
    std::memcpy(vmm.memory.data(), &period, sizeof(period));
    return vcpu_op(xen_abi::vcpuop::set_periodic_timer, vcpu.value);
  }
  xen_abi::Hypercall stop_periodic(XenVcpuId vcpu = vcpu0) {
    return vcpu_op(xen_abi::vcpuop::stop_periodic_timer, vcpu.value);
  }
  xen_abi::Hypercall set_timer_op(std::uint64_t timeout) {
    xen_abi::Hypercall call{
        .number = xen_abi::hypercall::set_timer_op, .params = {timeout}, .long_mode = long_mode};
    if (!long_mode) {
      call.params[0] = static_cast<std::uint32_t>(timeout);
      call.params[1] = timeout >> 32;
    }
    return call;
  }

  // RAX of a call that must be answered, without a host error.
  std::uint64_t call(const xen_abi::Hypercall& hypercall, XenVcpuId vcpu = vcpu0) {
    const auto answer = timer.handle(vcpu, hypercall);
    if (!answer) {
      ADD_FAILURE() << "not answered";
      return 0xbad;
    }
    EXPECT_TRUE(answer->host);
    return answer->guest.rax();
  }
  // errno of the host error of a call that the guest is answered 0.
  int host_error(const xen_abi::Hypercall& hypercall, XenVcpuId vcpu = vcpu0) {
    const auto answer = timer.handle(vcpu, hypercall);
    EXPECT_TRUE(answer && answer->guest == xen_abi::GuestResult::ok());
    return answer && !answer->host ? answer->host.error().code : 0;
  }

  // Moves the host's clock and all guests' together, all at once, and wakes the VMM if the alarm
  // does.
  void advance(std::int64_t ns) {
    for (GuestTime& clock : vmm.clocks) clock += Duration(ns);
    const bool readable = backend.alarm().advance(Duration(ns));
    kernel.fire();
    if (readable) {
      EXPECT_TRUE(timer.expire());
    }
  }
  // How long until the VMM wakes up or the kernel fires; max() for never.
  Duration rest() {
    const auto& alarm = backend.alarm();
    return std::min(kernel.rest(), alarm.due() == xen_clock::HostTime::max()
                                       ? Duration::max()
                                       : alarm.due() - alarm.now());
  }
  // Lets time pass, the VMM being punctual.
  void run(std::int64_t ns) {
    while (rest() <= Duration(ns)) {
      const std::int64_t step = std::max<std::int64_t>(rest().count(), 0);
      advance(step);
      ns -= step;
    }
    advance(ns);
  }
  // Moves time until something happens, and tells how many ns that took; -1 for never.
  std::int64_t ns_to_event() {
    std::int64_t passed = 0;
    while (vmm.events.empty()) {  // A far deadline is looked at on the way.
      if (rest() == Duration::max()) return -1;
      const std::int64_t ns = rest().count();
      advance(ns - 1);
      EXPECT_EQ(vmm.events, Events{}) << "early";
      advance(1);
      passed += ns;
    }
    EXPECT_EQ(vmm.events.size(), 1u);
    return passed;
  }
};

using HandlerFixture = Machine<>;

// The same test for each way of keeping single shots: TYPED_TEST_SUITE(Suite, Paths, PathName).
using Paths = testing::Types<NoKernelPath, DelegatedPath<DoubleKernel>, NearPath>;
struct PathName {
  template <class Path>
  static std::string GetName(int) {
    if (std::same_as<Path, NoKernelPath>) return "Userspace";
    return std::same_as<Path, NearPath> ? "Near" : "Delegated";
  }
};

}  // namespace xen_timer
