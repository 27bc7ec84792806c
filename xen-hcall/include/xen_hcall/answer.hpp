// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// How handlers say what they answer.
#pragma once

#include <cstdint>

#include "vmm_base/result.hpp"
#include "xen_abi/hypercall.hpp"

namespace xen_hcall {

inline xen_abi::Answer ok(std::int64_t value = 0) { return {xen_abi::GuestResult::ok(value)}; }

// 0, or, where the VMM couldn't, `error`.
inline xen_abi::Answer done(const vmm_base::Result<void>& by_vmm,
                            xen_abi::Errno error = xen_abi::Errno::inval) {
  return by_vmm ? ok() : xen_abi::Answer{error, by_vmm};
}

}  // namespace xen_hcall
