// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Every function of every public header, compiled. What only some test needs would else be missing
// from what tests/coverage/run counts; and a template that doesn't compile would go unseen.
#include "xen_timer/alarm.hpp"
#include "xen_timer/concepts.hpp"
#include "xen_timer/deadline.hpp"
#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/irqfd_backend.hpp"
#include "xen_timer/queue_backend.hpp"
#include "xen_timer/queue_state.hpp"
#include "xen_timer/signal_alarm.hpp"
#include "xen_timer/signalling_timer.hpp"
#include "xen_timer/spinning_backend.hpp"
#include "xen_timer/state.hpp"
#include "xen_timer/timeout_ring.hpp"
#include "xen_timer/timer_queue.hpp"
#include "xen_timer/timerfd_backend.hpp"
#include "xen_timer/vcpu_backend.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace xen_timer {

struct AnyVmm {
  static bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte>) { return false; }
  static GuestTime guest_now(XenVcpuId) { return {}; }
  static Result<void> raise_event(XenVcpuId, EventPort) { return vmm_base::success(); }
};
struct AnyKernel {
  static Result<void> set_timer(XenVcpuId, EventPort, std::optional<GuestTime>) {
    return vmm_base::success();
  }
  static Result<std::optional<GuestTime>> timer(XenVcpuId) { return std::optional<GuestTime>{}; }
  static Result<void> route_event(XenVcpuId, EventPort, int) { return vmm_base::success(); }
};

template class QueueBackend<VirtualAlarm>;
template class SpinningAlarm<SignalAlarm>;
template class VcpuBackend<SpinningAlarm<SignalAlarm>>;
template class QueueBackend<TimerfdAlarm, DelegatedPath<AnyKernel>>;
template class QueueBackend<TimerfdAlarm, IrqfdPath<AnyKernel>>;
template class DelegatedBackend<AnyKernel>;
template class IrqfdBackend<AnyKernel>;
template class Handler<AnyVmm, VirtualBackend>;
template class Handler<AnyVmm, TimerfdBackend>;
template class Handler<AnyVmm, SpinningBackend>;
template class Handler<AnyVmm, DelegatedBackend<AnyKernel>>;
template class Handler<AnyVmm, IrqfdBackend<AnyKernel>>;

}  // namespace xen_timer
