// SPDX-License-Identifier: BSD-3-Clause
//
// Deadlines that KVM's own timer of the vCPU keeps, through KVM_XEN_VCPU_ATTR_TYPE_TIMER: as
// punctual as the kernel, with the hypercall served here. Needs Linux 7.3, for an older kernel that
// has been given the port answers the hypercalls itself.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>
#include <vector>

#include "xen_timer/concepts.hpp"

namespace xen_timer {

// set_timer: KVM_XEN_VCPU_SET_ATTR of the port and the deadline, none to disarm, on the vCPU's
// thread. timer: the deadline that KVM_XEN_VCPU_GET_ATTR tells, none if it isn't armed.
template <class K>
concept KernelTimer = requires(K& kernel, XenVcpuId vcpu, EventPort port,
                               std::optional<GuestTime> deadline) {
  { kernel.set_timer(vcpu, port, deadline) } -> std::same_as<Result<void>>;
  { kernel.timer(vcpu) } -> std::same_as<Result<std::optional<GuestTime>>>;
};

template <KernelTimer K>
class DelegatedBackend {
 public:
  DelegatedBackend(K& kernel, std::uint32_t vcpu_count) : kernel_(kernel), slots_(vcpu_count) {}

  Result<void> arm(XenVcpuId vcpu, EventPort port, GuestTime deadline, GuestTime /*now*/) {
    // Without a port the kernel has no timer: keep the deadline until one is bound.
    if (port == EventPort{}) {
      slots_[vcpu.value].unbound_deadline = deadline;
      return vmm_base::success();
    }
    VMM_CHECK(kernel_.set_timer(vcpu, port, deadline));
    slots_[vcpu.value].port = port;  // The bind may have failed; cancel() must find the timer.
    return vmm_base::success();
  }

  Result<void> cancel(XenVcpuId vcpu) {
    Slot& slot = slots_[vcpu.value];
    slot.unbound_deadline.reset();
    if (slot.port == EventPort{}) return vmm_base::success();
    return kernel_.set_timer(vcpu, slot.port, std::nullopt);
  }

  // Setting the port stops the kernel's timer, so the deadline is carried over. One that passed
  // while no port was bound has been lost, as in Xen.
  Result<void> bind(XenVcpuId vcpu, EventPort port, GuestTime now) {
    Slot& slot = slots_[vcpu.value];
    std::optional<GuestTime> deadline = slot.unbound_deadline;
    if (slot.port != EventPort{}) {
      VMM_TRY(armed, kernel_.timer(vcpu));
      deadline = armed;
    } else if (deadline && *deadline < now) {
      deadline.reset();
    }
    VMM_CHECK(kernel_.set_timer(vcpu, port, port == EventPort{} ? std::nullopt : deadline));
    slot.port = port;
    slot.unbound_deadline = port == EventPort{} ? deadline : std::nullopt;
    return vmm_base::success();
  }

 private:
  struct Slot {
    EventPort port{};
    std::optional<GuestTime> unbound_deadline{};
  };
  K& kernel_;
  std::vector<Slot> slots_;  // by Xen vCPU id; each used by its own vCPU's thread only
};

}  // namespace xen_timer
