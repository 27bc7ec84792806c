// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The kernel's own <linux/kvm.h>, and what is newer than Debian 12's (6.1), up to Linux 7.3. The
// one place where it is written down.
#pragma once

#include <linux/kvm.h>

#include <cstddef>

// Where the kernel declares a flexible array, C++ sees an empty struct of 1 byte before it: sizeof
// is 12 where the kernel's is 8, and with it the ioctl's number is wrong. These are the headers as
// they are, and, below, the numbers that go with them.
namespace kvm_ioctls {

struct Cpuid2Header {
  __u32 nent;
  __u32 padding;
};
struct MsrsHeader {
  __u32 nmsrs;
  __u32 pad;
};
struct MsrListHeader {
  __u32 nmsrs;
};
struct IrqRoutingHeader {
  __u32 nr;
  __u32 flags;
};
struct SignalMaskHeader {
  __u32 len;  // bytes
};
struct RegListHeader {
  __u64 n;
};
struct PmuEventFilterHeader {
  __u32 action;
  __u32 nevents;
  __u32 fixed_counter_bitmap;
  __u32 flags;
  __u32 pad[4];
};
struct XsaveHeader {
  __u32 region[1024];
};
struct NestedStateHeader {
  __u16 flags;
  __u16 format;
  __u32 size;  // bytes, this header included
  union {
    kvm_vmx_nested_state_hdr vmx;
    kvm_svm_nested_state_hdr svm;
    __u8 pad[120];
  } hdr;
};
static_assert(sizeof(Cpuid2Header) == 8 && sizeof(MsrsHeader) == 8 && sizeof(MsrListHeader) == 4 &&
              sizeof(IrqRoutingHeader) == 8 && sizeof(SignalMaskHeader) == 4 &&
              sizeof(RegListHeader) == 8 && sizeof(PmuEventFilterHeader) == 32 &&
              sizeof(XsaveHeader) == 4096 && sizeof(NestedStateHeader) == 128);

// Structures that older headers lack, by the name that the kernel gives them.
struct UserspaceMemoryRegion2 {
  __u32 slot;
  __u32 flags;
  __u64 guest_phys_addr;
  __u64 memory_size;
  __u64 userspace_addr;
  __u64 guest_memfd_offset;
  __u32 guest_memfd;
  __u32 pad1;
  __u64 pad2[14];
};
struct MemoryAttributes {
  __u64 address;
  __u64 size;
  __u64 attributes;
  __u64 flags;
};
struct CreateGuestMemfd {
  __u64 size;
  __u64 flags;
  __u64 reserved[6];
};
struct PreFaultMemory {
  __u64 gpa;
  __u64 size;
  __u64 flags;
  __u64 padding[5];
};
struct MemoryFaultPayload {
  __u64 flags;
  __u64 gpa;
  __u64 size;
};
struct TdxPayload {
  __u64 flags;
  __u64 nr;
  __u64 data[6];  // data[0] is what goes back to the guest
};
struct SnpReqCertsPayload {
  __u64 gpa;
  __u64 npages;
  __u64 ret;
};
static_assert(sizeof(UserspaceMemoryRegion2) == 160 && sizeof(MemoryAttributes) == 32 &&
              sizeof(CreateGuestMemfd) == 64 && sizeof(PreFaultMemory) == 64);

}  // namespace kvm_ioctls

