// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Running a vCPU on a real kernel: exits, interrupts, filters, kicks.
#include <pthread.h>
#include <signal.h>

#include <array>
#include <atomic>
#include <thread>

#include "device.hpp"

// ThreadSanitizer's, where there is one.
extern "C" void __tsan_init() __attribute__((weak));

namespace kvm_ioctls {
namespace {

using Running = Guest;

// out %al,$0x10; hlt
TEST_F(Running, APortWriteHltAndImmediateExit) {
  load({0xe6, 0x10, 0xf4});
  start();
  auto regs = must(vcpu->get_regs());
  regs.rax = 0x5a;
  must(vcpu->set_regs(regs));
  const auto out = run_to<IoOut>();
  EXPECT_EQ(out.port, 0x10);
  EXPECT_EQ(out.data[0], std::byte{0x5a});
  vcpu->request_exit();
  run_to<Interrupted>();
  vcpu->request_exit(false);
  run_to<Halted>();
  EXPECT_EQ(must(vcpu->get_regs()).rip, 0x1003u);
}

// The same, straight to the case.
TEST_F(Running, TheCaseOfAnExitIsCalled) {
  load({0xe6, 0x10, 0xf4});
  start();
  const auto run = [&](auto& runner) {
    return runner.run([&](IoOut& out) { return static_cast<int>(out.port); },
                      [&](Interrupted&) { return 1; },  //
                      [&](Halted&) { return 2; },       //
                      [](auto&) { return 3; });
  };
  EXPECT_EQ(must(run(*vcpu)), 0x10);
  vcpu->request_exit();
  EXPECT_EQ(must(run(*vcpu)), 1);
  Runner runner(*vcpu, must(KickSignal::install()));
  EXPECT_EQ(must(run(runner)), 1);
  EXPECT_EQ(must(run(runner)), 2) << "the Runner took it back";
}

// in $0x11,%al; mov %al,(0x3000); mov (0xf000),%bl; hlt
TEST_F(Running, ReadsGetWhatTheVmmAnswers) {
  load({0xe4, 0x11, 0xa2, 0x00, 0x30, 0x8a, 0x1e, 0x00, 0xf0, 0xf4});
  must(vm->set_user_memory_region(0, {0}, 0xf000, ram));
  vcpu.emplace(must(vm->create_vcpu({0})));
  restart();
  run_to<IoIn>().data[0] = std::byte{0x33};
  const auto read = run_to<MmioRead>();
  EXPECT_EQ(read.address, 0xf000u);
  ASSERT_EQ(read.data.size(), 1u);
  read.data[0] = std::byte{0x44};
  run_to<Halted>();
  EXPECT_EQ(ram[0x3000], 0x33);
  EXPECT_EQ(must(vcpu->get_regs()).rbx & 0xff, 0x44u);
}

TEST_F(Running, EnterLeavesTheExitInThePage) {
  load({0xe6, 0x10, 0xf4});
  start();
  must(vcpu->enter());
  EXPECT_EQ(vcpu->page().exit_reason, __u32{KVM_EXIT_IO});
  vcpu->request_exit();
  EXPECT_EQ(vcpu->enter().error(), (vmm_base::Error{"KVM_RUN", EINTR, 0}));
}

// int3, where the vector table is out of bounds, and so is the double fault's. A host whose KVM
// emulates real mode may not look at the bounds: then there is a hlt.
TEST_F(Running, ATripleFaultIsShutdown) {
  load({0xcc});
  load({0xf4}, 0x2000);
  const std::uint16_t vector[2] = {0x2000, 0};
  std::memcpy(ram + 4 * 3, vector, sizeof(vector));
  start();
  auto sregs = must(vcpu->get_sregs());
  sregs.idt.limit = 0;
  must(vcpu->set_sregs(sregs));
  const auto exit = must(vcpu->run());
  if (std::holds_alternative<Halted>(exit) && std::getenv("LAB") == nullptr) {
    GTEST_SKIP() << "this host's KVM emulates real mode without the table's limit";
  }
  EXPECT_TRUE(std::holds_alternative<Shutdown>(exit));
}

// nop; nop; hlt
TEST_F(Running, SingleStepsAreDebugExits) {
  NEEDS(*vm, KVM_CAP_SET_GUEST_DEBUG);
  load({0x90, 0x90, 0xf4});
  start();
  kvm_guest_debug debug{};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  must(vcpu->set_guest_debug(debug));
  auto exit = must(vcpu->run());
  if (std::holds_alternative<Halted>(exit) && std::getenv("LAB") == nullptr) {
    GTEST_SKIP() << "this host's KVM doesn't step through real mode";
  }
  const auto& step = std::get<Debug>(exit);
  EXPECT_EQ(step.exception, 1u);
  EXPECT_EQ(step.pc, 0x1001u);
  debug.control = 0;
  must(vcpu->set_guest_debug(debug));
  run_to<Halted>();
}

// out %al,$0x10; hlt
TEST_F(Running, RegistersComeAndGoWithTheExit) {
  NEEDS(*vm, KVM_CAP_SYNC_REGS);
  load({0xe6, 0x10, 0xe6, 0x10, 0xf4});
  start();
  vcpu->sync_regs().request(SyncRegs::regs_set | SyncRegs::sregs_set | SyncRegs::events_set);
  run_to<IoOut>();
  EXPECT_EQ(vcpu->sync_regs().regs().rsp, 0x8000u);
  EXPECT_EQ(vcpu->sync_regs().sregs().cs.base, 0u);
  EXPECT_EQ(vcpu->sync_regs().events().nmi.pending, 0);
  vcpu->sync_regs().edit_regs().rax = 0x66;
  vcpu->sync_regs().edit_sregs().cr2 = 0x1230;
  EXPECT_EQ(run_to<IoOut>().data[0], std::byte{0x66});
  EXPECT_EQ(must(vcpu->get_sregs()).cr2, 0x1230u);
  vcpu->sync_regs().request(std::uint64_t{1} << 20);
  EXPECT_EQ(vcpu->run().error(), (vmm_base::Error{"KVM_RUN", EINVAL, 0}));
}

// sti; nop; hlt; and at 0x2000, the handler of vector 0x21: out %al,$0x12; iret
TEST_F(Running, AnInterruptWaitsForItsWindow) {
  load({0x90, 0xfb, 0x90, 0x90, 0xf4});
  load({0xe6, 0x12, 0xcf}, 0x2000);
  const std::uint16_t vector[2] = {0x2000, 0};
  std::memcpy(ram + 4 * 0x21, vector, sizeof(vector));
  start();
  vcpu->request_interrupt_window(true);
  const auto exit = must(vcpu->run());
  if (std::holds_alternative<Halted>(exit) && std::getenv("LAB") == nullptr) {
    GTEST_SKIP() << "this host's KVM doesn't tell of the window in real mode";
  }
  ASSERT_TRUE(std::holds_alternative<IrqWindowOpen>(exit));
  vcpu->request_interrupt_window(false);
  must(vcpu->interrupt(0x21));
  EXPECT_EQ(vcpu->interrupt(0x1234).error(), (vmm_base::Error{"KVM_INTERRUPT", EINVAL, 0x1234}));
  EXPECT_EQ(run_to<IoOut>().port, 0x12);
}

// hlt; and at 0x2000, the NMI's: out %al,$0x13
TEST_F(Running, AnNmiIsDelivered) {
  load({0xf4});
  load({0xe6, 0x13, 0xcf}, 0x2000);
  const std::uint16_t vector[2] = {0x2000, 0};
  std::memcpy(ram + 4 * 2, vector, sizeof(vector));
  start();
  must(vcpu->nmi());
  EXPECT_EQ(run_to<IoOut>().port, 0x13);
}

TEST_F(Running, AnSmiIsPending) {
  NEEDS(*vm, KVM_CAP_X86_SMM);
  start();
  must(vcpu->smi());
  const auto events = must(vcpu->get_vcpu_events());
  EXPECT_TRUE(events.smi.pending != 0 || events.smi.smm != 0);
}

TEST_F(Running, TheTaskPriorityIsReportedAndMirrored) {
  NEEDS(*vm, KVM_CAP_VAPIC);
  must(vm->create_irqchip());
  start(0, true);
  must(vcpu->tpr_access_reporting(true));
  must(vcpu->set_vapic_addr({0x3000}));
  EXPECT_EQ(vcpu->set_vapic_addr({1 << 20}).error(),
            (vmm_base::Error{"KVM_SET_VAPIC_ADDR", EINVAL, 1 << 20}));
}

TEST_F(Running, AMachineCheckIsInItsBank) {
  NEEDS(*kvm, KVM_CAP_MCE);
  start(0, true);
  must(vcpu->setup_mce(must(kvm->get_mce_cap_supported()) | 10));
  kvm_x86_mce mce{};
  mce.bank = 2;
  mce.status = std::uint64_t{1} << 63 | 0x1234;  // valid, corrected
  must(vcpu->set_mce(mce));
  EXPECT_EQ(must(vcpu->get_msr(0x400 + 4 * 2 + 1)), mce.status);
  mce.bank = 99;
  EXPECT_EQ(vcpu->set_mce(mce).error(), (vmm_base::Error{"KVM_X86_SET_MCE", EINVAL, 99}));
}

TEST_F(Running, AVcpusCapability) {
  NEEDS(*vm, KVM_CAP_HYPERV_ENFORCE_CPUID);
  start();
  must(vcpu->enable_cap(KVM_CAP_HYPERV_ENFORCE_CPUID, 1));
  EXPECT_EQ(vcpu->enable_cap(99999).error(), (vmm_base::Error{"KVM_ENABLE_CAP", EINVAL, 99999}));
}

// mov $0x174,%ecx; rdmsr; wrmsr; hlt
TEST_F(Running, AFilteredMsrIsTheVmms) {
  NEEDS(*vm, KVM_CAP_X86_MSR_FILTER);
  load({0x66, 0xb9, 0x74, 0x01, 0x00, 0x00, 0x0f, 0x32, 0x0f, 0x30, 0xf4});
  must(vm->enable_cap(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_FILTER));
  const std::array<std::uint8_t, 1> none{};
  const MsrFilterRange range{KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE, 0x174, 8, none};
  must(vm->set_msr_filter({&range, 1}));
  EXPECT_EQ(vm->set_msr_filter(std::vector<MsrFilterRange>(17, range)).error(),
            (vmm_base::Error{"KVM_X86_SET_MSR_FILTER", EINVAL, 17}));
  const MsrFilterRange short_range{KVM_MSR_FILTER_READ, 0x174, 9, none};
  EXPECT_EQ(vm->set_msr_filter({&short_range, 1}).error(),
            (vmm_base::Error{"KVM_X86_SET_MSR_FILTER", EINVAL, 0x174}));
  start();
  auto read = run_to<MsrRead>();
  EXPECT_EQ(read.index(), 0x174u);
  EXPECT_EQ(read.reason(), __u32{KVM_MSR_EXIT_REASON_FILTER});
  read.set_result(0x1'0000'0002);
  auto write = run_to<MsrWrite>();
  EXPECT_EQ(write.value(), 0x1'0000'0002u);
  write.accept();
  run_to<Halted>();
}

TEST_F(Running, EventsOfThePmuAreFiltered) {
  NEEDS(*vm, KVM_CAP_PMU_EVENT_FILTER);
  PmuEventFilter filter{0xc0, 0x3c};
  filter.header().action = KVM_PMU_EVENT_ALLOW;
  must(vm->set_pmu_event_filter(filter));
  EXPECT_EQ(vm->set_pmu_event_filter(PmuEventFilter(1000)).error(),
            (vmm_base::Error{"KVM_SET_PMU_EVENT_FILTER", E2BIG, 1000}));
}

// jmp .: the signal is blocked but for KVM_RUN's own mask.
TEST_F(Running, ASignalMaskIsForKvmRunOnly) {
  load({0xeb, 0xfe});
  start();
  (void)must(KickSignal::install(SIGUSR2));
  ::sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR2);
  ::pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
  must(vcpu->set_signal_mask(::sigset_t{}));
  ::pthread_kill(::pthread_self(), SIGUSR2);
  run_to<Interrupted>();
  must(vcpu->set_signal_mask({}));
  ::sigset_t pending;
  ::sigpending(&pending);
  EXPECT_EQ(sigismember(&pending, SIGUSR2), 1) << "KVM_RUN doesn't take it";
  const ::timespec now{};
  ::sigtimedwait(&blocked, nullptr, &now);
  ::pthread_sigmask(SIG_UNBLOCK, &blocked, nullptr);
}

// vmcall with number 12, KVM_HC_MAP_GPA_RANGE, of guest physical 0.
TEST_F(Running, AHypercallIsTheVmms) {
  NEEDS(*vm, KVM_CAP_EXIT_HYPERCALL);
  must(vm->enable_cap(KVM_CAP_EXIT_HYPERCALL, 1 << 12));
  // mov $12,%eax; xor %ebx,%ebx; mov $1,%ecx; xor %edx,%edx; vmmcall; mov %al,(0x3000); hlt
  load({0x66, 0xb8, 0x0c, 0,    0,    0,    0x66, 0x31, 0xdb, 0x66, 0xb9, 1,   0,
        0,    0,    0x66, 0x31, 0xd2, 0x0f, 0x01, 0xd9, 0xa2, 0x00, 0x30, 0xf4});
  start(0, true);
  // A hypercall is KVM's where the guest is told so.
  auto exit = must(vcpu->run());
  if (std::holds_alternative<InternalError>(exit) && std::getenv("LAB") == nullptr) {
    GTEST_SKIP() << "this host's KVM doesn't know vmmcall in real mode";
  }
  auto& call = std::get<Hypercall>(exit);
  EXPECT_EQ(call.number(), 12u);
  EXPECT_EQ(call.args()[1], 1u);
  EXPECT_FALSE(call.longmode());
  call.set_result(0x21);
  run_to<Halted>();
  EXPECT_EQ(ram[0x3000], 0x21);
}

// --- Kicks -------------------------------------------------------------------------------------

// Two threads kick a vCPU that makes exits as fast as it can, or none: each kick is for a number
// that the vCPU's thread must have seen by the end; one that is lost leaves it in the guest, or
// with an old number, for ever.
void kick_and_see(Guest& guest, bool guest_exits, std::uint32_t kicks) {
  if (guest_exits) {
    guest.load({0xe6, 0x10, 0xeb, 0xfc});  // top: out %al,$0x10; jmp top
  } else {
    guest.load({0xeb, 0xfe});  // jmp .
  }
  guest.start();
  const KickSignal signal = must(KickSignal::install());
  std::atomic<std::uint32_t> asked[2] = {0, 0};
  std::atomic<std::uint32_t> seen[2] = {0, 0};
  std::atomic<bool> stop = false;
  std::uint64_t interrupted = 0;
  std::thread vcpu_thread([&] {
    Runner runner(*guest.vcpu, signal);
    while (!stop.load(std::memory_order_relaxed)) {
      // What was asked for is looked at nowhere else.
      auto exit = must(runner.run());
      if (!std::holds_alternative<Interrupted>(exit)) continue;
      ++interrupted;
      for (int i = 0; i != 2; ++i) {
        seen[i].store(asked[i].load(std::memory_order_relaxed), std::memory_order_relaxed);
        seen[i].notify_one();
      }
    }
  });
  const auto kicker_thread = [&](int i) {
    const Kicker kicker = guest.vcpu->kicker(signal);
    for (std::uint32_t n = 1; n <= kicks; ++n) {
      asked[i].store(n, std::memory_order_relaxed);
      kicker.kick();
      // Most kicks wait for their effect, which a lost one never has; some come in a heap.
      if (n % 8 != 0) {
        for (auto now = seen[i].load(); now < n; now = seen[i].load()) seen[i].wait(now);
      }
    }
    for (auto now = seen[i].load(); now < kicks; now = seen[i].load()) seen[i].wait(now);
  };
  std::thread other([&] { kicker_thread(1); });
  kicker_thread(0);
  other.join();
  stop = true;
  guest.vcpu->kicker(signal).kick();
  vcpu_thread.join();
  EXPECT_GT(interrupted, kicks / 4);
}

struct Kicks : Guest {
  static constexpr std::uint32_t count() { return 2000; }
};
TEST_F(Kicks, NoneIsLostWhileTheGuestMakesExits) { kick_and_see(*this, true, count()); }
TEST_F(Kicks, NoneIsLostWhileTheGuestStaysInside) { kick_and_see(*this, false, count()); }

TEST_F(Kicks, OneBeforeTheThreadHasBegunCounts) {
  load({0xeb, 0xfe});
  start();
  const KickSignal signal = must(KickSignal::install());
  const Kicker kicker = vcpu->kicker(signal);
  kicker.kick();
  std::thread([&] {
    Runner runner(*vcpu, signal);
    EXPECT_TRUE(std::holds_alternative<Interrupted>(must(runner.run())));
    EXPECT_EQ(vcpu->page().immediate_exit, 0) << "taken back";
  }).join();
  kicker.kick();  // nobody runs it
  vcpu.reset();
  kicker.kick();  // it is gone, but for the kicker's part
}

// A new thread for the same vCPU, again and again, each ended by a kick.
TEST_F(Kicks, FollowTheVcpuFromThreadToThread) {
  load({0xeb, 0xfe});
  start();
  const KickSignal signal = must(KickSignal::install());
  const Kicker kicker = vcpu->kicker(signal);
  for (int i = 0; i != 200; ++i) {
    std::thread thread([&] {
      Runner runner(*vcpu, signal);
      EXPECT_TRUE(std::holds_alternative<Interrupted>(must(runner.run())));
    });
    kicker.kick();
    thread.join();
  }
}

// Nor a timer's signal, wherever it meets the vCPU's thread.
TEST_F(Kicks, ATimerOfTheVcpusThreadIsOne) {
  if (&__tsan_init != nullptr) {
    GTEST_SKIP() << "ThreadSanitizer holds a signal back until a call that it knows to block";
  }
  load({0xeb, 0xfe});
  start();
  Runner runner(*vcpu, must(KickSignal::install()));
  sigevent event{};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = SIGUSR1;
  event._sigev_un._tid = ::gettid();
  timer_t timer{};
  ASSERT_EQ(::timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
  for (int i = 0; i != 500; ++i) {
    const itimerspec ahead{.it_interval = {}, .it_value = {.tv_sec = 0, .tv_nsec = 1 + i * 1000}};
    ASSERT_EQ(::timer_settime(timer, 0, &ahead, nullptr), 0);
    ASSERT_TRUE(std::holds_alternative<Interrupted>(must(runner.run())));
  }
  ::timer_delete(timer);
}

TEST_F(Kicks, ASignalMustBeOneThatCantOverflow) {
  EXPECT_EQ(KickSignal::install(SIGRTMIN).error().code, EINVAL);
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ::sigaction(SIGWINCH, &action, nullptr);
  EXPECT_EQ(KickSignal::install(SIGWINCH).error().code, EBUSY);
}

}  // namespace
}  // namespace kvm_ioctls
