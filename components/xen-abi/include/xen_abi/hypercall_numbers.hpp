// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Which hypercall is which. Freestanding, so that guests can include it.
#pragma once

#include <cstdint>

namespace xen_abi {

// Numbers from xen/include/public/xen.h; 64-bit, as a long-mode guest passes all of RAX.
namespace hypercall {
inline constexpr std::uint64_t memory_op = 12;
inline constexpr std::uint64_t multicall = 13;
inline constexpr std::uint64_t set_timer_op = 15;
inline constexpr std::uint64_t xen_version = 17;
inline constexpr std::uint64_t console_io = 18;
inline constexpr std::uint64_t grant_table_op = 20;
inline constexpr std::uint64_t vm_assist = 21;
inline constexpr std::uint64_t vcpu_op = 24;
inline constexpr std::uint64_t sched_op = 29;
inline constexpr std::uint64_t event_channel_op = 32;
inline constexpr std::uint64_t physdev_op = 33;
inline constexpr std::uint64_t hvm_op = 34;
}  // namespace hypercall

}  // namespace xen_abi
