// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A domain's event channels: which ports are open, what each is bound to, and what to tell the VMM
// of it. Rules, errors and their order are Xen's (xen/common/event_channel.c). Take it alone to
// serve EVTCHNOPs of your own decoding; xen_hcall::EventChannelOp does it for you.
//
//   xen_evtchn::Channels channels(xen_abi::event_ports_64, vcpus);
//   auto bound = channels.bind_ipi(vcpu);                       // an EventPort, or an Errno
//   channels.settle(port, [&](const Wiring& was, const Wiring& now) { tell_kvm(port, now); });
//
// Thread-safe, and nobody is called with its lock held. That a change and the telling of it are two
// steps is why settle() is to be called after every change, for the ports named there: of several
// callers on one port one tells, and goes on until the VMM knows the last state; the others return
// at once. A closed port isn't given away before the VMM has been told.
#pragma once

#include <array>
#include <cerrno>
#include <cstdint>
#include <mutex>
#include <optional>
#include <utility>
#include <variant>
#include <vector>

#include "vmm_base/result.hpp"
#include "xen_abi/errno.hpp"
#include "xen_evtchn/channel.hpp"

namespace xen_evtchn {

using xen_abi::Errno;

// A T, or the error that the guest gets.
template <class T>
using Or = std::variant<T, Errno>;

class Channels {
 public:
  // Ports 1 to `count` - 1: xen_abi::event_ports_64 or _32. `self`: this domain's id.
  Channels(std::uint32_t count, std::uint32_t vcpu_count, DomainId self = 1)
      : slots_(count), virqs_(vcpu_count), self_(self) {}

  [[nodiscard]] DomainId self() const noexcept { return self_; }

  // --- EVTCHNOPs that open a port, the lowest that is free; settle it. ENOSPC if there is none ---

  // For `remote` to bind to.
  Or<EventPort> alloc_unbound(DomainId remote) {
    const std::scoped_lock lock(mutex_);
    const DomainId who = remote == xen_abi::domid_self ? self_ : remote;
    return open({.kind = Kind::unbound, .remote_dom = who});
  }

  // To `remote_port`, an unbound port of this same domain, which becomes the other end: settle it,
  // too. ENOSPC, EINVAL if the other isn't so. The new port is to be raised: what was sent to the
  // other end before is lost.
  Or<EventPort> bind_interdomain(EventPort remote_port) {
    const std::scoped_lock lock(mutex_);
    const EventPort port = free_port();
    if (port == EventPort{}) return Errno::nospc;
    if (remote_port.value >= slots_.size()) return Errno::inval;
    Channel& remote = channel(remote_port);
    if (remote.kind != Kind::unbound || remote.remote_dom != self_) return Errno::inval;
    channel(port) = {.kind = Kind::interdomain, .remote_dom = self_, .remote_port = remote_port};
    remote.kind = Kind::interdomain;
    remote.remote_port = port;
    return port;
  }

  // EINVAL for an unknown virq, or another vCPU than 0 for one that isn't a vCPU's own; ENOENT for
  // an unknown vCPU; EBUSY for the hardware domain's; EEXIST if it is bound already; ENOSPC.
  Or<EventPort> bind_virq(std::uint32_t virq, XenVcpuId vcpu) {
    if (virq >= xen_abi::virq::count) return Errno::inval;
    if (!is_vcpu_virq(virq) && vcpu.value != 0) return Errno::inval;
    if (vcpu.value >= virqs_.size()) return Errno::noent;
    if (!is_vcpu_virq(virq) && !is_domain_virq(virq)) return Errno::busy;
    const std::scoped_lock lock(mutex_);
    EventPort& bound = virqs_[vcpu.value][virq];
    if (bound != EventPort{}) return Errno::exist;
    Or<EventPort> opened = open({.kind = Kind::virq, .vcpu = vcpu, .virq = virq});
    if (const auto* port = std::get_if<EventPort>(&opened)) {
      bound = *port;
      slots_[port->value].virq_of = vcpu;
    }
    return opened;
  }

  // ENOENT for an unknown vCPU; ENOSPC.
  Or<EventPort> bind_ipi(XenVcpuId vcpu) {
    if (vcpu.value >= virqs_.size()) return Errno::noent;
    const std::scoped_lock lock(mutex_);
    return open({.kind = Kind::ipi, .vcpu = vcpu});
  }

  // --- EVTCHNOPs on a port. EINVAL if there is no such, or it is closed where that matters ---

