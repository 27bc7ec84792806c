// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_event_channel_op, all of it for 2-level event channels: decodes, and has
// xen_evtchn::Channels decide. FIFO event channels and PIRQs are refused as by a Xen without them.
#pragma once

#include <concepts>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "vmm_base/result.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_evtchn/channels.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// For any vCPU, on any vCPU's thread:
// virq_bound: `virq` of `vcpu` now has this port; 0 when it is being closed, and then no event may
//   reach the old port once it has returned. Its error undoes the binding. A domain's VIRQ is told
//   anew when its events move to another vCPU.
// send_routed: an EVTCHNOP_send on `port` raises `target`; nullopt: not any more. For a kernel that
//   can do so by itself; where it can't, the sends come here, and succeed all the same. An error is
//   the VMM's alone.
// raise_event: marks the port pending and lets the vCPU know.
// unmask_event: unmasks the port, and lets the vCPU know if it has been pending.
// clear_pending: takes the port's bit out of shared_info's pending ones.
template <class V>
concept EventChannelVmm = GuestReader<V> && GuestWriter<V> &&
    requires(V& vmm, vmm_base::XenVcpuId vcpu, std::uint32_t virq, xen_abi::EventPort port,
             std::optional<xen_evtchn::Target> target) {
  { vmm.virq_bound(vcpu, virq, port) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.send_routed(port, target) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.raise_event(vcpu, port) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.unmask_event(vcpu, port) } -> std::same_as<vmm_base::Result<void>>;
  vmm.clear_pending(port);
};

