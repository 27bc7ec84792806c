// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// One Xen guest: its VM, memory, vCPUs and threads, from the first instruction to the report.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "host.hpp"
#include "observer.hpp"
#include "options.hpp"
#include "vmm_base/result.hpp"
#include "vmm_reference/guest_protocol.hpp"

namespace vmm_reference {

struct VcpuReport {
  TimerReport guest{};       // of the timer guest, or
  std::string text{};        // what another guest left, printable characters and line ends only
  std::uint64_t punted = 0;  // timer hypercalls that came to us
  std::optional<VcpuCounts> counts{};  // with --stats
};

struct RunReport {
  TimerMode mode{};
  std::vector<VcpuReport> vcpus{};
  bool exact_clock = false;           // deadlines were reckoned on the guest's own pvclock
  std::vector<std::string> faults{};  // what went wrong, a sentence each
  bool timed_out = false;
  std::chrono::nanoseconds spun{0};  // spent in waiting for the timers
};

// Runs an ELF guest of tests/guests on `vcpu_count` vCPUs until all are done, or the time is out.
// Error: the VM could not be set up. `title`: what a terminal is told of a run that takes long.
// `observer`: who watches, or null.
[[nodiscard]] std::variant<RunReport, std::string> run_domain(
    const Host& host, std::span<const std::byte> guest, TimerMode mode, std::uint32_t vcpu_count,
    const Options& options, const std::string& title = {}, Observer* observer = nullptr);

}  // namespace vmm_reference
