// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_console_io: the guest's text on Xen's own console, as by Linux's earlyprintk=xen.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <span>

#include "vmm_base/guest_address.hpp"
#include "xen_abi/console.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// console_write: any bytes, of any vCPU's at any time; a terminal may take some of them for orders.
// console_read: puts what has been typed into `to`, and says how much that is; 0 for nothing.
template <class V>
concept ConsoleVmm = GuestReader<V> && GuestWriter<V> &&
    requires(V& vmm, std::span<const std::byte> text, std::span<std::byte> to) {
  vmm.console_write(text);
  { vmm.console_read(to) } -> std::same_as<std::size_t>;
};

template <ConsoleVmm V>
class ConsoleOp {
 public:
  explicit ConsoleOp(V& vmm) noexcept : vmm_(vmm) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::console_io;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    const auto count = static_cast<std::uint32_t>(call.params[1]);
    const vmm_base::Gva buffer{call.params[2]};
    switch (static_cast<std::uint32_t>(call.params[0])) {
      case xen_abi::consoleio::write:
        return write(vcpu, buffer, count);
      case xen_abi::consoleio::read:
        return read(vcpu, buffer, count);
      default:
        return std::nullopt;
    }
  }

 private:
  // So much at once. Xen would take 4 GiB, and pause for interrupts; here the vCPU's thread would
  // be away from its VMM for as long.
  static constexpr std::uint32_t most = 1 << 16;

  xen_abi::Answer write(XenVcpuId vcpu, vmm_base::Gva buffer, std::uint32_t count) {
    if (count > most) return {xen_abi::Errno::too_big};
    std::array<std::byte, 256> text;
    for (std::uint32_t at = 0; at < count;) {
      const auto piece = std::span(text).first(std::min<std::size_t>(count - at, text.size()));
      if (!vmm_.copy_from_guest(vcpu, buffer + at, piece)) return {xen_abi::Errno::fault};
      vmm_.console_write(piece);
      at += static_cast<std::uint32_t>(piece.size());
    }
    return ok();
  }

  // How much it was.
  xen_abi::Answer read(XenVcpuId vcpu, vmm_base::Gva buffer, std::uint32_t count) {
    if (count > 0x7fffffff) return {xen_abi::Errno::too_big};
    std::array<std::byte, 256> text;
    const auto room = std::span(text).first(std::min<std::size_t>(count, text.size()));
    const std::size_t length = vmm_.console_read(room);
    if (!vmm_.copy_to_guest(vcpu, buffer, room.first(length))) return {xen_abi::Errno::fault};
    return ok(static_cast<std::int64_t>(length));
  }

  V& vmm_;
};

}  // namespace xen_hcall
