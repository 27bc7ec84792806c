// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_domain.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <utility>

#include "hypercall_port.hpp"
#include "hypercalls.hpp"
#include "timer_mover.hpp"
#include "timer_thread.hpp"
#include "vcpu_loop.hpp"
#include "vcpu_threads.hpp"
#include "watchdogs.hpp"
#include "xen_handlers.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/multicall_op.hpp"
#include "xen_rest.hpp"
#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/irqfd_backend.hpp"
#include "xen_timer/spinning_backend.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace vmm_reference {

namespace {

// What is due of a vCPU's timers, on its own thread.
template <class Handler>
void serve_own(Handler& timer, XenVcpuId id, VcpuThreads& threads, VcpuState& state) {
  auto expired = timer.expire(id);
  if (expired) return;
  state.host_errors.note(expired.error());
  threads.kick(id);  // What couldn't be set doesn't wake it.
}

template <class Backend>
Result<bool> run_with(const Host& host, Machine& machine, XenPlatform& platform, Backend& backend,
                      TimerMode mode, std::span<Devices* const> devices, DomainRun& run) {
  const auto count = static_cast<std::uint32_t>(machine.vcpus.size());
  xen_timer::Handler timer(platform, backend);
  XenHandlers others(platform, machine);
  xen_hcall::Dispatcher calls(timer, others);
  xen_hcall::MulticallOp multicall(platform, calls);
  xen_hcall::Dispatcher dispatcher(multicall, calls);

  std::optional<HypercallPort> hypercall_port;
  if (!host.xen_exits) hypercall_port.emplace(machine.memory);
  constexpr bool vcpus_serve = requires { timer.expire(XenVcpuId{}); };
  std::optional<TimerThread> timer_thread;
  if constexpr (!vcpus_serve) {
    VMM_TRY(started, TimerThread::start(timer, backend.fd()));
    timer_thread.emplace(std::move(started));
  }
  VMM_TRY(signal, kvm_ioctls::KickSignal::install());
  VcpuThreads threads(machine.vcpus, signal);
  Watchdogs watchdogs(run.loop, [&] { platform.shutdown(xen_abi::ShutdownReason::watchdog); });

  platform.on_timer_bound([&](XenVcpuId vcpu, EventPort port) {
    return port == EventPort{} ? timer.unbind(vcpu) : timer.bind(vcpu, port);
  });
  platform.on_timer_reset([&](XenVcpuId vcpu) { return timer.restore(vcpu, {}); });
  platform.on_work([&](XenVcpuId id, const std::function<Result<void>()>& work) {
    return threads.run_on(id, work);
  });
  platform.on_watchdog([&](std::uint32_t index, std::optional<std::chrono::seconds> after) {
    watchdogs.set(index, after);
  });

  XenRest rest(
      host, machine, platform, others, watchdogs,
      {.pause = [&] { return timer.pause(); },
       .save = [&](XenVcpuId id) { return timer.save(id); },
       .restore = [&](XenVcpuId id, const auto& saved) { return timer.restore(id, saved); },
       .resume = [&] { return timer.resume(); }});
  if (run.from != nullptr) {
    VMM_CHECK(rest.restore(*run.from, run.later));
  }
  run.at_rest = [&](const SnapshotUse& use) {
    return with_vcpus_at_rest(threads, run, machine, {.mode = mode},
                              [&](Snapshot& snapshot) { return rest.with(snapshot, use); });
  };

  std::optional<TimerMover> mover;
  if (mode == TimerMode::moving) mover.emplace(run.loop, count, [&] { threads.kick_all(); });
  auto in_time = run_vcpus(threads, run, [&](XenVcpuId id, VcpuRunner& vcpu) {
    const auto interrupted = [&] {
      if (mover) mover->move(timer, id);
      if constexpr (vcpus_serve) serve_own(timer, id, threads, run.states[id.value]);
      return threads.serve(id);
    };
    if constexpr (vcpus_serve) {
      if (auto attached = backend.attach(id, signal.number()); !attached) {
        run.states[id.value].fault = attached.error().message();
        return;
      }
    } else if constexpr (requires { backend.attach(id); }) {
      // Without it the timers' thread serves them.
      if (auto attached = backend.attach(id); !attached) {
        run.states[id.value].host_errors.note(attached.error());
      }
    }
    run_vcpu(vcpu,
             XenCalls(machine.vcpus[id.value], id, platform, dispatcher,
                      hypercall_port ? &*hypercall_port : nullptr),
             *devices[id.value], interrupted, run.states[id.value]);
  });
  if constexpr (requires { backend.spun(); }) run.spun = backend.spun();
  return in_time;
}

}  // namespace

Result<bool> run_xen_domain(const Host& host, Machine& machine, XenPlatform& platform,
                            TimerMode mode, std::span<Devices* const> devices, DomainRun& run) {
  const auto count = static_cast<std::uint32_t>(machine.vcpus.size());
  const auto with = [&](auto backend) -> Result<bool> {
    if (!backend) return backend.error();
    auto ran = run_with(host, machine, platform, backend.value(), mode, devices, run);
    platform.end_event_routes();
    return ran;
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
