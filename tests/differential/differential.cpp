// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Runs the semantics guest with its timers served in every way that works here, and compares what
// it left with what Xen would have made of it, and so every way with every other.
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>

#include "domain.hpp"
#include "host.hpp"
#include "transcript.hpp"

namespace {

using namespace differential;
using namespace vmm_reference;

constexpr int bad_run = 1;
constexpr int bad_usage = 2;

int fail(const std::string& message, int status) {
  std::fprintf(stderr, "differential: %s\n", message.c_str());
  return status;
}

struct Arguments {
  Options options;
  std::string expected;
  std::string differences;
  bool print = false;
};

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("can't read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::uint64_t punted(const RunReport& report) {
  std::uint64_t sum = 0;
  for (const VcpuReport& vcpu : report.vcpus) sum += vcpu.punted;
  return sum;
}

Run run_of(const RunReport& report, const Host& host) {
  Run run{to_string(report.mode), host.xen_exits, {}};
  for (const VcpuReport& vcpu : report.vcpus) run.transcripts.push_back(vcpu.text);
  return run;
}

// How a run went, and what was wrong with it.
void print(const RunReport& report, const Run& run, const std::vector<std::string>& wrong) {
  std::ptrdiff_t again = 0;  // a comment each
  for (const std::string& text : run.transcripts) {
    again += std::count(text.begin(), text.end(), '#');
  }
  std::printf("%-9s %zu vCPUs, %llu timer calls came to us, %td cases too slow and run again: %s\n",
              run.mode.c_str(), run.transcripts.size(),
              static_cast<unsigned long long>(punted(report)), again,
              wrong.empty() ? "as expected" : "FAILED");
  for (const std::string& text : wrong) std::printf("FAILED: %s\n", text.c_str());
  std::fflush(stdout);
}

int compare_all(const Arguments& arguments) {
  const std::string guest = read_file(arguments.options.guest);
  auto lines = parse_lines(read_file(arguments.expected));
  if (const auto* error = std::get_if<std::string>(&lines)) {
    return fail(arguments.expected + ": " + *error, bad_usage);
  }
  const auto& expected = std::get<std::vector<Line>>(lines);
  auto parsed = parse_differences(read_file(arguments.differences), expected);
  if (const auto* error = std::get_if<std::string>(&parsed)) {
    return fail(arguments.differences + ": " + *error, bad_usage);
  }
  const auto& differences = std::get<std::vector<Difference>>(parsed);

  auto opened = Host::open(arguments.options.device);
  if (const auto* message = std::get_if<std::string>(&opened)) return fail(*message, bad_run);
  const Host& host = std::get<Host>(opened);
  utsname kernel{};
  ::uname(&kernel);
  std::printf("Linux %s: %s\n", kernel.release, host.description().c_str());

  std::size_t cases = 0;
  std::size_t failures = 0;
  for (const std::uint32_t vcpus : arguments.options.vcpus) {
    std::optional<std::uint64_t> served_by_kernel;
    for (const TimerMode mode : host.modes()) {
      auto ran = run_domain(host, std::as_bytes(std::span(guest)), mode, vcpus, arguments.options);
      if (const auto* message = std::get_if<std::string>(&ran)) return fail(*message, bad_run);
      const RunReport& report = std::get<RunReport>(ran);
      const Run run = run_of(report, host);
      std::vector<std::string> wrong = compare(expected, differences, run);
      wrong.insert(wrong.end(), report.faults.begin(), report.faults.end());
      if (report.timed_out) {
        wrong.push_back("time is out: a vCPU hangs in the last case that it left a word of");
      }
      if (mode == TimerMode::kernel) served_by_kernel = punted(report);
      if (mode == TimerMode::userspace && served_by_kernel &&
          *served_by_kernel > punted(report) / 4) {
        wrong.push_back("in mode kernel as many timer calls came to us: nothing was compared");
      }
      if (arguments.print) {
        for (const std::string& text : run.transcripts) std::printf("%s", text.c_str());
      }
      print(report, run, wrong);
      failures += wrong.size();
      cases += static_cast<std::size_t>(
          std::count_if(expected.begin(), expected.end(),
                        [&](const Line& line) { return belongs_in(line, run); }));
    }
  }
  std::printf("%zu of %zu checks passed\n", cases - std::min(failures, cases), cases);
  return failures == 0 ? 0 : bad_run;
}

int parse_and_run(int argc, char** argv) {
  Arguments arguments;
  arguments.options.vcpus = {1, 2};
  arguments.options.timeout = std::chrono::seconds(30);
  CLI::App app{"Compares the ways to serve a Xen guest's timers with each other, and with Xen."};
  app.add_option("guest", arguments.options.guest, "semantics-guest.elf")->required();
  app.add_option("expected", arguments.expected, "What it should leave")->required();
  app.add_option("differences", arguments.differences, "Where a mode may differ")->required();
  app.add_option("--vcpus", arguments.options.vcpus,
                 "How many vCPUs, 1 to 8; several numbers for several runs")
      ->delimiter(',')
      ->check(CLI::Range(1, 8))
      ->capture_default_str();
  app.add_option("--device", arguments.options.device, "KVM's device")->capture_default_str();
  app.add_flag("--print", arguments.print, "Print each transcript as the guest left it");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : bad_usage;
  }
  return compare_all(arguments);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const std::exception& error) {
    return fail(error.what(), bad_run);
  }
}
