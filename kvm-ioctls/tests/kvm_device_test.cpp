// SPDX-License-Identifier: BSD-3-Clause
//
// The wrappers against a real /dev/kvm. What needs KVM_XEN is in tests/lab_tests.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "kvm_ioctls/kvm.hpp"

namespace kvm_ioctls {
namespace {

struct Device : testing::Test {
  void SetUp() override {
    // The lab is there for its /dev/kvm.
    if (::access("/dev/kvm", F_OK) != 0 && std::getenv("LAB") == nullptr) {
      GTEST_SKIP() << "no /dev/kvm here";
    }
    auto opened = Kvm::open();
    ASSERT_TRUE(opened) << opened.error().message();
    kvm.emplace(std::move(opened).assume_value());
  }
  std::optional<Kvm> kvm;
};

TEST_F(Device, SupportedCpuidHasLeavesAndCapabilitiesAnswer) {
  EXPECT_FALSE(kvm->get_supported_cpuid().value().empty());
  EXPECT_EQ(kvm->check_extension(KVM_CAP_USER_MEMORY).value(), 1);
  EXPECT_EQ(kvm->check_extension(99999).value(), 0);
}

TEST_F(Device, ErrorsNameTheIoctlAndItsOperand) {
  auto vm = kvm->create_vm().value();
  auto first = vm.create_vcpu({5});
  ASSERT_TRUE(first) << first.error().message();
  EXPECT_EQ(vm.create_vcpu({5}).error(), (vmm_base::Error{"KVM_CREATE_VCPU", EEXIST, 5}));
  EXPECT_EQ(vm.enable_cap(99999).error(), (vmm_base::Error{"KVM_ENABLE_CAP", EINVAL, 99999}));
}

TEST_F(Device, AVcpusTscHasTheVmsFrequency) {
  auto vm = kvm->create_vm().value();
  auto vcpu = vm.create_vcpu({0}).value();
  EXPECT_GT(vm.get_tsc_khz().value(), 0u);
  EXPECT_EQ(vm.get_tsc_khz().value(), vcpu.get_tsc_khz().value());
}

// Real-mode code: out 0x10,al; hlt
TEST_F(Device, RunsRealModeCodeToAPortAndIsInterruptedOnRequest) {
  auto vm = kvm->create_vm().value();
  void* page = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(page, MAP_FAILED);
  const std::uint8_t code[] = {0xe6, 0x10, 0xf4};
  std::memcpy(page, code, sizeof(code));
  ASSERT_TRUE(vm.set_user_memory_region(0, {0x1000}, 4096, page));
  auto vcpu = vm.create_vcpu({0}).value();
  auto sregs = vcpu.get_sregs().value();
  sregs.cs.base = 0;
  sregs.cs.selector = 0;
  ASSERT_TRUE(vcpu.set_sregs(sregs));
  kvm_regs regs{};
  regs.rax = 0x5a;
  regs.rip = 0x1000;
  regs.rflags = 2;
  ASSERT_TRUE(vcpu.set_regs(regs));

  auto out = vcpu.run().value();
  ASSERT_TRUE(std::holds_alternative<IoOut>(out));
  EXPECT_EQ(std::get<IoOut>(out).port, 0x10);
  EXPECT_EQ(std::get<IoOut>(out).data[0], std::byte{0x5a});

  vcpu.request_exit();
  auto interrupted = vcpu.run().value();
  EXPECT_TRUE(std::holds_alternative<Interrupted>(interrupted));
  vcpu.request_exit(false);
  auto halted = vcpu.run().value();
  EXPECT_TRUE(std::holds_alternative<Halted>(halted));
  EXPECT_EQ(vcpu.get_regs().value().rip, 0x1003u);
  ::munmap(page, 4096);
}

}  // namespace
}  // namespace kvm_ioctls
