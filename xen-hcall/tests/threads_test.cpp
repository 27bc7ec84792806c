// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Several vCPUs call at once, about each other. What matters is also what ThreadSanitizer says.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <barrier>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <thread>
#include <vector>

#include "double_vmm.hpp"
#include "xen_hcall/event_channel_op.hpp"
#include "xen_hcall/sched_op.hpp"

namespace xen_hcall {
namespace {

constexpr std::uint32_t vcpus = 4;
constexpr std::uint32_t port_count = 12;
constexpr int calls_each = 3000;

// Each vCPU's memory is its own, at address 0. What the VMM knows is what it was told last; each
// time it asks the channels something, as it may, and waits a little, as if for another vCPU.
struct BusyVmm {
  std::array<std::array<std::byte, 64>, vcpus> memory{};
  xen_evtchn::Channels* channels = nullptr;
  std::mutex mutex;
  std::map<std::pair<std::uint32_t, std::uint32_t>, std::uint32_t> virqs;  // port by vCPU and virq
  std::map<std::uint32_t, xen_evtchn::Target> routes;                      // by port
  std::atomic<int> moved = 0, shut_down = 0;

  bool copy_from_guest(XenVcpuId vcpu, Gva from, std::span<std::byte> to) {
    std::memcpy(to.data(), memory[vcpu.value].data() + from.value, to.size());
    return true;
  }
  bool copy_to_guest(XenVcpuId vcpu, Gva to, std::span<const std::byte> from) {
    std::memcpy(memory[vcpu.value].data() + to.value, from.data(), from.size());
    return true;
  }
  void linger() {
    (void)channels->status({1});
    std::this_thread::yield();
  }
  Result<void> virq_bound(XenVcpuId vcpu, std::uint32_t virq, EventPort port) {
    linger();
    const std::scoped_lock lock(mutex);
    if (port == EventPort{}) {
      virqs.erase({vcpu.value, virq});
    } else {
      virqs[{vcpu.value, virq}] = port.value;
    }
    return success();
  }
  Result<void> send_routed(EventPort port, std::optional<xen_evtchn::Target> target) {
    linger();
    const std::scoped_lock lock(mutex);
    routes.erase(port.value);
    if (target) routes.emplace(port.value, *target);
    return success();
  }
  Result<void> raise_event(XenVcpuId, EventPort) { return success(); }
  Result<void> unmask_event(XenVcpuId, EventPort) { return success(); }
  void clear_pending(EventPort) { linger(); }

  void yield(XenVcpuId) {}
  Result<void> block(XenVcpuId) { return success(); }
  void poll(XenVcpuId, std::span<const EventPort>, std::uint64_t) {}
  bool is_pending(EventPort) { return false; }
  void shutdown(xen_abi::ShutdownReason) { ++shut_down; }
  Result<void> set_watchdog(std::uint32_t, std::optional<std::chrono::seconds>) {
    linger();
    return success();
  }

  std::optional<Gpa> translate(XenVcpuId, Gva from, std::size_t) { return Gpa{from.value}; }
  Result<void> move_vcpu_info(XenVcpuId, Gpa) {
    ++moved;
    return success();
  }
  Result<void> set_runstate_area(XenVcpuId, std::optional<Gpa>) { return success(); }
  Result<void> set_time_area(XenVcpuId, std::optional<Gpa>) { return success(); }
  Result<void> set_runstate_update_flag(bool) { return success(); }
  Result<xen_abi::RunstateInfo> runstate(XenVcpuId) { return xen_abi::RunstateInfo{}; }
  Result<VcpuPower> vcpu_power(XenVcpuId) { return VcpuPower::up; }
  Result<void> initialise_vcpu(XenVcpuId, const VcpuRegisters&) { return success(); }
  Result<void> power_up(XenVcpuId) { return success(); }
  Result<void> power_down(XenVcpuId) { return success(); }
  Result<void> send_nmi(XenVcpuId) { return success(); }
};

struct Threads : testing::Test {
  BusyVmm vmm;
  xen_evtchn::Channels channels{port_count, vcpus};
  Shutdown<BusyVmm> shutdown{vmm};
  Threads() { vmm.channels = &channels; }

