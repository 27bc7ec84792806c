// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "options.hpp"

#include <algorithm>
#include <cstdio>
#include <map>
#include <memory>
#include <numeric>

#include "command_line.hpp"
#include "pages.hpp"
#include "vmm_reference/guest_protocol.hpp"

namespace vmm_reference {

namespace {

constexpr int bad_usage = 2;

const std::map<std::string, Boot> boots{
    {"pvh", Boot::pvh}, {"hvm", Boot::hvm}, {"native", Boot::native}};

// "path=FILE" as rust-vmm's vmm-reference has it, or just "FILE".
auto without_key(const std::string& key) {
  return [prefix = key + "="](const std::string& value) {
    return value.compare(0, prefix.size(), prefix) == 0 ? value.substr(prefix.size()) : value;
  };
}

struct Help : CLI::Formatter {
  std::string make_help(const CLI::App* app, std::string, CLI::AppFormatMode) const override {
    return help_page(*app);
  }
};

// How many letters have to be put in, left out or changed to make one of the other.
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t change = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = std::exchange(row[j + 1], std::min({change, row[j] + 1, row[j + 1] + 1}));
    }
  }
  return row.back();
}

// The option that was meant by one that there isn't; empty if none looks like it.
std::string nearest(const CLI::App& app, const std::string& typed) {
  const std::string name = typed.substr(0, typed.find('='));
  std::string found;
  std::size_t least = std::max<std::size_t>(name.size() / 3, 1) + 1;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& other : option->get_lnames()) {
      if (const std::size_t far = distance(name, "--" + other); far < least) {
        least = far;
        found = "--" + other;
      }
    }
  }
  return found;
}

std::string unexpected(const CLI::App& app) {
  std::string text;
  for (const std::string& argument : app.remaining()) {
    text += (text.empty() ? "not expected: " : ", ") + argument;
    if (argument[0] != '-') continue;
    if (const std::string meant = nearest(app, argument); !meant.empty()) {
      text += " (did you mean " + meant + "?)";
    }
  }
  return text;
}

}  // namespace

