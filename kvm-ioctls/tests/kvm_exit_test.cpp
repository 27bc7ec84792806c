// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Exits decoded from a kvm_run page made up here; no /dev/kvm.
#include "kvm_ioctls/exit.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <set>
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

TEST_F(RunPage, HypercallCarriesAllAndAnswersEnosysUntilSet) {
  run.hypercall.nr = 12;
  for (unsigned i = 0; i < 6; ++i) run.hypercall.args[i] = 0x1000 + i;
  run.hypercall.longmode = 1;
  auto exit = decode(KVM_EXIT_HYPERCALL);
  auto& call = std::get<Hypercall>(exit);
  EXPECT_EQ(call.number(), 12u);
  for (unsigned i = 0; i < 6; ++i) EXPECT_EQ(call.args()[i], 0x1000 + i);
  EXPECT_TRUE(call.longmode());
  EXPECT_EQ(run.hypercall.ret, static_cast<__u64>(-1000));
  call.set_result(5);
  EXPECT_EQ(run.hypercall.ret, 5u);
}

TEST_F(RunPage, HypervHasThreeKinds) {
  run.hyperv.type = KVM_EXIT_HYPERV_HCALL;
  run.hyperv.u.hcall.input = 0x5c;
  run.hyperv.u.hcall.params[1] = 7;
  auto exit = decode(KVM_EXIT_HYPERV);
  auto& call = std::get<HypervHypercall>(exit);
  EXPECT_EQ(call.input(), 0x5cu);
  EXPECT_EQ(call.params()[1], 7u);
  EXPECT_EQ(run.hyperv.u.hcall.result, 2u) << "HV_STATUS_INVALID_HYPERCALL_CODE";
  call.set_result(0);
  EXPECT_EQ(run.hyperv.u.hcall.result, 0u);

  run.hyperv.type = KVM_EXIT_HYPERV_SYNIC;
  run.hyperv.u.synic = {};
  run.hyperv.u.synic.msr = 0x40000083;
  run.hyperv.u.synic.control = 1;
  run.hyperv.u.synic.evt_page = 0x2001;
  run.hyperv.u.synic.msg_page = 0x3001;
  exit = decode(KVM_EXIT_HYPERV);
  const auto& synic = std::get<HypervSynic>(exit);
  EXPECT_EQ(synic.msr, 0x40000083u);
  EXPECT_EQ(synic.control, 1u);
  EXPECT_EQ(synic.event_page, 0x2001u);
  EXPECT_EQ(synic.message_page, 0x3001u);

  run.hyperv.type = KVM_EXIT_HYPERV_SYNDBG;
  run.hyperv.u.syndbg = {};
  run.hyperv.u.syndbg.msr = 0x400000f1;
  run.hyperv.u.syndbg.control = 2;
  run.hyperv.u.syndbg.send_page = 3;
  run.hyperv.u.syndbg.recv_page = 4;
  run.hyperv.u.syndbg.pending_page = 5;
  exit = decode(KVM_EXIT_HYPERV);
  auto& debug = std::get<HypervSyndbg>(exit);
  EXPECT_EQ(debug.msr(), 0x400000f1u);
  EXPECT_EQ(debug.control(), 2u);
  EXPECT_EQ(debug.send_page(), 3u);
  EXPECT_EQ(debug.recv_page(), 4u);
  EXPECT_EQ(debug.pending_page(), 5u);
  debug.set_status(6);
  EXPECT_EQ(run.hyperv.u.syndbg.status, 6u);

  run.hyperv.type = 99;
  exit = decode(KVM_EXIT_HYPERV);
  EXPECT_TRUE(std::holds_alternative<Other>(exit));
}

