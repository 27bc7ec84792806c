// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Arguments in guest memory as typed values.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>

#include "vmm_base/guest_address.hpp"
#include "vmm_base/ids.hpp"

namespace xen_hcall {

using vmm_base::XenVcpuId;

// Who made a call, and where its argument lies.
struct Caller {
  XenVcpuId vcpu;
  std::uint64_t gva;
};

// All of `to` or `from`, at a virtual address of the calling vCPU's; false if any byte can't be
// accessed.
template <class V>
concept GuestReader = requires(V& vmm, vmm_base::XenVcpuId vcpu, vmm_base::Gva at,
                               std::span<std::byte> to) {
  { vmm.copy_from_guest(vcpu, at, to) } -> std::same_as<bool>;
};
template <class V>
concept GuestWriter = requires(V& vmm, vmm_base::XenVcpuId vcpu, vmm_base::Gva at,
                               std::span<const std::byte> from) {
  { vmm.copy_to_guest(vcpu, at, from) } -> std::same_as<bool>;
};

template <class T, GuestReader V>
requires std::is_trivially_copyable_v<T> std::optional<T> read_guest(V& vmm,
                                                                     vmm_base::XenVcpuId vcpu,
                                                                     std::uint64_t gva) {
  T value;
  if (!vmm.copy_from_guest(vcpu, vmm_base::Gva{gva},
                           std::as_writable_bytes(std::span(&value, 1)))) {
    return std::nullopt;
  }
  return value;
}

// Padding goes along: of what read_guest() brought, it is the guest's own; anything else must have
// none, or the guest sees what the host's stack had there.
template <class T, GuestWriter V>
requires std::is_trivially_copyable_v<T>
bool write_guest(V& vmm, vmm_base::XenVcpuId vcpu, std::uint64_t gva, const T& value) {
  return vmm.copy_to_guest(vcpu, vmm_base::Gva{gva}, std::as_bytes(std::span(&value, 1)));
}

}  // namespace xen_hcall
