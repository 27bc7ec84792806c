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

#include "kvm_ioctls/kvm.hpp"
#include "memfd.hpp"
#include "scripted_ioctl.hpp"

namespace kvm_ioctls {
namespace {

constexpr std::size_t run_size = 3 * 4096;
constexpr vmm_base::KvmVcpuId the_vcpu{3};

// A handle of each kind, over fds that are no KVM's.
struct Handles {
  Handles()
      : kvm([] {
          const ScriptedIoctl version([](int, unsigned long, void*) { return KVM_API_VERSION; });
          return Kvm::from_fd(new_memfd(run_size)).assume_value();
        }()),
        vm(new_memfd(run_size), run_size),
        vcpu(Vcpu::from_fd(new_memfd(run_size), run_size, the_vcpu).assume_value()),
        device(new_memfd(run_size)) {
    const ScriptedIoctl kernel([](int, unsigned long, void*) { return 4096; });
    const auto size = vm.xsave_size(vcpu);
    xsave_size.emplace(size.assume_value());
    EXPECT_TRUE(vm.set_user_memory_region(4, {0}, 0x40000, nullptr, KVM_MEM_LOG_DIRTY_PAGES));
  }

  Kvm kvm;
  Vm vm;
  Vcpu vcpu;
  Device device;
  vmm_base::UniqueFd eventfd = new_memfd(run_size);  // for what takes one
  std::optional<XsaveSize> xsave_size;               // 4096
};

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

// What the registrations undo, and how often.
TEST(Handles, RegistrationsAreUndoneOnceAndNeverThoseMovedFrom) {
  Handles handles;
  std::vector<unsigned long> undone;
  const ScriptedIoctl kernel([&](int, unsigned long request, void* argument) {
    if (request == KVM_IRQFD) {
      const auto& irqfd = *static_cast<const kvm_irqfd*>(argument);
      if ((irqfd.flags & KVM_IRQFD_FLAG_DEASSIGN) != 0) undone.push_back(irqfd.gsi);
    } else if (request == KVM_IOEVENTFD) {
      const auto& event = *static_cast<const kvm_ioeventfd*>(argument);
      if ((event.flags & KVM_IOEVENTFD_FLAG_DEASSIGN) != 0) {
        EXPECT_EQ(event.flags, __u32{KVM_IOEVENTFD_FLAG_DEASSIGN | KVM_IOEVENTFD_FLAG_DATAMATCH});
        EXPECT_EQ(event.datamatch, 0u);
        undone.push_back(event.addr);
      }
    } else if (request == KVM_UNREGISTER_COALESCED_MMIO) {
      undone.push_back(static_cast<const kvm_coalesced_mmio_zone*>(argument)->addr);
    } else if (request == KVM_HYPERV_EVENTFD) {
      const auto& event = *static_cast<const kvm_hyperv_eventfd*>(argument);
      if (event.flags == KVM_HYPERV_EVENTFD_DEASSIGN) undone.push_back(event.conn_id);
    }
    return 0;
  });
  const int eventfd = handles.eventfd.get();
  {
    auto irqfd = handles.vm.register_irqfd(eventfd, 1).assume_value();
    auto moved = std::move(irqfd);
    EXPECT_NE(moved.eventfd(), eventfd) << "it is to have a duplicate";
    auto event =
        handles.vm.register_ioeventfd({.address = 2, .datamatch = 0}, eventfd).assume_value();
    auto zone = handles.vm.register_coalesced_mmio(3, 8).assume_value();
    auto connection = handles.vm.register_hyperv_eventfd(4, eventfd).assume_value();
    EXPECT_TRUE(zone.unregister());
    EXPECT_TRUE(zone.unregister());
    EXPECT_EQ(undone, std::vector<unsigned long>{3});
    EXPECT_TRUE(irqfd.unregister());  // NOLINT(bugprone-use-after-move)
    connection = handles.vm.register_hyperv_eventfd(5, eventfd).assume_value();
    EXPECT_EQ(undone, (std::vector<unsigned long>{3, 4}));
    EXPECT_TRUE(connection.unregister());
    EXPECT_TRUE(connection.unregister());
    EXPECT_EQ(undone, (std::vector<unsigned long>{3, 4, 5}));
  }
  EXPECT_EQ(undone, (std::vector<unsigned long>{3, 4, 5, 2, 1}));
}

TEST(Handles, AnInterruptIsAskedForAsItWasGiven) {
  Handles handles;
  kvm_irq_level line{};
  kvm_irqfd irqfd{};
  const ScriptedIoctl kernel([&](int, unsigned long request, void* argument) {
    if (request == KVM_IRQ_LINE || request == KVM_IRQ_LINE_STATUS) {
      line = *static_cast<const kvm_irq_level*>(argument);
    } else if ((static_cast<const kvm_irqfd*>(argument)->flags & KVM_IRQFD_FLAG_DEASSIGN) == 0) {
      irqfd = *static_cast<const kvm_irqfd*>(argument);
    }
    return 0;
  });
  for (const bool level : {true, false}) {
    EXPECT_TRUE(handles.vm.irq_line(5, level));
    EXPECT_EQ(std::pair(line.irq, line.level), std::pair(5u, level ? 1u : 0u));
    EXPECT_TRUE(handles.vm.irq_line_status(6, level));
    EXPECT_EQ(std::pair(line.irq, line.level), std::pair(6u, level ? 1u : 0u));
  }
  const int eventfd = handles.eventfd.get();
  EXPECT_TRUE(handles.vm.register_irqfd(eventfd, 9));
  EXPECT_EQ(irqfd.gsi, 9u);
  EXPECT_EQ(irqfd.flags, 0u);
  EXPECT_TRUE(handles.vm.register_irqfd(eventfd, 10, eventfd));
  EXPECT_EQ(irqfd.gsi, 10u);
  EXPECT_EQ(irqfd.flags, __u32{KVM_IRQFD_FLAG_RESAMPLE});
  EXPECT_EQ(irqfd.resamplefd, static_cast<unsigned>(eventfd));
}

TEST(Handles, AFailureToUndoIsToldAndNotRepeated) {
  Handles handles;
  int undone = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void* argument) {
    if (static_cast<const kvm_irqfd*>(argument)->flags != KVM_IRQFD_FLAG_DEASSIGN) return 0;
    ++undone;
    errno = EIO;
    return -1;
  });
  auto irqfd = handles.vm.register_irqfd(handles.eventfd.get(), 6).assume_value();
  EXPECT_EQ(irqfd.unregister().error(), (vmm_base::Error{"KVM_IRQFD", EIO, 6}));
  EXPECT_TRUE(irqfd.unregister());
  EXPECT_EQ(undone, 1);
}

