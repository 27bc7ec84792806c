// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// vmm-reference: runs a test guest as a Xen guest on KVM, and prints how its timers fared.
#include <fcntl.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>

#include "counts.hpp"
#include "domain.hpp"
#include "host.hpp"
#include "linux_domain.hpp"
#include "observer.hpp"
#include "options.hpp"
#include "report.hpp"
#include "sandbox.hpp"
#include "saved_guest.hpp"

namespace {

using namespace vmm_reference;

constexpr int bad_run = 1;
constexpr int bad_usage = 2;

int end(const std::string& message, int status) {
  std::fprintf(stderr, "vmm-reference: %s\n", message.c_str());
  return status;
}

int end_of_output() {
  return end(std::string("can't write to standard output: ") + ::strerrordesc_np(errno), bad_run);
}

// What is opened later doesn't become 0, 1 or 2, where it would be read and written to.
void hold_standard_files() {
  int fd = ::open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO) fd = ::open("/dev/null", O_RDWR);
  if (fd >= 0) ::close(fd);
}

std::string kernel_release() {
  utsname kernel{};
  ::uname(&kernel);
  return kernel.release;
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

  auto watching = Observer::open(options);
  if (const auto* message = std::get_if<std::string>(&watching)) return end(*message, bad_usage);
  Observer& observer = std::get<Observer>(watching);

  // So that stdio needn't look at the file, for which it would be too late in the sandbox.
  static std::array<char, 4096> buffer;
  std::setvbuf(stdout, buffer.data(), _IOFBF, buffer.size());
  const std::string kernel = kernel_release();
  if (!options.json) {
    std::printf("Linux %s: %s\n", kernel.c_str(), host.description().c_str());
    print_head(stdout);
    if (!is_written(stdout)) return end_of_output();
  }
  if (options.sandbox) {
    if (auto entered = sandbox::enter(); !entered) {
      return end(sandbox::why_not(entered.error()), bad_run);
    }
  }
  Document document{.linux_release = kernel, .host = host, .timers = options.count};
  std::vector<std::string> documents;
  std::string error;
  const auto& modes = std::get<std::vector<TimerMode>>(chosen);
  const std::size_t count = options.vcpus.size() * modes.size();
  for (std::size_t n = 0; n < count && error.empty(); ++n) {
    const std::uint32_t vcpus = options.vcpus[n / modes.size()];
    const TimerMode mode = modes[n % modes.size()];
    const std::string title = "run " + std::to_string(n + 1) + " of " + std::to_string(count) +
                              ", " + std::to_string(vcpus) + " vCPUs, timers " + to_string(mode);
    auto ran =
        run_domain(host, std::as_bytes(std::span(guest)), mode, vcpus, options, title, &observer);
    if (auto* message = std::get_if<std::string>(&ran)) {
      error = std::move(*message);
      break;
    }
    const RunReport& report = std::get<RunReport>(ran);
    const Verdict verdict = judge(report, options.count);
    document.good = document.good && verdict.good;
    if (mode == TimerMode::userspace && !report.exact_clock) document.exact_clock = false;
    if (options.json) {
      documents.push_back(to_json(report, verdict));
    } else if (!print_rows(stdout, report, verdict)) {
      return end_of_output();
    }
  }
  const bool observed = observer.end();
  document.good = document.good && error.empty();
  if (options.json) {
    document.runs = documents;
    document.error = error;
    std::printf("%s", to_json(document).c_str());
  } else if (error.empty()) {
    if (options.stats) print_counts(stdout, observer.runs());
    std::printf("userspace deadlines by %s\n",
                document.exact_clock ? "the guest's own pvclock" : "KVM_GET_CLOCK");
    std::printf("%s\n",
                document.good ? "all timers fired, none that we served was early" : "FAILED");
  }
  if (!is_written(stdout)) return end_of_output();
  if (!error.empty()) return end(error, bad_run);
  return document.good && observed ? 0 : bad_run;
}

// What a snapshot's guest has to be, which isn't for the user to say.
void take_over(const Snapshot& snapshot, Options& options) {
  options.boot = snapshot.boot;
  options.vcpus = {static_cast<std::uint32_t>(snapshot.vcpus.size())};
  if (snapshot.xen && options.timers.front() == "auto") {
    options.timers = {to_string(snapshot.mode)};
  }
}

int boot(Options options) {
  std::optional<SavedGuest> saved;
  if (!options.restore.empty()) {
    auto read = SavedGuest::open(options.restore);
    if (const auto* message = std::get_if<std::string>(&read)) {
      return end("--restore " + *message, bad_run);
    }
    saved.emplace(std::get<SavedGuest>(std::move(read)));
    take_over(saved->snapshot(), options);
  }
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
  auto watching = Observer::open(options);
  if (const auto* message = std::get_if<std::string>(&watching)) return end(*message, bad_usage);
  Observer& observer = std::get<Observer>(watching);
  const std::string kernel = kernel_release();
  auto ran = run_linux(host, mode, options, &observer, saved ? &*saved : nullptr);
  const bool observed = observer.end();
  if (const auto* message = std::get_if<std::string>(&ran)) return end(*message, bad_run);
  const LinuxRun& run = std::get<LinuxRun>(ran);
  const bool xen = options.boot != Boot::native;
  if (options.json) {
    LinuxDocument document{.linux_release = kernel, .run = run};
    if (xen) document.mode = mode;
    if (!observer.runs().empty()) document.counts = &observer.runs().front();
    std::fprintf(stderr, "%s", to_json(document).c_str());
  } else {
    for (const std::string& remark : run.remarks) std::fprintf(stderr, "%s\n", remark.c_str());
    if (xen) {
      std::fprintf(stderr, "timer hypercalls: %llu came to us; timers: %s\n",
                   static_cast<unsigned long long>(run.punted), to_string(mode));
    }
    if (options.stats) print_counts(stderr, observer.runs());
  }
  if (!observed || (options.json && !is_written(stderr))) return bad_run;
  const auto ended = [&](const std::string& how, int status) {
    return options.json ? status : end(how, status);
  };
  switch (run.ending) {
    case Ending::left:
      return 0;
    case Ending::poweroff:
      return ended("the guest powered off", 0);
    case Ending::timeout:
      return ended("the time is out", bad_run);
    case Ending::reboot:
      return ended("the guest wants to reboot", 3);
    case Ending::crash:
      return ended("the guest crashed" + (run.fault.empty() ? "" : ": " + run.fault), 4);
    case Ending::watchdog:
      return ended("the guest's watchdog bit: it has hung", 5);
  }
  return bad_run;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    hold_standard_files();
    // A reader that goes away is an error of a write, not the end without a word.
    std::signal(SIGPIPE, SIG_IGN);
    sandbox::note_inherited_files();
    auto parsed = parse_options(argc, argv);
    if (const int* status = std::get_if<int>(&parsed)) return *status;
    const Options& options = std::get<Options>(parsed);
    return options.guest.empty() ? boot(options) : run(options);
  } catch (const std::exception& error) {  // out of memory, or of threads
    return end(error.what(), bad_run);
  }
}
