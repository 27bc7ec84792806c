// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Event channels said once more: a map of what is open, and Xen's rules. And the real ones, with a
// VMM that knows what it has been told. For the property test and the fuzz target.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <stdexcept>
#include <variant>
#include <vector>

#include "xen_evtchn/channels.hpp"

namespace xen_evtchn {

inline constexpr std::uint32_t ports = 7;
inline constexpr std::uint32_t vcpus = 3;
inline constexpr DomainId self = 7;

struct Model {
  struct Open {
    char kind;               // 'u'nbound, 'i'nterdomain, 'v'irq, 'p' for IPI
    std::uint32_t to = 0;    // vCPU
    std::uint32_t what = 0;  // domain, other end, virq
  };
  std::map<std::uint32_t, Open> open{};

  static bool has(std::uint32_t virq) { return virq == 0 || virq == 1 || virq == 7 || virq == 13; }

  int add(Open opened) {
    for (std::uint32_t port = 1; port < ports; ++port) {
      if (open.emplace(port, opened).second) return static_cast<int>(port);
    }
    return -28;
  }
  int alloc_unbound(DomainId remote) {
    return add({'u', 0, remote == xen_abi::domid_self ? self : remote});
  }
  int bind_interdomain(std::uint32_t remote) {
    if (open.size() == ports - 1) return -28;
    const auto found = open.find(remote);
    if (found == open.end() || found->second.kind != 'u' || found->second.what != self) return -22;
    const int port = add({'i', 0, remote});
    found->second.kind = 'i';
    found->second.what = static_cast<std::uint32_t>(port);
    return port;
  }
  int bind_virq(std::uint32_t virq, std::uint32_t vcpu) {
    if (virq > 23 || (!has(virq) && vcpu != 0)) return -22;
    if (vcpu >= vcpus) return -2;
    if (!has(virq) && virq != 11) return -16;
    for (const auto& [port, is] : open) {
      if (is.kind == 'v' && is.what == virq && (is.to == vcpu || virq == 11)) return -17;
    }
    return add({'v', vcpu, virq});
  }
  int bind_ipi(std::uint32_t vcpu) { return vcpu < vcpus ? add({'p', vcpu}) : -2; }
  int close(std::uint32_t port) {
    const auto found = open.find(port);
    if (found == open.end()) return -22;
    if (found->second.kind == 'i') {
      open[found->second.what].kind = 'u';
      open[found->second.what].what = self;
    }
    open.erase(port);
    return 0;
  }
  int bind_vcpu(std::uint32_t port, std::uint32_t vcpu) {
    if (vcpu >= vcpus) return -2;
    const auto found = open.find(port);
    if (found == open.end() || found->second.kind == 'p') return -22;
    if (found->second.kind == 'v' && found->second.what != 11) return -22;
    found->second.to = vcpu;
    return 0;
  }

  // What a port should be, and have been told as.
  [[nodiscard]] Channel status(std::uint32_t port) const {
    const auto found = open.find(port);
    if (found == open.end()) return {};
    const Open& is = found->second;
    switch (is.kind) {
      case 'u':
        return {Kind::unbound, {is.to}, static_cast<DomainId>(is.what), {}, 0};
      case 'i':
        return {Kind::interdomain, {is.to}, self, {is.what}, 0};
      case 'v':
        return {Kind::virq, {is.to}, 0, {}, is.what};
      default:
        return {Kind::ipi, {is.to}, 0, {}, 0};
    }
  }
  [[nodiscard]] Wiring wiring(std::uint32_t port) const {
    const Channel is = status(port);
    Wiring wired{is.kind, {}, {}};
    if (is.kind == Kind::virq) wired.virq = VirqBinding{is.virq, is.vcpu};
    if (is.kind == Kind::ipi) wired.sends_to = Target{{port}, is.vcpu};
    if (is.kind == Kind::interdomain) {
      wired.sends_to = Target{is.remote_port, status(is.remote_port.value).vcpu};
    }
    return wired;
  }
};

// The channels, and a VMM that knows what it has been told.
struct Real {
  Channels channels{ports, vcpus, self};
  std::vector<Wiring> world = std::vector<Wiring>(ports);
  std::function<void()> meanwhile{};  // what others do while the VMM is told

  void settle(EventPort port) {
    channels.settle(port, [&](const Wiring& was, const Wiring& now) {
      if (world[port.value] != was) throw std::logic_error("the VMM had been told something else");
      world[port.value] = now;
      if (meanwhile) meanwhile();
    });
  }
  // The port that was opened, or the error, as the guest sees them.
  int opened(const Or<EventPort>& answer) {
    if (const auto* error = std::get_if<Errno>(&answer)) return -static_cast<int>(*error);
    settle(std::get<EventPort>(answer));
    return static_cast<int>(std::get<EventPort>(answer).value);
  }
  // 0, or the error; the answer is one more port to settle.
  int changed(const Or<EventPort>& answer) {
    const int result = opened(answer);
    return result > 0 ? 0 : result;
  }
};

// Whether every port is as the model says, its events go where they should, and the VMM knows.
inline bool is_as(const Model& model, const Real& real) {
  for (std::uint32_t at = 0; at < ports; ++at) {
    const Wiring wired = model.wiring(at);
    if (std::get<Channel>(real.channels.status({at})) != model.status(at)) return false;
    if (real.world[at] != wired) return false;
    const auto sent = real.channels.send({at});
    const bool refused = wired.kind == Kind::closed || wired.kind == Kind::virq;
    if (refused != std::holds_alternative<Errno>(sent)) return false;
    const auto* target = std::get_if<std::optional<Target>>(&sent);
    if (target != nullptr && *target != wired.sends_to) return false;
  }
  return true;
}

}  // namespace xen_evtchn
