// SPDX-License-Identifier: BSD-3-Clause
//
// vmm-reference: runs a test guest as a Xen guest on KVM, and prints how its timers fared.
#include <sys/utsname.h>

#include <CLI/CLI.hpp>
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

int fail(const std::string& message, int status) {
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
  if (!file && guest.empty()) return fail("can't read the guest " + options.guest, bad_usage);

  auto opened = Host::open(options.device);
  if (const auto* message = std::get_if<std::string>(&opened)) return fail(*message, bad_run);
  const Host& host = std::get<Host>(opened);
  auto chosen = choose_modes(options, host);
  if (const auto* message = std::get_if<std::string>(&chosen)) return fail(*message, bad_usage);

  utsname kernel{};
  ::uname(&kernel);
  std::printf("Linux %s: %s\n", kernel.release, host.description().c_str());
  print_head(stdout);
  bool good = true;
  bool exact = true;
  for (const std::uint32_t vcpus : options.vcpus) {
    for (const TimerMode mode : std::get<std::vector<TimerMode>>(chosen)) {
      auto ran = run_domain(host, std::as_bytes(std::span(guest)), mode, vcpus, options);
      if (const auto* message = std::get_if<std::string>(&ran)) return fail(*message, bad_run);
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
  if (const auto* message = std::get_if<std::string>(&opened)) return fail(*message, bad_run);
  const Host& host = std::get<Host>(opened);
  if (!host.xen_exits) return fail("a Linux guest needs a KVM with KVM_XEN", bad_run);
  auto chosen = choose_modes(options, host);
  if (const auto* message = std::get_if<std::string>(&chosen)) return fail(*message, bad_usage);
  auto ran = run_linux(host, std::get<std::vector<TimerMode>>(chosen).front(), options);
  if (const auto* message = std::get_if<std::string>(&ran)) return fail(*message, bad_run);
  const LinuxRun& run = std::get<LinuxRun>(ran);
  switch (run.ending) {
    case Ending::poweroff:
      std::fprintf(stderr, "vmm-reference: the guest powered off\n");
      return 0;
    case Ending::reboot:
      return fail("the guest wants to reboot", 3);
    case Ending::left:
      return 0;
    case Ending::crash:
      break;
  }
  return fail("the guest crashed" + (run.fault.empty() ? "" : ": " + run.fault), 4);
}

int parse_and_run(int argc, char** argv) {
  Options options;
  CLI::App app{"Runs a test guest as a Xen guest on KVM, and prints how its timers fared."};
  app.add_option("guest", options.guest, "The guest, an ELF file of tests/guests");
  app.add_option("--kernel", options.kernel, "Or a Linux guest: a bzImage or vmlinux");
  app.add_option("--initramfs", options.initramfs, "Its initramfs");
  app.add_option("--cmdline", options.cmdline, "Its command line")->capture_default_str();
  app.add_option("--memory", options.memory_mib, "Its memory, MiB")->capture_default_str();
  app.add_option("--boot", options.boot, "pvh, or hvm: by the 64-bit entry")
      ->check(CLI::IsMember({"pvh", "hvm"}))
      ->capture_default_str();
  app.add_option("--vcpus", options.vcpus,
                 "How many vCPUs, 1 to 8; several numbers for several runs")
      ->delimiter(',')
      ->check(CLI::Range(1, 8))
      ->capture_default_str();
  std::vector<std::string> words;
  std::transform(std::begin(timer_modes), std::end(timer_modes), std::back_inserter(words),
                 to_string);
  words.insert(words.end(), {"auto", "all"});
  app.add_option("--xen-timer", options.timers,
                 "Who serves the timers; auto for the fastest, all for each that works here")
      ->delimiter(',')
      ->check(CLI::IsMember(words))
      ->capture_default_str();
  app.add_option("--timers", options.count, "How many timers each vCPU arms")
      ->check(CLI::Range(1u, max_timers))
      ->capture_default_str();
  unsigned timeout = 60;
  app.add_option("--timeout", timeout, "Seconds until a run counts as hung")
      ->check(CLI::Range(1, 3600))
      ->capture_default_str();
  app.add_option("--device", options.device, "KVM's device")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : bad_usage;
  }
  options.timeout = std::chrono::seconds(timeout);
  if (!options.kernel.empty()) return boot(options);
  if (options.guest.empty()) return fail("neither a guest nor a --kernel; see --help", bad_usage);
  return run(options);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return parse_and_run(argc, argv);
  } catch (const std::exception& error) {  // out of memory, or of threads
    return fail(error.what(), bad_run);
  }
}
