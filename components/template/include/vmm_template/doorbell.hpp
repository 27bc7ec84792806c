// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the header is, when to use it, and an example:
//
//   Doorbell doorbell(vmm);
//   doorbell.write(data);  // the guest wrote to its port
#pragma once

#include <concepts>
#include <cstdint>

#include "vmm_base/result.hpp"

namespace vmm_template {

// rang: the guest has rung, `times` in all with this one. An error undoes it.
template <class V>
concept DoorbellVmm = requires(V& vmm, std::uint64_t times) {
  { vmm.rang(times) } -> std::same_as<vmm_base::Result<void>>;
};

template <DoorbellVmm V>
class Doorbell {
 public:
  explicit Doorbell(V& vmm) noexcept : vmm_(vmm) {}

  // The guest wrote `value`, of which it doesn't matter what it is, to the doorbell's port. The
  // error is the VMM's own.
  vmm_base::Result<void> write([[maybe_unused]] std::uint64_t value) {
    VMM_CHECK(vmm_.rang(rung_ + 1));
    ++rung_;
    return vmm_base::success();
  }
  [[nodiscard]] std::uint64_t rung() const noexcept { return rung_; }

 private:
  V& vmm_;
  std::uint64_t rung_ = 0;
};

}  // namespace vmm_template