TEST(Handles, NoFdIsAnErrorOfItsOwn) {
  Handles handles;
  EXPECT_EQ(handles.vm.register_irqfd(-1, 5).error(),
            (vmm_base::Error{"fcntl(F_DUPFD_CLOEXEC)", EBADF, 0xffffffff}));
}

TEST(Request, OfATypeIsCalledByIt) {
  constexpr Request<kvm_irq_level> irq_line{"KVM_IRQ_LINE", KVM_IRQ_LINE};
  kvm_irq_level line{};
  line.irq = 5;
  {
    const ScriptedIoctl kernel([](int fd, unsigned long request, void* argument) {
      EXPECT_EQ(fd, 77);
      EXPECT_EQ(request, KVM_IRQ_LINE);
      return static_cast<int>(static_cast<const kvm_irq_level*>(argument)->irq);
    });
    EXPECT_EQ(call(77, irq_line, line).value(), 5);
    EXPECT_EQ(call(77, irq_line, std::as_const(line)).value(), 5);
  }
  EXPECT_EQ(call(-1, irq_line, line, 9).error(), (vmm_base::Error{"KVM_IRQ_LINE", EBADF, 9}));
}

// --- KVM_RUN ---

TEST(Handles, RunTellsWhatEachErrnoIs) {
  Handles handles;
  int code = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void*) {
    errno = code;
    return -1;
  });
  for (const int interrupted : {EINTR, EAGAIN}) {
    code = interrupted;
    auto exit = handles.vcpu.run();
    ASSERT_TRUE(exit);
    EXPECT_TRUE(std::holds_alternative<Interrupted>(exit.assume_value()));
  }
  for (const int fault : {EFAULT, EHWPOISON}) {
    code = fault;
    handles.vcpu.page().exit_reason = KVM_EXIT_MEMORY_FAULT;
    auto exit = handles.vcpu.run();
    ASSERT_TRUE(exit);
    EXPECT_EQ(std::get<MemoryFault>(exit.assume_value()).error, fault);
    // The kernel says nothing of where.
    handles.vcpu.page().exit_reason = KVM_EXIT_UNKNOWN;
    EXPECT_EQ(handles.vcpu.run().error(), (vmm_base::Error{"KVM_RUN", fault, 3}));
  }
}

