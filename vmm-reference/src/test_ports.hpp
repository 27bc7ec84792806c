// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The ports by which a test guest tells us things (vmm_reference/guest_protocol.hpp).
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <span>

#include "devices.hpp"
#include "vmm_reference/guest_protocol.hpp"

namespace vmm_reference {

// Whether a character of the guest's may reach the user's terminal.
inline bool is_text(std::uint32_t character) {
  return (character >= ' ' && character < 0x7f) || character == '\n';
}

// One vCPU's.
class TestPorts final : public Devices {
 public:
  bool out(std::uint16_t port, std::span<const std::byte> data) override {
    std::uint32_t value = 0;
    std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
    switch (port) {
      case port_text:
        if (text_left_ == 0 || !is_text(value)) return true;
        --text_left_;
        std::fputc(static_cast<int>(value), stderr);
        return true;
      case port_report:
        report_gpa_ = value;
        return true;
      case port_done:
        gave_up_ = value != 0;
        return false;
      default:
        return true;  // as on a PC, nobody is at home there
    }
  }
  void in(std::uint16_t /*port*/, std::span<std::byte> data) override {
    std::fill(data.begin(), data.end(), std::byte{0xff});
  }

  // Set as soon as the guest tells it; 0 before.
  [[nodiscard]] std::uint32_t report_gpa() const noexcept { return report_gpa_; }
  [[nodiscard]] bool gave_up() const noexcept { return gave_up_; }

 private:
  std::uint32_t report_gpa_ = 0;
  std::uint32_t text_left_ = 4096;  // characters still shown
  bool gave_up_ = false;
};

}  // namespace vmm_reference
