// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A hypercall as the guest made it, and what it is answered: the words that every handler shares.
//
//   std::optional<xen_abi::Answer> handle(XenVcpuId vcpu, const xen_abi::Hypercall& call) {
//     if (call.number != xen_abi::hypercall::sched_op) return std::nullopt;  // not mine
//     return xen_abi::Answer{xen_abi::Errno::nosys};
//   }
#pragma once

#include <array>
#include <cstdint>

#include "vmm_base/result.hpp"
#include "xen_abi/errno.hpp"
#include "xen_abi/hypercall_numbers.hpp"

namespace xen_abi {

// One hypercall. In 32-bit mode every field holds a zero-extended 32-bit register.
struct Hypercall {
  std::uint64_t number = 0;
  std::array<std::uint64_t, 6> params{};  // rdi rsi rdx r10 r8 r9, or ebx ecx edx esi edi ebp
  bool long_mode = true;  // The caller's mode, which sets the layout of the arguments. It is not
                          // the domain's mode, which sets the layout of shared_info.
  std::uint8_t cpl = 0;   // The caller's privilege level, 0 to 3.
};

// What goes into the guest's RAX: a value, or a negative Xen errno sign-extended to 64 bits.
class GuestResult {
 public:
  constexpr GuestResult(Errno error) noexcept  // NOLINT(google-explicit-constructor): reads so
      : rax_(-static_cast<std::int64_t>(error)) {}
  static constexpr GuestResult ok(std::int64_t value = 0) noexcept { return GuestResult(value); }

  [[nodiscard]] constexpr std::uint64_t rax() const noexcept {
    return static_cast<std::uint64_t>(rax_);
  }
  friend constexpr bool operator==(GuestResult, GuestResult) noexcept = default;

 private:
  explicit constexpr GuestResult(std::int64_t rax) noexcept : rax_(rax) {}
  std::int64_t rax_;
};

// What the guest is told, and, apart from it, what the VMM is told: a host error met on the way.
struct Answer {
  GuestResult guest;
  vmm_base::Result<void> host = vmm_base::success();
};

}  // namespace xen_abi
