// SPDX-License-Identifier: BSD-3-Clause
//
// Which event channels a domain has, and what they are bound to. Not thread-safe.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <variant>
#include <vector>

#include "vmm_base/ids.hpp"
#include "xen_abi/errno.hpp"
#include "xen_abi/event_channel.hpp"

namespace xen_evtchn {

using vmm_base::XenVcpuId;
using xen_abi::Errno;
using xen_abi::EventPort;

// A port bound to a virtual interrupt of one vCPU.
struct VirqBinding {
  std::uint32_t virq;
  XenVcpuId vcpu;
};

class Ports {
 public:
  // Ports 1 to `count` - 1: xen_abi::event_ports_64 or _32.
  Ports(std::uint32_t count, std::uint32_t vcpu_count) : bound_(count), vcpu_count_(vcpu_count) {}

  // The lowest free port, bound to `virq` of `vcpu`. EINVAL for an unknown virq, ENOENT for an
  // unknown vCPU, EEXIST if it is bound already, ENOSPC when all ports are taken.
  std::variant<EventPort, Errno> bind_virq(std::uint32_t virq, XenVcpuId vcpu) {
    if (virq >= xen_abi::virq::count) return Errno::inval;
    if (vcpu.value >= vcpu_count_) return Errno::noent;
    std::uint32_t free = 0;
    for (std::uint32_t port = 1; port < bound_.size(); ++port) {
      const auto& binding = bound_[port];
      if (binding && binding->virq == virq && binding->vcpu == vcpu) return Errno::exist;
      if (!binding && free == 0) free = port;
    }
    if (free == 0) return Errno::nospc;
    bound_[free] = VirqBinding{virq, vcpu};
    return EventPort{free};
  }

  // What `port` is bound to; nullopt for a closed one, or for none of ours.
  [[nodiscard]] std::optional<VirqBinding> binding(EventPort port) const noexcept {
    return port.value < bound_.size() ? bound_[port.value] : std::nullopt;
  }

  // Frees it, and says what it was bound to.
  std::optional<VirqBinding> close(EventPort port) noexcept {
    std::optional<VirqBinding> was = binding(port);
    if (was) bound_[port.value].reset();
    return was;
  }

 private:
  std::vector<std::optional<VirqBinding>> bound_;  // by port
  std::uint32_t vcpu_count_;
};

}  // namespace xen_evtchn
