// SPDX-License-Identifier: BSD-3-Clause
//
// /dev/kvm itself: what the kernel can do, and new VMs.
//
//   VMM_TRY(kvm, Kvm::open());
//   VMM_TRY(vm, kvm.create_vm());
#pragma once

#include <fcntl.h>

#include <vector>

#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "kvm_ioctls/vm.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

class Kvm {
 public:
  // Opens the device. Errors of open(2): ENOENT without KVM, EACCES without permission; and
  // ENOTSUP, operand the version found, if its API isn't the one of Linux 2.6.22 and later (12).
  static vmm_base::Result<Kvm> open(const char* path = "/dev/kvm") noexcept {
    vmm_base::UniqueFd fd(::open(path, O_RDWR | O_CLOEXEC));
    if (!fd) return vmm_base::last_error("open");
    return from_fd(std::move(fd));
  }
  // The same for a device that somebody else has opened, as in a sandbox.
  static vmm_base::Result<Kvm> from_fd(vmm_base::UniqueFd fd) noexcept {
    Kvm kvm(std::move(fd));
    VMM_TRY(version, KVM_IOCTLS_CALL(kvm.fd(), KVM_GET_API_VERSION, 0));
    if (version != KVM_API_VERSION) {
      return vmm_base::Error{"KVM_GET_API_VERSION", ENOTSUP, static_cast<std::uint64_t>(version)};
    }
    return kvm;
  }

  // KVM_CHECK_EXTENSION: 0 for absent, else 1 or the capability's flags.
  [[nodiscard]] vmm_base::Result<int> check_extension(unsigned capability) const noexcept {
    return ioctl(fd(), "KVM_CHECK_EXTENSION", KVM_CHECK_EXTENSION, capability, capability);
  }

  // KVM_CREATE_VM, of the default type.
  [[nodiscard]] vmm_base::Result<Vm> create_vm() const noexcept {
    VMM_TRY(size, KVM_IOCTLS_CALL(fd(), KVM_GET_VCPU_MMAP_SIZE, 0));
    VMM_TRY(vm, KVM_IOCTLS_CALL(fd(), KVM_CREATE_VM, 0));
    return Vm(vmm_base::UniqueFd(vm), static_cast<std::size_t>(size));
  }

  // KVM_GET_SUPPORTED_CPUID: the leaves that KVM can offer a guest on this host.
  [[nodiscard]] vmm_base::Result<std::vector<kvm_cpuid_entry2>> get_supported_cpuid() const {
    for (std::uint32_t room = 128;; room *= 2) {
      CpuidBuffer buffer(room);
      auto called = ioctl(fd(), "KVM_GET_SUPPORTED_CPUID", KVM_GET_SUPPORTED_CPUID, buffer.get());
      if (called) return buffer.entries();
      if (called.error().code != E2BIG || room > 4096) return called.error();
    }
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
