// SPDX-License-Identifier: BSD-3-Clause
//
// __HYPERVISOR_hvm_op, as far as events need it: set_evtchn_upcall_vector.
#pragma once

#include <optional>

#include "vmm_base/result.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// set_upcall_vector: events reach this vCPU as `vector` of its local APIC; at once if there is one
// already.
template <class V>
concept HvmOpVmm = GuestReader<V> &&
    requires(V& vmm, vmm_base::XenVcpuId vcpu, std::uint8_t vector) {
  { vmm.set_upcall_vector(vcpu, vector) } -> std::same_as<vmm_base::Result<void>>;
};

template <HvmOpVmm V>
class HvmOp {
 public:
  HvmOp(V& vmm, std::uint32_t vcpu_count) noexcept : vmm_(vmm), vcpu_count_(vcpu_count) {}

  // Another vCPU than the caller's own is -EOPNOTSUPP for now.
  [[nodiscard]] std::optional<xen_abi::Answer> handle(vmm_base::XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (call.number != xen_abi::hypercall::hvm_op ||
        static_cast<std::uint32_t>(call.params[0]) != xen_abi::hvmop::set_evtchn_upcall_vector) {
      return std::nullopt;
    }
    const auto argument = read_guest<xen_abi::EvtchnUpcallVector>(vmm_, vcpu, call.params[1]);
    if (!argument) return xen_abi::Answer{xen_abi::Errno::fault};
    if (argument->vector < 0x10) return xen_abi::Answer{xen_abi::Errno::inval};
    if (argument->vcpu >= vcpu_count_) return xen_abi::Answer{xen_abi::Errno::noent};
    if (argument->vcpu != vcpu.value) return xen_abi::Answer{xen_abi::Errno::opnotsupp};
    auto set = vmm_.set_upcall_vector(vcpu, argument->vector);
    if (!set) return xen_abi::Answer{xen_abi::Errno::inval, set};
    return xen_abi::Answer{xen_abi::GuestResult::ok()};
  }

 private:
  V& vmm_;
  std::uint32_t vcpu_count_;
};

}  // namespace xen_hcall
