// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The double's KVM_RUN: exits and their answers, kicks and signals.
#include <unistd.h>

#include <array>
#include <atomic>
#include <set>
#include <thread>

#include "double_fixture.hpp"

namespace kvm_ioctls {
namespace {

// --- Exits ---------------------------------------------------------------------------------------

TEST_F(Double, EveryKindOfExitCanBeMade) {
  std::set<std::size_t> seen;
  const auto see = [&](const guest::Step& step) {
    guest0.runs(step);
    auto exit = run();
    ASSERT_TRUE(exit) << exit.error().message();
    EXPECT_TRUE(seen.insert(exit.assume_value().index()).second)
        << "exit " << vcpu.page().exit_reason << " comes twice";
  };
  see(guest::xen_hypercall(1));
  see(guest::out(1, 2));
  see(guest::in(1));
  see(guest::mmio_read(1));
  see(guest::mmio_write(1, 2));
  see(guest::rdmsr(1));
  see(guest::wrmsr(1, 2));
  see(guest::halt());
  see(guest::shutdown());
  see(guest::interrupted());
  see(guest::system_event(KVM_SYSTEM_EVENT_RESET));
  see(guest::fail_entry(1));
  see(guest::internal_error(KVM_INTERNAL_ERROR_EMULATION));
  see(guest::other(4711));
  see(guest::hypercall(12));
  see(guest::hyperv_hypercall(1));
  see(guest::hyperv_synic(1, 2, 3, 4));
  see(guest::hyperv_syndbg(1, 2));
  see(guest::debug(1, 2));
  see(guest::tpr_access(1, true));
  see(guest::set_tpr(1));
  see(guest::ioapic_eoi(1));
  see(guest::bus_lock());
  see(guest::notify());
  see(guest::ap_reset_hold());
  see(guest::memory_fault(1, 2));
  see(guest::tdx(1));
  see(guest::snp_req_certs(1, 2));
  see(guest::irq_window_open());
  see(guest::dirty_ring_full());
  see(guest::unknown(1));
  see(guest::exception(1));
  see(guest::nmi());
  see(guest::watchdog());
  for (const unsigned reason : std::initializer_list<unsigned>{
           KVM_EXIT_S390_SIEIC, KVM_EXIT_S390_RESET, KVM_EXIT_DCR, KVM_EXIT_OSI,
           KVM_EXIT_PAPR_HCALL, KVM_EXIT_S390_UCONTROL, KVM_EXIT_S390_TSCH, KVM_EXIT_EPR,
           KVM_EXIT_S390_STSI, KVM_EXIT_ARM_NISV, KVM_EXIT_RISCV_SBI, KVM_EXIT_RISCV_CSR,
           KVM_EXIT_LOONGARCH_IOCSR, KVM_EXIT_ARM_SEA, KVM_EXIT_ARM_LDST64B}) {
    see(guest::other(reason));
  }
  EXPECT_EQ(seen.size(), std::variant_size_v<Exit>);
}

TEST_F(Double, AnExitCarriesWhatTheGuestSaid) {
  guest0.runs(guest::outs(0x3f8, {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}}, 2),
              guest::mmio_write(0xfee00000, 0x1122334455667788, 8),
              guest::xen_hypercall(29, {1, 2, 3, 4, 5, 6}, false, 3),
              guest::wrmsr(0x40000000, 0x1000, KVM_MSR_EXIT_REASON_FILTER),
              guest::hypercall(12, {7, 8}), guest::debug(3, 0x1000, 0x10, 0x20),
              guest::memory_fault(0x5000, 0x1000, KVM_MEMORY_EXIT_FLAG_PRIVATE, EHWPOISON),
              guest::tdx(0x10002, {1, 2}, 3), guest::system_event(2, {9, 8}),
              guest::internal_error(1, {5}));
  const auto out = run_to<IoOut>();
  EXPECT_EQ(out.port, 0x3f8);
  EXPECT_EQ(out.size, 2);
  EXPECT_EQ(out.data.size(), 4u);
  EXPECT_EQ(out.data[3], std::byte{4});
  const auto write = run_to<MmioWrite>();
  EXPECT_EQ(write.address, 0xfee00000u);
  EXPECT_EQ(write.data.size(), 8u);
  EXPECT_EQ(write.data[0], std::byte{0x88});
  const auto xen = run_to<XenHypercall>();
  EXPECT_EQ(xen.input(), 29u);
  EXPECT_EQ(xen.params()[5], 6u);
  EXPECT_FALSE(xen.longmode());
  EXPECT_EQ(xen.cpl(), 3);
  const auto msr = run_to<MsrWrite>();
  EXPECT_EQ(msr.index(), 0x40000000u);
  EXPECT_EQ(msr.value(), 0x1000u);
  EXPECT_EQ(msr.reason(), unsigned{KVM_MSR_EXIT_REASON_FILTER});
  const auto call = run_to<Hypercall>();
  EXPECT_EQ(call.number(), 12u);
  EXPECT_EQ(call.args()[1], 8u);
  EXPECT_TRUE(call.longmode());
  EXPECT_EQ(run_to<Debug>().dr7, 0x20u);
  const auto fault = run_to<MemoryFault>();
  EXPECT_EQ(fault.address, 0x5000u);
  EXPECT_EQ(fault.size, 0x1000u);
  EXPECT_EQ(fault.error, EHWPOISON);
  auto tdx = run_to<Tdx>();
  EXPECT_EQ(tdx.number(), 0x10002u);
  EXPECT_EQ(tdx.flags(), 3u);
  EXPECT_EQ(tdx.data()[1], 2u);
  const auto event = run_to<SystemEvent>();
  EXPECT_EQ(event.type, 2u);
  EXPECT_EQ(event.data.size(), 2u);
  EXPECT_EQ(event.data[0], 9u);
  EXPECT_EQ(run_to<InternalError>().data[0], 5u);
}

TEST_F(Double, ATestMayWriteTheExitItself) {
  guest0.runs([](kvm_run& run) {
    run.exit_reason = 99;
    run.padding[255] = 'x';
    return guest::exits;
  });
  EXPECT_EQ(run_to<Other>().raw[255], std::byte{'x'});
  guest0.runs(guest::other(98));
  EXPECT_EQ(run_to<Other>().raw[255], std::byte{0}) << "an exit before has left something";
}

TEST_F(Double, TheAnswerIsWhatTheGuestGets) {
  guest0.runs(guest::in(0x1f0, 2, 3));
  auto in = run_to<IoIn>();
  in.data[0] = std::byte{0xcd};
  in.data[1] = std::byte{0xab};
  EXPECT_TRUE(guest0.answers().empty()) << "the VMM may still change it";
  EXPECT_EQ(answered().value, 0xabcdu);
  EXPECT_EQ(guest0.answers()[0].data.size(), 6u);
  EXPECT_EQ(guest0.answers()[0].reason, unsigned{KVM_EXIT_IO});

  guest0.runs(guest::mmio_read(0x1000, 8));
  std::fill_n(run_to<MmioRead>().data.begin(), 8, std::byte{0xff});
  EXPECT_EQ(answered().value, ~std::uint64_t{0});

  guest0.runs(guest::xen_hypercall(17));
  run_to<XenHypercall>().set_result(0x40011);
  EXPECT_EQ(answered().value, 0x40011u);
  guest0.runs(guest::hypercall(12));
  run_to<Hypercall>().set_result(3);
  EXPECT_EQ(answered().value, 3u);
  guest0.runs(guest::hyperv_hypercall(1));
  run_to<HypervHypercall>().set_result(4);
  EXPECT_EQ(answered().value, 4u);
  guest0.runs(guest::hyperv_syndbg(1, 2));
  run_to<HypervSyndbg>().set_status(5);
  EXPECT_EQ(answered().value, 5u);
  guest0.runs(guest::tdx(1));
  run_to<Tdx>().set_result(6);
  EXPECT_EQ(answered().value, 6u);
  guest0.runs(guest::snp_req_certs(1, 2));
  run_to<SnpReqCerts>().set_result(ENOSPC, 9);
  EXPECT_EQ(answered().value, unsigned{ENOSPC});

  guest0.runs(guest::rdmsr(0x10));
  run_to<MsrRead>().set_result(7);
  EXPECT_EQ(answered().value, 7u);
  EXPECT_FALSE(answered().fault);
  guest0.runs(guest::wrmsr(0x10, 8));
  (void)run_to<MsrWrite>();
  EXPECT_TRUE(answered().fault);
}

TEST_F(Double, AnInterruptedRunIsNoExitToAnswer) {
  guest0.runs(guest::halt(), guest::interrupted(), guest::halt());
  (void)run_to<Halted>();
  (void)run_to<Interrupted>();
  (void)run_to<Halted>();
  EXPECT_EQ(guest0.answers().size(), 1u);
  EXPECT_EQ(kvm.count(KVM_RUN), 3u);
}

TEST_F(Double, AScriptAtItsEndIsAnError) {
  guest0.runs(guest::halt());
  (void)run_to<Halted>();
  const auto error = run().error();
  EXPECT_EQ(error.code, ENODATA);
  EXPECT_STREQ(error.operation, "KVM_RUN");
  EXPECT_EQ(guest0.steps_left(), 0u);
}

TEST_F(Double, WhatTheTestDoesMeanwhileIsDoneBetweenTheExits) {
  int done = 0;
  guest0.runs(guest::halt(), guest::does([&] { ++done; }),
              guest::does([&] { kvm.vcpu(0).runs(guest::shutdown()); }));
  (void)run_to<Halted>();
  EXPECT_EQ(done, 0);
  (void)run_to<Shutdown>();
  EXPECT_EQ(done, 1);
}

TEST_F(Double, RegistersInThePageAreThoseOfTheVcpu) {
  kvm_regs regs{};
  regs.rax = 1;
  must(vcpu.set_regs(regs));
  guest0.runs(
      guest::halt(),
      [](kvm_run& run) {
        run.s.regs.regs.rax += 1;
        run.s.regs.sregs.cr3 = 0x1000;
        run.exit_reason = KVM_EXIT_HLT;
        return guest::exits;
      },
      guest::halt());
  (void)run_to<Halted>();
  EXPECT_EQ(vcpu.sync_regs().regs().rax, 0u) << "nobody asked for them";
  vcpu.sync_regs().request(SyncRegs::regs_set);
  (void)run_to<Halted>();
  EXPECT_EQ(vcpu.sync_regs().regs().rax, 2u);
  EXPECT_EQ(vcpu.sync_regs().sregs().cr3, 0u);
  EXPECT_EQ(must(vcpu.get_sregs()).cr3, 0x1000u);
  vcpu.sync_regs().edit_regs().rax = 7;
  (void)run_to<Halted>();
  EXPECT_EQ(must(vcpu.get_regs()).rax, 7u);

  vcpu.sync_regs().request(8);
  EXPECT_EQ(run().error().code, EINVAL);
}

// --- Kicks ---------------------------------------------------------------------------------------

TEST_F(Double, TheKickersFlagEndsTheNextRun) {
  guest0.runs(guest::halt());
  vcpu.request_exit();
  (void)run_to<Interrupted>();
  vcpu.request_exit(false);
  (void)run_to<Halted>();
}

TEST_F(Double, AKickEndsAStay) {
  const KickSignal signal = must(KickSignal::install());
  guest0.runs(guest::stays(), guest::halt()).then_stays();
  std::atomic<int> halts = 0;
  std::atomic<bool> stop = false;
  std::thread thread([&] {
    Runner runner(vcpu, signal);
    while (!stop) {
      auto exit = must(runner.run());
      if (std::holds_alternative<Halted>(exit)) ++halts;
    }
  });
  const Kicker kicker = vcpu.kicker(signal);
  guest0.await_stay();
  EXPECT_EQ(halts, 0);
  kicker.kick();
  while (halts == 0) std::this_thread::yield();
  guest0.await_stay();
  guest0.runs(guest::halt());  // more to do ends it, too
  while (halts == 1) std::this_thread::yield();
  guest0.await_stay();
  stop = true;
  kicker.kick();
  thread.join();
}

TEST_F(Double, NoKickIsLost) {
  constexpr int kicks = 2000;
  const KickSignal signal = must(KickSignal::install());
  guest0.then_stays();
  std::atomic<int> wanted = 0;
  std::atomic<int> seen = 0;
  std::thread thread([&] {
    Runner runner(vcpu, signal);
    while (seen < kicks) {
      (void)must(runner.run());
      seen.store(wanted);
    }
  });
  const Kicker kicker = vcpu.kicker(signal);
  for (int i = 1; i <= kicks; ++i) {
    if (i % 2 == 0) guest0.await_stay();
    wanted = i;
    kicker.kick();
    while (seen != i) std::this_thread::yield();
  }
  thread.join();
}

// As a timer sends it: nobody has set the flag before.
TEST_F(Double, TheKickSignalOfWhoeverSendsItEndsTheNextRun) {
  const KickSignal signal = must(KickSignal::install());
  const auto send = [&] {
    EXPECT_EQ(::pthread_sigqueue(::pthread_self(), signal.number(), sigval{}), 0);
    ::usleep(1);  // ThreadSanitizer delivers it at the next call that may block
  };
  guest0.runs(guest::halt(), guest::halt(), guest::halt());
  {
    Runner runner(vcpu, signal);
    send();
    EXPECT_EQ(vcpu.page().immediate_exit, 1);
    EXPECT_TRUE(std::holds_alternative<Interrupted>(must(runner.run())));
    EXPECT_EQ(vcpu.page().immediate_exit, 0);
    EXPECT_TRUE(std::holds_alternative<Halted>(must(runner.run())));
    // The signal of a kick whose flag was seen already.
    ASSERT_EQ(::pthread_kill(::pthread_self(), signal.number()), 0);
    EXPECT_TRUE(std::holds_alternative<Halted>(must(runner.run())));
  }
  send();
  (void)run_to<Halted>();
}

TEST_F(Double, ASignalEndsARunAndIsTakenAfterIt) {
  static std::atomic<int> taken;
  taken = 0;
  struct sigaction action {};
  action.sa_handler = [](int) { ++taken; };
  action.sa_flags = SA_RESTART;
  struct sigaction before {};
  ::sigaction(SIGUSR2, &action, &before);
  int taken_inside = -1;
  const auto signals = guest::does([&] {
    ::pthread_kill(::pthread_self(), SIGUSR2);
    taken_inside = taken;
  });
  guest0.runs(signals, guest::halt());
  (void)run_to<Interrupted>();
  EXPECT_EQ(taken_inside, 0);
  EXPECT_EQ(taken, 1);
  (void)run_to<Halted>();
  ::sigaction(SIGUSR2, &before, nullptr);
}

TEST_F(Double, ASignalThatOnlyKvmRunLetsInStaysPending) {
  sigset_t usr2;
  sigemptyset(&usr2);
  sigaddset(&usr2, SIGUSR2);
  sigset_t before;
  ::pthread_sigmask(SIG_BLOCK, &usr2, &before);
  sigset_t none;
  sigemptyset(&none);
  must(vcpu.set_signal_mask(none));
  guest0.runs(guest::stays());
  ::pthread_kill(::pthread_self(), SIGUSR2);
  (void)run_to<Interrupted>();
  EXPECT_EQ(::sigtimedwait(&usr2, nullptr, std::array<timespec, 1>{}.data()), SIGUSR2);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace
}  // namespace kvm_ioctls