#undef KVM_GET_MSR_INDEX_LIST
#undef KVM_GET_SUPPORTED_CPUID
#undef KVM_GET_EMULATED_CPUID
#undef KVM_GET_MSR_FEATURE_INDEX_LIST
#undef KVM_SET_GSI_ROUTING
#undef KVM_GET_MSRS
#undef KVM_SET_MSRS
#undef KVM_SET_SIGNAL_MASK
#undef KVM_SET_CPUID2
#undef KVM_GET_CPUID2
#undef KVM_GET_XSAVE
#undef KVM_SET_XSAVE
#undef KVM_GET_REG_LIST
#undef KVM_SET_PMU_EVENT_FILTER
#undef KVM_GET_NESTED_STATE
#undef KVM_SET_NESTED_STATE
#undef KVM_GET_SUPPORTED_HV_CPUID
#undef KVM_GET_XSAVE2
#undef KVM_SET_USER_MEMORY_REGION2
#undef KVM_SET_MEMORY_ATTRIBUTES
#undef KVM_CREATE_GUEST_MEMFD
#undef KVM_PRE_FAULT_MEMORY
#define KVM_GET_MSR_INDEX_LIST _IOWR(KVMIO, 0x02, ::kvm_ioctls::MsrListHeader)
#define KVM_GET_SUPPORTED_CPUID _IOWR(KVMIO, 0x05, ::kvm_ioctls::Cpuid2Header)
#define KVM_GET_EMULATED_CPUID _IOWR(KVMIO, 0x09, ::kvm_ioctls::Cpuid2Header)
#define KVM_GET_MSR_FEATURE_INDEX_LIST _IOWR(KVMIO, 0x0a, ::kvm_ioctls::MsrListHeader)
#define KVM_SET_USER_MEMORY_REGION2 _IOW(KVMIO, 0x49, ::kvm_ioctls::UserspaceMemoryRegion2)
#define KVM_SET_GSI_ROUTING _IOW(KVMIO, 0x6a, ::kvm_ioctls::IrqRoutingHeader)
#define KVM_GET_MSRS _IOWR(KVMIO, 0x88, ::kvm_ioctls::MsrsHeader)
#define KVM_SET_MSRS _IOW(KVMIO, 0x89, ::kvm_ioctls::MsrsHeader)
#define KVM_SET_SIGNAL_MASK _IOW(KVMIO, 0x8b, ::kvm_ioctls::SignalMaskHeader)
#define KVM_SET_CPUID2 _IOW(KVMIO, 0x90, ::kvm_ioctls::Cpuid2Header)
#define KVM_GET_CPUID2 _IOWR(KVMIO, 0x91, ::kvm_ioctls::Cpuid2Header)
#define KVM_GET_XSAVE _IOR(KVMIO, 0xa4, ::kvm_ioctls::XsaveHeader)
#define KVM_SET_XSAVE _IOW(KVMIO, 0xa5, ::kvm_ioctls::XsaveHeader)
#define KVM_GET_REG_LIST _IOWR(KVMIO, 0xb0, ::kvm_ioctls::RegListHeader)
#define KVM_SET_PMU_EVENT_FILTER _IOW(KVMIO, 0xb2, ::kvm_ioctls::PmuEventFilterHeader)
#define KVM_GET_NESTED_STATE _IOWR(KVMIO, 0xbe, ::kvm_ioctls::NestedStateHeader)
#define KVM_SET_NESTED_STATE _IOW(KVMIO, 0xbf, ::kvm_ioctls::NestedStateHeader)
#define KVM_GET_SUPPORTED_HV_CPUID _IOWR(KVMIO, 0xc1, ::kvm_ioctls::Cpuid2Header)
#define KVM_GET_XSAVE2 _IOR(KVMIO, 0xcf, ::kvm_ioctls::XsaveHeader)
#define KVM_SET_MEMORY_ATTRIBUTES _IOW(KVMIO, 0xd2, ::kvm_ioctls::MemoryAttributes)
#define KVM_CREATE_GUEST_MEMFD _IOWR(KVMIO, 0xd4, ::kvm_ioctls::CreateGuestMemfd)
#define KVM_PRE_FAULT_MEMORY _IOWR(KVMIO, 0xd5, ::kvm_ioctls::PreFaultMemory)

// Exits.
#ifndef KVM_EXIT_LOONGARCH_IOCSR
#define KVM_EXIT_LOONGARCH_IOCSR 38
#endif
#ifndef KVM_EXIT_MEMORY_FAULT
#define KVM_EXIT_MEMORY_FAULT 39  // Linux 6.8
#endif
#ifndef KVM_EXIT_TDX
#define KVM_EXIT_TDX 40  // Linux 6.16
#endif
#ifndef KVM_EXIT_ARM_SEA
#define KVM_EXIT_ARM_SEA 41
#endif
#ifndef KVM_EXIT_ARM_LDST64B
#define KVM_EXIT_ARM_LDST64B 42
#endif
#ifndef KVM_EXIT_SNP_REQ_CERTS
#define KVM_EXIT_SNP_REQ_CERTS 43
#endif
#ifndef KVM_SYSTEM_EVENT_TDX_FATAL
#define KVM_SYSTEM_EVENT_TDX_FATAL 7
#endif
#ifndef KVM_MEMORY_EXIT_FLAG_PRIVATE
#define KVM_MEMORY_EXIT_FLAG_PRIVATE (1ULL << 3)
#endif
#ifndef KVM_EXIT_HYPERCALL_LONG_MODE
#define KVM_EXIT_HYPERCALL_LONG_MODE (1ULL << 0)
#endif
#ifndef KVM_RUN_X86_GUEST_MODE
#define KVM_RUN_X86_GUEST_MODE (1 << 2)  // Linux 6.11
#endif

