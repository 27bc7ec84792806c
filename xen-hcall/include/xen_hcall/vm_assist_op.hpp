// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_vm_assist: of its types an HVM guest has one, the flag by which it may read another
// vCPU's runstate while that is being written.
#pragma once

#include <cstdint>
#include <optional>

#include "vmm_base/result.hpp"
#include "xen_abi/domain.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/dispatcher.hpp"

namespace xen_hcall {

// set_runstate_update_flag: whether runstate areas are marked while they are written.
template <class V>
concept VmAssistVmm = requires(V& vmm, bool enabled) {
  { vmm.set_runstate_update_flag(enabled) } -> std::same_as<vmm_base::Result<void>>;
};

template <VmAssistVmm V>
class VmAssistOp {
 public:
  explicit VmAssistOp(V& vmm) noexcept : vmm_(vmm) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::vm_assist;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId /*vcpu*/,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    const auto type = static_cast<std::uint32_t>(call.params[1]);
    if (type != xen_abi::vm_assist::runstate_update_flag) {
      return xen_abi::Answer{xen_abi::Errno::inval};
    }
    switch (static_cast<std::uint32_t>(call.params[0])) {
      case xen_abi::vm_assist::enable:
        return done(vmm_.set_runstate_update_flag(true));
      case xen_abi::vm_assist::disable:
        return done(vmm_.set_runstate_update_flag(false));
      default:
        return std::nullopt;
    }
  }

 private:
  V& vmm_;
};

}  // namespace xen_hcall
