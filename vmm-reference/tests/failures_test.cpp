// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Whole guests over a KvmDouble: each of the ioctls that they take fails in turn, which has to be
// said by its name and to leave nothing open.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "domain.hpp"
#include "host.hpp"
#include "kvm_ioctls/double.hpp"
#include "linux_domain.hpp"
#include "linux_loader/acpi.hpp"
#include "machine.hpp"
#include "tiny_elf.hpp"
#include "vmm_base/unique_fd.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hypercall.hpp"

namespace vmm_reference {
namespace {

namespace guest = kvm_ioctls::guest;
using kvm_ioctls::KvmDouble;
using Names = std::vector<std::string>;

std::size_t open_fds() {
  const std::filesystem::directory_iterator fds("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(fds), end(fds)));
}

// Runs `vmm`, which returns all that it has to say, with the nth ioctl failing, for every n.
template <class Vmm>
void fail_each(const Vmm& vmm) {
  const std::size_t fds = open_fds();
  std::size_t n = 1;
  for (;; ++n) {
    KvmDouble kvm;
    kvm.fail_call(n, EIO);
    const std::string said = vmm(kvm);
    const auto calls = kvm.calls();
    EXPECT_EQ(kvm.leaks(), Names{});
    if (calls.size() < n) break;
    const std::string name = calls[n - 1].name;
    EXPECT_NE(said.find(name + "("), std::string::npos)
        << "call " << n << ", " << name << ": " << said;
    EXPECT_NE(said.find("Input/output error"), std::string::npos) << said;
  }
  EXPECT_EQ(open_fds(), fds);
  EXPECT_GT(n, 4u);
}

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

constexpr std::uint64_t arguments = 0x200000;
constexpr std::uint64_t report = 0x210000;

template <class T>
void poke(const KvmDouble& kvm, std::uint64_t gpa, const T& value) {
  std::byte* memory = kvm.memory(gpa, sizeof(value));
  if (memory != nullptr) std::memcpy(memory, &value, sizeof(value));
}
// A hypercall whose last parameter is the address of `argument`.
template <class T>
void calls(const KvmDouble& kvm, std::uint64_t number, std::vector<std::uint64_t> params,
           const T& argument) {
  params.push_back(arguments);
  kvm.vcpu(0).runs(guest::does([&kvm, argument] { poke(kvm, arguments, argument); }),
                   guest::xen_hypercall(number, params));
}

struct AddToPhysmap {
  std::uint16_t domid = 0x7ff0;
  std::uint16_t size = 0;
  std::uint32_t space = 0;  // shared_info
  std::uint64_t index = 0;
  std::uint64_t gpfn = 0x300;
};
struct RegisterVcpuInfo {
  std::uint64_t mfn = 0x301;
  std::uint32_t offset = 0;
  std::uint32_t reserved = 0;
};
struct BindVirq {
  std::uint32_t virq = 0;  // VIRQ_TIMER
  std::uint32_t vcpu = 0;
  std::uint32_t port = 0;
};

// It sets up shared_info, its vcpu_info and a timer event, and leaves a line of text.
void script_test_guest(const KvmDouble& kvm) {
  calls(kvm, 12, {7}, AddToPhysmap{});
  calls(kvm, 24, {10, 0}, RegisterVcpuInfo{});
  calls(kvm, 32, {1}, BindVirq{});
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

TEST(Failures, OfATestGuest) {
  for (const TimerMode mode :
       {TimerMode::userspace, TimerMode::irqfd, TimerMode::delegated, TimerMode::kernel}) {
    SCOPED_TRACE(to_string(mode));
    fail_each([&](const KvmDouble& kvm) { return run_test_guest(kvm, mode); });
  }
}

// --- Linux ---------------------------------------------------------------------------------------

std::string run_linux_guest(const KvmDouble& kvm, Boot boot) {
  const auto elf = tiny_elf();
  const vmm_base::UniqueFd file(::memfd_create("vmlinux", MFD_CLOEXEC));
  if (::write(file.get(), elf.data(), elf.size()) < 0) return "no kernel";
  for (std::uint32_t id = 0; id < 2; ++id) kvm.vcpu(id).then_stays();
  kvm.vcpu(0).runs(guest::in(0x3fd), guest::out(linux_loader::sleep_control_port, 0x34));

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

}  // namespace
}  // namespace vmm_reference
