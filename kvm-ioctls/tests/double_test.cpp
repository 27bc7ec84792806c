// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "kvm_ioctls/double.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/ioctl.h>

#include <array>
#include <atomic>
#include <filesystem>
#include <optional>
#include <set>
#include <thread>

namespace kvm_ioctls {
namespace {

using Names = std::vector<std::string>;

template <class T>
T must(vmm_base::Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message();
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return std::move(result).assume_value();
}
template <class T>
std::vector<std::byte> bytes_of(const T& value) {
  const auto bytes = std::as_bytes(std::span(&value, 1));
  return {bytes.begin(), bytes.end()};
}
std::size_t open_fds() {
  std::size_t count = 0;
  for ([[maybe_unused]] const auto& fd : std::filesystem::directory_iterator("/proc/self/fd")) {
    ++count;
  }
  return count;
}

// A VM with a vCPU of id 0, all of them real but for the kernel.
struct Double : testing::Test {
  KvmDouble kvm;
  VcpuDouble guest0 = kvm.vcpu(0);
  Kvm system = must(kvm.open());
  Vm vm = must(system.create_vm());
  Vcpu vcpu = must(vm.create_vcpu({0}));

  template <class Kind>
  Kind run_to() {
    auto exit = must(vcpu.run());
    if (!std::holds_alternative<Kind>(exit)) {
      ADD_FAILURE() << "exit " << vcpu.page().exit_reason << ", variant " << exit.index();
      std::abort();
    }
    return std::get<Kind>(exit);
  }
  // Goes back into KVM_RUN, which takes the answer to the last exit.
  Answer answered() {
    guest0.runs(guest::fails(EIO));
    EXPECT_EQ(vcpu.run().error().code, EIO);
    return guest0.answers().back();
  }
};

// --- Exits ---------------------------------------------------------------------------------------

TEST_F(Double, EveryKindOfExitCanBeMade) {
  std::set<std::size_t> seen;
  const auto see = [&](const guest::Step& step) {
    guest0.runs(step);
    auto exit = vcpu.run();
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
  const auto error = vcpu.run().error();
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
  EXPECT_EQ(vcpu.run().error().code, EINVAL);
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

// --- Calls ---------------------------------------------------------------------------------------

TEST(KvmDouble, RecordsEveryCallWithItsArgument) {
  KvmDouble kvm;
  const Kvm system = must(kvm.open());
  const Vm vm = must(system.create_vm());
  const Vcpu vcpu = must(vm.create_vcpu({3}));
  must(vm.set_tss_addr({0xfffbd000}));
  kvm_regs regs{};
  regs.rip = 0x1000;
  must(vcpu.set_regs(regs));
  kvm_cpuid_entry2 leaf{};
  leaf.function = 7;
  must(vcpu.set_cpuid2(std::array{kvm_cpuid_entry2{}, leaf}));
  (void)must(vcpu.get_mp_state());
  EXPECT_EQ(vcpu.set_sregs2({}).has_value(), true);

  EXPECT_EQ(kvm.names(), (Names{"KVM_GET_API_VERSION", "KVM_GET_VCPU_MMAP_SIZE", "KVM_CREATE_VM",
                                "KVM_CREATE_VCPU", "KVM_SET_TSS_ADDR", "KVM_SET_REGS",
                                "KVM_SET_CPUID2", "KVM_GET_MP_STATE", "KVM_SET_SREGS2"}));
  const auto calls = kvm.calls();
  EXPECT_EQ(calls[0].role, Role::system);
  EXPECT_EQ(calls[0].result, KVM_API_VERSION);
  EXPECT_EQ(calls[3].role, Role::vm);
  EXPECT_EQ(calls[3].word, 3u);
  EXPECT_EQ(calls[4].word, 0xfffbd000u);
  EXPECT_EQ(calls[5].role, Role::vcpu);
  EXPECT_EQ(calls[5].id, 3u);
  EXPECT_EQ(calls[5].argument<kvm_regs>().rip, 0x1000u);
  EXPECT_EQ(calls[6].entries<kvm_cpuid_entry2>().at(1).function, 7u);
  EXPECT_EQ(calls[7].answer<kvm_mp_state>().mp_state, unsigned{KVM_MP_STATE_RUNNABLE});
  EXPECT_EQ(kvm.count(KVM_SET_REGS), 1u);
}

TEST_F(Double, CodeWithIoctlsOfItsOwnIsAnswered) {
  const vmm_base::UniqueFd fd(::open(kvm.path().c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_EQ(::ioctl(fd.get(), KVM_GET_API_VERSION, 0), KVM_API_VERSION);
  kvm_regs regs{};
  errno = EXDEV;
  EXPECT_EQ(::ioctl(vcpu.fd(), KVM_GET_REGS, &regs), 0);
  EXPECT_EQ(errno, EXDEV) << "success leaves errno alone";
}

TEST_F(Double, WhatWasSetIsWhatIsGot) {
  const auto same = [&](const auto& value, auto setter, auto getter) {
    must((vcpu.*setter)(value));
    EXPECT_EQ(bytes_of(must((vcpu.*getter)())), bytes_of(value)) << kvm.names().back();
  };
  const auto filled = [](auto value) {
    std::memset(&value, 0x5a, sizeof(value));
    return value;
  };
  same(filled(kvm_regs{}), &Vcpu::set_regs, &Vcpu::get_regs);
  same(filled(kvm_sregs{}), &Vcpu::set_sregs, &Vcpu::get_sregs);
  same(filled(kvm_sregs2{}), &Vcpu::set_sregs2, &Vcpu::get_sregs2);
  same(filled(kvm_fpu{}), &Vcpu::set_fpu, &Vcpu::get_fpu);
  same(filled(kvm_xcrs{}), &Vcpu::set_xcrs, &Vcpu::get_xcrs);
  same(filled(kvm_debugregs{}), &Vcpu::set_debugregs, &Vcpu::get_debugregs);
  same(filled(kvm_lapic_state{}), &Vcpu::set_lapic, &Vcpu::get_lapic);
  same(filled(kvm_mp_state{}), &Vcpu::set_mp_state, &Vcpu::get_mp_state);
  same(filled(kvm_vcpu_events{}), &Vcpu::set_vcpu_events, &Vcpu::get_vcpu_events);

  must(vcpu.set_tsc_khz(2'000'000));
  EXPECT_EQ(must(vcpu.get_tsc_khz()), 2'000'000u);
  must(vcpu.set_tsc_offset(77));
  EXPECT_EQ(must(vcpu.get_tsc_offset()), 77u);
  must(vcpu.set_msr(0x10, 5));
  EXPECT_EQ(must(vcpu.get_msr(0x10)), 5u);
  EXPECT_EQ(must(vcpu.get_msr(0x11)), 0u);
  EXPECT_EQ(must(vcpu.get_one_reg(Vcpu::x86_msr_reg(0x10))), 5u);
  must(vcpu.set_one_reg(KVM_REG_X86, 6));
  EXPECT_EQ(must(vcpu.get_one_reg(KVM_REG_X86)), 6u);
  must(vcpu.set_cpuid2(std::vector<kvm_cpuid_entry2>(100)));
  EXPECT_EQ(must(vcpu.get_cpuid2()).size(), 100u);
  Xsave area(must(vm.xsave_size()));
  area.bytes()[4095] = std::byte{9};
  must(vcpu.set_xsave(area, must(vm.xsave_size())));
  EXPECT_EQ(must(vcpu.get_xsave()).bytes()[4095], std::byte{9});
  EXPECT_EQ(must(vcpu.get_xsave2(4096)).bytes()[4095], std::byte{9});
  NestedState nested(4096);
  nested.data()[0] = std::byte{3};
  must(vcpu.set_nested_state(nested));
  EXPECT_EQ(must(vcpu.get_nested_state(8192)).size(), 4096u);
  EXPECT_EQ(must(vcpu.get_nested_state(8192)).data()[0], std::byte{3});
  EXPECT_EQ(vcpu.get_nested_state(200).error().code, E2BIG);

  must(vcpu.xen_vcpu_set_attr(XenTimer{.port = 3, .expires_ns = 4}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenTimer>()).expires_ns, 4u);
  EXPECT_EQ(must(xen_id_rule(vcpu)), XenIdRule::unset);
  must(vcpu.xen_vcpu_set_attr(XenVcpuIdAttr{vmm_base::XenVcpuId{1}}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuIdAttr>()).id, vmm_base::XenVcpuId{1});
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuInfo>()).gpa.value, xen_invalid_gpa);
  must(vm.xen_hvm_set_attr(XenSharedInfo{5}));
  EXPECT_EQ(must(vm.xen_hvm_get_attr<XenSharedInfo>()).gfn, 5u);
  EXPECT_EQ(must(vm.xen_hvm_get_attr<XenVersion>()).version, 0u);

  must(vm.set_clock(filled(kvm_clock_data{})));
  EXPECT_EQ(bytes_of(must(vm.get_clock())), bytes_of(filled(kvm_clock_data{})));
  kvm_pit_state2 pit = filled(kvm_pit_state2{});
  must(vm.set_pit2(pit));
  EXPECT_EQ(bytes_of(must(vm.get_pit2())), bytes_of(pit));
}

TEST_F(Double, VcpusOfOneVmKeepTheirStateApart) {
  const Vcpu other = must(vm.create_vcpu({1}));
  kvm_regs regs{};
  regs.rax = 1;
  must(vcpu.set_regs(regs));
  EXPECT_EQ(must(other.get_regs()).rax, 0u);
  EXPECT_EQ(vm.create_vcpu({1}).error().code, EEXIST);
}

TEST_F(Double, CapabilitiesAreSaidByTheTest) {
  EXPECT_EQ(must(system.check_extension(KVM_CAP_SYNC_REGS)), 7);
  EXPECT_EQ(must(system.check_extension(9999)), 0);
  kvm.cap(KVM_CAP_SYNC_REGS, 0);
  kvm.cap(9999, 3);
  EXPECT_EQ(must(system.check_extension(KVM_CAP_SYNC_REGS)), 0);
  EXPECT_EQ(must(vm.check_extension(9999)), 3);
  EXPECT_EQ(must(system.get_supported_cpuid()).size(), 4u);
  kvm.supported_cpuid(std::vector<kvm_cpuid_entry2>(200));
  EXPECT_EQ(must(system.get_supported_cpuid()).size(), 200u);
}

TEST_F(Double, ATestMayAnswerItself) {
  kvm.on<kvm_sregs>(KVM_GET_SREGS, [](kvm_sregs& sregs) {
    sregs.cr0 = 1;
    return 0;
  });
  EXPECT_EQ(must(vcpu.get_sregs()).cr0, 1u);

  kvm.on(KVM_CREATE_VCPU, [&](const Call& call) {
    EXPECT_EQ(call.role, Role::vm);
    (void)kvm.calls();  // no lock is held
    return call.word == 5 ? -ENOMEM : KvmDouble::as_usual;
  });
  EXPECT_EQ(vm.create_vcpu({5}).error().code, ENOMEM);
  EXPECT_TRUE(vm.create_vcpu({6}));

  constexpr Request<kvm_regs> newest{"KVM_NEWEST", _IOW(KVMIO, 0xfe, kvm_regs)};
  kvm_regs regs{};
  EXPECT_EQ(call(vcpu.fd(), newest, regs).error().code, ENOTTY);
  kvm.on(newest.number, [](const Call&) { return 42; });
  EXPECT_EQ(must(call(vcpu.fd(), newest, regs)), 42);
}

TEST_F(Double, WhatCantBeIsRefusedAsTheKernelDoes) {
  EXPECT_EQ(::ioctl(vm.fd(), KVM_GET_REGS, nullptr), -1);
  EXPECT_EQ(errno, ENOTTY);
  EXPECT_EQ(::ioctl(vcpu.fd(), KVM_GET_REGS, nullptr), -1);
  EXPECT_EQ(errno, EFAULT);
  EXPECT_TRUE(vm.create_irqchip());
  EXPECT_EQ(vm.create_irqchip().error().code, EEXIST);
  EXPECT_EQ(must(must(vm.create_vcpu({1})).get_mp_state()).mp_state,
            unsigned{KVM_MP_STATE_UNINITIALIZED});
}

// --- Failures ------------------------------------------------------------------------------------

TEST_F(Double, TheNthCallFailsAndHasNoEffect) {
  kvm.fail(KVM_CREATE_VCPU, EMFILE, 2);
  EXPECT_TRUE(vm.create_vcpu({1}));
  EXPECT_EQ(vm.create_vcpu({2}).error().code, EMFILE);
  EXPECT_TRUE(vm.create_vcpu({2}));

  kvm.fail_call(kvm.calls().size() + 2, EIO);
  EXPECT_TRUE(vcpu.get_regs());
  const auto error = vcpu.get_sregs().error();
  EXPECT_EQ(error.code, EIO);
  EXPECT_STREQ(error.operation, "KVM_GET_SREGS");
  EXPECT_EQ(kvm.calls().back().result, -EIO);

  guest0.runs(guest::halt());
  kvm.fail(KVM_RUN, EINTR);
  (void)run_to<Interrupted>();
  (void)run_to<Halted>();
}

TEST_F(Double, AMappingMayBeRefused) {
  kvm.vcpu(1).refuse_mapping();
  const auto error = vm.create_vcpu({1}).error();
  EXPECT_STREQ(error.operation, "mmap of kvm_run");
  EXPECT_EQ(error.code, EACCES);
}

// --- Files ---------------------------------------------------------------------------------------

TEST(KvmDouble, TwoAreTwo) {
  KvmDouble one;
  KvmDouble two;
  one.cap(KVM_CAP_MAX_VCPUS, 1);
  two.cap(KVM_CAP_MAX_VCPUS, 2);
  const Kvm first = must(one.open());
  const Kvm second = must(two.open());
  EXPECT_EQ(must(first.check_extension(KVM_CAP_MAX_VCPUS)), 1);
  EXPECT_EQ(must(second.check_extension(KVM_CAP_MAX_VCPUS)), 2);
  EXPECT_EQ(one.count(KVM_CHECK_EXTENSION), 1u);
}

TEST_F(Double, ItIsTheFileThatCountsAndNotItsNumber) {
  const int copy = ::fcntl(vcpu.fd(), F_DUPFD_CLOEXEC, 0);
  kvm_regs regs{};
  EXPECT_EQ(::ioctl(copy, KVM_GET_REGS, &regs), 0);
  // The number is the real kernel's file now.
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ASSERT_EQ(::dup3(null, copy, O_CLOEXEC), copy);
  EXPECT_EQ(::ioctl(copy, KVM_GET_REGS, &regs), -1);
  EXPECT_EQ(errno, ENOTTY);
  ::close(copy);
  EXPECT_EQ(::ioctl(copy, KVM_GET_REGS, &regs), -1);
  EXPECT_EQ(errno, EBADF);
  ::close(null);
  EXPECT_EQ(kvm.count(KVM_GET_REGS), 1u);
}

TEST_F(Double, OtherIoctlsAreTheKernels) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  ASSERT_EQ(::write(ends[1], "abc", 3), 3);
  int waiting = 0;
  EXPECT_EQ(::ioctl(ends[0], FIONREAD, &waiting), 0);
  EXPECT_EQ(waiting, 3);
  ::close(ends[0]);
  ::close(ends[1]);
  EXPECT_EQ(Kvm::open("/dev/null").error().code, ENOTTY);
}

TEST(KvmDouble, TellsWhatTheVmmLeftOpen) {
  KvmDouble kvm;
  std::optional<Vm> vm = must(must(kvm.open()).create_vm());
  std::optional<Vcpu> vcpu = must(vm->create_vcpu({2}));
  const std::string fd = "fd " + std::to_string(vcpu->fd()) + ": vCPU 2";
  const KickSignal signal = must(KickSignal::install());
  std::optional<Kicker> kicker = vcpu->kicker(signal);
  vm.reset();
  EXPECT_EQ(kvm.leaks(), (Names{fd, "mapping: vCPU 2"}));
  vcpu.reset();
  EXPECT_EQ(kvm.leaks(), (Names{"mapping: vCPU 2"})) << "the Kicker's";
  kicker.reset();
  EXPECT_EQ(kvm.leaks(), Names{});
}

TEST(KvmDouble, LeavesNothingOpenItself) {
  const std::size_t before = open_fds();
  std::optional<Vcpu> vcpu;
  {
    KvmDouble kvm;
    const Vm vm = must(must(kvm.open()).create_vm());
    kvm.vcpu(0).runs(guest::halt());
    vcpu = must(vm.create_vcpu({0}));
    (void)must(vm.get_stats());
    (void)must(vm.create_device(KVM_DEV_TYPE_VFIO));
    EXPECT_EQ(must(vcpu->run()).index(), Exit(Halted{}).index());
  }
  EXPECT_EQ(vcpu->run().error().code, ENOTTY) << "a file that knows no ioctl";
  vcpu.reset();
  EXPECT_EQ(open_fds(), before);
}

// --- What the kernel shares ----------------------------------------------------------------------

TEST(KvmDouble, HasADirtyRing) {
  KvmDouble kvm;
  Vm vm = must(must(kvm.open()).create_vm());
  constexpr std::size_t bytes = 4096;
  constexpr std::uint32_t entries = bytes / sizeof(kvm_dirty_gfn);
  EXPECT_FALSE(kvm.vcpu(0).dirties(0, 0));
  must(vm.enable_dirty_ring(bytes));
  Vcpu vcpu = must(vm.create_vcpu({0}));
  DirtyRing ring = must(vcpu.map_dirty_ring(bytes));
  for (std::uint32_t i = 0; i < entries; ++i) EXPECT_TRUE(kvm.vcpu(0).dirties(1, i));
  EXPECT_FALSE(kvm.vcpu(0).dirties(1, entries)) << "it is full";
  std::uint64_t expected = 0;
  EXPECT_EQ(ring.harvest([&](std::uint32_t slot, std::uint64_t page) {
    EXPECT_EQ(slot, 1u);
    EXPECT_EQ(page, expected++);
  }),
            entries);
  EXPECT_EQ(must(vm.reset_dirty_rings()), entries);
  EXPECT_TRUE(kvm.vcpu(0).dirties(1, 7));
}

TEST_F(Double, HasARingOfCoalescedWrites) {
  auto ring = vcpu.coalesced_mmio(must(system.check_extension(KVM_CAP_COALESCED_MMIO)));
  const std::array data{std::byte{1}, std::byte{2}};
  EXPECT_TRUE(guest0.coalesces(0xb8000, data));
  EXPECT_TRUE(guest0.coalesces(0x80, std::span(data).first(1), true));
  std::vector<std::pair<std::uint64_t, std::size_t>> seen;
  EXPECT_EQ(ring.drain([&](const CoalescedWrite& write) {
    EXPECT_EQ(write.pio, write.address == 0x80);
    seen.emplace_back(write.address, write.data.size());
  }),
            2u);
  EXPECT_EQ(seen, (std::vector<std::pair<std::uint64_t, std::size_t>>{{0xb8000, 2}, {0x80, 1}}));
}

TEST_F(Double, HasStatistics) {
  kvm.stats({{"exits", 5}, {"halt_exits", 2}});
  const Stats stats = must(vcpu.get_stats());
  EXPECT_EQ(stats.all().size(), 2u);
  EXPECT_EQ(must(stats.read(*stats.find("halt_exits"))), std::vector<std::uint64_t>{2});
  EXPECT_NE(stats.id().find("vcpu-0"), std::string::npos);
}

TEST_F(Double, KnowsTheGuestsMemory) {
  EXPECT_EQ(kvm.memory(0, 1), nullptr);
  std::vector<std::byte> ram(2 * 4096);
  must(vm.set_user_memory_region(0, {0x1000}, ram.size(), ram.data()));
  EXPECT_EQ(kvm.memory(0x1000, 2 * 4096), ram.data());
  EXPECT_EQ(kvm.memory(0x2fff, 1), ram.data() + 8191);
  EXPECT_EQ(kvm.memory(0x2fff, 2), nullptr);
  EXPECT_EQ(kvm.memory(0xfff, 1), nullptr);
  EXPECT_EQ(must(vcpu.translate({0x1234})).value, 0x1234u);
  must(vm.set_user_memory_region(0, {0}, 0, nullptr));
  EXPECT_EQ(kvm.memory(0x1000, 1), nullptr);
}

// --- Threads -------------------------------------------------------------------------------------

TEST(KvmDouble, VcpusRunAtOnce) {
  constexpr std::uint32_t count = 4;
  constexpr int exits = 500;
  KvmDouble kvm;
  const Vm vm = must(must(kvm.open()).create_vm());
  std::vector<Vcpu> vcpus;
  for (std::uint32_t id = 0; id < count; ++id) {
    vcpus.push_back(must(vm.create_vcpu({id})));
    for (int i = 0; i < exits; ++i) kvm.vcpu(id).runs(guest::in(static_cast<std::uint16_t>(id), 4));
  }
  std::vector<std::thread> threads;
  for (std::uint32_t id = 0; id < count; ++id) {
    threads.emplace_back([&, id] {
      for (std::uint32_t i = 0; i < exits; ++i) {
        auto exit = must(vcpus[id].run());
        auto& in = std::get<IoIn>(exit);
        EXPECT_EQ(in.port, id);
        std::memcpy(in.data.data(), &i, sizeof(i));
        (void)must(vcpus[id].get_regs());
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (std::uint32_t id = 0; id < count; ++id) {
    const auto answers = kvm.vcpu(id).answers();
    ASSERT_EQ(answers.size(), std::size_t{exits - 1});
    for (std::uint32_t i = 0; i < exits - 1; ++i) EXPECT_EQ(answers[i].value, i);
  }
  EXPECT_EQ(kvm.count(KVM_RUN), count * exits);
}

}  // namespace
}  // namespace kvm_ioctls