  // Answers the other end of an interdomain channel, which becomes unbound, or 0. Settle both.
  Or<EventPort> close(EventPort port) {
    const std::scoped_lock lock(mutex_);
    if (!is_open(port)) return Errno::inval;
    const Channel was = std::exchange(channel(port), {});
    if (was.kind != Kind::interdomain) return EventPort{};
    channel(was.remote_port).kind = Kind::unbound;
    channel(was.remote_port).remote_port = {};
    return was.remote_port;
  }

  // Its events go to another vCPU; answers the port whose wiring says so: itself, the other end of
  // an interdomain channel, or 0. Settle that. ENOENT for an unknown vCPU, before anything; EINVAL
  // for an IPI and a vCPU's own VIRQ, which stay where they are.
  Or<EventPort> bind_vcpu(EventPort port, XenVcpuId vcpu) {
    if (vcpu.value >= virqs_.size()) return Errno::noent;
    const std::scoped_lock lock(mutex_);
    if (!is_open(port)) return Errno::inval;
    Channel& bound = channel(port);
    if (bound.kind == Kind::ipi || (bound.kind == Kind::virq && is_vcpu_virq(bound.virq))) {
      return Errno::inval;
    }
    bound.vcpu = vcpu;
    return bound.kind == Kind::virq ? port : bound.remote_port;
  }

  // What to raise; nullopt where nobody listens, which is no error.
  [[nodiscard]] Or<std::optional<Target>> send(EventPort port) const {
    const std::scoped_lock lock(mutex_);
    if (!is_open(port) || channel(port).kind == Kind::virq) return Errno::inval;
    return wiring(port).sends_to;
  }

  // For EVTCHNOP_unmask: the port itself and its vCPU; nullopt for a closed port, which is no
  // error.
  [[nodiscard]] Or<std::optional<Target>> target(EventPort port) const {
    const std::scoped_lock lock(mutex_);
    if (port.value >= slots_.size()) return Errno::inval;
    if (!is_open(port)) return std::optional<Target>{};
    return std::optional(Target{port, channel(port).vcpu});
  }

  // EINVAL beyond the last port; a closed one is an answer.
  [[nodiscard]] Or<Channel> status(EventPort port) const {
    const std::scoped_lock lock(mutex_);
    if (port.value >= slots_.size()) return Errno::inval;
    return channel(port);
  }

  // --- for the VMM ---

  [[nodiscard]] std::uint32_t port_count() const noexcept {
    return static_cast<std::uint32_t>(slots_.size());
  }
  [[nodiscard]] std::uint32_t vcpu_count() const noexcept {
    return static_cast<std::uint32_t>(virqs_.size());
  }

  // Where a VIRQ is to be raised; nullopt while it isn't bound. A domain's own is asked of vCPU 0.
  [[nodiscard]] std::optional<Target> virq(std::uint32_t virq, XenVcpuId vcpu) const {
    if (virq >= xen_abi::virq::count || vcpu.value >= virqs_.size()) return std::nullopt;
    const std::scoped_lock lock(mutex_);
    const EventPort port = virqs_[vcpu.value][virq];
    if (!is_open(port)) return std::nullopt;
    return Target{port, channel(port).vcpu};
  }

  // Calls tell(was, now) until the VMM knows how `port` is wired; see above. 0 is nothing to tell.
  // When `now.kind` has been closed, the port is free.
  template <class Tell>
  void settle(EventPort port, Tell&& tell) {
    std::unique_lock lock(mutex_);
    if (port.value == 0 || port.value >= slots_.size()) return;
    Slot& slot = slots_[port.value];
    if (slot.telling) return;
    slot.telling = true;
    for (Wiring now = wiring(port); now != slot.told; now = wiring(port)) {
      const Wiring was = std::exchange(slot.told, now);
      lock.unlock();
      tell(was, now);
      lock.lock();
    }
    slot.telling = false;
    if (slot.channel.kind == Kind::closed) release_virq(slot, port);
  }

  // --- at rest: while no other call is under way ---

  // Every port by number, port 0 included.
  [[nodiscard]] std::vector<Channel> save() const {
    const std::scoped_lock lock(mutex_);
    std::vector<Channel> saved;
    saved.reserve(slots_.size());
    for (const Slot& slot : slots_) saved.push_back(slot.channel);
    return saved;
  }