template <EventChannelVmm V>
class EventChannelOp {
 public:
  EventChannelOp(V& vmm, xen_evtchn::Channels& channels) noexcept
      : vmm_(vmm), channels_(channels) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::event_channel_op;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    const std::uint64_t gva = call.params[1];
    switch (static_cast<std::uint32_t>(call.params[0])) {
      case xen_abi::evtchnop::alloc_unbound:
        return with<xen_abi::EvtchnAllocUnbound>(&EventChannelOp::alloc_unbound, vcpu, gva);
      case xen_abi::evtchnop::bind_interdomain:
        return with<xen_abi::EvtchnBindInterdomain>(&EventChannelOp::bind_interdomain, vcpu, gva);
      case xen_abi::evtchnop::bind_virq:
        return with<xen_abi::EvtchnBindVirq>(&EventChannelOp::bind_virq, vcpu, gva);
      case xen_abi::evtchnop::bind_ipi:
        return with<xen_abi::EvtchnBindIpi>(&EventChannelOp::bind_ipi, vcpu, gva);
      case xen_abi::evtchnop::bind_pirq:
        return with<xen_abi::EvtchnBindPirq>(&EventChannelOp::bind_pirq, vcpu, gva);
      case xen_abi::evtchnop::close:
        return with<xen_abi::EvtchnClose>(&EventChannelOp::close, vcpu, gva);
      case xen_abi::evtchnop::send:
        return with<xen_abi::EvtchnSend>(&EventChannelOp::send, vcpu, gva);
      case xen_abi::evtchnop::status:
        return with<xen_abi::EvtchnStatus>(&EventChannelOp::status, vcpu, gva);
      case xen_abi::evtchnop::bind_vcpu:
        return with<xen_abi::EvtchnBindVcpu>(&EventChannelOp::bind_vcpu, vcpu, gva);
      case xen_abi::evtchnop::unmask:
        return with<xen_abi::EvtchnUnmask>(&EventChannelOp::unmask, vcpu, gva);
      case xen_abi::evtchnop::reset:
        return with<xen_abi::EvtchnReset>(&EventChannelOp::reset, vcpu, gva);
      case xen_abi::evtchnop::set_priority:
        return with<xen_abi::EvtchnSetPriority>(&EventChannelOp::set_priority, vcpu, gva);
      case xen_abi::evtchnop::expand_array:
        return xen_abi::Answer{xen_abi::Errno::opnotsupp};
      default:
        return std::nullopt;
    }
  }

  // Channels::restore(), and tells the VMM of every port: at rest, before the guest runs. The first
  // error.
  vmm_base::Result<void> restore(const std::vector<xen_evtchn::Channel>& saved) {
    VMM_CHECK(channels_.restore(saved));
    vmm_base::Result<void> first = vmm_base::success();
    for (std::uint32_t port = 1; port < channels_.port_count(); ++port) {
      const Told told = settle(xen_abi::EventPort{port});
      if (first && !told.host) first = told.host;
    }
    return first;
  }

  // Closes every port, as EVTCHNOP_reset does; for a VMM whose guest is reset. The first error.
  vmm_base::Result<void> close_all() {
    vmm_base::Result<void> first = vmm_base::success();
    for (std::uint32_t port = 1; port < channels_.port_count(); ++port) {
      const auto closed = close_port(xen_abi::EventPort{port});
      if (first && closed && !closed->host) first = closed->host;
    }
    return first;
  }

 private:
  template <class Argument, class Op>
  xen_abi::Answer with(Op op, XenVcpuId vcpu, std::uint64_t gva) {
    auto argument = read_guest<Argument>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    return (this->*op)(*argument, Caller{vcpu, gva});
  }

  // --- a port is opened ---

  xen_abi::Answer alloc_unbound(xen_abi::EvtchnAllocUnbound& argument, Caller caller) {
    if (!is_self(argument.dom)) return {xen_abi::Errno::srch};
    return opened(channels_.alloc_unbound(argument.remote_dom), argument, argument.port, caller);
  }

  xen_abi::Answer bind_interdomain(xen_abi::EvtchnBindInterdomain& argument, Caller caller) {
    if (!is_self(argument.remote_dom)) return {xen_abi::Errno::srch};
    const xen_abi::EventPort remote{argument.remote_port};
    const auto bound = channels_.bind_interdomain(remote);
    xen_abi::Answer answer = opened(bound, argument, argument.local_port, caller);
    const auto* port = std::get_if<xen_abi::EventPort>(&bound);
    if (port == nullptr || answer.guest != xen_abi::GuestResult::ok()) return answer;
    (void)settle(remote);
    const auto raised = raise(channels_.target(*port));
    return {answer.guest, answer.host ? raised : answer.host};
  }

  xen_abi::Answer bind_virq(xen_abi::EvtchnBindVirq& argument, Caller caller) {
    return opened(channels_.bind_virq(argument.virq, XenVcpuId{argument.vcpu}), argument,
                  argument.port, caller);
  }

  xen_abi::Answer bind_ipi(xen_abi::EvtchnBindIpi& argument, Caller caller) {
    return opened(channels_.bind_ipi(XenVcpuId{argument.vcpu}), argument, argument.port, caller);
  }

  // There are none.
  xen_abi::Answer bind_pirq(xen_abi::EvtchnBindPirq& /*argument*/, Caller /*caller*/) {
    return {xen_abi::Errno::inval};
  }

  // The port goes to the guest and to the VMM; if either can't take it, it is closed again.
  template <class Argument>
  xen_abi::Answer opened(const xen_evtchn::Or<xen_abi::EventPort>& port, Argument& argument,
                         std::uint32_t& out, Caller caller) {
    if (const auto* error = std::get_if<xen_abi::Errno>(&port)) return {*error};
    const auto opened = std::get<xen_abi::EventPort>(port);
    out = opened.value;
    if (!write_guest(vmm_, caller.vcpu, caller.gva, argument)) {
      (void)close_port(opened);
      return {xen_abi::Errno::fault};
    }
    Told told = settle(opened);
    if (told.bound) return {xen_abi::GuestResult::ok(), told.host};
    (void)close_port(opened);
    return {xen_abi::Errno::inval, told.host};
  }

  // --- on a port ---

  xen_abi::Answer close(xen_abi::EvtchnClose& argument, Caller /*caller*/) {
    const auto closed = close_port(xen_abi::EventPort{argument.port});
    return closed ? *closed : xen_abi::Answer{xen_abi::Errno::inval};
  }

  // nullopt: it isn't open.
  std::optional<xen_abi::Answer> close_port(xen_abi::EventPort port) {
    const auto closed = channels_.close(port);
    const auto* peer = std::get_if<xen_abi::EventPort>(&closed);
    if (peer == nullptr) return std::nullopt;
    const Told other_end = settle(*peer);
    const Told told = settle(port);
    return xen_abi::Answer{xen_abi::GuestResult::ok(), told.host ? other_end.host : told.host};
  }

  xen_abi::Answer send(xen_abi::EvtchnSend& argument, Caller /*caller*/) {
    const auto target = channels_.send(xen_abi::EventPort{argument.port});
    if (const auto* error = std::get_if<xen_abi::Errno>(&target)) return {*error};
    return {xen_abi::GuestResult::ok(), raise(target)};
  }

  xen_abi::Answer status(xen_abi::EvtchnStatus& argument, Caller caller) {
    if (!is_self(argument.dom)) return {xen_abi::Errno::srch};
    const auto found = channels_.status(xen_abi::EventPort{argument.port});
    if (const auto* error = std::get_if<xen_abi::Errno>(&found)) return {*error};
    const auto& channel = std::get<xen_evtchn::Channel>(found);
    argument.status = static_cast<std::uint32_t>(channel.kind);
    argument.vcpu = channel.vcpu.value;
    if (channel.kind == xen_evtchn::Kind::virq) argument.virq = channel.virq;
    if (channel.kind == xen_evtchn::Kind::unbound) argument.remote_dom = channel.remote_dom;
    if (channel.kind == xen_evtchn::Kind::interdomain) {
      argument.remote_dom = channel.remote_dom;
      argument.remote_port = channel.remote_port.value;
    }
    if (!write_guest(vmm_, caller.vcpu, caller.gva, argument)) return {xen_abi::Errno::fault};
    return ok();
  }

  xen_abi::Answer bind_vcpu(xen_abi::EvtchnBindVcpu& argument, Caller /*caller*/) {
    const auto moved =
        channels_.bind_vcpu(xen_abi::EventPort{argument.port}, XenVcpuId{argument.vcpu});
    if (const auto* error = std::get_if<xen_abi::Errno>(&moved)) return {*error};
    return {xen_abi::GuestResult::ok(), settle(std::get<xen_abi::EventPort>(moved)).host};
  }

  xen_abi::Answer unmask(xen_abi::EvtchnUnmask& argument, Caller /*caller*/) {
    const auto target = channels_.target(xen_abi::EventPort{argument.port});
    if (const auto* error = std::get_if<xen_abi::Errno>(&target)) return {*error};
    const auto& found = std::get<std::optional<xen_evtchn::Target>>(target);
    if (!found) return ok();
    return {xen_abi::GuestResult::ok(), vmm_.unmask_event(found->vcpu, found->port)};
  }

  xen_abi::Answer reset(xen_abi::EvtchnReset& argument, Caller /*caller*/) {
    if (!is_self(argument.dom)) return {xen_abi::Errno::srch};
    return {xen_abi::GuestResult::ok(), close_all()};
  }

  // Without FIFO event channels there is none.
  xen_abi::Answer set_priority(xen_abi::EvtchnSetPriority& argument, Caller /*caller*/) {
    const bool is_port = argument.port < channels_.port_count();
    return {is_port ? xen_abi::Errno::nosys : xen_abi::Errno::inval};
  }

  [[nodiscard]] bool is_self(xen_abi::DomainId domain) const noexcept {
    return xen_abi::is_self(domain, channels_.self());
  }

  // --- what the VMM is told ---

  struct Told {
    bool bound = true;
    vmm_base::Result<void> host = vmm_base::success();
  };
  Told settle(xen_abi::EventPort port) {
    Told told;
    const auto note = [&told](const vmm_base::Result<void>& result) {
      if (!result && told.host) told.host = result;
      return result.has_value();
    };
    channels_.settle(port, [&](const xen_evtchn::Wiring& was, const xen_evtchn::Wiring& now) {
      // What raises it goes first when it goes, so that clear_pending() has the last word.
      if (was.virq && now.virq != was.virq && (!now.virq || now.virq->vcpu != was.virq->vcpu)) {
        (void)note(vmm_.virq_bound(was.virq->vcpu, was.virq->virq, {}));
      }
      if (was.sends_to != now.sends_to) (void)note(vmm_.send_routed(port, now.sends_to));
      if (now.kind == xen_evtchn::Kind::closed) vmm_.clear_pending(port);
      if (now.virq && now.virq != was.virq) {
        told.bound = note(vmm_.virq_bound(now.virq->vcpu, now.virq->virq, port)) && told.bound;
      }
    });
    return told;
  }

  vmm_base::Result<void> raise(const xen_evtchn::Or<std::optional<xen_evtchn::Target>>& target) {
    const auto* found = std::get_if<std::optional<xen_evtchn::Target>>(&target);
    if (found == nullptr || !*found) return vmm_base::success();
    return vmm_.raise_event((*found)->vcpu, (*found)->port);
  }

  V& vmm_;
  xen_evtchn::Channels& channels_;
};

}  // namespace xen_hcall
