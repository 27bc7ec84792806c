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
  irqfd,      // We serve; a timerfd keeps, whose expiry raises the event inside the kernel.
  delegated,  // We serve; KVM keeps.
  moving,     // As kernel and as userspace, by turns, every few hundred us: that it can be done.
};

inline constexpr TimerMode timer_modes[] = {TimerMode::kernel, TimerMode::userspace,
                                            TimerMode::irqfd, TimerMode::delegated,
                                            TimerMode::moving};

constexpr const char* to_string(TimerMode mode) noexcept {
  switch (mode) {
    case TimerMode::kernel:
      return "kernel";
    case TimerMode::userspace:
      return "userspace";
    case TimerMode::irqfd:
      return "irqfd";
    case TimerMode::delegated:
      return "delegated";
    case TimerMode::moving:
      return "moving";
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
  // A Linux guest instead:
  std::string kernel;     // path of a bzImage or vmlinux
  std::string initramfs;  // path; empty for none
  std::string cmdline = "console=ttyS0";
  std::uint32_t memory_mib = 256;
  std::string boot = "pvh";  // or hvm: by the 64-bit entry
};

}  // namespace vmm_reference