TEST_F(RunPage, DebugTprEoiAndNotifyCarryWhatTheKernelWrote) {
  run.debug.arch = {};
  run.debug.arch.exception = 1;
  run.debug.arch.pc = 0x1234;
  run.debug.arch.dr6 = 0x4000;
  run.debug.arch.dr7 = 0x400;
  auto exit = decode(KVM_EXIT_DEBUG);
  EXPECT_EQ(std::get<Debug>(exit).exception, 1u);
  EXPECT_EQ(std::get<Debug>(exit).pc, 0x1234u);
  EXPECT_EQ(std::get<Debug>(exit).dr6, 0x4000u);
  EXPECT_EQ(std::get<Debug>(exit).dr7, 0x400u);

  run.tpr_access.rip = 0x5678;
  run.tpr_access.is_write = 1;
  exit = decode(KVM_EXIT_TPR_ACCESS);
  EXPECT_EQ(std::get<TprAccess>(exit).rip, 0x5678u);
  EXPECT_TRUE(std::get<TprAccess>(exit).is_write);

  run.eoi.vector = 0x31;
  exit = decode(KVM_EXIT_IOAPIC_EOI);
  EXPECT_EQ(std::get<IoapicEoi>(exit).vector, 0x31);

  run.notify.flags = KVM_NOTIFY_CONTEXT_INVALID;
  exit = decode(KVM_EXIT_NOTIFY);
  EXPECT_EQ(std::get<Notify>(exit).flags, __u32{KVM_NOTIFY_CONTEXT_INVALID});
}

TEST_F(RunPage, FailuresCarryWhatTheKernelWrote) {
  run.hw.hardware_exit_reason = 0x1'0000'0021;
  auto exit = decode(KVM_EXIT_UNKNOWN);
  EXPECT_EQ(std::get<Unknown>(exit).hardware_reason, 0x1'0000'0021u);
  run.ex.exception = 6;
  run.ex.error_code = 9;
  exit = decode(KVM_EXIT_EXCEPTION);
  EXPECT_EQ(std::get<Exception>(exit).vector, 6u);
  EXPECT_EQ(std::get<Exception>(exit).error_code, 9u);
  run.fail_entry.hardware_entry_failure_reason = 0x80000021;
  run.fail_entry.cpu = 3;
  exit = decode(KVM_EXIT_FAIL_ENTRY);
  EXPECT_EQ(std::get<FailEntry>(exit).hardware_reason, 0x80000021u);
  EXPECT_EQ(std::get<FailEntry>(exit).cpu, 3u);
}

TEST_F(RunPage, AMemoryFaultIsLaidOutAsTheKernelHasIt) {
  const std::uint64_t payload[3] = {8, 0x5000, 0x1000};  // flags, gpa, size
  std::memcpy(run.padding, payload, sizeof(payload));
  auto exit = decode(KVM_EXIT_MEMORY_FAULT);
  const auto& fault = std::get<MemoryFault>(exit);
  EXPECT_EQ(fault.flags, KVM_MEMORY_EXIT_FLAG_PRIVATE);
  EXPECT_EQ(fault.address, 0x5000u);
  EXPECT_EQ(fault.size, 0x1000u);
  EXPECT_EQ(fault.error, 0);
}

