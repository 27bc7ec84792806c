// SPDX-License-Identifier: BSD-3-Clause
//
// The VMM's heart: the hypercall handlers put together round one timer back end, and the vCPUs run
// with them until the guest is done.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "hypercall_port.hpp"
#include "machine.hpp"
#include "options.hpp"
#include "timer_thread.hpp"
#include "vcpu_loop.hpp"
#include "vcpu_threads.hpp"
#include "xen_evtchn/channels.hpp"
#include "xen_hcall/console_op.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/event_channel_op.hpp"
#include "xen_hcall/grant_table_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/memory_op.hpp"
#include "xen_hcall/multicall_op.hpp"
#include "xen_hcall/physdev_op.hpp"
#include "xen_hcall/sched_op.hpp"
#include "xen_hcall/vcpu_op.hpp"
#include "xen_hcall/version_op.hpp"
#include "xen_hcall/vm_assist_op.hpp"
#include "xen_platform.hpp"
#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/irqfd_backend.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace vmm_reference {

// What a run leaves behind, by Xen vCPU id; and how it is ended from outside.
struct DomainRun {
  explicit DomainRun(std::size_t vcpus) : states(vcpus) {}
  std::vector<VcpuState> states;
  std::atomic<bool> ended = false;  // set, and then interrupt(): all vCPUs stop
  std::function<void()> interrupt = [] {};
};

// Runs the vCPUs, `ports[id]` being where port I/O of each goes; returns whether the guest was done
// before the timeout.
template <class Backend, class Ports>
Result<bool> run_with(const Host& host, Machine& machine, XenPlatform& platform, Backend& backend,
                      TimerMode mode, std::span<Ports> ports, DomainRun& run,
                      std::chrono::nanoseconds timeout) {
  const auto count = static_cast<std::uint32_t>(machine.vcpus.size());
  xen_timer::Handler timer(platform, backend);
  xen_evtchn::Channels channels(xen_abi::event_ports_64, count);
  xen_hcall::VersionOp version(platform, {});
  xen_hcall::MemoryOp memory(platform);
  xen_hcall::Shutdown shutdown(platform);
  xen_hcall::VcpuOp vcpus(platform, count, shutdown);
  xen_hcall::HvmOp hvm(platform, count);
  xen_hcall::EventChannelOp events(platform, channels);
  xen_hcall::SchedOp sched(platform, channels, shutdown);
  xen_hcall::GrantTableOp grants(platform);
  xen_hcall::ConsoleOp console(platform);
  xen_hcall::PhysdevOp physdev(platform);
  xen_hcall::VmAssistOp vm_assist(platform);
  xen_hcall::Dispatcher calls(timer, version, memory, vcpus, hvm, events, sched, grants, console,
                              physdev, vm_assist);
  xen_hcall::MulticallOp multicall(platform, calls);
  xen_hcall::Dispatcher dispatcher(multicall, calls);

  platform.on_timer_bound([&](XenVcpuId vcpu, EventPort port) {
    return port == EventPort{} ? timer.unbind(vcpu) : timer.bind(vcpu, port);
  });

  std::optional<HypercallPort> hypercall_port;
  if (!host.xen_exits) hypercall_port.emplace(machine.memory);
  auto timer_thread = TimerThread::start(timer, backend.fd());
  if (!timer_thread) return timer_thread.error();
  VcpuThreads<kvm_ioctls::Vcpu> threads(machine.vcpus);
  platform.on_work([&](XenVcpuId id, const std::function<Result<void>()>& work) {
    return threads.run_on(id, work);
  });
  run.interrupt = [&] { threads.notify(); };

  // That a timer can move under a running guest: to the kernel and back, all the time.
  std::vector<char> in_kernel(count);
  const auto move = [&](XenVcpuId id) {
    in_kernel[id.value] = !in_kernel[id.value];
    auto moved = timer.hand_over(id, in_kernel[id.value] != 0);
    if (!moved) std::fprintf(stderr, "timers: %s\n", moved.error().message().c_str());
  };
  const std::chrono::nanoseconds every =
      mode == TimerMode::moving ? std::chrono::nanoseconds(300'000) : timeout;

  threads.start([&](XenVcpuId id) {
    const auto interrupted = [&](XenVcpuId vcpu) {
      if (mode == TimerMode::moving) move(vcpu);
      return threads.serve(vcpu);
    };
    run_vcpu(machine.vcpus[id.value], id, platform, dispatcher, hypercall_port, interrupted,
             ports[id.value], run.states[id.value]);
    if (!run.states[id.value].fault.empty()) {
      run.ended = true;
      threads.notify();
    }
  });
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  bool done = false;
  for (auto left = timeout; !done && left > std::chrono::nanoseconds(0);
       left = deadline - std::chrono::steady_clock::now()) {
    done = threads.wait_for(std::min(left, every), [&] { return run.ended.load(); });
    if (!done) threads.kick_all();
  }
  threads.stop();
  run.interrupt = [] {};
  return done;
}

// The same with the back end that goes with `mode`.
template <class Ports>
Result<bool> run_xen_domain(const Host& host, Machine& machine, XenPlatform& platform,
                            TimerMode mode, std::span<Ports> ports, DomainRun& run,
                            std::chrono::nanoseconds timeout) {
  const auto count = static_cast<std::uint32_t>(machine.vcpus.size());
  const auto with = [&](auto backend) -> Result<bool> {
    if (!backend) return backend.error();
    return run_with(host, machine, platform, backend.value(), mode, ports, run, timeout);
  };
  switch (mode) {
    case TimerMode::userspace:
      return with(xen_timer::TimerfdBackend::create(count));
    case TimerMode::irqfd:
      return with(xen_timer::IrqfdBackend<XenPlatform>::create(platform, count));
    case TimerMode::kernel:  // The calls come to us, too, until VIRQ_TIMER is bound.
    case TimerMode::moving:  // The same, after each move to userspace.
    case TimerMode::delegated:
      break;
  }
  return with(xen_timer::DelegatedBackend<XenPlatform>::create(platform, count));
}

}  // namespace vmm_reference
