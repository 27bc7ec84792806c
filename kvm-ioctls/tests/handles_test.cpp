// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Each wrapped ioctl without a kernel: what it asks for, and what its failure says, on handles that
// are open, closed, and moved from. The README's table is held against the calls here.
#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <cstring>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "handles.hpp"
#include "kvm_ioctls/kvm.hpp"
#include "memfd.hpp"
#include "scripted_ioctl.hpp"

namespace kvm_ioctls {
namespace {

struct Call {
  const char* name;
  unsigned long request;
  std::uint64_t operand;
  std::function<vmm_base::Error(Handles&)> error;  // no operation if it succeeded
};

template <class T>
vmm_base::Error error_of(const vmm_base::Result<T>& result) {
  return result ? vmm_base::Error{"success"} : result.error();
}

// CALL(handle, ioctl, the error's operand, method and arguments); CALL_AS for a whole expression.
#define CALL(handle, request, operand, ...)                                                \
  Call {                                                                                   \
#request, request, operand, [](Handles & h) { return error_of(h.handle.__VA_ARGS__); } \
  }
#define CALL_AS(handle, request, operand, ...)                                    \
  Call {                                                                          \
#request, request, operand, [](Handles & h) { return error_of(__VA_ARGS__); } \
  }

const kvm_regs regs{};
const std::uint64_t value = 7;

std::vector<Call> calls() {
  static Msrs msrs(2);
  static DirtyBitmap pages(64);
  static kvm_sev_cmd command{};
  static char memory[4096];
  return {
      CALL_AS(kvm, KVM_GET_API_VERSION, 0, Kvm::from_fd(vmm_base::UniqueFd(::dup(h.kvm.fd())))),
      CALL(kvm, KVM_CREATE_VM, 1, create_vm(1)),
      CALL(kvm, KVM_GET_MSR_INDEX_LIST, 0, get_msr_index_list()),
      CALL(kvm, KVM_CHECK_EXTENSION, 55, check_extension(55)),
      CALL(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, get_vcpu_mmap_size()),
      CALL(kvm, KVM_GET_SUPPORTED_CPUID, 0, get_supported_cpuid()),
      CALL(kvm, KVM_GET_EMULATED_CPUID, 0, get_emulated_cpuid()),
      CALL(kvm, KVM_GET_MSR_FEATURE_INDEX_LIST, 0, get_msr_feature_index_list()),
      CALL(kvm, KVM_GET_MSRS, 2, get_msrs(msrs)),
      CALL(kvm, KVM_X86_GET_MCE_CAP_SUPPORTED, 0, get_mce_cap_supported()),
      CALL(kvm, KVM_GET_SUPPORTED_HV_CPUID, 0, get_supported_hv_cpuid()),

      CALL(vm, KVM_CHECK_EXTENSION, 56, check_extension(56)),
      CALL(vm, KVM_CREATE_VCPU, 9, create_vcpu({9})),
      CALL(vm, KVM_GET_DIRTY_LOG, 4, get_dirty_log(4, pages)),
      CALL(vm, KVM_CLEAR_DIRTY_LOG, 5, clear_dirty_log(5, 0, pages)),
      CALL(vm, KVM_RESET_DIRTY_RINGS, 0, reset_dirty_rings()),
      CALL(vm, KVM_SET_NR_MMU_PAGES, 64, set_nr_mmu_pages(64)),
      CALL(vm, KVM_SET_USER_MEMORY_REGION, 0x1000,
           set_user_memory_region(0, {0x1000}, 0x1000, memory)),
      CALL(vm, KVM_SET_USER_MEMORY_REGION2, 0, set_user_memory_region2({})),
      CALL(vm, KVM_SET_TSS_ADDR, 0x2000, set_tss_addr({0x2000})),
      CALL(vm, KVM_SET_IDENTITY_MAP_ADDR, 0x3000, set_identity_map_addr({0x3000})),
      CALL(vm, KVM_CREATE_GUEST_MEMFD, 0x4000, create_guest_memfd(0x4000)),
      CALL(vm, KVM_SET_MEMORY_ATTRIBUTES, 0x5000, set_memory_attributes({0x5000}, 0x1000, 0)),
      CALL(vm, KVM_MEMORY_ENCRYPT_OP, 0, memory_encrypt_op(&command)),
      CALL(vm, KVM_MEMORY_ENCRYPT_REG_REGION, reinterpret_cast<std::uintptr_t>(memory),
           memory_encrypt_reg_region(memory, sizeof(memory))),
      CALL(vm, KVM_MEMORY_ENCRYPT_UNREG_REGION, reinterpret_cast<std::uintptr_t>(memory),
           memory_encrypt_unreg_region(memory, sizeof(memory))),
      CALL(vm, KVM_CREATE_IRQCHIP, 0, create_irqchip()),
      CALL(vm, KVM_GET_IRQCHIP, 2, get_irqchip(2)),
      CALL(vm, KVM_SET_IRQCHIP, 0, set_irqchip({})),
      CALL(vm, KVM_IRQ_LINE, 5, irq_line(5, true)),
      CALL(vm, KVM_IRQ_LINE_STATUS, 6, irq_line_status(6, true)),
      CALL(vm, KVM_SIGNAL_MSI, 0x41, signal_msi(0xfee00000, 0x41)),
      CALL(vm, KVM_SET_GSI_ROUTING, 2, set_gsi_routing(IrqRouting(2))),
      CALL(vm, KVM_CREATE_PIT2, 1, create_pit2(1)),
      CALL(vm, KVM_GET_PIT2, 0, get_pit2()),
      CALL(vm, KVM_SET_PIT2, 0, set_pit2({})),
      CALL(vm, KVM_REINJECT_CONTROL, 1, reinject_control(true)),
      CALL(vm, KVM_SET_BOOT_CPU_ID, 1, set_boot_cpu_id({1})),
      CALL(vm, KVM_IRQFD, 7, register_irqfd(h.eventfd.get(), 7)),
      CALL(vm, KVM_IOEVENTFD, 0x70, register_ioeventfd({.address = 0x70}, h.eventfd.get())),
      CALL(vm, KVM_REGISTER_COALESCED_MMIO, 0x80, register_coalesced_mmio(0x80, 8)),
      CALL_AS(vm, KVM_UNREGISTER_COALESCED_MMIO, 0,
              CoalescedMmioZone(h.vm.shared_fd(), {}).unregister()),
      CALL(vm, KVM_HYPERV_EVENTFD, 8, register_hyperv_eventfd(8, h.eventfd.get())),
      CALL(vm, KVM_SET_CLOCK, 0, set_clock({})),
      CALL(vm, KVM_GET_CLOCK, 0, get_clock()),
      CALL(vm, KVM_SET_TSC_KHZ, 1000, set_tsc_khz(1000)),
      CALL(vm, KVM_GET_TSC_KHZ, 0, get_tsc_khz()),
      CALL(vm, KVM_ENABLE_CAP, 99, enable_cap(99)),
      CALL(vm, KVM_X86_SET_MSR_FILTER, 0, set_msr_filter({})),
      CALL(vm, KVM_SET_PMU_EVENT_FILTER, 3, set_pmu_event_filter(PmuEventFilter(3))),
      CALL(vm, KVM_GET_STATS_FD, 0, get_stats()),
      CALL(vm, KVM_CREATE_DEVICE, 4, create_device(4)),
      CALL(vm, KVM_XEN_HVM_CONFIG, 2, xen_hvm_config(2, 0x40000000)),
      CALL(vm, KVM_XEN_HVM_SET_ATTR, KVM_XEN_ATTR_TYPE_SHARED_INFO,
           xen_hvm_set_attr(XenSharedInfo{})),
      CALL(vm, KVM_XEN_HVM_GET_ATTR, KVM_XEN_ATTR_TYPE_LONG_MODE, xen_hvm_get_attr<XenLongMode>()),
      CALL(vm, KVM_XEN_HVM_EVTCHN_SEND, 11, xen_hvm_evtchn_send(11, the_vcpu)),

      CALL(vcpu, KVM_RUN, 3, run()),
      CALL(vcpu, KVM_RUN, 3, enter()),
      CALL(vcpu, KVM_GET_REGS, 3, get_regs()),
      CALL(vcpu, KVM_SET_REGS, 3, set_regs(regs)),
      CALL(vcpu, KVM_GET_SREGS, 3, get_sregs()),
      CALL(vcpu, KVM_SET_SREGS, 3, set_sregs({})),
      CALL(vcpu, KVM_GET_SREGS2, 3, get_sregs2()),
      CALL(vcpu, KVM_SET_SREGS2, 3, set_sregs2({})),
      CALL(vcpu, KVM_GET_FPU, 3, get_fpu()),
      CALL(vcpu, KVM_SET_FPU, 3, set_fpu({})),
      CALL(vcpu, KVM_GET_XSAVE, 3, get_xsave()),
      CALL(vcpu, KVM_SET_XSAVE, 3, set_xsave(Xsave(), *h.xsave_size)),
      CALL(vcpu, KVM_GET_XSAVE2, 3, get_xsave2(*h.xsave_size)),
      CALL(vcpu, KVM_GET_XCRS, 3, get_xcrs()),
      CALL(vcpu, KVM_SET_XCRS, 3, set_xcrs({})),
      CALL(vcpu, KVM_GET_DEBUGREGS, 3, get_debugregs()),
      CALL(vcpu, KVM_SET_DEBUGREGS, 3, set_debugregs({})),
      CALL(vcpu, KVM_GET_ONE_REG, 0x123, get_one_reg(0x123)),
      CALL(vcpu, KVM_SET_ONE_REG, 0x124, set_one_reg(0x124, 1)),
      CALL(vcpu, KVM_GET_REG_LIST, 3, get_reg_list()),
      CALL(vcpu, KVM_GET_MSRS, 2, get_msrs(msrs)),
      CALL(vcpu, KVM_GET_MSRS, 0x10, get_msr(0x10)),
      CALL(vcpu, KVM_SET_MSRS, 2, set_msrs(msrs)),
      CALL(vcpu, KVM_SET_MSRS, 0x11, set_msr(0x11, 1)),
      CALL(vcpu, KVM_SET_CPUID2, 5, set_cpuid2(Cpuid(5))),
      CALL(vcpu, KVM_GET_CPUID2, 3, get_cpuid2()),
      CALL(vcpu, KVM_GET_SUPPORTED_HV_CPUID, 3, get_supported_hv_cpuid()),
      CALL(vcpu, KVM_GET_MP_STATE, 3, get_mp_state()),
      CALL(vcpu, KVM_SET_MP_STATE, 3, set_mp_state({})),
      CALL(vcpu, KVM_GET_VCPU_EVENTS, 3, get_vcpu_events()),
      CALL(vcpu, KVM_SET_VCPU_EVENTS, 3, set_vcpu_events({})),
      CALL(vcpu, KVM_GET_LAPIC, 3, get_lapic()),
      CALL(vcpu, KVM_SET_LAPIC, 3, set_lapic({})),
      CALL(vcpu, KVM_GET_NESTED_STATE, 3, get_nested_state(4096)),
      CALL(vcpu, KVM_SET_NESTED_STATE, 3, set_nested_state(NestedState())),
      CALL(vcpu, KVM_TRANSLATE, 0x1234, translate({0x1234})),
      CALL(vcpu, KVM_GET_TSC_KHZ, 3, get_tsc_khz()),
      CALL(vcpu, KVM_SET_TSC_KHZ, 2000, set_tsc_khz(2000)),
      CALL(vcpu, KVM_INTERRUPT, 0x21, interrupt(0x21)),
      CALL(vcpu, KVM_NMI, 3, nmi()),
      CALL(vcpu, KVM_SMI, 3, smi()),
      CALL(vcpu, KVM_TPR_ACCESS_REPORTING, 3, tpr_access_reporting(true)),
      CALL(vcpu, KVM_SET_VAPIC_ADDR, 0x3000, set_vapic_addr({0x3000})),
      CALL(vcpu, KVM_X86_SETUP_MCE, 10, setup_mce(10)),
      CALL(vcpu, KVM_X86_SET_MCE, 0, set_mce({})),
      CALL(vcpu, KVM_SET_GUEST_DEBUG, 0, set_guest_debug({})),
      CALL(vcpu, KVM_SET_SIGNAL_MASK, 3, set_signal_mask({})),
      CALL(vcpu, KVM_SET_SIGNAL_MASK, 3, set_signal_mask(::sigset_t{})),
      CALL(vcpu, KVM_KVMCLOCK_CTRL, 3, kvmclock_ctrl()),
      CALL(vcpu, KVM_ENABLE_CAP, 98, enable_cap(98)),
      CALL(vcpu, KVM_PRE_FAULT_MEMORY, 0x6000, pre_fault_memory({0x6000}, 0x1000)),
      CALL(vcpu, KVM_GET_STATS_FD, 3, get_stats()),
      CALL(vcpu, KVM_MEMORY_ENCRYPT_OP, 3, memory_encrypt_op(&command)),
      CALL(vcpu, KVM_XEN_VCPU_SET_ATTR, KVM_XEN_VCPU_ATTR_TYPE_TIMER,
           xen_vcpu_set_attr(XenTimer{})),
      CALL(vcpu, KVM_XEN_VCPU_GET_ATTR, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID,
           xen_vcpu_get_attr<XenVcpuIdAttr>()),

      CALL(device, KVM_HAS_DEVICE_ATTR, 12, has_device_attr(0, 12)),
      CALL(device, KVM_GET_DEVICE_ATTR, 13, get_device_attr<std::uint64_t>(0, 13)),
      CALL(device, KVM_SET_DEVICE_ATTR, 14, set_device_attr(0, 14, value)),
      CALL(vcpu, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, set_tsc_offset(1)),
      CALL(vcpu, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, get_tsc_offset()),
  };
}

TEST(Handles, AnErrnoReachesTheCallerWithTheIoctlAndItsOperand) {
  Handles handles;
  for (const Call& call : calls()) {
    for (const int code : {EIO, EPERM, ENOMEM}) {
      int called = 0;
      const ScriptedIoctl kernel([&](int fd, unsigned long request, void*) {
        if (request != call.request) return static_cast<int>(run_size);
        EXPECT_GE(fd, 0) << call.name;
        ++called;
        errno = code;
        return -1;
      });
      EXPECT_EQ(call.error(handles), (vmm_base::Error{call.name, code, call.operand})) << call.name;
      EXPECT_EQ(called, 1) << call.name;
    }
  }
}

// What the kernel itself says of an fd that isn't its own, and of one that isn't.
void every_call_fails(Handles& handles, int code) {
  for (const Call& call : calls()) {
    vmm_base::Error expected{call.name, code, call.operand};
    // What comes before.
    if (call.request == KVM_CREATE_VM) expected = {"KVM_GET_VCPU_MMAP_SIZE", code, 0};
    // Of a VM that there isn't, nothing is to be undone.
    if (call.request == KVM_UNREGISTER_COALESCED_MMIO && handles.vm.fd() < 0) continue;
    EXPECT_EQ(call.error(handles), expected) << call.name << ": " << call.error(handles).message();
  }
}

TEST(Handles, OfAnotherKindOfFileFailWithTheIoctlsName) {
  Handles handles;
  every_call_fails(handles, ENOTTY);
}

// NOLINTBEGIN(bugprone-use-after-move): what this is about
TEST(Handles, MovedFromFailWithTheIoctlsName) {
  Handles handles;
  const Kvm kvm = std::move(handles.kvm);
  const Vm vm = std::move(handles.vm);
  Vcpu vcpu = std::move(handles.vcpu);
  const Device device = std::move(handles.device);
  every_call_fails(handles, EBADF);
  EXPECT_EQ(handles.vcpu.get_regs().error().message(), "KVM_GET_REGS(0x3): Bad file descriptor");

  // What needs no ioctl leads nowhere, either.
  Vcpu& nobody = handles.vcpu;
  nobody.request_exit();
  nobody.request_interrupt_window(true);
  nobody.sync_regs().edit_regs().rax = 1;
  nobody.kicker(KickSignal::from_handled(SIGUSR1)).kick();
  EXPECT_EQ(nobody.coalesced_mmio(2).drain([](const CoalescedWrite&) {}), 0u);
  EXPECT_EQ(nobody.map_dirty_ring(4096).error().code, EBADF);
  EXPECT_EQ(Runner(nobody, KickSignal::from_handled(SIGUSR1)).run().error().code, EBADF);
  EXPECT_EQ(vcpu.page().immediate_exit, 0);
  EXPECT_EQ(vcpu.page().kvm_dirty_regs, 0u);

  // And it can be given something again.
  nobody = std::move(vcpu);
  EXPECT_EQ(nobody.get_regs().error().code, ENOTTY);
}

TEST(Handles, GivenAnotherTheyTakeItAndKeepNothingOfTheOneTheyHad) {
  Handles kept;
  Handles taken;
  const int fds[] = {kept.kvm.fd(), kept.vm.fd(), kept.vcpu.fd(), kept.device.fd()};
  const int vm = taken.vm.fd();
  kept.kvm = std::move(taken.kvm);
  kept.vm = std::move(taken.vm);
  kept.vcpu = std::move(taken.vcpu);
  kept.device = std::move(taken.device);
  EXPECT_EQ(kept.vm.fd(), vm);
  for (const int fd : fds) EXPECT_EQ(::fcntl(fd, F_GETFD), -1) << "still open";
  every_call_fails(taken, EBADF);
  every_call_fails(kept, ENOTTY);
}
// NOLINTEND(bugprone-use-after-move)

// Whose fd somebody has closed.
TEST(Handles, ClosedFailWithTheIoctlsName) {
  Handles handles;
  const int fds[] = {handles.kvm.fd(), handles.vm.fd(), handles.vcpu.fd(), handles.device.fd()};
  for (const int fd : fds) ::close(fd);
  every_call_fails(handles, EBADF);
  for (const int fd : fds) ::dup2(handles.eventfd.get(), fd);
}

// How many mappings there are of files as new_memfd(run_size) makes.
std::size_t mappings() {
  std::ifstream maps("/proc/self/maps");
  std::size_t count = 0;
  for (std::string line; std::getline(maps, line);)
    count += line.find("memfd:kvm_ioctls") != line.npos;
  return count;
}

TEST(Handles, WhatTheyMapIsUnmappedWithTheLastThatHasIt) {
  const std::size_t before = mappings();
  {
    std::optional<Kicker> kicker;
    {
      Handles handles;
      EXPECT_EQ(mappings(), before + 1);
      kicker.emplace(handles.vcpu.kicker(KickSignal::from_handled(SIGUSR1)));
      auto ring = handles.vcpu.map_dirty_ring(4096);
      EXPECT_EQ(mappings(), before + 2);
      const DirtyRing moved = std::move(ring).assume_value();
    }
    EXPECT_EQ(mappings(), before + 1) << "the Kicker's";
  }
  EXPECT_EQ(mappings(), before);
}

TEST(Handles, ADeviceHasTheFdThatTheKernelMadeAndClosesIt) {
  Handles handles;
  const int made = new_memfd(run_size).release();
  {
    const ScriptedIoctl kernel([&](int, unsigned long request, void* argument) {
      EXPECT_EQ(request, KVM_CREATE_DEVICE);
      auto& device = *static_cast<kvm_create_device*>(argument);
      EXPECT_EQ(device.type, 4u);
      device.fd = static_cast<__u32>(made);
      return 0;
    });
    const auto device = handles.vm.create_device(4);
    EXPECT_EQ(device.assume_value().fd(), made);
  }
  EXPECT_EQ(::fcntl(made, F_GETFD), -1);
}

}  // namespace
}  // namespace kvm_ioctls
