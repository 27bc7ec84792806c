// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What an event channel is: the words of channels.hpp.
#pragma once

#include <cstdint>
#include <optional>

#include "vmm_base/ids.hpp"
#include "xen_abi/domain.hpp"
#include "xen_abi/event_channel.hpp"

namespace xen_evtchn {

using vmm_base::XenVcpuId;
using xen_abi::DomainId;
using xen_abi::EventPort;

// As EVTCHNOP_status numbers them.
enum class Kind : std::uint8_t {
  closed = xen_abi::evtchn_status::closed,
  unbound = xen_abi::evtchn_status::unbound,
  interdomain = xen_abi::evtchn_status::interdomain,
  virq = xen_abi::evtchn_status::virq,
  ipi = xen_abi::evtchn_status::ipi,
};

struct Channel {
  Kind kind = Kind::closed;
  XenVcpuId vcpu{};         // whose upcall its events cause
  DomainId remote_dom = 0;  // unbound: who may bind it
  EventPort remote_port{};  // interdomain: the other end, a port of this domain, too
  std::uint32_t virq = 0;   // virq
  friend bool operator==(const Channel&, const Channel&) = default;
};

// A port to raise, and the vCPU to tell.
struct Target {
  EventPort port{};
  XenVcpuId vcpu{};
  friend bool operator==(const Target&, const Target&) = default;
};

// A VIRQ of a vCPU.
struct VirqBinding {
  std::uint32_t virq = 0;
  XenVcpuId vcpu{};
  friend bool operator==(const VirqBinding&, const VirqBinding&) = default;
};

// What a port has to do with the world outside: of this the VMM is told.
struct Wiring {
  Kind kind = Kind::closed;
  std::optional<VirqBinding> virq{};  // what raises it
  std::optional<Target> sends_to{};   // what EVTCHNOP_send on it raises; an IPI raises itself
  friend bool operator==(const Wiring&, const Wiring&) = default;
};

// Which VIRQs there are for an unprivileged domain: each vCPU has its own, or the domain has one,
// bound on vCPU 0. The others are the hardware domain's.
constexpr bool is_vcpu_virq(std::uint32_t virq) noexcept {
  return virq == xen_abi::virq::timer || virq == xen_abi::virq::debug ||
         virq == xen_abi::virq::xenoprof || virq == xen_abi::virq::xenpmu;
}
constexpr bool is_domain_virq(std::uint32_t virq) noexcept { return virq == xen_abi::virq::argo; }

}  // namespace xen_evtchn
