// SPDX-License-Identifier: BSD-3-Clause
//
// VCPUOP_register_vcpu_info: where a vCPU's vcpu_info lies, said once in its life.
#pragma once

#include <atomic>
#include <optional>
#include <vector>

#include "vmm_base/result.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/shared_info.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// move_vcpu_info: from now on vcpu_info of `vcpu`, 64 bytes in one page, is at `gpa`. The VMM
// copies the old one's contents there and raises all its selector bits, so that no event is lost.
// Its error is told to the guest as -EINVAL.
template <class V>
concept VcpuInfoVmm = GuestReader<V> &&
    requires(V& vmm, vmm_base::XenVcpuId vcpu, vmm_base::Gpa gpa) {
  { vmm.move_vcpu_info(vcpu, gpa) } -> std::same_as<vmm_base::Result<void>>;
};

template <VcpuInfoVmm V>
class VcpuInfoOp {
 public:
  VcpuInfoOp(V& vmm, std::uint32_t vcpu_count) : vmm_(vmm), registered_(vcpu_count) {}

  // Errors in Xen's order (xen/common/domain.c, map_vcpu_info): -ENOENT, -EFAULT, -EINVAL, -ENXIO,
  // -EBUSY. Another vCPU than the caller's own is -EOPNOTSUPP for now.
  [[nodiscard]] std::optional<xen_abi::Answer> handle(vmm_base::XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (call.number != xen_abi::hypercall::vcpu_op ||
        static_cast<std::uint32_t>(call.params[0]) != xen_abi::vcpuop::register_vcpu_info) {
      return std::nullopt;
    }
    const vmm_base::XenVcpuId target{static_cast<std::uint32_t>(call.params[1])};
    if (target.value >= registered_.size()) return xen_abi::Answer{xen_abi::Errno::noent};
    const auto argument = read_guest<xen_abi::RegisterVcpuInfo>(vmm_, vcpu, call.params[2]);
    if (!argument) return xen_abi::Answer{xen_abi::Errno::fault};
    if (argument->offset >= vmm_base::page_size || argument->mfn >> (64 - vmm_base::page_shift)) {
      return xen_abi::Answer{xen_abi::Errno::inval};
    }
    const std::uint32_t word = call.long_mode ? 8 : 4;
    if (argument->offset > vmm_base::page_size - xen_abi::vcpu_info_size ||
        argument->offset % word != 0) {
      return xen_abi::Answer{xen_abi::Errno::nxio};
    }
    if (target != vcpu) return xen_abi::Answer{xen_abi::Errno::opnotsupp};
    if (registered_[target.value].exchange(true)) return xen_abi::Answer{xen_abi::Errno::busy};

    const vmm_base::Gpa gpa{(argument->mfn << vmm_base::page_shift) + argument->offset};
    auto moved = vmm_.move_vcpu_info(target, gpa);
    if (!moved) {
      registered_[target.value] = false;
      return xen_abi::Answer{xen_abi::Errno::inval, moved};
    }
    return xen_abi::Answer{xen_abi::GuestResult::ok()};
  }

 private:
  V& vmm_;
  std::vector<std::atomic<bool>> registered_;  // by Xen vCPU id
};

}  // namespace xen_hcall
