// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "report.hpp"

#include <algorithm>
#include <vector>

namespace vmm_reference {

namespace {

double us(std::int64_t ns) { return static_cast<double>(ns) / 1000.0; }

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

void print_head(std::FILE* out) {
  std::fprintf(out, "%5s %4s  %-9s %6s %6s %6s %6s %6s %9s %9s %9s %9s\n", "vCPUs", "vCPU",
               "served by", "punted", "armed", "fired", "lost", "early", "min us", "p50 us",
               "p99 us", "max us");
}

bool print_rows(std::FILE* out, const RunReport& run, std::uint32_t timers) {
  bool good = run.faults.empty() && !run.timed_out;
  for (std::size_t index = 0; index < run.vcpus.size(); ++index) {
    const TimerReport& guest = run.vcpus[index].guest;
    const std::uint64_t punted = run.vcpus[index].punted;
    const Summary s = summarise(guest);
    std::fprintf(out, "%5zu %4zu  %-9s %6llu %6u %6u %6u %6u %9.1f %9.1f %9.1f %9.1f\n",
                 run.vcpus.size(), index, to_string(run.mode),
                 static_cast<unsigned long long>(punted), guest.armed, guest.fired, s.lost, s.early,
                 us(s.min), us(s.p50), us(s.p99), us(s.max));
    for (std::uint32_t n = 0, shown = 0;
         s.early != 0 && n < std::min(guest.fired, max_timers) && shown < 3; ++n) {
      if (guest.lateness_ns[n] >= 0) continue;
      std::fprintf(out, "            timer %u of %u came %.1f us early\n", n + 1, guest.armed,
                   -us(guest.lateness_ns[n]));
      ++shown;
    }
    // Each arming, and one stop at the end.
    const std::uint64_t all = guest.armed + 1;
    const std::uint64_t expected = run.mode == TimerMode::kernel ? 0 : all;
    const bool as_expected =
        run.mode == TimerMode::moving ? punted > 0 && punted < all : punted == expected;
    if (!as_expected && !run.timed_out) {
      std::fprintf(out,
                   "            the hypercalls were not served by the %s: %llu came to us, "
                   "not %llu\n",
                   to_string(run.mode), static_cast<unsigned long long>(punted),
                   static_cast<unsigned long long>(expected));
      good = false;
    }
    if (guest.refused != 0) std::fprintf(out, "            %u calls were refused\n", guest.refused);
    if (guest.unasked != 0)
      std::fprintf(out, "            %u events came unasked\n", guest.unasked);
    const bool ours_early = run.mode != TimerMode::kernel && s.early != 0;
    good = good && s.lost == 0 && !ours_early && guest.refused == 0 && guest.unasked == 0 &&
           guest.armed == timers;
  }
  if (run.mode == TimerMode::spinning) {
    std::uint64_t fired = 0;
    for (const VcpuReport& vcpu : run.vcpus) fired += vcpu.guest.fired;
    std::fprintf(out, "            spun for %.1f us a timer\n",
                 us(run.spun.count()) / static_cast<double>(std::max<std::uint64_t>(fired, 1)));
  }
  if (run.timed_out)
    std::fprintf(out, "            time is out: a timer was lost, or the guest hangs\n");
  for (const std::string& fault : run.faults) std::fprintf(out, "            %s\n", fault.c_str());
  std::fflush(out);
  return good;
}

}  // namespace vmm_reference
