// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iterator>
#include <map>

#include "vmm_reference/guest_protocol.hpp"

namespace vmm_reference {

namespace {

constexpr int bad_usage = 2;

// "path=FILE" as rust-vmm's vmm-reference has it, or just "FILE".
auto without_key(const std::string& key) {
  return [prefix = key + "="](const std::string& value) {
    return value.compare(0, prefix.size(), prefix) == 0 ? value.substr(prefix.size()) : value;
  };
}

constexpr const char* examples = R"(
Keys while a Linux guest runs on a terminal: Ctrl-A x leaves, Ctrl-A Ctrl-A is a Ctrl-A.
Exit status: 0 the guest is done, or was left; 1 the run failed, or the time was out;
2 wrong usage; 3 the guest wants to reboot; 4 it crashed; 5 its watchdog bit.

Examples:
  vmm-reference timer-guest.elf --vcpus 1,2,4 --xen-timer all
  vmm-reference --kernel path=/boot/vmlinuz --initramfs path=initrd.img --memory size_mib=512
  vmm-reference --kernel vmlinuz --initramfs initrd.img --boot native --vcpus num=2
  vmm-reference --kernel vmlinuz --initramfs initrd.img --vfio path=/sys/bus/pci/devices/0000:00:10.0)";

}  // namespace

std::variant<Options, int> parse_options(int argc, char** argv) {
  Options options;
  CLI::App app{
      "Runs a Xen guest on KVM: a test guest, and prints how its timers fared; or a Linux kernel, "
      "its serial console being the terminal."};
  app.footer(examples);

  app.add_option("--vcpus", options.vcpus,
                 "How many vCPUs, 1 to 8; several numbers for several runs of a test guest")
      ->delimiter(',')
      ->transform(without_key("num"))
      ->check(CLI::Range(1, 8))
      ->option_text("[num=]N,... [1]");
  std::vector<std::string> words;
  std::transform(std::begin(timer_modes), std::end(timer_modes), std::back_inserter(words),
                 to_string);
  words.insert(words.end(), {"auto", "all"});
  app.add_option("--xen-timer", options.timers,
                 "Who serves the timers; auto for the fastest, all for each that works here")
      ->delimiter(',')
      ->check(CLI::IsMember(words))
      ->option_text(
          "MODE,... of kernel, userspace, spinning, irqfd, delegated, moving, auto, all "
          "[auto]");
  unsigned timeout = 0;
  auto* timeout_option =
      app.add_option("--timeout", timeout,
                     "Seconds until a run counts as hung; a test guest: 60, a Linux guest: never")
          ->check(CLI::Range(1, 86'400))
          ->option_text("S");
  app.add_option("--device", options.device, "KVM's device")->capture_default_str();

  auto* guest = app.add_option("guest", options.guest, "The guest, an ELF file of tests/guests")
                    ->check(CLI::ExistingFile)
                    ->option_text("FILE");
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
                     ->check(CLI::Range(32, 1 << 20))
                     ->option_text("[size_mib=]N [256]");
  const std::map<std::string, Boot> boots{
      {"pvh", Boot::pvh}, {"hvm", Boot::hvm}, {"native", Boot::native}};
  std::string boot_word = "pvh";
  auto* boot = app.add_option("--boot", boot_word,
                              "pvh: as a Xen guest, by its PVH entry; hvm: the same by the 64-bit "
                              "entry; native: as a guest of KVM's own")
                   ->check(CLI::IsMember(boots))
                   ->option_text("pvh|hvm|native [pvh]");
  auto* vfio =
      app.add_option("--vfio", options.vfio,
                     "A PCI device of this host's, bound to vfio-pci, for the guest; may be "
                     "repeated")
          ->transform(without_key("path"))
          ->expected(1)
          ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
          ->option_text("[path=]/sys/bus/pci/devices/0000:00:10.0");
  for (auto* option : {kernel, initramfs, cmdline, memory, boot, vfio}) {
    option->group("A Linux guest");
  }
  for (auto* option : {initramfs, cmdline, memory, boot, vfio}) option->needs(kernel);

  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : bad_usage;
  }
  options.boot = boots.at(boot_word);
  const auto complain = [](const char* what) {
    std::fprintf(stderr, "vmm-reference: %s; see --help\n", what);
    return bad_usage;
  };
  if (options.guest.empty() && options.kernel.empty()) {
    return complain("neither a guest nor a --kernel");
  }
  if (!options.kernel.empty() && (options.vcpus.size() != 1 || options.timers.size() != 1)) {
    return complain("a Linux guest takes one number of --vcpus and one --xen-timer");
  }
  if (options.boot == Boot::native && options.timers.front() != "auto") {
    return complain("--boot native has no Xen timers: leave --xen-timer out");
  }
  if (timeout_option->count() != 0) options.timeout = std::chrono::seconds(timeout);
  return options;
}

}  // namespace vmm_reference
