// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the counters look like: a table, JSON, OpenMetrics.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "observation.hpp"
#include "options.hpp"

namespace vmm_reference {

struct RunCounts {
  TimerMode mode{};
  std::vector<VcpuCounts> vcpus{};
};

// Of a table, without line ends.
[[nodiscard]] std::string counts_head();
[[nodiscard]] std::string counts_row(const RunCounts& run, const std::string& vcpu,
                                     const VcpuCounts& counts);
// "xen_version 1, event_channel_op 2", those that were made.
[[nodiscard]] std::string calls_text(const VcpuCounts& counts);
// All of it in one line.
[[nodiscard]] std::string counts_line(const VcpuCounts& counts);
// The table.
void print_counts(std::FILE* out, std::span<const RunCounts> runs);

// An object. The buckets aren't cumulative.
[[nodiscard]] std::string to_json(const VcpuCounts& counts);

// A whole text, by openmetrics.io's specification 1.0. It never gets shorter as counters grow and
// runs are added.
[[nodiscard]] std::string to_openmetrics(std::span<const RunCounts> runs);

}  // namespace vmm_reference
