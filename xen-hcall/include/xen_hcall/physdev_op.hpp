// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_physdev_op as a guest without PIRQs sees it: XENFEAT_hvm_pirqs isn't set, so none
// has a reason to call. Take it to answer as Xen does for the two calls that Xen judges all the
// same.
#pragma once

#include <cstdint>
#include <optional>

#include "xen_abi/hypercall.hpp"
#include "xen_abi/physdev.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

template <GuestReader V>
class PhysdevOp {
 public:
  explicit PhysdevOp(V& vmm, xen_abi::DomainId self = 1) noexcept : vmm_(vmm), self_(self) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::physdev_op;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    const std::uint64_t gva = call.params[1];
    switch (static_cast<std::uint32_t>(call.params[0])) {
      case xen_abi::physdevop::map_pirq:
        return denied(call.long_mode ? domain_of<xen_abi::PhysdevMapPirq>(vcpu, gva)
                                     : domain_of<xen_abi::PhysdevMapPirq32>(vcpu, gva));
      case xen_abi::physdevop::unmap_pirq:
        return denied(domain_of<xen_abi::PhysdevUnmapPirq>(vcpu, gva));
      default:
        return std::nullopt;
    }
  }

 private:
  template <class Argument>
  std::optional<xen_abi::DomainId> domain_of(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<Argument>(vmm_, vcpu, gva);
    if (!argument) return std::nullopt;
    return argument->domid;
  }
  // A physical interrupt is for a device model to give.
  xen_abi::Answer denied(std::optional<xen_abi::DomainId> domain) const {
    if (!domain) return {xen_abi::Errno::fault};
    return {xen_abi::is_self(*domain, self_) ? xen_abi::Errno::perm : xen_abi::Errno::srch};
  }

  V& vmm_;
  xen_abi::DomainId self_;
};

}  // namespace xen_hcall
