// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A vCPU's state on a real kernel: what is set is what is read, and what the guest sees.
#include "device.hpp"

namespace kvm_ioctls {
namespace {

using State = Guest;

TEST_F(State, RegistersAreWhatWasSet) {
  load({0xf4});
  start(0, true);
  auto sregs2 = must(vcpu->get_sregs2());
  sregs2.cr2 = 0x1234;
  must(vcpu->set_sregs2(sregs2));
  EXPECT_EQ(must(vcpu->get_sregs()).cr2, 0x1234u);

  auto fpu = must(vcpu->get_fpu());
  fpu.xmm[3][5] = 0x5a;
  must(vcpu->set_fpu(fpu));
  EXPECT_EQ(must(vcpu->get_fpu()).xmm[3][5], 0x5a);

  auto debugregs = must(vcpu->get_debugregs());
  debugregs.db[1] = 0x7654;
  must(vcpu->set_debugregs(debugregs));
  EXPECT_EQ(must(vcpu->get_debugregs()).db[1], 0x7654u);

  auto events = must(vcpu->get_vcpu_events());
  events.nmi.pending = 1;
  events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING;
  must(vcpu->set_vcpu_events(events));
  EXPECT_EQ(must(vcpu->get_vcpu_events()).nmi.pending, 1);
}

TEST_F(State, XsaveIsWhatWasSet) {
  NEEDS(*vm, KVM_CAP_XSAVE);
  start(0, true);
  constexpr std::size_t xmm0 = 160;    // in FXSAVE's layout
  constexpr std::size_t header = 512;  // which parts aren't in their initial state
  const XsaveSize size = must(vm->xsave_size(*vcpu));
  EXPECT_GE(size.bytes(), 4096u);
  Xsave area = must(vcpu->get_xsave());
  area.bytes()[xmm0] = std::byte{0x78};
  area.bytes()[header] |= std::byte{3};
  if (size.bytes() == 4096) {
    must(vcpu->set_xsave(area, size));
    EXPECT_EQ(must(vcpu->get_xsave()).bytes()[xmm0], std::byte{0x78});
    EXPECT_EQ(must(vcpu->get_fpu()).xmm[0][0], 0x78);
  }
  const auto xcrs = must(vcpu->get_xcrs());
  must(vcpu->set_xcrs(xcrs));
  NEEDS(*vm, KVM_CAP_XSAVE2);
  Xsave all = must(vcpu->get_xsave2(size));
  ASSERT_EQ(all.bytes().size(), size.bytes());
  all.bytes()[xmm0] = std::byte{0x79};
  all.bytes()[header] |= std::byte{3};
  must(vcpu->set_xsave(all, size));
  EXPECT_EQ(must(vcpu->get_xsave2(size)).bytes()[xmm0], std::byte{0x79});
}

TEST_F(State, MsrsStopAtTheFirstThatIsRefused) {
  start(0, true);
  constexpr std::uint32_t sysenter_cs = 0x174;
  Msrs msrs{{.index = sysenter_cs, .reserved = 0, .data = 8},
            {.index = 0x12345678, .reserved = 0, .data = 0}};
  EXPECT_EQ(must(vcpu->set_msrs(msrs)), 1u);
  EXPECT_EQ(must(vcpu->get_msr(sysenter_cs)), 8u);
  EXPECT_EQ(vcpu->set_msr(0x12345678, 1).error(),
            (vmm_base::Error{"KVM_SET_MSRS", EINVAL, 0x12345678}));
  msrs[0].data = 0;
  EXPECT_EQ(must(vcpu->get_msrs(msrs)), 1u);
  EXPECT_EQ(msrs[0].data, 8u);
}

TEST_F(State, CpuidIsWhatWasSet) {
  start();
  Cpuid leaves = must(kvm->get_supported_cpuid());
  for (auto& leaf : leaves) {
    if (leaf.function == 0) leaf.ebx = 0x12345678;
  }
  must(vcpu->set_cpuid2(leaves));
  const Cpuid read = must(vcpu->get_cpuid2());
  ASSERT_FALSE(read.empty());
  EXPECT_LE(read.size(), leaves.size());
  EXPECT_EQ(read[0].function, 0u);
  EXPECT_EQ(read[0].ebx, 0x12345678u);
  EXPECT_EQ(vcpu->set_cpuid2(Cpuid(1000)).error(),
            (vmm_base::Error{"KVM_SET_CPUID2", E2BIG, 1000}));
  NEEDS(*vm, KVM_CAP_HYPERV_CPUID);
  EXPECT_FALSE(must(vcpu->get_supported_hv_cpuid()).empty());
}

TEST_F(State, TheLocalApicAndTheRunState) {
  must(vm->create_irqchip());
  start();
  must(vcpu->set_mp_state({KVM_MP_STATE_HALTED}));
  EXPECT_EQ(must(vcpu->get_mp_state()).mp_state, __u32{KVM_MP_STATE_HALTED});
  auto lapic = must(vcpu->get_lapic());
  lapic.regs[0x80] = 0x50;  // the task priority
  must(vcpu->set_lapic(lapic));
  EXPECT_EQ(must(vcpu->get_lapic()).regs[0x80], 0x50);
}

TEST_F(State, NestedStateHasItsHeader) {
  NEEDS(*kvm, KVM_CAP_NESTED_STATE);
  start(0, true);
  const auto room = static_cast<std::size_t>(must(kvm->check_extension(KVM_CAP_NESTED_STATE)));
  const NestedState state = must(vcpu->get_nested_state(room));
  EXPECT_GE(state.size(), sizeof(NestedStateHeader));
  NestedState lying(128);
  lying.header().size = 100000;
  EXPECT_EQ(vcpu->set_nested_state(lying).error(),
            (vmm_base::Error{"KVM_SET_NESTED_STATE", EINVAL, 100000}));
  EXPECT_EQ(lying.size(), 128u);
  must(vcpu->set_nested_state(state));
}

TEST_F(State, OneRegisterByItsId) {
  NEEDS(*vm, KVM_CAP_ONE_REG);
  start(0, true);
  constexpr auto id = Vcpu::x86_msr_reg(0x174);
  must(vcpu->set_one_reg(id, 16));
  EXPECT_EQ(must(vcpu->get_one_reg(id)), 16u);
  EXPECT_FALSE(vcpu->get_one_reg(0));
  (void)must(vcpu->get_reg_list());
}

TEST_F(State, AddressesAreTranslated) {
  start();
  EXPECT_EQ(must(vcpu->translate({0x1234})), vmm_base::Gpa{0x1234});  // no paging
}

TEST_F(State, AVcpusTscHasTheVmsFrequency) {
  EXPECT_GT(vm->get_tsc_khz().value(), 0u);
  start(0, true);
  EXPECT_EQ(vm->get_tsc_khz().value(), vcpu->get_tsc_khz().value());
  must(vcpu->set_tsc_khz(must(vcpu->get_tsc_khz())));
}

TEST_F(State, AVmsTscFrequencyIsForVcpusToCome) { must(vm->set_tsc_khz(must(vm->get_tsc_khz()))); }

TEST_F(State, TheTscsOffsetIsWhatWasSet) {
  NEEDS(*vm, KVM_CAP_VCPU_ATTRIBUTES);
  start(0, true);
  ASSERT_TRUE(must(vcpu->has_device_attr(KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET)));
  const std::uint64_t before = must(vcpu->get_tsc_offset());
  must(vcpu->set_tsc_offset(before - 12345));
  const std::uint64_t after = must(vcpu->get_tsc_offset());
  if (before == 0 && after == 0) GTEST_SKIP() << "this host's KVM doesn't offset the TSC";
  EXPECT_EQ(after, before - 12345);
}

TEST_F(State, TheClockIsWhatWasSet) {
  kvm_clock_data clock{};
  clock.clock = 1'000'000'000'000;
  must(vm->set_clock(clock));
  EXPECT_GE(must(vm->get_clock()).clock, clock.clock);
}

// The pvclock's page is at 0x2000, by its MSR.
TEST_F(State, APauseIsToldToTheGuestsClock) {
  start(0, true);
  EXPECT_EQ(vcpu->kvmclock_ctrl().error(), (vmm_base::Error{"KVM_KVMCLOCK_CTRL", EINVAL, 0}));
  must(vcpu->set_msr(0x4b564d01, 0x2001));
  must(vcpu->kvmclock_ctrl());
}

TEST_F(State, StatsNameTheExits) {
  NEEDS(*vm, KVM_CAP_BINARY_STATS_FD);
  load({0xe6, 0x10, 0xe6, 0x10, 0xf4});
  start();
  const Stats stats = must(vcpu->get_stats());
  EXPECT_NE(stats.id().find("vcpu-0"), std::string::npos);
  const Stat* exits = stats.find("exits");
  ASSERT_NE(exits, nullptr);
  EXPECT_EQ(exits->type, Stat::Type::cumulative);
  EXPECT_EQ(exits->count, 1);
  const auto before = must(stats.read(*exits)).at(0);
  run_to<IoOut>();
  run_to<IoOut>();
  EXPECT_GE(must(stats.read(*exits)).at(0), before + 2);
  for (const Stat& stat : stats.all()) {
    EXPECT_EQ(must(stats.read(stat)).size(), stat.count) << stat.name;
  }
  EXPECT_FALSE(must(vm->get_stats()).all().empty());
}

TEST_F(State, XenAttributesAndEvents) {
  NEEDS(*vm, KVM_CAP_XEN_HVM);
  must(vm->create_irqchip());
  must(vm->xen_hvm_config(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
                          0x40000000));
  start(0, true);
  must(vm->xen_hvm_set_attr(XenLongMode{true}));
  EXPECT_TRUE(must(vm->xen_hvm_get_attr<XenLongMode>()).enabled);
  must(vm->xen_hvm_set_attr(XenSharedInfo{.gfn = 4}));
  must(vcpu->xen_vcpu_set_attr(XenVcpuInfo{vmm_base::Gpa{0x5000}}));
  EXPECT_EQ(must(vcpu->xen_vcpu_get_attr<XenVcpuInfo>()).gpa, vmm_base::Gpa{0x5000});
  must(vm->xen_hvm_evtchn_send(3, vcpu->id()));
  EXPECT_EQ(ram[0x4000 + 0x800] & 8, 8) << "shared_info.evtchn_pending";
  EXPECT_EQ(vm->xen_hvm_evtchn_send(0, vcpu->id()).error(),
            (vmm_base::Error{"KVM_XEN_HVM_EVTCHN_SEND", EINVAL, 0}));
}

}  // namespace
}  // namespace kvm_ioctls
