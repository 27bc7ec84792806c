// SPDX-License-Identifier: BSD-3-Clause
//
// Exits decoded from a kvm_run page made up here; no /dev/kvm.
#include "kvm_ioctls/exit.hpp"

#include <gtest/gtest.h>

#include <vector>

#include "kvm_ioctls/kvm.hpp"

namespace kvm_ioctls {
namespace {

struct RunPage : testing::Test {
  alignas(kvm_run) std::byte page[2 * 4096] = {};
  kvm_run& run = *new (page) kvm_run{};
  Exit decode(std::uint32_t reason) {
    run.exit_reason = reason;
    return decode_exit(run, sizeof(page));
  }
};

TEST_F(RunPage, XenHypercallCarriesAllAndAnswersEnosysUntilSet) {
  run.xen.type = KVM_EXIT_XEN_HCALL;
  auto& hcall = run.xen.u.hcall;
  hcall.longmode = 1;
  hcall.cpl = 3;
  hcall.input = 0x1'0000'0018;
  hcall.result = 77;  // the last call's
  for (unsigned i = 0; i < 6; ++i) hcall.params[i] = 0xdead'beef'0000'0001 + i;

  auto exit = decode(KVM_EXIT_XEN);
  auto& call = std::get<XenHypercall>(exit);
  EXPECT_EQ(call.input(), 0x1'0000'0018u);
  EXPECT_TRUE(call.longmode());
  EXPECT_EQ(call.cpl(), 3);
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(call.params()[i], 0xdead'beef'0000'0001 + i);
  EXPECT_EQ(hcall.result, 0xffff'ffff'ffff'ffdau);
  call.set_result(0xcafe'f00d'fbfb'ffff);
  EXPECT_EQ(hcall.result, 0xcafe'f00d'fbfb'ffffu);
}

TEST_F(RunPage, XenExitOfAnotherTypeIsOther) {
  run.xen.type = 2;
  auto exit = decode(KVM_EXIT_XEN);
  EXPECT_EQ(std::get<Other>(exit).reason, unsigned{KVM_EXIT_XEN});
}

TEST_F(RunPage, IoCarriesItsDataBothWays) {
  run.io.direction = KVM_EXIT_IO_OUT;
  run.io.size = 4;
  run.io.port = 0x500;
  run.io.count = 2;
  run.io.data_offset = 4096;
  page[4096] = std::byte{0x41};
  auto out = decode(KVM_EXIT_IO);
  EXPECT_EQ(std::get<IoOut>(out).data.size(), 8u);
  EXPECT_EQ(std::get<IoOut>(out).data[0], std::byte{0x41});

  run.io.direction = KVM_EXIT_IO_IN;
  auto in = decode(KVM_EXIT_IO);
  std::get<IoIn>(in).data[7] = std::byte{0x42};
  EXPECT_EQ(page[4096 + 7], std::byte{0x42});
}

TEST_F(RunPage, IoOutsideTheMappingIsOther) {
  run.io.size = 4;
  run.io.count = 1;
  run.io.data_offset = sizeof(page) - 3;
  auto exit = decode(KVM_EXIT_IO);
  EXPECT_TRUE(std::holds_alternative<Other>(exit));
}

TEST_F(RunPage, MsrAccessFaultsUntilAnswered) {
  run.msr.index = 0x40000000;
  run.msr.data = 0x1234000;
  auto write = decode(KVM_EXIT_X86_WRMSR);
  EXPECT_EQ(run.msr.error, 1);
  EXPECT_EQ(std::get<MsrWrite>(write).value(), 0x1234000u);
  std::get<MsrWrite>(write).accept();
  EXPECT_EQ(run.msr.error, 0);

  auto read = decode(KVM_EXIT_X86_RDMSR);
  EXPECT_EQ(run.msr.error, 1);
  std::get<MsrRead>(read).set_result(5);
  EXPECT_EQ(run.msr.error, 0);
  EXPECT_EQ(run.msr.data, 5u);
}

TEST_F(RunPage, MmioWithAnImpossibleLengthIsOther) {
  run.mmio.len = 9;
  auto exit = decode(KVM_EXIT_MMIO);
  EXPECT_TRUE(std::holds_alternative<Other>(exit));
  run.mmio.len = 8;
  run.mmio.is_write = 1;
  auto write = decode(KVM_EXIT_MMIO);
  EXPECT_EQ(std::get<MmioWrite>(write).data.size(), 8u);
}

TEST_F(RunPage, UnknownReasonIsOtherWithItsBytes) {
  run.padding[0] = 'x';
  auto exit = decode(4711);
  EXPECT_EQ(std::get<Other>(exit).reason, 4711u);
  EXPECT_EQ(std::get<Other>(exit).raw[0], std::byte{'x'});
}

TEST_F(RunPage, MatchTakesTheRightCase) {
  auto exit = decode(KVM_EXIT_SHUTDOWN);
  EXPECT_EQ(match(
                exit, [](Shutdown&) { return 1; }, [](auto&) { return 2; }),
            1);
}

TEST(XenAttr, IdUnsetSurvivesAndIsNotALegalId) {
  kvm_xen_vcpu_attr attr{};
  XenVcpuIdAttr{}.store(attr);
  EXPECT_EQ(attr.u.vcpu_id, 0xffffffffu);
  EXPECT_FALSE(XenVcpuIdAttr::load(attr).id.has_value());
  XenVcpuIdAttr{vmm_base::XenVcpuId{0}}.store(attr);
  EXPECT_EQ(XenVcpuIdAttr::load(attr).id, vmm_base::XenVcpuId{0});
}

TEST(XenAttr, TimerIsAlways2Level) {
  kvm_xen_vcpu_attr attr{};
  XenTimer{.port = 13, .expires_ns = 0x1'2345'6789}.store(attr);
  EXPECT_EQ(attr.u.timer.port, 13u);
  EXPECT_EQ(attr.u.timer.priority, 0xffffffffu);
  EXPECT_EQ(attr.u.timer.expires_ns, 0x1'2345'6789u);
}

TEST(Kvm, OpenSaysWhatIsWrong) {
  EXPECT_EQ(Kvm::open("/nonexistent/kvm").error().code, ENOENT);
  const auto null = Kvm::open("/dev/null").error();
  EXPECT_STREQ(null.operation, "KVM_GET_API_VERSION");
  EXPECT_EQ(null.code, ENOTTY);
}

}  // namespace
}  // namespace kvm_ioctls
