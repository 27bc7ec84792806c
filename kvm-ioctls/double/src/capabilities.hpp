// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What KVM_CHECK_EXTENSION says unless the test does: as Linux 6.18 and later on x86, with all of
// Xen, a scalable TSC and SMM; without Hyper-V, nested guests or private memory.
#pragma once

#include "kvm_ioctls/uapi.hpp"

namespace kvm_ioctls::double_detail {

constexpr int usual_capability(unsigned capability) noexcept {
  switch (capability) {
    case KVM_CAP_XEN_HVM:  // flags up to KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA
      return 0x1ff;
    case KVM_CAP_NR_VCPUS:
      return 16;
    case KVM_CAP_NR_MEMSLOTS:
      return 32764;
    case KVM_CAP_COALESCED_MMIO:
      return 2;
    case KVM_CAP_IRQ_ROUTING:
      return 4096;
    case KVM_CAP_MCE:
      return 32;
    case KVM_CAP_ADJUST_CLOCK:
      return 14;
    case KVM_CAP_MAX_VCPUS:
      return 1024;
    case KVM_CAP_SYNC_REGS:
      return 7;
    case KVM_CAP_MAX_VCPU_ID:
      return 4096;
    case KVM_CAP_X2APIC_API:
      return 11;
    case KVM_CAP_X86_DISABLE_EXITS:
      return 14;
    case KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2:
      return 3;
    case KVM_CAP_DIRTY_LOG_RING:
      return 1048576;
    case KVM_CAP_SET_GUEST_DEBUG2:
      return 2031619;
    case KVM_CAP_EXIT_HYPERCALL:
    case KVM_CAP_XSAVE2:
      return 4096;
    case KVM_CAP_DISABLE_QUIRKS2:
      return 1535;
    case KVM_CAP_DIRTY_LOG_RING_ACQ_REL:
      return 1048576;
    case KVM_CAP_GUEST_MEMFD_FLAGS:
      return 3;
    case KVM_CAP_IRQCHIP:
    case KVM_CAP_HLT:
    case KVM_CAP_MMU_SHADOW_CACHE_CONTROL:
    case KVM_CAP_USER_MEMORY:
    case KVM_CAP_SET_TSS_ADDR:
    case KVM_CAP_VAPIC:
    case KVM_CAP_EXT_CPUID:
    case KVM_CAP_CLOCKSOURCE:
    case KVM_CAP_PIT:
    case KVM_CAP_NOP_IO_DELAY:
    case KVM_CAP_MP_STATE:
    case KVM_CAP_SYNC_MMU:
    case KVM_CAP_DESTROY_MEMORY_REGION_WORKS:
    case KVM_CAP_USER_NMI:
    case KVM_CAP_SET_GUEST_DEBUG:
    case KVM_CAP_REINJECT_CONTROL:
    case KVM_CAP_IRQ_INJECT_STATUS:
    case KVM_CAP_JOIN_MEMORY_REGIONS_WORKS:
    case KVM_CAP_IRQFD:
    case KVM_CAP_PIT2:
    case KVM_CAP_SET_BOOT_CPU_ID:
    case KVM_CAP_PIT_STATE2:
    case KVM_CAP_IOEVENTFD:
    case KVM_CAP_SET_IDENTITY_MAP_ADDR:
    case KVM_CAP_INTERNAL_ERROR_DATA:
    case KVM_CAP_VCPU_EVENTS:
    case KVM_CAP_PCI_SEGMENT:
    case KVM_CAP_DEBUGREGS:
    case KVM_CAP_X86_ROBUST_SINGLESTEP:
    case KVM_CAP_ENABLE_CAP:
    case KVM_CAP_XSAVE:
    case KVM_CAP_XCRS:
    case KVM_CAP_ASYNC_PF:
    case KVM_CAP_TSC_CONTROL:
    case KVM_CAP_GET_TSC_KHZ:
    case KVM_CAP_ONE_REG:
    case KVM_CAP_TSC_DEADLINE_TIMER:
    case KVM_CAP_KVMCLOCK_CTRL:
    case KVM_CAP_SIGNAL_MSI:
    case KVM_CAP_READONLY_MEM:
    case KVM_CAP_IRQFD_RESAMPLE:
    case KVM_CAP_DEVICE_CTRL:
    case KVM_CAP_EXT_EMUL_CPUID:
    case KVM_CAP_IOAPIC_POLARITY_IGNORED:
    case KVM_CAP_ENABLE_CAP_VM:
    case KVM_CAP_IOEVENTFD_NO_LENGTH:
    case KVM_CAP_CHECK_EXTENSION_VM:
    case KVM_CAP_DISABLE_QUIRKS:
    case KVM_CAP_X86_SMM:
    case KVM_CAP_SPLIT_IRQCHIP:
    case KVM_CAP_IOEVENTFD_ANY_LENGTH:
    case KVM_CAP_VCPU_ATTRIBUTES:
    case KVM_CAP_IMMEDIATE_EXIT:
    case KVM_CAP_GET_MSR_FEATURES:
    case KVM_CAP_MSR_PLATFORM_INFO:
    case KVM_CAP_COALESCED_PIO:
    case KVM_CAP_EXCEPTION_PAYLOAD:
    case KVM_CAP_PMU_EVENT_FILTER:
    case KVM_CAP_HALT_POLL:
    case KVM_CAP_ASYNC_PF_INT:
    case KVM_CAP_LAST_CPU:
    case KVM_CAP_SMALLER_MAXPHYADDR:
    case KVM_CAP_STEAL_TIME:
    case KVM_CAP_X86_USER_SPACE_MSR:
    case KVM_CAP_X86_MSR_FILTER:
    case KVM_CAP_ENFORCE_PV_FEATURE_CPUID:
    case KVM_CAP_SREGS2:
    case KVM_CAP_BINARY_STATS_FD:
    case KVM_CAP_EXIT_ON_EMULATION_FAILURE:
    case KVM_CAP_SYS_ATTRIBUTES:
    case KVM_CAP_VM_TSC_CONTROL:
    case KVM_CAP_SYSTEM_EVENT_DATA:
    case KVM_CAP_X86_TRIPLE_FAULT_EVENT:
    case KVM_CAP_VM_DISABLE_NX_HUGE_PAGES:
    case KVM_CAP_PMU_EVENT_MASKED_EVENTS:
    case KVM_CAP_USER_MEMORY2:
    case KVM_CAP_MEMORY_FAULT_INFO:
    case KVM_CAP_GUEST_MEMFD:
    case KVM_CAP_VM_TYPES:
    case KVM_CAP_PRE_FAULT_MEMORY:
    case KVM_CAP_X86_APIC_BUS_CYCLES_NS:
    case KVM_CAP_X86_GUEST_MODE:
      return 1;
    default:
      return 0;
  }
}

}  // namespace kvm_ioctls::double_detail
