// SPDX-License-Identifier: BSD-3-Clause
//
// __HYPERVISOR_event_channel_op, as far as a timer needs it: bind_virq and close.
#pragma once

#include <mutex>
#include <optional>
#include <variant>

#include "vmm_base/result.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_evtchn/ports.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// virq_bound: `virq` of `vcpu`, who is the caller, now has this port; 0 when it is being closed,
// and then no event may reach the old port once it has returned. clear_pending: takes the port's
// bit out of shared_info's pending ones.
template <class V>
concept EventChannelVmm = GuestReader<V> && GuestWriter<V> &&
    requires(V& vmm, vmm_base::XenVcpuId vcpu, std::uint32_t virq, xen_abi::EventPort port) {
  { vmm.virq_bound(vcpu, virq, port) } -> std::same_as<vmm_base::Result<void>>;
  vmm.clear_pending(port);
};

template <EventChannelVmm V>
class EventChannelOp {
 public:
  EventChannelOp(V& vmm, std::uint32_t vcpu_count)
      : vmm_(vmm), ports_(xen_abi::event_ports_64, vcpu_count) {}

  // A VIRQ of another vCPU than the caller's own is -EOPNOTSUPP for now.
  [[nodiscard]] std::optional<xen_abi::Answer> handle(vmm_base::XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (call.number != xen_abi::hypercall::event_channel_op) return std::nullopt;
    switch (static_cast<std::uint32_t>(call.params[0])) {
      case xen_abi::evtchnop::bind_virq:
        return bind_virq(vcpu, call.params[1]);
      case xen_abi::evtchnop::close:
        return close(vcpu, call.params[1]);
      default:
        return std::nullopt;
    }
  }

 private:
  xen_abi::Answer bind_virq(vmm_base::XenVcpuId vcpu, std::uint64_t gva) {
    auto argument = read_guest<xen_abi::EvtchnBindVirq>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    const vmm_base::XenVcpuId target{argument->vcpu};
    std::variant<xen_abi::EventPort, xen_abi::Errno> bound = bind(argument->virq, target);
    if (const auto* error = std::get_if<xen_abi::Errno>(&bound)) return {*error};
    const auto port = std::get<xen_abi::EventPort>(bound);
    if (target != vcpu) return undo(port, {xen_abi::Errno::opnotsupp});

    argument->port = port.value;
    if (!write_guest(vmm_, vcpu, gva, *argument)) return undo(port, {xen_abi::Errno::fault});
    auto told = vmm_.virq_bound(target, argument->virq, port);
    if (!told) return undo(port, {xen_abi::Errno::inval, told});
    return {xen_abi::GuestResult::ok()};
  }

  xen_abi::Answer close(vmm_base::XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::EvtchnClose>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    const xen_abi::EventPort port{argument->port};
    const std::optional<xen_evtchn::VirqBinding> was = binding(port);
    if (!was) return {xen_abi::Errno::inval};
    if (was->vcpu != vcpu) return {xen_abi::Errno::opnotsupp};
    // Only its own vCPU, which is here, can close it; it is given away last, with nothing pending
    // that would make the next owner's events look raised already.
    auto told = vmm_.virq_bound(was->vcpu, was->virq, {});
    vmm_.clear_pending(port);
    return undo(port, {xen_abi::GuestResult::ok(), told});
  }

  std::optional<xen_evtchn::VirqBinding> binding(xen_abi::EventPort port) {
    const std::scoped_lock lock(mutex_);
    return ports_.binding(port);
  }
  std::variant<xen_abi::EventPort, xen_abi::Errno> bind(std::uint32_t virq,
                                                        vmm_base::XenVcpuId vcpu) {
    const std::scoped_lock lock(mutex_);
    return ports_.bind_virq(virq, vcpu);
  }
  xen_abi::Answer undo(xen_abi::EventPort port, xen_abi::Answer answer) {
    const std::scoped_lock lock(mutex_);
    ports_.close(port);
    return answer;
  }

  V& vmm_;
  std::mutex mutex_;  // of ports_; not held across a call to the VMM
  xen_evtchn::Ports ports_;
};

}  // namespace xen_hcall
