// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// vmm-reference: runs a test guest as a Xen guest on KVM, and prints how its timers fared.
#include <sys/utsname.h>

#include <fstream>
#include <iterator>

#include "domain.hpp"
#include "host.hpp"
#include "linux_domain.hpp"
#include "options.hpp"
#include "report.hpp"

namespace {

using namespace vmm_reference;

constexpr int bad_run = 1;
constexpr int bad_usage = 2;

int end(const std::string& message, int status) {
  std::fprintf(stderr, "vmm-reference: %s\n", message.c_str());
  return status;
}

// The modes that the user's words stand for, or why not.
std::variant<std::vector<TimerMode>, std::string> choose_modes(const Options& options,
                                                               const Host& host) {
  const std::vector<TimerMode> possible = host.modes();
  std::vector<TimerMode> chosen;
  for (const std::string& word : options.timers) {
    if (word == "auto") chosen.push_back(possible.front());
    if (word == "all") chosen.insert(chosen.end(), possible.begin(), possible.end());
    for (const TimerMode mode : timer_modes) {
      if (word != to_string(mode)) continue;
      if (std::find(possible.begin(), possible.end(), mode) == possible.end()) {
        return "--xen-timer " + word + ": " + host.why_not(mode);
      }
      chosen.push_back(mode);
    }
  }
  return chosen;
}

int run(const Options& options) {
  std::ifstream file(options.guest, std::ios::binary);
  const std::vector<char> guest{std::istreambuf_iterator<char>(file), {}};
  if (!file && guest.empty()) return end("can't read the guest " + options.guest, bad_usage);

  auto opened = Host::open(options.device);
  if (const auto* message = std::get_if<std::string>(&opened)) return end(*message, bad_run);
  const Host& host = std::get<Host>(opened);
  auto chosen = choose_modes(options, host);
  if (const auto* message = std::get_if<std::string>(&chosen)) return end(*message, bad_usage);

  utsname kernel{};
  ::uname(&kernel);
  std::printf("Linux %s: %s\n", kernel.release, host.description().c_str());
  print_head(stdout);
  bool good = true;
  bool exact = true;
  for (const std::uint32_t vcpus : options.vcpus) {
    for (const TimerMode mode : std::get<std::vector<TimerMode>>(chosen)) {
      auto ran = run_domain(host, std::as_bytes(std::span(guest)), mode, vcpus, options);
      if (const auto* message = std::get_if<std::string>(&ran)) return end(*message, bad_run);
      const RunReport& report = std::get<RunReport>(ran);
      good = print_rows(stdout, report, options.count) && good;
      exact = exact && (mode != TimerMode::userspace || report.exact_clock);
    }
  }
  std::printf("userspace deadlines by %s\n", exact ? "the guest's own pvclock" : "KVM_GET_CLOCK");
  std::printf("%s\n", good ? "all timers fired, none that we served was early" : "FAILED");
  return good ? 0 : bad_run;
}

int boot(const Options& options) {
  auto opened = Host::open(options.device);
  if (const auto* message = std::get_if<std::string>(&opened)) return end(*message, bad_run);
  const Host& host = std::get<Host>(opened);
  TimerMode mode{};
  if (options.boot != Boot::native) {
    if (!host.xen_exits) {
      return end(options.device +
                     " has no KVM_XEN, which a Xen guest other than our own needs: build the "
                     "kernel with CONFIG_KVM_XEN, use --boot native, or run in the lab "
                     "(vmm-reference/demo --linux)",
                 bad_run);
    }
    auto chosen = choose_modes(options, host);
    if (const auto* message = std::get_if<std::string>(&chosen)) return end(*message, bad_usage);
    mode = std::get<std::vector<TimerMode>>(chosen).front();
  }
  auto ran = run_linux(host, mode, options);
  if (const auto* message = std::get_if<std::string>(&ran)) return end(*message, bad_run);
  const LinuxRun& run = std::get<LinuxRun>(ran);
  for (const std::string& remark : run.remarks) std::fprintf(stderr, "%s\n", remark.c_str());
  if (options.boot != Boot::native) {
    std::fprintf(stderr, "timer hypercalls: %llu came to us; timers: %s\n",
                 static_cast<unsigned long long>(run.punted), to_string(mode));
  }
  switch (run.ending) {
    case Ending::left:
      return 0;
    case Ending::poweroff:
      return end("the guest powered off", 0);
    case Ending::timeout:
      return end("the time is out", bad_run);
    case Ending::reboot:
      return end("the guest wants to reboot", 3);
    case Ending::soft_reset:
      return end("the guest wants a soft reset, as kexec does, which isn't there", 3);
    case Ending::crash:
      return end("the guest crashed" + (run.fault.empty() ? "" : ": " + run.fault), 4);
    case Ending::watchdog:
      return end("the guest's watchdog bit: it has hung", 5);
  }
  return bad_run;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    auto parsed = parse_options(argc, argv);
    if (const int* status = std::get_if<int>(&parsed)) return *status;
    const Options& options = std::get<Options>(parsed);
    return options.kernel.empty() ? run(options) : boot(options);
  } catch (const std::exception& error) {  // out of memory, or of threads
    return end(error.what(), bad_run);
  }
}
