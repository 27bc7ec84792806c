// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// By what hypercalls are counted: their number; of vcpu_op, whose commands have little in common,
// the command.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "xen_abi/hypercall.hpp"

namespace vmm_reference {

inline constexpr std::size_t plain_calls = 64;  // Xen has fewer
inline constexpr std::size_t vcpu_ops = 16;
inline constexpr std::size_t other_call = plain_calls + vcpu_ops;
inline constexpr std::size_t call_kinds = other_call + 1;

constexpr std::size_t call_kind(const xen_abi::Hypercall& call) noexcept {
  if (call.number == xen_abi::hypercall::vcpu_op) {
    const auto command = static_cast<std::uint32_t>(call.params[0]);
    return command < vcpu_ops ? plain_calls + command : other_call;
  }
  return call.number < plain_calls ? static_cast<std::size_t>(call.number) : other_call;
}

// "event_channel_op", "VCPUOP_set_singleshot_timer"; as Xen's headers have it.
[[nodiscard]] std::string call_name(std::size_t kind);

}  // namespace vmm_reference
