// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// /dev/kvm itself, handles, and errors, on a real kernel.
#include <algorithm>

#include "device.hpp"

namespace kvm_ioctls {
namespace {

TEST_F(KvmDevice, SupportedCpuidHasLeavesAndCapabilitiesAnswer) {
  EXPECT_FALSE(kvm->get_supported_cpuid().value().empty());
  EXPECT_EQ(kvm->check_extension(KVM_CAP_USER_MEMORY).value(), 1);
  EXPECT_EQ(kvm->check_extension(99999).value(), 0);
  EXPECT_GE(kvm->get_vcpu_mmap_size().value(), sizeof(kvm_run));
}

TEST_F(KvmDevice, EmulatedAndHypervCpuid) {
  NEEDS(*kvm, KVM_CAP_EXT_EMUL_CPUID);
  EXPECT_FALSE(must(kvm->get_emulated_cpuid()).empty());
  NEEDS(*kvm, KVM_CAP_SYS_HYPERV_CPUID);
  const Cpuid leaves = must(kvm->get_supported_hv_cpuid());
  EXPECT_TRUE(std::any_of(leaves.begin(), leaves.end(),
                          [](const auto& leaf) { return leaf.function == 0x40000001; }));
}

TEST_F(KvmDevice, MsrListsNameTheTscAndFeatures) {
  const MsrList all = must(kvm->get_msr_index_list());
  EXPECT_NE(std::find(all.begin(), all.end(), 0x10u), all.end());
  const MsrList features = must(kvm->get_msr_feature_index_list());
  ASSERT_FALSE(features.empty());
  Msrs values(features.size());
  for (std::size_t i = 0; i != features.size(); ++i) values[i].index = features[i];
  EXPECT_EQ(must(kvm->get_msrs(values)), features.size());
}

TEST_F(KvmDevice, MceCapabilitiesArePartOfMcgCap) {
  NEEDS(*kvm, KVM_CAP_MCE);
  EXPECT_NE(must(kvm->get_mce_cap_supported()) & 1 << 8, 0u);  // MCG_CTL_P
}

TEST_F(KvmDevice, SystemHasDeviceAttributes) {
  NEEDS(*kvm, KVM_CAP_SYS_ATTRIBUTES);
  EXPECT_TRUE(must(kvm->has_device_attr(0, KVM_X86_XCOMP_GUEST_SUPP)));
  // XCR0's bits; x87 and SSE are always there.
  EXPECT_EQ(must(kvm->get_device_attr<std::uint64_t>(0, KVM_X86_XCOMP_GUEST_SUPP)) & 3, 3u);
  EXPECT_FALSE(must(kvm->has_device_attr(0, 99)));
}

TEST_F(KvmDevice, ErrorsNameTheIoctlAndItsOperand) {
  auto vm = kvm->create_vm().value();
  auto first = vm.create_vcpu({5});
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_EQ(vm.create_vcpu({5}).error(), (vmm_base::Error{"KVM_CREATE_VCPU", EEXIST, 5}));
  EXPECT_EQ(vm.enable_cap(99999).error(), (vmm_base::Error{"KVM_ENABLE_CAP", EINVAL, 99999}));
  EXPECT_EQ(kvm->create_vm(77).error(), (vmm_base::Error{"KVM_CREATE_VM", EINVAL, 77}));
}

TEST_F(KvmDevice, IsHadFromAnFdAsWell) {
  const int fd = ::open("/dev/kvm", O_RDWR | O_CLOEXEC);
  EXPECT_TRUE(must(Kvm::from_fd(vmm_base::UniqueFd(fd))).create_vm());
}

TEST_F(KvmDevice, AnIoctlThatIsNotWrappedIsCalledByItsType) {
  auto vm = must(kvm->create_vm());
  constexpr Request<kvm_irq_level> irq_line{"KVM_IRQ_LINE", KVM_IRQ_LINE};
  kvm_irq_level line{};
  EXPECT_EQ(call(vm.fd(), irq_line, line, 9).error(), (vmm_base::Error{"KVM_IRQ_LINE", ENXIO, 9}));
  must(vm.create_irqchip());
  EXPECT_TRUE(call(vm.fd(), irq_line, line));
}

TEST_F(KvmDevice, MovedFromHandlesFailCleanly) {
  auto vm = must(kvm->create_vm());
  auto vcpu = must(vm.create_vcpu({0}));
  const Kvm other_kvm = std::move(*kvm);
  const Vm other_vm = std::move(vm);
  Vcpu other_vcpu = std::move(vcpu);
  // NOLINTBEGIN(bugprone-use-after-move): what this is about
  EXPECT_EQ(kvm->create_vm().error().code, EBADF);
  EXPECT_EQ(kvm->get_supported_cpuid().error().code, EBADF);
  EXPECT_EQ(vm.create_vcpu({1}).error().code, EBADF);
  EXPECT_EQ(vm.get_clock().error().code, EBADF);
  EXPECT_EQ(vm.register_irqfd(new_eventfd().get(), 5).error().code, EBADF);
  EXPECT_EQ(vcpu.run().error(), (vmm_base::Error{"KVM_RUN", EBADF, 0}));
  EXPECT_EQ(vcpu.get_regs().error().code, EBADF);
  EXPECT_EQ(vcpu.map_dirty_ring(4096).error().code, EBADF);
  vcpu.request_exit();
  vcpu.sync_regs().request(SyncRegs::regs_set);
  vcpu.kicker(KickSignal::from_handled(SIGUSR1)).kick();
  EXPECT_EQ(vcpu.coalesced_mmio(2).drain([](const CoalescedWrite&) {}), 0u);
  // NOLINTEND(bugprone-use-after-move)
  EXPECT_TRUE(other_kvm.create_vm());
  EXPECT_TRUE(other_vm.create_vcpu({1}));
  EXPECT_EQ(other_vcpu.page().immediate_exit, 0);
  EXPECT_TRUE(other_vcpu.get_regs());

  Msrs msrs{{.index = 0x10, .reserved = 0, .data = 0}};
  const Msrs taken = std::move(msrs);
  EXPECT_EQ(other_vcpu.get_msrs(msrs).error().code, EFAULT);  // NOLINT(bugprone-use-after-move)
}

}  // namespace
}  // namespace kvm_ioctls
