// SPDX-License-Identifier: BSD-3-Clause
//
// __HYPERVISOR_hvm_op: hvm_op(u32 cmd, GVA arg), from xen/include/public/hvm/hvm_op.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xen_abi {

namespace hvmop {
inline constexpr std::uint32_t set_param = 0;
inline constexpr std::uint32_t get_param = 1;
inline constexpr std::uint32_t set_evtchn_upcall_vector = 23;
}  // namespace hvmop

struct EvtchnUpcallVector {
  std::uint32_t vcpu;
  std::uint8_t vector;  // 0x10 to 0xff; 0 for none.
};
static_assert(sizeof(EvtchnUpcallVector) == 8);

}  // namespace xen_abi
