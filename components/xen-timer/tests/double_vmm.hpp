// SPDX-License-Identifier: BSD-3-Clause
//
// A VMM whose guest clock, memory and failures a test sets, and a handler over it.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <ostream>
#include <span>
#include <vector>

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

struct DoubleVmm {
  static constexpr std::uint64_t memory_base = 0x7fff'0000'1000;

  std::vector<GuestTime> clocks;                              // by Xen vCPU id
  std::vector<std::byte> memory{std::vector<std::byte>(64)};  // from memory_base on
  Events events;
  std::optional<std::uint32_t> failing_vcpu;  // raise_event of this one says EIO
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
    if (failing_vcpu == vcpu.value) return vmm_base::Error{"raise_event", EIO, vcpu.value};
    events.push_back({vcpu.value, port.value});
    return vmm_base::success();
  }
};

constexpr std::uint64_t rax(xen_abi::Errno error) {
  return static_cast<std::uint64_t>(-static_cast<std::int64_t>(error));
}

// Two vCPUs, VIRQ_TIMER of vCPU n bound to port 10 + n, both guest clocks at 1 s.
struct HandlerFixture {
  static constexpr std::uint32_t vcpus = 2;
  static constexpr XenVcpuId vcpu0{0};
  static constexpr XenVcpuId vcpu1{1};
  static constexpr std::int64_t start = 1'000'000'000;

  DoubleVmm vmm;
  VirtualBackend backend{vcpus};
  Handler<DoubleVmm, VirtualBackend> timer{vmm, backend, vcpus};
  bool long_mode = true;

  HandlerFixture() {
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

  // Moves the host's clock and all guests' together, and wakes the VMM if the alarm does.
  void advance(std::int64_t ns) {
    for (GuestTime& clock : vmm.clocks) clock += xen_clock::Duration(ns);
    if (backend.alarm().advance(xen_clock::Duration(ns))) {
      EXPECT_TRUE(timer.expire());
    }
  }
  // Moves time until something happens, and tells how many ns that took; -1 for never.
  std::int64_t ns_to_event() {
    if (backend.alarm().due() == xen_clock::HostTime::max()) return -1;
    const std::int64_t ns = (backend.alarm().due() - backend.alarm().now()).count();
    advance(ns - 1);
    EXPECT_EQ(vmm.events, Events{}) << "early";
    advance(1);
    EXPECT_EQ(vmm.events.size(), 1u);
    return ns;
  }
};

}  // namespace xen_timer
