// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <algorithm>
#include <cstddef>

#include "host.hpp"
#include "report.hpp"

namespace vmm_reference {

namespace {

// The bytes of the UTF-8 character that `text` begins with; 0 if it is none (RFC 3629).
std::size_t character(std::string_view text) {
  const auto byte = [&](std::size_t at) { return static_cast<unsigned char>(text[at]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return 1;
  const std::size_t size = first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
  if (size == 0 || first > 0xf4 || text.size() < size) return 0;
  for (std::size_t at = 1; at < size; ++at) {
    if ((byte(at) & 0xc0) != 0x80) return 0;
  }
  const unsigned char second = byte(1);
  const bool overlong = (first == 0xe0 && second < 0xa0) || (first == 0xf0 && second < 0x90);
  const bool surrogate = first == 0xed && second >= 0xa0;
  return overlong || surrogate || (first == 0xf4 && second >= 0x90) ? 0 : size;
}

const char* json(bool value) { return value ? "true" : "false"; }

std::string list(const std::vector<std::string>& texts) {
  std::string out = "[";
  for (const std::string& each : texts) out += (out.size() > 1 ? ", " : "") + json_string(each);
  return out + "]";
}

// "name": value
std::string field(std::string_view name, const std::string& value) {
  return json_string(name) + ": " + value;
}
std::string next(std::string_view name, const std::string& value) {
  std::string text = ", ";
  text += field(name, value);
  return text;
}

std::string vcpu_json(std::size_t index, const VcpuReport& vcpu,
                      const std::vector<std::string>& remarks) {
  const TimerReport& guest = vcpu.guest;
  const Summary s = summarise(guest);
  std::string out = "{";
  out += field("vcpu", std::to_string(index));
  const auto add = [&](std::string_view name, const std::string& value) {
    out += next(name, value);
  };
  add("punted", std::to_string(vcpu.punted));
  add("armed", std::to_string(guest.armed));
  add("fired", std::to_string(guest.fired));
  add("lost", std::to_string(s.lost));
  add("early", std::to_string(s.early));
  add("refused", std::to_string(guest.refused));
  add("unasked", std::to_string(guest.unasked));
  add("clock_back", std::to_string(guest.back));
  const bool any = guest.fired > guest.unasked;
  const auto time = [&](std::int64_t ns) { return any ? std::to_string(ns) : "null"; };
  add("lateness_min_ns", time(s.min));
  add("lateness_p50_ns", time(s.p50));
  add("lateness_p99_ns", time(s.p99));
  add("lateness_max_ns", time(s.max));
  if (vcpu.counts) add("stats", to_json(*vcpu.counts));
  add("remarks", list(remarks));
  return out + "}";
}

}  // namespace

std::string json_string(std::string_view text) {
  constexpr const char* digits = "0123456789abcdef";
  std::string out = "\"";
  while (!text.empty()) {
    const std::size_t size = character(text);
    const auto byte = static_cast<unsigned char>(text[0]);
    if (size == 0) {
      out += "\xef\xbf\xbd";
    } else if (byte < 0x20) {
      out += std::string("\\u00") + digits[byte >> 4] + digits[byte & 15];
    } else {
      if (byte == '"' || byte == '\\') out += '\\';
      out += text.substr(0, size);
    }
    text.remove_prefix(std::max<std::size_t>(size, 1));
  }
  return out + "\"";
}

std::string to_json(const RunReport& run, const Verdict& verdict) {
  std::string out = "{";
  out += field("served_by", json_string(to_string(run.mode)));
  out += next("vcpu_count", std::to_string(run.vcpus.size()));
  out += next("good", json(verdict.good));
  out += next("timed_out", json(run.timed_out));
  if (run.mode == TimerMode::spinning) {
    out += next("spun_ns", std::to_string(run.spun.count()));
  }
  out += next("remarks", list(verdict.run)) + next("vcpus", "[");
  for (std::size_t index = 0; index < run.vcpus.size(); ++index) {
    out += (index == 0 ? "\n    " : ",\n    ") +
           vcpu_json(index, run.vcpus[index], verdict.vcpus[index]);
  }
  return out + "]}";
}

std::string to_json(const Document& document) {
  const Host& host = document.host;
  std::string out = "{";
  out += field("linux", json_string(document.linux_release));
  out += next("kvm_xen", json(host.xen_exits));
  out += next("events_by_kvm", json(host.evtchn_send));
  out += ",\n " + field("timers_per_vcpu", std::to_string(document.timers));
  out += next("deadlines_by_pvclock", json(document.exact_clock));
  out += next("good", json(document.good));
  out += next("error", document.error.empty() ? "null" : json_string(document.error));
  out += ",\n " + field("runs", "[");
  for (std::size_t n = 0; n < document.runs.size(); ++n) {
    out += (n == 0 ? "\n  " : ",\n  ") + document.runs[n];
  }
  return out + "]}\n";
}

std::string to_json(const LinuxDocument& document) {
  const LinuxRun& run = document.run;
  const auto if_xen = [&](const std::string& value) { return document.mode ? value : "null"; };
  std::string out = "{";
  out += field("linux", json_string(document.linux_release));
  out += next("ending", json_string(to_string(run.ending)));
  out += next("fault", run.fault.empty() ? "null" : json_string(run.fault));
  out += next("remarks", list(run.remarks));
  out += next("served_by", if_xen(json_string(to_string(document.mode.value_or(TimerMode{})))));
  out += next("punted", if_xen(std::to_string(run.punted)));
  if (document.counts != nullptr) {
    out += next("vcpus", "[");
    const std::vector<VcpuCounts>& vcpus = document.counts->vcpus;
    for (std::size_t id = 0; id < vcpus.size(); ++id) {
      out += (id == 0 ? "{" : ", {") + field("vcpu", std::to_string(id)) +
             next("stats", to_json(vcpus[id])) + "}";
    }
    out += "]";
  }
  return out + "}\n";
}

}  // namespace vmm_reference
