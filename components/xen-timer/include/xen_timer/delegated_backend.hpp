// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Single shots that KVM's own timer of the vCPU keeps, through KVM_XEN_VCPU_ATTR_TYPE_TIMER: as
// punctual as the kernel, with the hypercall served here. Needs Linux 7.3, for an older kernel that
// has been given the port answers the hypercalls itself. Everything else is on one timerfd.
#pragma once

#include <concepts>
#include <cstdint>
#include <optional>

#include "xen_timer/concepts.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace xen_timer {

// set_timer: KVM_XEN_VCPU_SET_ATTR of the port and the deadline, none to disarm; on the vCPU's
// thread. timer: the deadline that KVM_XEN_VCPU_GET_ATTR tells, none if it isn't armed.
template <class K>
concept KernelTimer = requires(K& kernel, XenVcpuId vcpu, EventPort port,
                               std::optional<GuestTime> deadline) {
  { kernel.set_timer(vcpu, port, deadline) } -> std::same_as<Result<void>>;
  { kernel.timer(vcpu) } -> std::same_as<Result<std::optional<GuestTime>>>;
};

template <KernelTimer K>
class DelegatedPath {
 public:
  static constexpr Duration horizon = Duration::max();

  explicit DelegatedPath(K& kernel) noexcept : kernel_(&kernel) {}

  Result<void> bind(XenVcpuId vcpu, EventPort port) {
    return kernel_->set_timer(vcpu, port, std::nullopt);
  }
  Result<bool> arm(XenVcpuId vcpu, EventPort port, GuestTime deadline, GuestTime /*now*/) {
    // 0 would disarm; 1 ns has long passed.
    VMM_CHECK(kernel_->set_timer(vcpu, port, std::max(deadline, xen_clock::guest_time(1))));
    return true;
  }
  Result<void> cancel(XenVcpuId vcpu, EventPort port) {
    return kernel_->set_timer(vcpu, port, std::nullopt);
  }
  // Without a port the kernel answers no timer call: else it would arm its own beside ours.
  Result<void> park(XenVcpuId vcpu) { return kernel_->set_timer(vcpu, EventPort{}, std::nullopt); }
  Result<std::optional<GuestTime>> armed(XenVcpuId vcpu) { return kernel_->timer(vcpu); }

 private:
  K* kernel_;
};

template <KernelTimer K>
class DelegatedBackend : public QueueBackend<TimerfdAlarm, DelegatedPath<K>> {
 public:
  // `kernel` must outlive it. Errors of check_vcpu_count() and of TimerfdAlarm::create().
  static Result<DelegatedBackend> create(K& kernel, std::uint32_t vcpu_count) {
    VMM_CHECK(check_vcpu_count(vcpu_count));
    VMM_TRY(alarm, TimerfdAlarm::create());
    return DelegatedBackend(std::move(alarm), vcpu_count, DelegatedPath<K>(kernel));
  }

 private:
  using Base = QueueBackend<TimerfdAlarm, DelegatedPath<K>>;
  DelegatedBackend(TimerfdAlarm alarm, std::uint32_t vcpu_count, DelegatedPath<K> path)
      : Base(std::move(alarm), vcpu_count, std::move(path)) {}
};

}  // namespace xen_timer
