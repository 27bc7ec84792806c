// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "report.hpp"

#include <algorithm>
#include <cstdarg>

namespace vmm_reference {

namespace {

double us(std::int64_t ns) { return static_cast<double>(ns) / 1000.0; }

[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  char line[200];
  std::vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  return line;
}

using Number = unsigned long long;

}  // namespace

Summary summarise(const TimerReport& report) {
  Summary summary;
  const std::uint32_t accepted = report.armed - std::min(report.refused, report.armed);
  const std::uint32_t answered = report.fired - std::min(report.unasked, report.fired);
  summary.lost = accepted - std::min(answered, accepted);
  // A lost one is the last, for the guest waits for it.
  std::vector<std::int64_t> lateness(report.lateness_ns,
                                     report.lateness_ns + std::min(answered, max_timers));
  if (lateness.empty()) return summary;
  std::sort(lateness.begin(), lateness.end());
  summary.early = static_cast<std::uint32_t>(std::lower_bound(lateness.begin(), lateness.end(), 0) -
                                             lateness.begin());
  const auto quantile = [&](std::size_t percent) {
    return lateness[(lateness.size() - 1) * percent / 100];
  };
  summary.min = lateness.front();
  summary.p50 = quantile(50);
  summary.p99 = quantile(99);
  summary.max = lateness.back();
  return summary;
}

Verdict judge(const RunReport& run, std::uint32_t timers) {
  Verdict verdict{.good = run.faults.empty() && !run.timed_out};
  for (const VcpuReport& vcpu : run.vcpus) {
    const TimerReport& guest = vcpu.guest;
    const Summary s = summarise(guest);
    std::vector<std::string>& say = verdict.vcpus.emplace_back();
    for (std::uint32_t n = 0, shown = 0;
         s.early != 0 && n < std::min(guest.fired, max_timers) && shown < 3; ++n) {
      if (guest.lateness_ns[n] >= 0) continue;
      say.push_back(
          text("timer %u of %u came %.1f us early", n + 1, guest.armed, -us(guest.lateness_ns[n])));
      ++shown;
    }
    // Each arming, and one stop at the end.
    const std::uint64_t all = guest.armed + 1;
    const std::uint64_t expected = run.mode == TimerMode::kernel ? 0 : all;
    const bool as_expected = run.mode == TimerMode::moving ? vcpu.punted > 0 && vcpu.punted < all
                                                           : vcpu.punted == expected;
    if (!as_expected && !run.timed_out) {
      say.push_back(text("the hypercalls were not served by the %s: %llu came to us, not %llu",
                         to_string(run.mode), static_cast<Number>(vcpu.punted),
                         static_cast<Number>(expected)));
      verdict.good = false;
    }
    if (guest.refused != 0) say.push_back(text("%u calls were refused", guest.refused));
    if (guest.unasked != 0) say.push_back(text("%u events came unasked", guest.unasked));
    if (guest.back != 0) say.push_back(text("its clock went back %u times", guest.back));
    const bool ours_early = run.mode != TimerMode::kernel && s.early != 0;
    verdict.good = verdict.good && s.lost == 0 && !ours_early && guest.refused == 0 &&
                   guest.unasked == 0 && guest.back == 0 && guest.armed == timers;
  }
  if (run.mode == TimerMode::spinning) {
    std::uint64_t fired = 0;
    for (const VcpuReport& vcpu : run.vcpus) fired += vcpu.guest.fired;
    verdict.run.push_back(
        text("spun for %.1f us a timer",
             us(run.spun.count()) / static_cast<double>(std::max<std::uint64_t>(fired, 1))));
  }
  if (run.timed_out) verdict.run.emplace_back("time is out: a timer was lost, or the guest hangs");
  verdict.run.insert(verdict.run.end(), run.faults.begin(), run.faults.end());
  return verdict;
}

bool is_written(std::FILE* out) { return std::fflush(out) == 0 && std::ferror(out) == 0; }

void print_head(std::FILE* out) {
  std::fprintf(out, "%5s %4s  %-9s %6s %6s %6s %6s %6s %9s %9s %9s %9s\n", "vCPUs", "vCPU",
               "served by", "punted", "armed", "fired", "lost", "early", "min us", "p50 us",
               "p99 us", "max us");
}

bool print_rows(std::FILE* out, const RunReport& run, const Verdict& verdict) {
  const auto print_all = [&](const std::vector<std::string>& sentences) {
    for (const std::string& line : sentences) std::fprintf(out, "            %s\n", line.c_str());
  };
  for (std::size_t index = 0; index < run.vcpus.size(); ++index) {
    const TimerReport& guest = run.vcpus[index].guest;
    const Summary s = summarise(guest);
    std::fprintf(out, "%5zu %4zu  %-9s %6llu %6u %6u %6u %6u %9.1f %9.1f %9.1f %9.1f\n",
                 run.vcpus.size(), index, to_string(run.mode),
                 static_cast<Number>(run.vcpus[index].punted), guest.armed, guest.fired, s.lost,
                 s.early, us(s.min), us(s.p50), us(s.p99), us(s.max));
    print_all(verdict.vcpus[index]);
  }
  print_all(verdict.run);
  return is_written(out);
}

}  // namespace vmm_reference