TEST_F(RunPage, ConfidentialGuestsAreRefusedUntilAnswered) {
  std::uint64_t payload[8] = {1, 0x10002, 0, 0x4000, 0x2000};  // flags, nr, ret, gpa, size
  std::memcpy(run.padding, payload, sizeof(payload));
  auto exit = decode(KVM_EXIT_TDX);
  auto& tdx = std::get<Tdx>(exit);
  EXPECT_EQ(tdx.flags(), 1u);
  EXPECT_EQ(tdx.number(), 0x10002u);
  EXPECT_EQ(tdx.data()[0], 0x4000u);
  EXPECT_EQ(tdx.data()[1], 0x2000u);
  std::memcpy(payload, run.padding, sizeof(payload));
  EXPECT_EQ(payload[2], 0x8000'0000'0000'0000u) << "TDVMCALL_INVALID_OPERAND";
  tdx.set_result(0);
  std::memcpy(payload, run.padding, sizeof(payload));
  EXPECT_EQ(payload[2], 0u);

  std::uint64_t certs_payload[3] = {0x6000, 4, 77};  // gpa, pages, ret
  std::memcpy(run.padding, certs_payload, sizeof(certs_payload));
  exit = decode(KVM_EXIT_SNP_REQ_CERTS);
  auto& certs = std::get<SnpReqCerts>(exit);
  EXPECT_EQ(certs.address(), 0x6000u);
  EXPECT_EQ(certs.pages(), 4u);
  std::memcpy(certs_payload, run.padding, sizeof(certs_payload));
  EXPECT_EQ(certs_payload[2], std::uint64_t{EIO});
  certs.set_result(ENOSPC, 9);
  std::memcpy(certs_payload, run.padding, sizeof(certs_payload));
  EXPECT_EQ(certs_payload[1], 9u);
  EXPECT_EQ(certs_payload[2], std::uint64_t{ENOSPC});
}

TEST_F(RunPage, CountsOfTheKernelsAreHeldAgainstItsArrays) {
  run.internal.suberror = KVM_INTERNAL_ERROR_EMULATION;
  run.internal.ndata = 16;
  run.internal.data[15] = 0x77;
  auto exit = decode(KVM_EXIT_INTERNAL_ERROR);
  EXPECT_EQ(std::get<InternalError>(exit).suberror, __u32{KVM_INTERNAL_ERROR_EMULATION});
  EXPECT_EQ(std::get<InternalError>(exit).data[15], 0x77u);
  run.internal.ndata = 17;
  exit = decode(KVM_EXIT_INTERNAL_ERROR);
  EXPECT_TRUE(std::holds_alternative<Other>(exit));

  run.system_event.type = KVM_SYSTEM_EVENT_RESET;
  run.system_event.ndata = 16;
  exit = decode(KVM_EXIT_SYSTEM_EVENT);
  EXPECT_EQ(std::get<SystemEvent>(exit).type, __u32{KVM_SYSTEM_EVENT_RESET});
  EXPECT_EQ(std::get<SystemEvent>(exit).data.size(), 16u);
  run.system_event.ndata = 0xffffffff;
  exit = decode(KVM_EXIT_SYSTEM_EVENT);
  EXPECT_TRUE(std::holds_alternative<Other>(exit));

  run.io.direction = KVM_EXIT_IO_OUT;
  run.io.size = 0xff;
  run.io.count = 0xffffffff;
  for (const std::uint64_t offset : {std::uint64_t{0}, sizeof(page), ~std::uint64_t{0}}) {
    run.io.data_offset = offset;
    exit = decode(KVM_EXIT_IO);
    EXPECT_TRUE(std::holds_alternative<Other>(exit)) << offset;
  }
}

// Every number up to the newest is a kind of its own; what carries nothing is nothing else.
TEST_F(RunPage, EveryReasonHasItsKind) {
  std::set<std::size_t> kinds;
  run.xen.type = KVM_EXIT_XEN_HCALL;
  for (std::uint32_t reason = 0; reason <= KVM_EXIT_SNP_REQ_CERTS; ++reason) {
    std::memset(run.padding, 0, sizeof(run.padding));
    // Of a union's tags, those that are.
    if (reason == KVM_EXIT_XEN) run.xen.type = KVM_EXIT_XEN_HCALL;
    if (reason == KVM_EXIT_HYPERV) run.hyperv.type = KVM_EXIT_HYPERV_HCALL;
    auto exit = decode(reason);
    EXPECT_FALSE(std::holds_alternative<Other>(exit)) << reason;
    EXPECT_TRUE(kinds.insert(exit.index()).second) << reason;
  }
  auto after = decode(KVM_EXIT_SNP_REQ_CERTS + 1);
  EXPECT_TRUE(std::holds_alternative<Other>(after));
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
