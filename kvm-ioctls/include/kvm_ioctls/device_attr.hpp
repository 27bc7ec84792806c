// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Device attributes, which the system, a VM, a vCPU and a device have each: a group, a number in
// it, and a value whose type the attribute says.
#pragma once

#include <cstdint>

#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

// For a class that has fd().
template <class Self>
class DeviceAttributes {
 public:
  // KVM_HAS_DEVICE_ATTR [KVM_CAP_DEVICE_CTRL; VCPU_ATTRIBUTES; SYS_ATTRIBUTES, 3.10; 5.16 on a
  // vCPU; 5.17 on the system]: whether there is such an attribute. On a VM no x86 kernel has any:
  // error ENOTTY. The error's operand, here and below, is `attr`.
  [[nodiscard]] vmm_base::Result<bool> has_device_attr(std::uint32_t group,
                                                       std::uint64_t attr) const noexcept {
    const kvm_device_attr request = described(group, attr, nullptr);
    auto called = KVM_IOCTLS_CALL(number(), KVM_HAS_DEVICE_ATTR, &request, attr);
    if (called) return true;
    if (called.error().code == ENXIO) return false;
    return called.error();
  }

  // KVM_GET_DEVICE_ATTR [KVM_CAP_DEVICE_CTRL; VCPU_ATTRIBUTES; SYS_ATTRIBUTES, 3.10; 5.16 on a
  // vCPU; 5.17 on the system]: its value, of the type and in the units that the attribute's
  // documentation says. ENXIO if there is none, EPERM from a device whose attributes can't be read.
  template <class T>
  [[nodiscard]] vmm_base::Result<T> get_device_attr(std::uint32_t group,
                                                    std::uint64_t attr) const noexcept {
    T value{};
    const kvm_device_attr request = described(group, attr, &value);
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_GET_DEVICE_ATTR, &request, attr));
    return value;
  }

  // KVM_SET_DEVICE_ATTR [KVM_CAP_DEVICE_CTRL; VCPU_ATTRIBUTES, 3.10; 5.16 on a vCPU]: the same, the
  // other way.
  template <class T>
  [[nodiscard]] vmm_base::Result<void> set_device_attr(std::uint32_t group, std::uint64_t attr,
                                                       const T& value) const noexcept {
    const kvm_device_attr request = described(group, attr, &value);
    return KVM_IOCTLS_SET(number(), KVM_SET_DEVICE_ATTR, &request, attr);
  }

 private:
  [[nodiscard]] int number() const noexcept { return static_cast<const Self&>(*this).fd(); }
  static kvm_device_attr described(std::uint32_t group, std::uint64_t attr,
                                   const void* value) noexcept {
    kvm_device_attr request{};
    request.group = group;
    request.attr = attr;
    request.addr = reinterpret_cast<std::uintptr_t>(value);
    return request;
  }
};

// A device inside the kernel, from Vm::create_device().
class Device : public DeviceAttributes<Device> {
 public:
  explicit Device(vmm_base::UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  vmm_base::UniqueFd fd_;
};

}  // namespace kvm_ioctls
