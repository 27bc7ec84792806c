// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a run has shown: a verdict, a table, a JSON document.
#pragma once

#include <cstdint>
#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "counts.hpp"
#include "domain.hpp"
#include "linux_domain.hpp"

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

struct Verdict {
  // Every timer armed and fired, none that we served early, and the calls served by whom they
  // should have been.
  bool good = true;
  // What there is to say beside the numbers, a sentence each: of each vCPU, and of the run.
  std::vector<std::vector<std::string>> vcpus{};
  std::vector<std::string> run{};
};

// Of a run in which each vCPU was to arm so many timers.
[[nodiscard]] Verdict judge(const RunReport& run, std::uint32_t timers);

// Whether all that was printed there got there; if not, errno says why.
[[nodiscard]] bool is_written(std::FILE* out);

void print_head(std::FILE* out);
// A row a vCPU, each with what there is to say of it, then that of the run. As
// is_written().
[[nodiscard]] bool print_rows(std::FILE* out, const RunReport& run, const Verdict& verdict);

// An object, in one line. Times are whole nanoseconds, or null where no timer fired.
[[nodiscard]] std::string to_json(const RunReport& run, const Verdict& verdict);

// The document of all runs. `error`: what ended the program before their time, or empty.
struct Document {
  std::string_view linux_release;
  const Host& host;
  std::uint32_t timers;                 // that each vCPU was to arm
  std::span<const std::string> runs{};  // of to_json()
  bool exact_clock = true;              // as in RunReport
  bool good = true;
  std::string_view error{};
};
[[nodiscard]] std::string to_json(const Document& document);

// What there is to say at the end of a Linux guest, in one line.
struct LinuxDocument {
  std::string_view linux_release;  // the host's
  const LinuxRun& run;
  std::optional<TimerMode> mode{};    // of a Xen guest
  const RunCounts* counts = nullptr;  // where --stats asks for them
};
[[nodiscard]] std::string to_json(const LinuxDocument& document);

// A JSON string, quotes included. Bytes that aren't UTF-8 become U+FFFD.
[[nodiscard]] std::string json_string(std::string_view text);

}  // namespace vmm_reference
