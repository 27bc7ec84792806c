// SPDX-License-Identifier: BSD-3-Clause
//
// The kernel's own <linux/kvm.h>, and the constants that are newer than Debian 12's (6.1). The one
// place where they are written down.
#pragma once

#include <linux/kvm.h>

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

// Where the kernel declares a flexible array, C++ sees an empty struct of 1 byte before it: sizeof
// is 12 where the kernel's is 8, and with it the ioctl's number is wrong. These are the headers as
// they are, and the numbers that go with them.
namespace kvm_ioctls {
struct Cpuid2Header {
  __u32 nent;
  __u32 padding;
};
struct MsrsHeader {
  __u32 nmsrs;
  __u32 pad;
};
struct IrqRoutingHeader {
  __u32 nr;
  __u32 flags;
};
static_assert(sizeof(Cpuid2Header) == 8 && sizeof(MsrsHeader) == 8 &&
              sizeof(IrqRoutingHeader) == 8);
}  // namespace kvm_ioctls

#undef KVM_GET_SUPPORTED_CPUID
#undef KVM_SET_CPUID2
#undef KVM_SET_MSRS
#undef KVM_SET_GSI_ROUTING
#define KVM_GET_SUPPORTED_CPUID _IOWR(KVMIO, 0x05, ::kvm_ioctls::Cpuid2Header)
#define KVM_SET_CPUID2 _IOW(KVMIO, 0x90, ::kvm_ioctls::Cpuid2Header)
#define KVM_SET_MSRS _IOW(KVMIO, 0x89, ::kvm_ioctls::MsrsHeader)
#define KVM_SET_GSI_ROUTING _IOW(KVMIO, 0x6a, ::kvm_ioctls::IrqRoutingHeader)
