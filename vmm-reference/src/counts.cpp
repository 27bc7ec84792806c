// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "counts.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

#include "report.hpp"

namespace vmm_reference {

namespace {

// Of the bounds, in their order.
constexpr std::array<const char*, late_buckets> bound_names = {
    "<=1us", "<=10us", "<=100us", "<=1ms", "<=10ms", "<=100ms", "later"};
// In seconds, as the specification would have them.
constexpr std::array<const char*, late_buckets> bound_labels = {"1e-06", "1e-05", "0.0001", "0.001",
                                                                "0.01",  "0.1",   "+Inf"};

std::string padded(const std::string& text, std::size_t width) {
  return std::string(width - std::min(width, text.size()), ' ') + text;
}

std::string seconds(std::uint64_t ns) {
  const std::string rest = std::to_string(ns % 1'000'000'000);
  return std::to_string(ns / 1'000'000'000) + "." + std::string(9 - rest.size(), '0') + rest;
}

// Calls each(name, count) for every hypercall that came.
template <class Each>
void each_call(const VcpuCounts& counts, const Each& each) {
  for (std::size_t kind = 0; kind < call_kinds; ++kind) {
    if (counts.calls[kind] != 0) each(call_name(kind), std::to_string(counts.calls[kind]));
  }
}

}  // namespace

// --- a table ---

std::string counts_head() {
  std::string line = "vCPUs vCPU  served by   calls  armed cancel  fired";
  for (const char* name : bound_names) line += padded(name, 8);
  return line;
}

std::string counts_row(const RunCounts& run, const std::string& vcpu, const VcpuCounts& counts) {
  std::string mode = to_string(run.mode);
  mode.resize(std::max<std::size_t>(mode.size(), 9), ' ');
  std::string line = padded(std::to_string(run.vcpus.size()), 5) + " " + padded(vcpu, 4) + "  " +
                     mode + " " + padded(std::to_string(counts.all_calls()), 7) + " " +
                     padded(std::to_string(counts.armed), 6) + " " +
                     padded(std::to_string(counts.cancelled), 6) + " " +
                     padded(std::to_string(counts.fired()), 6);
  for (const std::uint64_t late : counts.late) line += " " + padded(std::to_string(late), 7);
  return line;
}

std::string calls_text(const VcpuCounts& counts) {
  std::string text;
  each_call(counts, [&](const std::string& name, const std::string& count) {
    text += (text.empty() ? "" : ", ") + name + " " + count;
  });
  return text;
}

std::string counts_line(const VcpuCounts& counts) {
  std::string line = "armed " + std::to_string(counts.armed) + ", cancelled " +
                     std::to_string(counts.cancelled) + ", fired " +
                     std::to_string(counts.fired()) + ", late";
  for (std::size_t n = 0; n < late_buckets; ++n) {
    line += std::string(" ") + bound_names[n] + " " + std::to_string(counts.late[n]) + ",";
  }
  return line + " hypercalls " + calls_text(counts);
}

void print_counts(std::FILE* out, std::span<const RunCounts> runs) {
  std::fprintf(out, "%s\n", counts_head().c_str());
  for (const RunCounts& run : runs) {
    for (std::size_t index = 0; index < run.vcpus.size(); ++index) {
      const VcpuCounts& counts = run.vcpus[index];
      std::fprintf(out, "%s\n", counts_row(run, std::to_string(index), counts).c_str());
      if (const std::string calls = calls_text(counts); !calls.empty()) {
        std::fprintf(out, "            %s\n", calls.c_str());
      }
    }
  }
}

// --- JSON ---

std::string to_json(const VcpuCounts& counts) {
  std::string out = R"({"armed": )" + std::to_string(counts.armed);
  out += R"(, "cancelled": )" + std::to_string(counts.cancelled);
  out += R"(, "fired": )" + std::to_string(counts.fired());
  out += R"(, "late_sum_ns": )" + std::to_string(counts.late_ns) + R"(, "late": [)";
  for (std::size_t n = 0; n < late_buckets; ++n) {
    const std::string bound = n < late_bounds.size() ? std::to_string(late_bounds[n]) : "null";
    out += (n == 0 ? "" : ", ") + (R"({"up_to_ns": )" + bound) + R"(, "count": )" +
           std::to_string(counts.late[n]) + "}";
  }
  out += R"(], "hypercalls": {)";
  bool first = true;
  each_call(counts, [&](const std::string& name, const std::string& count) {
    out += (std::exchange(first, false) ? "" : ", ") + json_string(name) + ": " + count;
  });
  return out + "}}";
}

// --- OpenMetrics ---

std::string to_openmetrics(std::span<const RunCounts> runs) {
  std::string out;
  const auto family = [&](const std::string& name, const char* type, const char* help) {
    out += "# TYPE " + name + " " + type + "\n# HELP " + name + " " + help + "\n";
  };
  // Calls each(labels, counts) for every vCPU.
  const auto all = [&](auto&& each) {
    for (std::size_t n = 0; n < runs.size(); ++n) {
      const std::string run =
          "run=\"" + std::to_string(n + 1) + "\",served_by=\"" + to_string(runs[n].mode) + "\"";
      for (std::size_t id = 0; id < runs[n].vcpus.size(); ++id) {
        each(run + ",vcpu=\"" + std::to_string(id) + "\"", runs[n].vcpus[id]);
      }
    }
  };
  const auto sample = [&](const std::string& name, const std::string& labels,
                          const std::string& value) {
    out += name + "{" + labels + "} " + value + "\n";
  };

  family("vmm_timers_armed", "counter", "Single shots that the guest has set, seen by the VMM.");
  all([&](const std::string& labels, const VcpuCounts& counts) {
    sample("vmm_timers_armed_total", labels, std::to_string(counts.armed));
  });
  family("vmm_timers_cancelled", "counter",
         "Single shots that the guest has stopped or replaced before they were due.");
  all([&](const std::string& labels, const VcpuCounts& counts) {
    sample("vmm_timers_cancelled_total", labels, std::to_string(counts.cancelled));
  });
  family("vmm_timers_fired", "counter", "Timers whose event the VMM has raised.");
  all([&](const std::string& labels, const VcpuCounts& counts) {
    sample("vmm_timers_fired_total", labels, std::to_string(counts.fired()));
  });
  family("vmm_timer_lateness_seconds", "histogram",
         "How long after its deadline a timer's event was raised, by the guest's clock.");
  out += "# UNIT vmm_timer_lateness_seconds seconds\n";
  all([&](const std::string& labels, const VcpuCounts& counts) {
    std::uint64_t up_to = 0;
    for (std::size_t n = 0; n < late_buckets; ++n) {
      up_to += counts.late[n];
      sample("vmm_timer_lateness_seconds_bucket", labels + ",le=\"" + bound_labels[n] + "\"",
             std::to_string(up_to));
    }
    sample("vmm_timer_lateness_seconds_count", labels, std::to_string(up_to));
    sample("vmm_timer_lateness_seconds_sum", labels, seconds(counts.late_ns));
  });
  family("vmm_hypercalls_punted", "counter", "Hypercalls that came to the VMM.");
  all([&](const std::string& labels, const VcpuCounts& counts) {
    each_call(counts, [&](const std::string& name, const std::string& count) {
      sample("vmm_hypercalls_punted_total", labels + ",hypercall=\"" + name + "\"", count);
    });
  });
  return out + "# EOF\n";
}

}  // namespace vmm_reference