// Capabilities.
#ifndef KVM_CAP_PMU_EVENT_MASKED_EVENTS
#define KVM_CAP_PMU_EVENT_MASKED_EVENTS 226  // Linux 6.3
#endif
#ifndef KVM_CAP_USER_MEMORY2
#define KVM_CAP_USER_MEMORY2 231  // Linux 6.8, to 235
#endif
#ifndef KVM_CAP_MEMORY_FAULT_INFO
#define KVM_CAP_MEMORY_FAULT_INFO 232
#endif
#ifndef KVM_CAP_MEMORY_ATTRIBUTES
#define KVM_CAP_MEMORY_ATTRIBUTES 233
#endif
#ifndef KVM_CAP_GUEST_MEMFD
#define KVM_CAP_GUEST_MEMFD 234
#endif
#ifndef KVM_CAP_VM_TYPES
#define KVM_CAP_VM_TYPES 235
#endif
#ifndef KVM_CAP_PRE_FAULT_MEMORY
#define KVM_CAP_PRE_FAULT_MEMORY 236  // Linux 6.11
#endif
#ifndef KVM_CAP_X86_APIC_BUS_CYCLES_NS
#define KVM_CAP_X86_APIC_BUS_CYCLES_NS 237  // Linux 6.11
#endif
#ifndef KVM_CAP_X86_GUEST_MODE
#define KVM_CAP_X86_GUEST_MODE 238  // Linux 6.11
#endif
#ifndef KVM_CAP_GUEST_MEMFD_FLAGS
#define KVM_CAP_GUEST_MEMFD_FLAGS 244  // Linux 6.18
#endif

// Memory.
#ifndef KVM_MEM_GUEST_MEMFD
#define KVM_MEM_GUEST_MEMFD (1UL << 2)
#endif
#ifndef KVM_MEMORY_ATTRIBUTE_PRIVATE
#define KVM_MEMORY_ATTRIBUTE_PRIVATE (1ULL << 3)
#endif
#ifndef GUEST_MEMFD_FLAG_MMAP
#define GUEST_MEMFD_FLAG_MMAP (1ULL << 0)
#endif
#ifndef GUEST_MEMFD_FLAG_INIT_SHARED
#define GUEST_MEMFD_FLAG_INIT_SHARED (1ULL << 1)
#endif
#ifndef KVM_DIRTY_LOG_PAGE_OFFSET
#define KVM_DIRTY_LOG_PAGE_OFFSET 64  // x86's
#endif

// VM types.
#ifndef KVM_X86_DEFAULT_VM
#define KVM_X86_DEFAULT_VM 0
#endif
#ifndef KVM_X86_SW_PROTECTED_VM
#define KVM_X86_SW_PROTECTED_VM 1
#endif
#ifndef KVM_X86_SEV_VM
#define KVM_X86_SEV_VM 2
#endif
#ifndef KVM_X86_SEV_ES_VM
#define KVM_X86_SEV_ES_VM 3
#endif
#ifndef KVM_X86_SNP_VM
#define KVM_X86_SNP_VM 4
#endif
#ifndef KVM_X86_TDX_VM
#define KVM_X86_TDX_VM 5
#endif

// Attributes of a VFIO device, whose names changed from GROUP to FILE in Linux 6.6.
#ifndef KVM_DEV_VFIO_FILE
#define KVM_DEV_VFIO_FILE 1
#endif
#ifndef KVM_DEV_VFIO_FILE_ADD
#define KVM_DEV_VFIO_FILE_ADD 1
#endif
#ifndef KVM_DEV_VFIO_FILE_DEL
#define KVM_DEV_VFIO_FILE_DEL 2
#endif

// Filters.
#ifndef KVM_MSR_FILTER_RANGE_VALID_MASK
#define KVM_MSR_FILTER_RANGE_VALID_MASK (KVM_MSR_FILTER_READ | KVM_MSR_FILTER_WRITE)
#endif
#ifndef KVM_PMU_EVENT_FLAG_MASKED_EVENTS
#define KVM_PMU_EVENT_FLAG_MASKED_EVENTS (1UL << 0)
#endif

// One-register ids of x86, Linux 6.18: an MSR by its index, or a register of KVM's own.
#ifndef KVM_X86_REG_TYPE_MSR
#define KVM_X86_REG_TYPE_MSR 2
#endif
#ifndef KVM_X86_REG_TYPE_KVM
#define KVM_X86_REG_TYPE_KVM 3
#endif
#ifndef KVM_REG_GUEST_SSP
#define KVM_REG_GUEST_SSP 0
#endif

// Xen.
#ifndef KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG
#define KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG (1 << 6)  // Linux 6.3
#endif
#ifndef KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE
#define KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE (1 << 7)  // Linux 6.9
#endif
#ifndef KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA
#define KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA (1 << 8)  // Linux 6.9
#endif
#ifndef KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG
#define KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG 0x5
#endif
#ifndef KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA
#define KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA 0x6
#endif
#ifndef KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA
#define KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA 0x9
#endif
