// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A handler of one hypercall.
#include <optional>

#include "xen_abi/errno.hpp"
#include "xen_abi/hypercall.hpp"

std::optional<xen_abi::Answer> handle(const xen_abi::Hypercall& call) {
  if (call.number != xen_abi::hypercall::xen_version) return std::nullopt;  // not mine
  if (call.cpl != 0) return xen_abi::Answer{xen_abi::Errno::perm};
  return xen_abi::Answer{xen_abi::GuestResult::ok(4 << 16 | 18)};  // XENVER_version: 4.18
}

int main() {
  const auto kernel = handle({.number = xen_abi::hypercall::xen_version});
  const auto program = handle({.number = xen_abi::hypercall::xen_version, .cpl = 3});
  return kernel->guest.rax() == 0x40012 && program->guest.rax() == std::uint64_t(-1) ? 0 : 1;
}