CommandLine::CommandLine() {
  CLI::App& app = app_;
  Options& options = options_;
  app.formatter(std::make_shared<Help>());
  app.failure_message([](const CLI::App* failed, const CLI::Error& error) {
    const bool extra = error.get_exit_code() == static_cast<int>(CLI::ExitCodes::ExtrasError);
    return "vmm-reference: " + (extra ? unexpected(*failed) : std::string(error.what())) +
           "; see vmm-reference --help\n";
  });
  app.set_help_flag("-h,--help", "Say this");
  app.set_version_flag("--version", "vmm-reference " VMM_REFERENCE_VERSION,
                       "Say which version this is");

  auto* vcpus =
      app.add_option("--vcpus", options.vcpus,
                     "How many vCPUs, 1 to 64; several numbers for several runs of a test guest")
          ->delimiter(',')
          ->transform(without_key("num"))
          ->check(CLI::Range(1u, max_vcpus))
          ->option_text("[num=]N,... [1]");
  std::vector<std::string> words;
  for (const TimerMode mode : timer_modes) words.emplace_back(to_string(mode));
  words.insert(words.end(), {"auto", "all"});
  app.add_option("--xen-timer", options.timers, "Who serves the timers: see below")
      ->delimiter(',')
      ->check(CLI::IsMember(words))
      ->option_text(CLI::detail::join(words, "|") + ",... [auto]");
  app.add_option("--timeout", timeout_,
                 "Seconds until a run counts as hung; a test guest: 60, a Linux guest: never")
      ->check(CLI::Range(1, 86'400))
      ->option_text("S");
  app.add_option("--device", options.device, "KVM's device")->option_text("FILE [/dev/kvm]");
  app.add_flag("--no-sandbox", no_sandbox_,
               "Let the program do all that its user may: for a debugger, or a kernel without "
               "seccomp");
  app.add_flag("--stats", options.stats,
               "Show while it runs, on standard error, what hypercalls and timers do; in the end a "
               "table");
  app.add_flag("--json", options.json,
               "One JSON document instead of all that is said at the end: on standard output, or "
               "of a Linux guest, whose console that is, in one line on standard error");
  app.add_option("--metrics", options.metrics,
                 "Where that goes each second and at the end, as OpenMetrics, for Prometheus' like")
      ->transform(without_key("path"))
      ->option_text("[path=]FILE");
  app.add_option("--trace", options.trace,
                 "Where a trace of hypercalls and timers goes at the end, for ui.perfetto.dev")
      ->transform(without_key("path"))
      ->option_text("[path=]FILE");

  auto* guest = app.add_option("guest", options.guest, "The guest, an ELF file of tests/guests")
                    ->check(CLI::ExistingFile);
  auto* timers = app.add_option("--timers", options.count, "How many timers each vCPU arms")
                     ->check(CLI::Range(1u, max_timers))
                     ->option_text("N [1000]");
  for (auto* option : {guest, timers}) option->group("A test guest");

  auto* kernel = app.add_option("--kernel", options.kernel, "A bzImage or a vmlinux")
                     ->transform(without_key("path"))
                     ->check(CLI::ExistingFile)
                     ->option_text("[path=]FILE")
                     ->excludes(guest)
                     ->excludes(timers);
  auto* initramfs = app.add_option("--initramfs", options.initramfs, "Its initramfs")
                        ->transform(without_key("path"))
                        ->check(CLI::ExistingFile)
                        ->option_text("[path=]FILE");
  auto* cmdline = app.add_option("--cmdline", options.cmdline, "The kernel's command line")
                      ->option_text("TEXT [console=ttyS0]");
  auto* memory = app.add_option("--memory", options.memory_mib, "MiB of memory")
                     ->transform(without_key("size_mib"))
                     ->check(CLI::Range(32u, max_memory_mib))
                     ->option_text("[size_mib=]N [256]");
  auto* boot = app.add_option("--boot", boot_,
                              "pvh: as a Xen guest, by its PVH entry; hvm: the same by the 64-bit "
                              "entry; native: as a guest of KVM's own")
                   ->check(CLI::IsMember(boots))
                   ->option_text("pvh|hvm|native [pvh]");
  auto* vfio =
      app.add_option("--vfio", options.vfio,
                     "A PCI device of this host's, bound to vfio-pci, for the guest: its folder in "
                     "/sys/bus/pci/devices; may be repeated")
          ->transform(without_key("path"))
          ->expected(1)
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
          ->option_text("[path=]FOLDER");
  auto* snapshot_to = app.add_option("--snapshot-to", options.snapshot_to,
                                     "Where a snapshot goes, whenever one is asked for")
                          ->transform(without_key("path"))
                          ->option_text("[path=]FILE")
                          ->excludes(vfio);
  auto* restore =
      app.add_option("--restore", options.restore,
                     "A snapshot that its guest goes on from, with its own memory and vCPUs, and, "
                     "unless told otherwise, its --xen-timer")
          ->transform(without_key("path"))
          ->option_text("[path=]FILE")
          ->excludes(guest)
          ->excludes(timers)
          ->excludes(vcpus);
  auto* guest_time =
      app.add_option("--restored-time", options.real_time,
                     "stopped: the guest's clock goes on from the snapshot's; real: the time since "
                     "has passed for the guest, too, and timers that are overdue fire at once")
          ->transform(CLI::CheckedTransformer(
              std::map<std::string, bool>{{"stopped", false}, {"real", true}}))
          ->option_text("stopped|real [stopped]")
          ->needs(restore);
  for (auto* option :
       {kernel, initramfs, cmdline, memory, boot, vfio, snapshot_to, restore, guest_time}) {
    option->group("A Linux guest");
  }
  for (auto* option : {initramfs, cmdline, memory, boot, vfio}) option->needs(kernel);
  restore->excludes(kernel);
}

std::string CommandLine::complaint() const {
  const Options& options = options_;
  const bool is_linux = !options.kernel.empty() || !options.restore.empty();
  if (options.guest.empty() && !is_linux) {
    return "neither a guest nor a --kernel, nor a snapshot to --restore";
  }
  if (!is_linux && !options.snapshot_to.empty()) return "--snapshot-to is for Linux guests";
  if (is_linux && (options.vcpus.size() != 1 || options.timers.size() != 1)) {
    return "a Linux guest takes one number of --vcpus and one --xen-timer";
  }
  if (options.boot == Boot::native && options.timers.front() != "auto") {
    return "--boot native has no Xen timers: leave --xen-timer out";
  }
  const bool observes = options.stats || !options.metrics.empty() || !options.trace.empty();
  if (options.boot == Boot::native && observes) {
    return "--boot native has no Xen timers: leave --stats, --metrics and --trace out";
  }
  return "";
}

std::variant<Options, int> CommandLine::parse(int argc, const char* const* argv) {
  try {
    app_.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app_.exit(error) == 0 ? 0 : bad_usage;
  }
  options_.boot = boots.at(boot_);
  options_.sandbox = !no_sandbox_;
  if (timeout_ != 0) options_.timeout = std::chrono::seconds(timeout_);
  if (const std::string what = complaint(); !what.empty()) {
    std::fprintf(stderr, "vmm-reference: %s; see vmm-reference --help\n", what.c_str());
    return bad_usage;
  }
  return options_;
}

std::variant<Options, int> parse_options(int argc, char** argv) {
  return CommandLine().parse(argc, argv);
}

}  // namespace vmm_reference