TEST(Handles, RunWithCasesTellsTheSame) {
  Handles handles;
  int code = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void*) {
    errno = code;
    return code == 0 ? 0 : -1;
  });
  const auto run = [&] {
    return handles.vcpu.run([](Interrupted&) { return 1; },                  //
                            [](MemoryFault& fault) { return fault.error; },  //
                            [](Halted&) { return 2; },                       //
                            [](auto&) { return 3; });
  };
  auto& reason = handles.vcpu.page().exit_reason;
  reason = KVM_EXIT_HLT;
  EXPECT_EQ(run().value(), 2);
  reason = KVM_EXIT_SHUTDOWN;
  EXPECT_EQ(run().value(), 3);
  code = EAGAIN;
  EXPECT_EQ(run().value(), 1);
  code = EFAULT;
  EXPECT_EQ(run().error(), (vmm_base::Error{"KVM_RUN", EFAULT, 3}));
  reason = KVM_EXIT_MEMORY_FAULT;
  EXPECT_EQ(run().value(), EFAULT);
  code = EIO;
  int called = 0;
  const auto count = [&](auto&) { ++called; };
  EXPECT_EQ(handles.vcpu.run(count).error(), (vmm_base::Error{"KVM_RUN", EIO, 3}));
  EXPECT_EQ(called, 0);
  code = 0;
  EXPECT_TRUE(handles.vcpu.run(count));
  EXPECT_EQ(called, 1);
}

// --- What the kernel says of sizes ---

TEST(Handles, ASizeThatCantBeIsRefused) {
  int answer = 0;
  Handles handles;
  const ScriptedIoctl kernel([&](int, unsigned long, void*) { return answer; });
  const auto xsave_size = [&] { return handles.vm.xsave_size(handles.vcpu); };
  EXPECT_EQ(xsave_size().value().bytes(), 4096u) << "before Linux 5.17";
  for (const int wrong : {1, 4095, (1 << 20) + 1}) {
    answer = wrong;
    EXPECT_EQ(xsave_size().error(),
              (vmm_base::Error{"KVM_CHECK_EXTENSION", EPROTO, static_cast<unsigned>(wrong)}));
  }
  answer = 11008;
  EXPECT_EQ(xsave_size().value().bytes(), 11008u);
  EXPECT_EQ(Vcpu::from_fd(new_memfd(run_size), sizeof(kvm_run) - 1, the_vcpu).error(),
            (vmm_base::Error{"KVM_GET_VCPU_MMAP_SIZE", EPROTO, sizeof(kvm_run) - 1}));
  EXPECT_EQ(Vcpu::from_fd(new_memfd(run_size), ~std::size_t{0} - 8191, the_vcpu).error(),
            (vmm_base::Error{"mmap of kvm_run", ENOMEM, 3}));
  answer = 13;
  EXPECT_EQ(Kvm::from_fd(new_memfd(run_size)).error(),
            (vmm_base::Error{"KVM_GET_API_VERSION", ENOTSUP, 13}));
}

// The kernel would see a part of it, or look beyond its end.
TEST(Handles, WhatIsTooLargeOrTooSmallIsNotShownToTheKernel) {
  Handles handles;
  int called = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void*) { return ++called, 0; });
  EXPECT_EQ(handles.vm.enable_dirty_ring(1ull << 32).error(),
            (vmm_base::Error{"KVM_ENABLE_CAP", E2BIG, 1ull << 32}));
  const std::uint8_t bitmap[2] = {};
  const MsrFilterRange range{KVM_MSR_FILTER_READ, 0x10, 9, bitmap};
  EXPECT_EQ(handles.vm.set_msr_filter(std::vector<MsrFilterRange>(17, range)).error(),
            (vmm_base::Error{"KVM_X86_SET_MSR_FILTER", EINVAL, 17}));
  const MsrFilterRange too_short{KVM_MSR_FILTER_READ, 0x20, 9, std::span(bitmap, 1)};
  EXPECT_EQ(handles.vm.set_msr_filter({&too_short, 1}).error(),
            (vmm_base::Error{"KVM_X86_SET_MSR_FILTER", EINVAL, 0x20}));
  EXPECT_EQ(called, 0);
  EXPECT_TRUE(handles.vm.set_msr_filter(std::vector<MsrFilterRange>(16, range)));
  EXPECT_EQ(called, 1);
}

