// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a run has shown, as a table and as a verdict.
#pragma once

#include <cstdint>
#include <cstdio>

#include "domain.hpp"

namespace vmm_reference {

// Sums of one vCPU's report; lateness in ns.
struct Summary {
  std::uint32_t lost = 0;
  std::uint32_t early = 0;
  std::int64_t min = 0;  // negative is early
  std::int64_t p50 = 0;
  std::int64_t p99 = 0;
  std::int64_t max = 0;
};

[[nodiscard]] Summary summarise(const TimerReport& report);

void print_head(std::FILE* out);
// A row a vCPU, then the faults; returns whether all went well: every timer armed and fired, none
// that we served early, and the calls served by whom they should have been.
[[nodiscard]] bool print_rows(std::FILE* out, const RunReport& run, std::uint32_t timers);

}  // namespace vmm_reference
