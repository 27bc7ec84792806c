// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Whole guests over a KvmDouble, with each of the calls that they take failing in turn.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "domain.hpp"
#include "failing_each.hpp"
#include "host.hpp"
#include "kvm_ioctls/double.hpp"
#include "linux_domain.hpp"
#include "linux_loader/acpi.hpp"
#include "machine.hpp"
#include "scripted_calls.hpp"
#include "tiny_elf.hpp"
#include "vmm_base/unique_fd.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hypercall.hpp"

namespace vmm_reference {
namespace {

namespace guest = kvm_ioctls::guest;
using kvm_ioctls::KvmDouble;
TEST(Failures, OfTheHost) {
  fail_each([](const KvmDouble& kvm) -> std::string {
    auto host = Host::open(kvm.path());
    const auto* message = std::get_if<std::string>(&host);
    return message == nullptr ? "" : *message;
  });
  fail_each([](const KvmDouble& kvm) -> std::string {
    kvm.cap(KVM_CAP_XEN_HVM, 0);
    auto host = Host::open(kvm.path());
    const auto* message = std::get_if<std::string>(&host);
    return message == nullptr ? "" : *message;
  });
}

std::string set_up(const KvmDouble& kvm, const MachineConfig& config) {
  auto host = Host::open(kvm.path());
  if (const auto* message = std::get_if<std::string>(&host)) return *message;
  auto machine = create_machine(std::get<Host>(host), config);
  return machine ? "" : machine.error().message();
}

TEST(Failures, OfAMachine) {
  constexpr std::uint64_t ram = 4 << 20;
  fail_each([](const KvmDouble& kvm) {
    return set_up(kvm, {.ram_size = ram, .vcpu_count = 2, .all_running = true, .xen_ids = true});
  });
  fail_each([](const KvmDouble& kvm) {
    kvm.cap(KVM_CAP_XEN_HVM, 0);
    return set_up(kvm, {.ram_size = ram, .vcpu_count = 2, .all_running = true});
  });
  fail_each([](const KvmDouble& kvm) {
    return set_up(kvm, {.ram_size = ram, .vcpu_count = 2, .xen = false});
  });
}

TEST(Failures, OfAMapping) {
  const KvmDouble kvm;
  kvm.vcpu(1).refuse_mapping();
  EXPECT_EQ(set_up(kvm, {.ram_size = 4 << 20, .vcpu_count = 2}),
            "mmap of kvm_run(0x1): Permission denied");
  EXPECT_EQ(kvm.leaks(), Names{});
}

// --- A test guest --------------------------------------------------------------------------------

constexpr std::uint64_t report = 0x210000;

// It sets up shared_info, its vcpu_info and a timer event, and leaves a line of text.
void script_test_guest(const KvmDouble& kvm) {
  script_set_up(kvm);
  kvm.vcpu(0).runs(guest::does([&kvm] {
                     TextReport text{.magic = text_magic, .length = 5, .text = "done\n"};
                     poke(kvm, report, text);
                   }),
                   guest::out(port_report, report, 4), guest::out(port_done, 0, 4));
}

std::string run_test_guest(const KvmDouble& kvm, TimerMode mode) {
  script_test_guest(kvm);
  auto host = Host::open(kvm.path());
  if (const auto* message = std::get_if<std::string>(&host)) return *message;
  Options options;
  options.timeout = std::chrono::seconds(20);
  const auto ran = run_domain(std::get<Host>(host), tiny_elf(), mode, 1, options);
  if (const auto* message = std::get_if<std::string>(&ran)) return *message;
  const auto& run = std::get<RunReport>(ran);
  std::string said = run.timed_out ? "timed out; " : "";
  for (const std::string& fault : run.faults) said += fault + "; ";
  return said + run.vcpus.at(0).text;
}

TEST(TestGuest, RunsToItsReport) {
  const KvmDouble kvm;
  EXPECT_EQ(run_test_guest(kvm, TimerMode::delegated), "done\n");
  const auto answers = kvm.vcpu(0).answers();
  ASSERT_EQ(answers.size(), 4u);
  for (std::size_t call = 0; call < 3; ++call) EXPECT_EQ(answers[call].value, 0u) << call;
  const auto attrs = kvm.calls(KVM_XEN_HVM_SET_ATTR);
  EXPECT_EQ(attrs.back().argument<kvm_xen_hvm_attr>().u.shared_info.gfn, 0x300u);
  EXPECT_EQ(kvm.leaks(), Names{});
}

// Without KVM_XEN: MSR and port exits, and registers in the page.
TEST(TestGuest, MakesItsHypercallsByThePort) {
  const KvmDouble kvm;
  kvm.cap(KVM_CAP_XEN_HVM, 0);
  const auto in_long_mode = [](kvm_run& run) {
    run.s.regs.sregs.efer = 0x400;
    run.s.regs.sregs.cs.l = 1;
    run.s.regs.regs.rax = 17;  // xen_version, XENVER_version
    run.s.regs.regs.rdi = 0;
    return guest::goes_on;
  };
  std::uint64_t version = 0;
  kvm.vcpu(0).runs(in_long_mode, guest::wrmsr(0x40000000, 0x220000), guest::out(0xea, 0),
                   [&](kvm_run& run) {
                     version = run.s.regs.regs.rax;
                     return guest::goes_on;
                   });
  EXPECT_EQ(run_test_guest(kvm, TimerMode::userspace).find("KVM_"), std::string::npos);
  EXPECT_EQ(version, 4u << 16 | 17);
  EXPECT_FALSE(kvm.vcpu(0).answers().at(0).fault) << "the hypercall page";
}

// It arms a timer, too, an hour ahead.
std::string run_timer_guest(const KvmDouble& kvm, TimerMode mode) {
  {
    const failing::Unseen script;
    script_timer_guest(kvm);
  }
  return run_test_guest(kvm, mode);
}

constexpr TimerMode all_modes[] = {TimerMode::userspace, TimerMode::irqfd, TimerMode::delegated,
                                   TimerMode::kernel};

TEST(Failures, OfATimerGuestsSystemCalls) {
  for (const TimerMode mode : all_modes) {
    SCOPED_TRACE(to_string(mode));
    fail_each_other([&](const KvmDouble& kvm) { return run_timer_guest(kvm, mode); },
                    failing::Of::calls, "done\n", asio);
  }
}

TEST(Failures, OfATimerGuestsAllocations) {
  for (const TimerMode mode : all_modes) {
    SCOPED_TRACE(to_string(mode));
    fail_each_other([&](const KvmDouble& kvm) { return run_timer_guest(kvm, mode); },
                    failing::Of::allocations, "done\n");
  }
}

TEST(Failures, OfATestGuest) {
  for (const TimerMode mode : all_modes) {
    SCOPED_TRACE(to_string(mode));
    fail_each([&](const KvmDouble& kvm) { return run_test_guest(kvm, mode); });
  }
}

// --- Linux ---------------------------------------------------------------------------------------

std::string run_linux_guest(const KvmDouble& kvm, Boot boot) {
  const auto elf = tiny_elf();
  const vmm_base::UniqueFd file(::memfd_create("vmlinux", MFD_CLOEXEC));
  if (::write(file.get(), elf.data(), elf.size()) < 0) return "no kernel";
  {
    const failing::Unseen script;
    for (std::uint32_t id = 0; id < 2; ++id) kvm.vcpu(id).then_stays();
    kvm.vcpu(0).runs(guest::in(0x3fd), guest::out(linux_loader::sleep_control_port, 0x34));
  }

  auto host = Host::open(kvm.path());
  if (const auto* message = std::get_if<std::string>(&host)) return *message;
  Options options;
  options.kernel = "/proc/self/fd/" + std::to_string(file.get());
  options.boot = boot;
  options.vcpus = {2};
  options.memory_mib = 16;
  options.timeout = std::chrono::seconds(20);
  const auto ran = run_linux(std::get<Host>(host), TimerMode::userspace, options);
  if (const auto* message = std::get_if<std::string>(&ran)) return *message;
  const auto& run = std::get<LinuxRun>(ran);
  std::string said = run.fault;
  for (const std::string& remark : run.remarks) said += "; " + remark;
  if (run.ending == Ending::poweroff) said += "powered off";
  return said;
}

TEST(LinuxGuest, PowersOff) {
  for (const Boot boot : {Boot::pvh, Boot::native}) {
    const KvmDouble kvm;
    EXPECT_EQ(run_linux_guest(kvm, boot), "powered off");
    EXPECT_EQ(kvm.vcpu(0).answers().at(0).value, 0x60u) << "the line is ready to send";
    EXPECT_EQ(kvm.leaks(), Names{});
  }
}

TEST(Failures, OfALinuxGuest) {
  for (const Boot boot : {Boot::pvh, Boot::native}) {
    fail_each([&](const KvmDouble& kvm) { return run_linux_guest(kvm, boot); });
  }
}

TEST(Failures, OfALinuxGuestsSystemCalls) {
  fail_each_other([](const KvmDouble& kvm) { return run_linux_guest(kvm, Boot::pvh); },
                  failing::Of::calls, "powered off", asio);
  fail_each_other([](const KvmDouble& kvm) { return run_linux_guest(kvm, Boot::native); },
                  failing::Of::calls, "powered off", asio);
}

TEST(Failures, OfALinuxGuestsAllocations) {
  for (const Boot boot : {Boot::pvh, Boot::native}) {
    fail_each_other([&](const KvmDouble& kvm) { return run_linux_guest(kvm, boot); },
                    failing::Of::allocations, "powered off");
  }
}

}  // namespace
}  // namespace vmm_reference
