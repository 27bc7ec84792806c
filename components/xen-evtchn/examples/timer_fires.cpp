// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A timer's event, from the guest's binding to the bits in its shared page.
#include <variant>

#include "xen_evtchn/channels.hpp"
#include "xen_evtchn/two_level.hpp"

// VIRQ_TIMER of vCPU 0, raised; true if its upcall vector is to be injected now.
bool timer_fires(const xen_evtchn::Channels& channels, xen_abi::SharedInfo<std::uint64_t>& shared) {
  const auto timer = channels.virq(xen_abi::virq::timer, {0});
  if (!timer) return false;  // not bound: lost, as in Xen
  const auto raised = xen_evtchn::raise(shared, shared.vcpu_info[0], timer->port);
  return raised == xen_evtchn::Raised::upcall;
}

int main() {
  xen_evtchn::Channels channels(xen_abi::event_ports_64, 1);  // of one vCPU
  xen_abi::SharedInfo<std::uint64_t> shared{};
  const bool unbound = timer_fires(channels, shared);
  if (std::holds_alternative<xen_abi::Errno>(channels.bind_virq(xen_abi::virq::timer, {0})))
    return 1;
  const bool first = timer_fires(channels, shared);
  const bool second = timer_fires(channels, shared);  // The first is pending yet.
  return !unbound && first && !second ? 0 : 1;
}
