// SPDX-License-Identifier: BSD-3-Clause
//
// __HYPERVISOR_memory_op, as far as a guest needs to get at its shared_info: add_to_physmap.
#pragma once

#include <optional>

#include "vmm_base/result.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/memory.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// map_shared_info: shared_info now lies in this guest frame. Its error is told to the guest as
// -EINVAL.
template <class V>
concept MemoryOpVmm = GuestReader<V> && requires(V& vmm, std::uint64_t gfn) {
  { vmm.map_shared_info(gfn) } -> std::same_as<vmm_base::Result<void>>;
};

template <MemoryOpVmm V>
class MemoryOp {
 public:
  explicit MemoryOp(V& vmm) noexcept : vmm_(vmm) {}

  [[nodiscard]] std::optional<xen_abi::Answer> handle(vmm_base::XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (call.number != xen_abi::hypercall::memory_op ||
        static_cast<std::uint32_t>(call.params[0]) != xen_abi::memory_op::add_to_physmap) {
      return std::nullopt;
    }
    return call.long_mode ? add_to_physmap<std::uint64_t>(vcpu, call.params[1])
                          : add_to_physmap<std::uint32_t>(vcpu, call.params[1]);
  }

 private:
  template <class Word>
  xen_abi::Answer add_to_physmap(vmm_base::XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::AddToPhysmap<Word>>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (argument->domid != xen_abi::domid_self) return {xen_abi::Errno::srch};
    if (argument->space != xen_abi::mapspace::shared_info) return {xen_abi::Errno::nosys};
    if (argument->idx != 0) return {xen_abi::Errno::inval};
    auto mapped = vmm_.map_shared_info(argument->gpfn);
    if (!mapped) return {xen_abi::Errno::inval, mapped};
    return {xen_abi::GuestResult::ok()};
  }

  V& vmm_;
};

}  // namespace xen_hcall