  template <class T>
  void put(std::uint32_t vcpu, const T& value) {
    std::memcpy(vmm.memory[vcpu].data(), &value, sizeof(value));
  }
  template <class Each>
  void on_each_vcpu(Each&& each) {
    std::vector<std::thread> threads;
    for (std::uint32_t vcpu = 0; vcpu < vcpus; ++vcpu)
      threads.emplace_back([&, vcpu] { each(vcpu); });
    for (std::thread& thread : threads) thread.join();
  }
};

TEST_F(Threads, InTheEndTheVmmKnowsHowThePortsAre) {
  EventChannelOp<BusyVmm> events{vmm, channels};
  on_each_vcpu([&](std::uint32_t vcpu) {
    std::minstd_rand random(vcpu + 1);
    const auto below = [&](std::uint32_t end) {
      return static_cast<std::uint32_t>(random() % end);
    };
    const auto call = [&](std::uint32_t sub, const auto& argument) {
      put(vcpu, argument);
      (void)events.handle({vcpu}, Hypercall{32, {sub, 0}});
    };
    namespace op = xen_abi::evtchnop;
    for (int at = 0; at < calls_each; ++at) {
      switch (below(7)) {
        case 0:
          call(op::bind_virq, xen_abi::EvtchnBindVirq{below(2), below(vcpus), 0});
          break;
        case 1:
          call(op::bind_ipi, xen_abi::EvtchnBindIpi{below(vcpus), 0});
          break;
        case 2:
          call(op::alloc_unbound,
               xen_abi::EvtchnAllocUnbound{xen_abi::domid_self, xen_abi::domid_self, 0});
          break;
        case 3:
          call(op::bind_interdomain,
               xen_abi::EvtchnBindInterdomain{xen_abi::domid_self, below(port_count), 0});
          break;
        case 4:
          call(op::bind_vcpu, xen_abi::EvtchnBindVcpu{below(port_count), below(vcpus)});
          break;
        case 5:
          call(op::send, xen_abi::EvtchnSend{below(port_count)});
          break;
        default:
          call(op::close, xen_abi::EvtchnClose{below(port_count)});
      }
    }
  });

  std::size_t virqs = 0, routes = 0;
  for (std::uint32_t port = 1; port < port_count; ++port) {
    const auto channel = std::get<xen_evtchn::Channel>(channels.status({port}));
    if (channel.kind == xen_evtchn::Kind::virq) {
      ++virqs;
      EXPECT_EQ((vmm.virqs[{channel.vcpu.value, channel.virq}]), port);
    } else if (channel.kind != xen_evtchn::Kind::closed) {
      const auto sent = std::get<std::optional<xen_evtchn::Target>>(channels.send({port}));
      if (!sent) continue;
      ++routes;
      ASSERT_TRUE(vmm.routes.contains(port));
      EXPECT_EQ(vmm.routes[port], *sent);
    }
  }
  EXPECT_EQ(vmm.virqs.size(), virqs);
  EXPECT_EQ(vmm.routes.size(), routes);

  // Nothing has got lost: every port can be had.
  EXPECT_TRUE(events.close_all());
  EXPECT_TRUE(vmm.virqs.empty());
  EXPECT_TRUE(vmm.routes.empty());
  for (std::uint32_t port = 1; port < port_count; ++port) {
    EXPECT_TRUE(std::holds_alternative<EventPort>(channels.bind_ipi({0})));
  }
}

TEST_F(Threads, VcpuInfoIsRegisteredByOneOfThem) {
  constexpr int rounds = 500;
  std::vector<std::unique_ptr<VcpuOp<BusyVmm>>> ops;
  for (int round = 0; round < rounds; ++round) {
    ops.push_back(std::make_unique<VcpuOp<BusyVmm>>(vmm, vcpus, shutdown));
  }
  std::barrier together(vcpus);
  on_each_vcpu([&](std::uint32_t vcpu) {
    put(vcpu, xen_abi::RegisterVcpuInfo{1, 0, 0});
    for (const auto& op : ops) {
      together.arrive_and_wait();
      for (std::uint32_t target = 0; target < vcpus; ++target) {
        (void)op->handle({vcpu}, Hypercall{24, {xen_abi::vcpuop::register_vcpu_info, target, 0}});
      }
    }
  });
  EXPECT_EQ(vmm.moved, rounds * static_cast<int>(vcpus));
}

TEST_F(Threads, NoWatchdogIsGivenTwice) {
  SchedOp<BusyVmm> op{vmm, channels, shutdown};
  std::array<std::atomic<bool>, watchdog_count + 1> owned{};
  on_each_vcpu([&](std::uint32_t vcpu) {
    const auto watchdog = [&](std::uint32_t id, std::uint32_t timeout) {
      put(vcpu, xen_abi::SchedWatchdog{id, timeout});
      return op.handle({vcpu}, Hypercall{29, {xen_abi::schedop::watchdog, 0}})->guest;
    };
    for (int at = 0; at < 300; ++at) {
      const GuestResult given = watchdog(0, 30);
      if (given == GuestResult(Errno::nospc)) continue;
      const auto id = static_cast<std::uint32_t>(given.rax());
      ASSERT_TRUE(id == 1 || id == 2);
      EXPECT_FALSE(owned[id].exchange(true));
      std::this_thread::yield();
      owned[id] = false;
      EXPECT_EQ(watchdog(id, 0), GuestResult::ok());
    }
  });
}

TEST_F(Threads, TheDomainEndsOnce) {
  SchedOp<BusyVmm> op{vmm, channels, shutdown};
  on_each_vcpu([&](std::uint32_t vcpu) {
    put(vcpu, xen_abi::SchedShutdown{vcpu});
    (void)op.handle({vcpu}, Hypercall{29, {xen_abi::schedop::shutdown, 0}});
  });
  EXPECT_EQ(vmm.shut_down, 1);
}

}  // namespace
}  // namespace xen_hcall
