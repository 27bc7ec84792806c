// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The table of options, and what else there is to say about the program: what the command line is
// read by, and what pages.hpp makes its pages of.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <variant>

#include "options.hpp"

namespace vmm_reference {

// Of a page: lines, of which each ends.
struct Section {
  const char* title;
  const char* text;
};

inline constexpr const char* purpose =
    "Runs a Xen guest on KVM: a test guest, and prints how its timers fared; or a Linux kernel, "
    "its serial console being the terminal.";

inline constexpr Section usage{"Usage",
                               R"(  vmm-reference [OPTION]... GUEST
  vmm-reference [OPTION]... --kernel FILE
  vmm-reference [OPTION]... --restore FILE
)"};

inline constexpr Section examples{
    "Examples",
    R"(  Every way of serving the timers that works here, on 1, 2 and 4 vCPUs:
    vmm-reference timer-guest.elf --vcpus 1,2,4 --xen-timer all
  Linux as a Xen guest, and as a guest of KVM's own; Ctrl-A x leaves:
    vmm-reference --kernel /boot/vmlinuz --initramfs initrd.img --memory 512
    vmm-reference --kernel vmlinuz --initramfs initrd.img --boot native --vcpus 2
  With snapshots, by Ctrl-A s; and on from the last one:
    vmm-reference --kernel vmlinuz --initramfs initrd.img --snapshot-to guest.snapshot
    vmm-reference --restore guest.snapshot --snapshot-to guest.snapshot
  With a device of this host's:
    vmm-reference --kernel vmlinuz --initramfs initrd.img --vfio /sys/bus/pci/devices/0000:00:10.0
  What its timers do while it runs, and a trace of it for ui.perfetto.dev:
    vmm-reference timer-guest.elf --stats --trace timers.json
  The median lateness of each vCPU's timers, for a program:
    vmm-reference timer-guest.elf --json | jq '.runs[].vcpus[].lateness_p50_ns'
  How a Linux guest ended, and what its timers did:
    vmm-reference --kernel vmlinuz --initramfs initrd.img --json --stats 2>end.json
)"};

// In the order of the pages; what stands after the options.
inline constexpr Section more[] = {
    {"Who serves the timers (--xen-timer)",
     R"(  kernel     KVM answers the hypercalls and keeps the deadlines (Linux 5.19)
  userspace  this program answers, and one timerfd for all vCPUs keeps them
  irqfd      it answers; an io_uring a vCPU raises the event in the kernel (Linux 6.1)
  delegated  it answers, and has KVM keep them (Linux 7.3)
  spinning   it answers; a vCPU's own thread serves them, woken early, and spins for the rest
  moving     KVM and this program by turns, every 300 us: that it can be done (Linux 5.19)
  auto       the first of kernel, delegated, irqfd and userspace that works here
  all        each that works here, one after the other
)"},
    {"Keys, while a Linux guest runs on a terminal",
     R"(  Ctrl-A x       leaves
  Ctrl-A s       writes a snapshot to where --snapshot-to says, as signal SIGUSR2 does
  Ctrl-A Ctrl-A  is a Ctrl-A
)"},
    {"Exit status",
     R"(  0  the guest is done, and a test guest's timers all fired as they should; or it was left
  1  the run failed, the time was out, or what was to be printed couldn't be
  2  wrong usage
  3  a Linux guest wants to reboot
  4  it crashed
  5  its watchdog bit
)"}};

class CommandLine {
 public:
  CommandLine();
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;

  // What is asked for; or the status to exit with, after help or a complaint.
  [[nodiscard]] std::variant<Options, int> parse(int argc, const char* const* argv);
  [[nodiscard]] const CLI::App& app() const noexcept { return app_; }

 private:
  [[nodiscard]] std::string complaint() const;

  CLI::App app_{purpose, "vmm-reference"};
  // What the table puts its values into.
  Options options_;
  unsigned timeout_ = 0;
  bool no_sandbox_ = false;
  std::string boot_ = "pvh";
};

}  // namespace vmm_reference
