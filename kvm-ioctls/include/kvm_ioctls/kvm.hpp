// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// /dev/kvm itself: what the kernel can do, and new VMs.
//
//   VMM_TRY(kvm, Kvm::open());
//   VMM_TRY(vm, kvm.create_vm());
#pragma once

#include <fcntl.h>

#include "kvm_ioctls/device_attr.hpp"
#include "kvm_ioctls/fam.hpp"
#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "kvm_ioctls/vm.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

// Moved from, it has no fd, so that every ioctl is EBADF.
class Kvm : public DeviceAttributes<Kvm> {
  template <class T>
  using Result = vmm_base::Result<T>;

 public:
  // Opens the device. Errors of open(2): ENOENT without KVM, EACCES without permission; and
  // from_fd()'s.
  static Result<Kvm> open(const char* path = "/dev/kvm") noexcept {
    vmm_base::UniqueFd fd(::open(path, O_RDWR | O_CLOEXEC));
    if (!fd) return vmm_base::last_error("open");
    return from_fd(std::move(fd));
  }
  // KVM_GET_API_VERSION [, 2.6]: a device that somebody else has opened, as in a sandbox. ENOTTY if
  // it is something else; ENOTSUP, operand the version found, if its API isn't 12, that of 2.6.22
  // and later.
  static Result<Kvm> from_fd(vmm_base::UniqueFd fd) noexcept {
    Kvm kvm(std::move(fd));
    VMM_TRY(version, KVM_IOCTLS_CALL(kvm.fd(), KVM_GET_API_VERSION, 0, 0));
    if (version != KVM_API_VERSION) {
      return vmm_base::Error{"KVM_GET_API_VERSION", ENOTSUP, static_cast<std::uint64_t>(version)};
    }
    return kvm;
  }

  // KVM_CHECK_EXTENSION [, 2.6]: 0 for absent, else 1 or the capability's value.
  [[nodiscard]] Result<int> check_extension(unsigned capability) const noexcept {
    return KVM_IOCTLS_CALL(fd(), KVM_CHECK_EXTENSION, capability, capability);
  }

  // KVM_GET_VCPU_MMAP_SIZE [, 2.6]: of a vCPU's kvm_run and what follows it, bytes.
  [[nodiscard]] Result<std::size_t> get_vcpu_mmap_size() const noexcept {
    VMM_TRY(size, KVM_IOCTLS_CALL(fd(), KVM_GET_VCPU_MMAP_SIZE, 0, 0));
    return static_cast<std::size_t>(size);
  }
  // KVM_CREATE_VM [KVM_CAP_VM_TYPES, 2.6; 6.8 for types]: `type` one of KVM_X86_*_VM, whose bit is
  // set in check_extension(KVM_CAP_VM_TYPES). EINVAL, operand the type, for another.
  [[nodiscard]] Result<Vm> create_vm(unsigned long type = KVM_X86_DEFAULT_VM) const {
    VMM_TRY(size, get_vcpu_mmap_size());
    VMM_TRY(vm, KVM_IOCTLS_CALL(fd(), KVM_CREATE_VM, type, type));
    return Vm(vmm_base::UniqueFd(vm), size);
  }

  // KVM_GET_SUPPORTED_CPUID [KVM_CAP_EXT_CPUID, 2.6]: the leaves that KVM can offer a guest on this
  // host.
  [[nodiscard]] Result<Cpuid> get_supported_cpuid() const {
    return detail::grown<Cpuid>(128, [this](Cpuid2Header* leaves) {
      return KVM_IOCTLS_CALL(fd(), KVM_GET_SUPPORTED_CPUID, leaves, 0);
    });
  }
  // KVM_GET_EMULATED_CPUID [KVM_CAP_EXT_EMUL_CPUID, 3.13]: the features that KVM emulates, slowly,
  // where the processor hasn't them.
  [[nodiscard]] Result<Cpuid> get_emulated_cpuid() const {
    return detail::grown<Cpuid>(16, [this](Cpuid2Header* leaves) {
      return KVM_IOCTLS_CALL(fd(), KVM_GET_EMULATED_CPUID, leaves, 0);
    });
  }
  // KVM_GET_SUPPORTED_HV_CPUID [KVM_CAP_SYS_HYPERV_CPUID, 5.11]: Hyper-V's leaves, 0x40000000 and
  // on.
  [[nodiscard]] Result<Cpuid> get_supported_hv_cpuid() const {
    return detail::grown<Cpuid>(16, [this](Cpuid2Header* leaves) {
      return KVM_IOCTLS_CALL(fd(), KVM_GET_SUPPORTED_HV_CPUID, leaves, 0);
    });
  }

  // KVM_GET_MSR_INDEX_LIST [, 2.6]: the MSRs that make up a vCPU's state.
  [[nodiscard]] Result<MsrList> get_msr_index_list() const {
    return detail::grown<MsrList>(128, [this](MsrListHeader* list) {
      return KVM_IOCTLS_CALL(fd(), KVM_GET_MSR_INDEX_LIST, list, 0);
    });
  }
  // KVM_GET_MSR_FEATURE_INDEX_LIST [KVM_CAP_GET_MSR_FEATURES, 4.16]: those that tell features,
  // whose values get_msrs() here reads.
  [[nodiscard]] Result<MsrList> get_msr_feature_index_list() const {
    return detail::grown<MsrList>(64, [this](MsrListHeader* list) {
      return KVM_IOCTLS_CALL(fd(), KVM_GET_MSR_FEATURE_INDEX_LIST, list, 0);
    });
  }
  // KVM_GET_MSRS [KVM_CAP_GET_MSR_FEATURES, 4.16]: feature MSRs as KVM can offer them. Returns how
  // many were read, in order. E2BIG, operand their number, for more than 255.
  [[nodiscard]] Result<std::uint32_t> get_msrs(Msrs& msrs) const noexcept {
    VMM_TRY(done, KVM_IOCTLS_CALL(fd(), KVM_GET_MSRS, msrs.get(), msrs.size()));
    return static_cast<std::uint32_t>(done);
  }
  // KVM_X86_GET_MCE_CAP_SUPPORTED [KVM_CAP_MCE, 2.6]: MCG_CAP's bits that Vcpu::setup_mce() takes;
  // how many banks is check_extension(KVM_CAP_MCE).
  [[nodiscard]] Result<std::uint64_t> get_mce_cap_supported() const noexcept {
    __u64 cap = 0;
    VMM_CHECK(KVM_IOCTLS_SET(fd(), KVM_X86_GET_MCE_CAP_SUPPORTED, &cap, 0));
    return std::uint64_t{cap};
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  explicit Kvm(vmm_base::UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  vmm_base::UniqueFd fd_;
};

// Which rule a kernel follows for the Xen vCPU id that the VMM has not set.
enum class XenIdRule {
  unset,  // 7.3 and later: there is none, and single-shot timer hypercalls come to the VMM.
  zero,   // Up to 7.2: every vCPU's is 0.
};

// Reads the rule off a vCPU whose id was never set. Error ENXIO or EINVAL where KVM_XEN is missing.
inline vmm_base::Result<XenIdRule> xen_id_rule(const Vcpu& fresh) noexcept {
  VMM_TRY(attr, fresh.xen_vcpu_get_attr<XenVcpuIdAttr>());
  return attr.id ? XenIdRule::zero : XenIdRule::unset;
}

}  // namespace kvm_ioctls
