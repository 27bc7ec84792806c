// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observation.hpp"

#include <numeric>

namespace vmm_reference {

namespace {

template <class Counts>
std::uint64_t sum(const Counts& counts) noexcept {
  return std::accumulate(counts.begin(), counts.end(), std::uint64_t{0});
}

}  // namespace

std::uint64_t VcpuCounts::fired() const noexcept { return sum(late); }
std::uint64_t VcpuCounts::all_calls() const noexcept { return sum(calls); }

VcpuCounts& VcpuCounts::operator+=(const VcpuCounts& other) noexcept {
  armed += other.armed;
  cancelled += other.cancelled;
  late_ns += other.late_ns;
  for (std::size_t n = 0; n < late.size(); ++n) late[n] += other.late[n];
  for (std::size_t n = 0; n < calls.size(); ++n) calls[n] += other.calls[n];
  return *this;
}

VcpuCounts VcpuObservation::counts() const noexcept {
  VcpuCounts counts{.armed = armed_.get(), .cancelled = cancelled_.get()};
  for (std::size_t n = 0; n < call_kinds; ++n) counts.calls[n] = calls_[n].get();
  for (const Timer& timer : timers_) {
    counts.late_ns += timer.late_ns.get();
    for (std::size_t n = 0; n < late_buckets; ++n) counts.late[n] += timer.late[n].get();
  }
  return counts;
}

std::vector<VcpuCounts> read_counts(const Observation& observation) {
  std::vector<VcpuCounts> counts;
  counts.reserve(observation.size());
  for (const VcpuObservation& vcpu : observation) counts.push_back(vcpu.counts());
  return counts;
}

}  // namespace vmm_reference
