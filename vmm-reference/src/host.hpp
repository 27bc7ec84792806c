// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What this host's KVM can do for a Xen guest, and what follows for how we run it.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kvm_ioctls/kvm.hpp"
#include "options.hpp"

namespace vmm_reference {

struct Host {
  kvm_ioctls::Kvm kvm;
  bool xen_exits = false;     // KVM_EXIT_XEN; else the hypercall page makes port exits
  bool evtchn_send = false;   // KVM raises event channels and has a Xen timer; else we do by hand
  bool event_routes = false;  // an irqfd can raise an event channel; where evtchn_send
  std::optional<kvm_ioctls::XenIdRule> id_rule{};  // where xen_exits and evtchn_send

  // Error: an operand-free sentence for the user, saying what is wrong and what to do.
  static std::variant<Host, std::string> open(const std::string& device);

  // The modes that work here, the fastest first: makes an io_uring, to see whether that may be had.
  [[nodiscard]] std::vector<TimerMode> modes() const;
  // Why a mode doesn't.
  [[nodiscard]] std::string why_not(TimerMode mode) const;
  // "KVM_EXIT_XEN, events by KVM, an unset Xen vCPU id is …"
  [[nodiscard]] std::string description() const;
};

}  // namespace vmm_reference
