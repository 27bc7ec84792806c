// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the user asked for.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace vmm_reference {

// Who serves the guest's timer hypercalls and keeps its deadlines.
enum class TimerMode {
  kernel,     // KVM serves and keeps.
  userspace,  // We serve; a timerfd keeps.
  irqfd,      // We serve; an io_uring keeps, whose timeout raises the event inside the kernel.
  delegated,  // We serve; KVM keeps.
  moving,     // As kernel and as userspace, by turns, every few hundred us: that it can be done.
  spinning,   // We serve, on the vCPU's own thread, woken early; the rest is spun for.
};

inline constexpr TimerMode timer_modes[] = {TimerMode::kernel,   TimerMode::userspace,
                                            TimerMode::irqfd,    TimerMode::delegated,
                                            TimerMode::spinning, TimerMode::moving};

constexpr const char* to_string(TimerMode mode) noexcept {
  switch (mode) {
    case TimerMode::kernel:
      return "kernel";
    case TimerMode::userspace:
      return "userspace";
    case TimerMode::spinning:
      return "spinning";
    case TimerMode::irqfd:
      return "irqfd";
    case TimerMode::delegated:
      return "delegated";
    case TimerMode::moving:
      return "moving";
  }
  return "?";
}

// Where KVM is told the vCPUs' Xen ids, which makes it answer the timer calls.
constexpr bool keeps_timers_in_kernel(TimerMode mode) noexcept {
  return mode == TimerMode::kernel || mode == TimerMode::moving;
}

inline constexpr std::uint32_t max_memory_mib = 1 << 20;

// How a Linux kernel is entered, and whose guest it is.
enum class Boot {
  pvh,     // a Xen guest, by Xen's PVH entry
  hvm,     // a Xen guest, by Linux's 64-bit entry
  native,  // a guest of KVM's own, by Linux's 64-bit entry
};

struct Options {
  std::string guest;                            // path of an ELF file
  std::vector<std::uint32_t> vcpus{1};          // one run each, 1 to max_vcpus
  std::vector<std::string> timers{"auto"};      // one run each: a TimerMode's name, auto or all
  std::uint32_t count = 1000;                   // timers a vCPU
  std::chrono::milliseconds load{0};            // if not 0: arm anew at once for so long; no option
  std::optional<std::chrono::seconds> timeout;  // a run; test guests: 60 s, Linux guests: none
  std::string device = "/dev/kvm";
  bool stats = false;    // show counters while a guest runs, and at the end
  std::string metrics;   // path where they go as OpenMetrics; empty: nowhere
  std::string trace;     // path where a trace goes; empty: nowhere
  bool json = false;     // a document instead of what is said at the end
  bool sandbox = false;  // enter it, once all files are open; the program's default is true
  // A Linux guest instead:
  std::string kernel;     // path of a bzImage or vmlinux
  std::string initramfs;  // path; empty for none
  std::string cmdline = "console=ttyS0";
  std::uint32_t memory_mib = 256;
  Boot boot = Boot::pvh;
  std::string restore;      // path of a snapshot to go on from, instead of `kernel`
  std::string snapshot_to;  // path where snapshots go; empty: none can be taken
  bool real_time = false;   // what has passed since the snapshot has passed for the guest, too
  std::vector<std::string> vfio;  // devices of the host's that it is given: their folders in sysfs
};

// What the command line asks for; or the status to exit with, after help or a complaint.
[[nodiscard]] std::variant<Options, int> parse_options(int argc, char** argv);

}  // namespace vmm_reference
