// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// How KVM makes a vCPU's TSC from the host's.
#pragma once

#include "kvm_ioctls/vcpu.hpp"
#include "kvm_ioctls/vm.hpp"
#include "vmm_base/result.hpp"
#include "xen_clock/vcpu_clock.hpp"

namespace vmm_reference {

// On the vCPU's thread, or while it doesn't run. Needs Linux 5.19.
[[nodiscard]] vmm_base::Result<xen_clock::VcpuTsc> vcpu_tsc(const kvm_ioctls::Vm& vm,
                                                            const kvm_ioctls::Vcpu& vcpu);

}  // namespace vmm_reference
