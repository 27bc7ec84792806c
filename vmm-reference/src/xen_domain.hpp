// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The VMM's heart: the hypercall handlers put together round one timer back end, and the vCPUs run
// with them until the guest is done.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "cpuid.hpp"
#include "domain_run.hpp"
#include "hypercall_port.hpp"
#include "hypercalls.hpp"
#include "machine.hpp"
#include "options.hpp"
#include "timer_mover.hpp"
#include "timer_thread.hpp"
#include "vcpu_loop.hpp"
#include "vcpu_threads.hpp"
#include "watchdogs.hpp"
#include "xen_abi/memory.hpp"
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
#include "xen_timer/spinning_backend.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace vmm_reference {

// As XENMEM_memory_map tells it.
inline std::vector<xen_abi::E820Entry> e820(std::span<const linux_loader::MemoryRange> map) {
  std::vector<xen_abi::E820Entry> entries;
  for (const auto& range : map) {
    entries.push_back({range.start.value, range.size, static_cast<std::uint32_t>(range.type)});
  }
  return entries;
}

// Runs the vCPUs, `ports[id]` being where port I/O of each goes; false if the time was out.
template <class Backend, class Ports>
Result<bool> run_with(const Host& host, Machine& machine, XenPlatform& platform, Backend& backend,
                      TimerMode mode, std::span<Ports> ports, DomainRun& run) {
  const auto count = static_cast<std::uint32_t>(machine.vcpus.size());
  xen_timer::Handler timer(platform, backend);
  xen_evtchn::Channels channels(xen_abi::event_ports_64, count);
  xen_hcall::VersionOp version(platform,
                               {.major = xen_version >> 16, .minor = xen_version & 0xffff});
  xen_hcall::MemoryOp memory(platform, e820(machine.memory_map));
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

  std::optional<HypercallPort> hypercall_port;
  if (!host.xen_exits) hypercall_port.emplace(machine.memory);
  auto timer_thread = TimerThread::start(timer, backend.fd());
  if (!timer_thread) return timer_thread.error();
  VMM_TRY(signal, kvm_ioctls::KickSignal::install());
  VcpuThreads threads(machine.vcpus, signal);
  Watchdogs watchdogs(run.loop, [&] { platform.shutdown(xen_abi::ShutdownReason::watchdog); });

  platform.on_timer_bound([&](XenVcpuId vcpu, EventPort port) {
    return port == EventPort{} ? timer.unbind(vcpu) : timer.bind(vcpu, port);
  });
  platform.on_work([&](XenVcpuId id, const std::function<Result<void>()>& work) {
    return threads.run_on(id, work);
  });
  platform.on_watchdog([&](std::uint32_t index, std::optional<std::chrono::seconds> after) {
    watchdogs.set(index, after);
  });

  std::optional<TimerMover> mover;
  if (mode == TimerMode::moving) mover.emplace(run.loop, count, [&] { threads.kick_all(); });
  const bool in_time = run_vcpus(threads, run, [&](XenVcpuId id, VcpuRunner& vcpu) {
    const auto interrupted = [&] {
      if (mover) mover->move(timer, id);
      return threads.serve(id);
    };
    run_vcpu(vcpu,
             XenCalls(machine.vcpus[id.value], id, platform, dispatcher,
                      hypercall_port ? &*hypercall_port : nullptr),
             ports[id.value], interrupted, run.states[id.value]);
  });
  if constexpr (requires { backend.spun(); }) run.spun = backend.spun();
  return in_time;
}

// The same with the back end that goes with `mode`.
template <class Ports>
Result<bool> run_xen_domain(const Host& host, Machine& machine, XenPlatform& platform,
                            TimerMode mode, std::span<Ports> ports, DomainRun& run) {
  const auto count = static_cast<std::uint32_t>(machine.vcpus.size());
  const auto with = [&](auto backend) -> Result<bool> {
    if (!backend) return backend.error();
    return run_with(host, machine, platform, backend.value(), mode, ports, run);
  };
  switch (mode) {
    case TimerMode::userspace:
      return with(xen_timer::TimerfdBackend::create(count));
    case TimerMode::spinning:
      return with(xen_timer::SpinningBackend::create(count));
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