TEST(Handles, AnAreaForXsaveIsAsLargeAsNeeded) {
  Handles handles;
  int called = 0;
  const ScriptedIoctl kernel([&](int, unsigned long request, void* argument) {
    if (request == KVM_CHECK_EXTENSION) return 8192;
    ++called;
    if (request == KVM_GET_XSAVE2) std::memset(argument, 0x5a, 8192);
    return 0;
  });
  const auto size = handles.vm.xsave_size(handles.vcpu);
  constexpr const char* too_small = "KVM_SET_XSAVE, bytes of the area";
  EXPECT_EQ(handles.vcpu.set_xsave(Xsave(), size.assume_value()).error(),
            (vmm_base::Error{too_small, EINVAL, 4096}));
  Xsave area(size.assume_value());
  EXPECT_EQ(area.bytes().size(), 8192u);
  EXPECT_EQ(area.bytes()[8191], std::byte{0});
  const Xsave taken = std::move(area);
  EXPECT_TRUE(area.bytes().empty());  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(handles.vcpu.set_xsave(area, size.assume_value()).error(),
            (vmm_base::Error{too_small, EINVAL, 0}));
  EXPECT_EQ(called, 0) << "the kernel would have read what isn't there";

  auto all = handles.vcpu.get_xsave2(size.assume_value());
  ASSERT_EQ(all.assume_value().bytes().size(), 8192u);
  EXPECT_EQ(all.assume_value().bytes()[8191], std::byte{0x5a});
  EXPECT_TRUE(handles.vcpu.set_xsave(all.assume_value(), size.assume_value()));
  EXPECT_EQ(called, 2);

  // Only once there is a vCPU is it settled.
  const Vcpu moved = std::move(handles.vcpu);
  EXPECT_EQ(handles.vm.xsave_size(handles.vcpu).error(),  // NOLINT(bugprone-use-after-move)
            (vmm_base::Error{"KVM_CHECK_EXTENSION", EBADF, KVM_CAP_XSAVE2}));
}

// KVM_GET_DIRTY_LOG is told no size: a bitmap of another is never shown to the kernel.
TEST(Handles, ABitmapOfDirtyPagesIsAsLargeAsTheSlot) {
  Handles handles;
  int code = 0;
  int called = 0;
  const ScriptedIoctl kernel([&](int, unsigned long request, void*) {
    if (request == KVM_GET_DIRTY_LOG) ++called;
    errno = code;
    return code == 0 ? 0 : -1;
  });
  const Vm& vm = handles.vm;
  const auto set = [&](std::uint32_t slot, std::uint64_t pages, std::uint32_t flags) {
    return vm.set_user_memory_region(slot, {0}, pages * 4096, nullptr, flags);
  };
  const auto get = [&](std::uint32_t slot, std::uint64_t pages) {
    DirtyBitmap bitmap(pages);
    auto got = vm.get_dirty_log(slot, bitmap);
    return got ? vmm_base::Error{"success"} : got.error();
  };
  const vmm_base::Error success{"success"};
  const auto unknown = [](std::uint32_t slot) {
    return vmm_base::Error{"KVM_GET_DIRTY_LOG", ENOENT, slot};
  };
  const auto wrong = [](std::uint64_t pages) {
    return vmm_base::Error{"KVM_GET_DIRTY_LOG, pages of the bitmap", EINVAL, pages};
  };
  EXPECT_EQ(get(9, 64), unknown(9));
  EXPECT_TRUE(set(9, 64, 0));
  EXPECT_EQ(get(9, 64), unknown(9)) << "it isn't logged";
  EXPECT_EQ(called, 0);
  EXPECT_TRUE(set(9, 65, KVM_MEM_LOG_DIRTY_PAGES));
  EXPECT_EQ(get(9, 65), success);
  EXPECT_EQ(called, 1);
  for (const std::uint64_t pages : {0u, 1u, 64u, 66u, 128u}) EXPECT_EQ(get(9, pages), wrong(pages));
  EXPECT_EQ(get(0x10009, 65), unknown(0x10009)) << "of another address space";

  // What fails changes nothing.
  code = EINVAL;
  EXPECT_FALSE(set(9, 1000, KVM_MEM_LOG_DIRTY_PAGES));
  EXPECT_FALSE(set(10, 64, KVM_MEM_LOG_DIRTY_PAGES));
  code = 0;
  EXPECT_EQ(get(9, 65), success);
  EXPECT_EQ(get(10, 64), unknown(10));
  EXPECT_EQ(get(10, 0), unknown(10));

  // Removed, and made anew by the newer ioctl.
  EXPECT_TRUE(set(9, 0, KVM_MEM_LOG_DIRTY_PAGES));
  EXPECT_EQ(get(9, 65), unknown(9));
  UserspaceMemoryRegion2 region{};
  region.slot = 9;
  region.flags = KVM_MEM_LOG_DIRTY_PAGES;
  region.memory_size = 3 * 4096;
  EXPECT_TRUE(vm.set_user_memory_region2(region));
  EXPECT_EQ(get(9, 65), wrong(65));
  EXPECT_EQ(get(9, 3), success);
  EXPECT_EQ(called, 3);

  // The slots go with the VM.
  const Vm moved = std::move(handles.vm);
  DirtyBitmap pages(3);
  EXPECT_TRUE(moved.get_dirty_log(9, pages));
  DirtyBitmap empty = std::move(pages);
  EXPECT_EQ(moved.get_dirty_log(9, pages).error(), wrong(0));  // NOLINT(bugprone-use-after-move)
}

