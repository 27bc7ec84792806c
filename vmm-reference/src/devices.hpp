// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a vCPU reaches by its ports, and in memory where there is no RAM. Virtual, for hypercalls
// and timers don't come this way.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm_base/guest_address.hpp"

namespace vmm_reference {

class Devices {
 public:
  virtual ~Devices() = default;

  // False ends the vCPU.
  virtual bool out(std::uint16_t port, std::span<const std::byte> data) = 0;
  virtual void in(std::uint16_t port, std::span<std::byte> data) = 0;
  // As on a PC, where nobody is at home.
  virtual void read_memory(vmm_base::Gpa /*gpa*/, std::span<std::byte> data) {
    std::fill(data.begin(), data.end(), std::byte{0xff});
  }
  virtual void write_memory(vmm_base::Gpa /*gpa*/, std::span<const std::byte> /*data*/) {}
};

}  // namespace vmm_reference
