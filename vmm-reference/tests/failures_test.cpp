// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Whole guests over a KvmDouble, with each of the calls that they take failing in turn.
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
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
#include "xen_clock/clock.hpp"

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

// After what it is scripted to do, it leaves a line of text.
std::string run_guest(const KvmDouble& kvm, TimerMode mode) {
  {
    const failing::Unseen script;
    kvm.vcpu(0).runs(guest::does([&kvm] {
                       TextReport text{.magic = text_magic, .length = 5, .text = "done\n"};
                       poke(kvm, report, text);
                     }),
                     guest::out(port_report, report, 4), guest::out(port_done, 0, 4));
  }
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

// It sets up shared_info, its vcpu_info and a timer event.
std::string run_test_guest(const KvmDouble& kvm, TimerMode mode) {
  script_set_up(kvm);
  return run_guest(kvm, mode);
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

// It arms a timer, too, for long after the test.
std::string run_timer_guest(const KvmDouble& kvm, TimerMode mode) {
  {
    const failing::Unseen script;
    script_timer_guest(kvm);
  }
  return run_guest(kvm, mode);
}

constexpr TimerMode all_modes[] = {TimerMode::userspace, TimerMode::irqfd, TimerMode::spinning,
                                   TimerMode::delegated, TimerMode::kernel};

TEST(Failures, OfATimerGuest) {
  for (const TimerMode mode : all_modes) {
    if (!can_be_had(mode)) continue;  // as ExpiringGuest says
    SCOPED_TRACE(to_string(mode));
    fail_each([&](const KvmDouble& kvm) { return run_timer_guest(kvm, mode); });
  }
}

// --- A test guest whose timer expires -----------------------------------------------------------

// How: by KVM's event channels, or, on a kernel that has none, by the pages and an MSI.
enum class Raised { by_kvm, by_hand };

// Waits for its timer. Its clock goes as the host's, but for once: when the alarm comes first,
// there is a millisecond to go, so that there has to be another. Not if it spins, which is by
// chance.
class Expiring {
 public:
  Expiring(const KvmDouble& kvm, TimerMode mode, Raised raised)
      : kvm_(kvm), raised_(raised), early_(mode == TimerMode::spinning ? 0 : ms) {
    kvm.on<kvm_clock_data>(KVM_GET_CLOCK, [this](kvm_clock_data& clock) {
      clock.clock = static_cast<std::uint64_t>(now());
      return 0;
    });
    script_set_up(kvm);
    if (raised == Raised::by_hand) {
      kvm.cap(KVM_CAP_XEN_HVM,
              KVM_XEN_HVM_CONFIG_HYPERCALL_MSR | KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL);
      calls(kvm, 34, {23}, UpcallVector{});
    }
    kvm.vcpu(0).runs(guest::does([this] { arms(); }), guest::xen_hypercall(24, {8, 0, arguments}),
                     guest::does([this] { waits(); }));
  }
  // How often its event has come; in a timer of KVM's it is as good as there.
  [[nodiscard]] std::size_t events() const {
    std::int64_t kept = 0;
    for (const auto& call : kvm_.calls(KVM_XEN_VCPU_SET_ATTR)) {
      const auto attr = call.argument<kvm_xen_vcpu_attr>();
      if (call.result == 0 && attr.type == KVM_XEN_VCPU_ATTR_TYPE_TIMER) {
        kept = deadline_ != 0 && std::cmp_equal(attr.u.timer.expires_ns, deadline_) ? 1 : 0;
      }
    }
    return signals_ + static_cast<std::size_t>(kept + good(KVM_XEN_HVM_EVTCHN_SEND) +
                                               good(KVM_SIGNAL_MSI) - messages_before_);
  }

 private:
  static constexpr std::int64_t ms = 1'000'000;
  struct UpcallVector {
    std::uint32_t vcpu = 0;
    std::uint8_t vector = 0xf3;
    std::uint8_t padding[3] = {};
  };

  [[nodiscard]] std::int64_t good(unsigned long request) const {
    const auto made = kvm_.calls(request);
    return std::count_if(made.begin(), made.end(), [](auto& call) { return call.result == 0; });
  }
  static std::int64_t host() { return xen_clock::HostClock::now().time_since_epoch().count(); }
  std::int64_t now() {
    const std::scoped_lock lock(mutex_);
    if (deadline_ == 0) return host() - start_ + 10 * ms;
    const int look = looks_++;
    if (look == 0) return deadline_ - ahead_;  // the hypercall's
    if (look == 1) start_ = host();
    return deadline_ - early_ + (host() - start_);
  }
  void arms() {
    if (raised_ == Raised::by_hand) {  // the guest has seen to what was pending
      poke(kvm_, RegisterVcpuInfo{}.mfn << 12, std::array<std::uint64_t, 2>{});
      messages_before_ = good(KVM_SIGNAL_MSI);
    }
    const std::int64_t deadline = now() + ahead_;
    const std::scoped_lock lock(mutex_);
    deadline_ = deadline;
    poke(kvm_, arguments, SetSingleshot{.deadline = static_cast<std::uint64_t>(deadline)});
  }
  // Only where it is lost does it take so long.
  void waits() {
    for (const auto& answer : kvm_.vcpu(0).answers()) {
      if (answer.value != 0) return;  // refused: there is no timer to wait for
    }
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
    while (events() == 0 && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::microseconds(500));
      for (const auto& call : kvm_.calls(KVM_IRQFD)) {
        const auto irqfd = call.argument<kvm_irqfd>();
        eventfd_t count = 0;
        if (call.result == 0 && irqfd.flags == 0 &&
            ::eventfd_read(static_cast<int>(irqfd.fd), &count) == 0) {
          signals_ += count;
        }
      }
    }
  }

  const KvmDouble& kvm_;
  static constexpr std::int64_t ahead_ = 3 * ms;
  Raised raised_;
  std::int64_t early_;
  std::mutex mutex_;  // of the clock
  std::int64_t start_ = host();
  std::int64_t deadline_ = 0;  // written on the vCPU's thread
  int looks_ = 0;              // since
  std::size_t signals_ = 0;
  std::int64_t messages_before_ = 0;
};

// What fails is said, or the timer expires once; that it does so later is no excuse for the timers'
// thread, which tries again.
std::string run_expiring_guest(const KvmDouble& kvm, TimerMode mode, Raised raised) {
  std::optional<Expiring> guest;
  {
    const failing::Unseen script;
    guest.emplace(kvm, mode, raised);
  }
  const std::string said = run_guest(kvm, mode);
  const failing::Unseen looking;
  EXPECT_LE(guest->events(), 1u) << said;
  EXPECT_TRUE(guest->events() == 1 || said != "done\n") << "lost, and unsaid in the result";
  return said;
}

struct ExpiringGuest : testing::TestWithParam<std::pair<TimerMode, Raised>> {
  void SetUp() override {
    if (!can_be_had(GetParam().first)) GTEST_SKIP() << "no io_uring here";
  }
  static std::string run(const KvmDouble& kvm) {
    return run_expiring_guest(kvm, GetParam().first, GetParam().second);
  }
};
INSTANTIATE_TEST_SUITE_P(Way, ExpiringGuest,
                         testing::Values(std::pair(TimerMode::userspace, Raised::by_kvm),
                                         std::pair(TimerMode::userspace, Raised::by_hand),
                                         std::pair(TimerMode::spinning, Raised::by_kvm),
                                         std::pair(TimerMode::irqfd, Raised::by_kvm),
                                         std::pair(TimerMode::delegated, Raised::by_kvm),
                                         std::pair(TimerMode::kernel, Raised::by_kvm)),
                         [](const auto& of) {
                           return std::string(to_string(of.param.first)) +
                                  (of.param.second == Raised::by_hand ? "_by_hand" : "");
                         });

TEST_P(ExpiringGuest, OfItsIoctls) { fail_each(run); }

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

// --- System calls and allocations ---------------------------------------------------------------

#ifndef FAILING_CALLS_NONE

TEST(Failures, OfATimerGuestsSystemCalls) {
  for (const TimerMode mode : all_modes) {
    if (!can_be_had(mode)) continue;  // as ExpiringGuest says
    SCOPED_TRACE(to_string(mode));
    fail_each_other([&](const KvmDouble& kvm) { return run_timer_guest(kvm, mode); },
                    failing::Of::calls, "done\n", asio);
  }
}

TEST(Failures, OfAnIoUringLeaveTheIrqfdsOut) {
  if (!can_be_had(TimerMode::irqfd)) GTEST_SKIP() << "no io_uring here";
  const KvmDouble kvm;
  const auto host = std::get<Host>(Host::open(kvm.path()));
  for (std::size_t n = 1;; ++n) {
    failing::next(n, EPERM);
    const auto modes = host.modes();
    const bool failed = failing::none().failed != nullptr;
    const bool left_out = std::find(modes.begin(), modes.end(), TimerMode::irqfd) == modes.end();
    EXPECT_EQ(left_out, failed) << n;
    if (!failed) {
      EXPECT_GT(n, 1u) << "nobody looks";
      break;
    }
    failing::next(n, EPERM);
    const std::string why = host.why_not(TimerMode::irqfd);
    const char* name = failing::none().failed;
    EXPECT_NE(why.find(std::string(name) + "(0x"), std::string::npos) << why;
    EXPECT_NE(why.find("Operation not permitted; that needs Linux 6.1"), std::string::npos) << why;
  }
}

TEST(Failures, OfATimerGuestsAllocations) {
  for (const TimerMode mode : all_modes) {
    if (!can_be_had(mode)) continue;  // as ExpiringGuest says
    SCOPED_TRACE(to_string(mode));
    fail_each_other([&](const KvmDouble& kvm) { return run_timer_guest(kvm, mode); },
                    failing::Of::allocations, "done\n");
  }
}

TEST_P(ExpiringGuest, OfItsSystemCalls) {
  fail_each_other(run, failing::Of::calls, "done\n", asio);
}

TEST_P(ExpiringGuest, OfItsAllocations) {
  fail_each_other(run, failing::Of::allocations, "done\n");
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

#endif

}  // namespace
}  // namespace vmm_reference