TEST(Handles, ANestedStateIsAsLargeAsItSays) {
  Handles handles;
  int result = 0;
  std::uint32_t size = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void* argument) {
    static_cast<NestedStateHeader*>(argument)->size = size;
    if (result < 0) errno = E2BIG;
    return result;
  });
  size = 5000;
  EXPECT_EQ(handles.vcpu.get_nested_state(4096).error(),
            (vmm_base::Error{"KVM_GET_NESTED_STATE", E2BIG, 5000}))
      << "without an error from the kernel";
  result = -1;
  EXPECT_EQ(handles.vcpu.get_nested_state(4096).error(),
            (vmm_base::Error{"KVM_GET_NESTED_STATE", E2BIG, 5000}));
  result = 0;
  size = 4;  // less than its own header
  auto state = handles.vcpu.get_nested_state(4096).assume_value();
  EXPECT_EQ(state.size(), sizeof(NestedStateHeader));
  EXPECT_TRUE(state.data().empty());
  const NestedState taken = std::move(state);
  EXPECT_EQ(state.size(), 0u);  // NOLINT(bugprone-use-after-move)
  EXPECT_TRUE(state.data().empty());
  EXPECT_EQ(state.capacity(), 0u);
}

TEST(Handles, AnMsrThatIsRefusedIsAnError) {
  Handles handles;
  int done = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void* argument) {
    EXPECT_EQ(static_cast<const MsrsHeader*>(argument)->nmsrs, 1u);
    return done;
  });
  EXPECT_EQ(handles.vcpu.get_msr(0x10).error(), (vmm_base::Error{"KVM_GET_MSRS", EINVAL, 0x10}));
  EXPECT_EQ(handles.vcpu.set_msr(0x11, 1).error(), (vmm_base::Error{"KVM_SET_MSRS", EINVAL, 0x11}));
  done = 1;
  EXPECT_EQ(handles.vcpu.get_msr(0x10).value(), 0u);
}

TEST(Handles, ARingOutsideOfTheMappingIsEmpty) {
  // Above the next mapping, as a rule: what a ring too far would be.
  void* const above =
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  static_cast<std::uint32_t*>(above)[1] = 1;
  Handles handles;
  const auto drained = [&](int page) {
    return handles.vcpu.coalesced_mmio(page).drain([](const CoalescedWrite&) {});
  };
  auto* const ring =
      reinterpret_cast<std::uint32_t*>(reinterpret_cast<char*>(&handles.vcpu.page()) + 2 * 4096);
  ring[1] = 1;  // last
  for (const int outside : {-1, 0, 3, 4, 1 << 30}) EXPECT_EQ(drained(outside), 0u) << outside;
  EXPECT_EQ(drained(2), 1u);
  ::munmap(above, 4096);
}

}  // namespace
}  // namespace kvm_ioctls
