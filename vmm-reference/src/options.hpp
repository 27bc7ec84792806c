// SPDX-License-Identifier: BSD-3-Clause
//
// What the user asked for.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace vmm_reference {

// Who serves the guest's timer hypercalls and keeps its deadlines.
enum class TimerMode {
  kernel,     // KVM serves and keeps.
  userspace,  // We serve; a timerfd keeps.
  delegated,  // We serve; KVM keeps.
};

constexpr const char* to_string(TimerMode mode) noexcept {
  switch (mode) {
    case TimerMode::kernel:
      return "kernel";
    case TimerMode::userspace:
      return "userspace";
    case TimerMode::delegated:
      return "delegated";
  }
  return "?";
}

struct Options {
  std::string guest;                        // path of an ELF file
  std::vector<std::uint32_t> vcpus{1};      // one run each, 1 to 8
  std::vector<std::string> timers{"auto"};  // one run each: a TimerMode's name, auto or all
  std::uint32_t count = 1000;               // timers a vCPU
  std::chrono::seconds timeout{60};         // a run
  std::string device = "/dev/kvm";
};

}  // namespace vmm_reference