  // Into one that has no open port; settle every port then. EINVAL, operand the port, for a state
  // that can't have been saved by one of as many ports and vCPUs, and nothing is changed.
  vmm_base::Result<void> restore(const std::vector<Channel>& saved) {
    const auto bad = [](std::uint64_t port) {
      return vmm_base::Error{"event channels: restore port", EINVAL, port};
    };
    const std::scoped_lock lock(mutex_);
    if (saved.size() != slots_.size()) return bad(saved.size());
    auto virqs = virqs_;
    for (std::uint32_t port = 0; port < saved.size(); ++port) {
      if (!is_free(slots_[port]) || !is_possible(saved, port)) return bad(port);
      if (saved[port].kind != Kind::virq) continue;
      EventPort& bound = virqs[virq_owner(saved[port]).value][saved[port].virq];
      if (std::exchange(bound, EventPort{port}) != EventPort{}) return bad(port);
    }
    virqs_ = std::move(virqs);
    for (std::uint32_t port = 0; port < saved.size(); ++port) {
      slots_[port].channel = saved[port];
      if (saved[port].kind == Kind::virq) slots_[port].virq_of = virq_owner(saved[port]);
    }
    return vmm_base::success();
  }

 private:
  struct Slot {
    Channel channel{};
    Wiring told{};                       // what the VMM knows, or is being told
    std::optional<XenVcpuId> virq_of{};  // which entry of virqs_ says this port
    bool telling = false;
  };

  // All with mutex_ held.
  [[nodiscard]] const Channel& channel(EventPort port) const { return slots_[port.value].channel; }
  Channel& channel(EventPort port) { return slots_[port.value].channel; }
  [[nodiscard]] bool is_open(EventPort port) const {
    return port.value < slots_.size() && channel(port).kind != Kind::closed;
  }
  [[nodiscard]] static bool is_free(const Slot& slot) {
    return slot.channel.kind == Kind::closed && slot.told.kind == Kind::closed && !slot.telling &&
           !slot.virq_of;
  }
  [[nodiscard]] EventPort free_port() const {
    for (std::uint32_t port = 1; port < slots_.size(); ++port) {
      if (is_free(slots_[port])) return {port};
    }
    return {};
  }
  Or<EventPort> open(const Channel& as) {
    const EventPort port = free_port();
    if (port == EventPort{}) return Errno::nospc;
    channel(port) = as;
    return port;
  }
  void release_virq(Slot& slot, EventPort port) {
    if (!slot.virq_of) return;
    for (EventPort& bound : virqs_[slot.virq_of->value]) {
      if (bound == port) bound = {};
    }
    slot.virq_of.reset();
  }

  [[nodiscard]] Wiring wiring(EventPort port) const {
    const Channel& bound = channel(port);
    switch (bound.kind) {
      case Kind::virq:
        return {bound.kind, VirqBinding{bound.virq, bound.vcpu}, std::nullopt};
      case Kind::ipi:
        return {bound.kind, std::nullopt, Target{port, bound.vcpu}};
      case Kind::interdomain:
        return {bound.kind, std::nullopt,
                Target{bound.remote_port, channel(bound.remote_port).vcpu}};
      case Kind::unbound:
      case Kind::closed:
        break;
    }
    return {bound.kind, std::nullopt, std::nullopt};
  }

  // A domain's VIRQ is vCPU 0's, wherever its events go.
  [[nodiscard]] static XenVcpuId virq_owner(const Channel& bound) {
    return is_vcpu_virq(bound.virq) ? bound.vcpu : XenVcpuId{0};
  }
  [[nodiscard]] bool is_possible(const std::vector<Channel>& saved, std::uint32_t port) const {
    const Channel& bound = saved[port];
    if (bound.kind == Kind::closed) return bound == Channel{};
    if (port == 0 || bound.vcpu.value >= virqs_.size()) return false;
    Channel only{.kind = bound.kind, .vcpu = bound.vcpu};  // nothing is in a field of another kind
    switch (bound.kind) {
      case Kind::virq:
        only.virq = bound.virq;
        return bound == only && (is_vcpu_virq(bound.virq) || is_domain_virq(bound.virq));
      case Kind::interdomain: {
        const std::uint32_t remote = bound.remote_port.value;
        only.remote_dom = self_;
        only.remote_port = bound.remote_port;
        return bound == only && remote != port && remote < saved.size() &&
               saved[remote].kind == Kind::interdomain && saved[remote].remote_port.value == port;
      }
      case Kind::unbound:
        only.remote_dom = bound.remote_dom;
        return bound == only;
      case Kind::ipi:
        return bound == only;
      case Kind::closed:
        break;
    }
    return false;  // a number that is no kind
  }

  mutable std::mutex mutex_;
  std::vector<Slot> slots_;                                         // by port
  std::vector<std::array<EventPort, xen_abi::virq::count>> virqs_;  // by vCPU and virq
  DomainId self_;
};

}  // namespace xen_evtchn
