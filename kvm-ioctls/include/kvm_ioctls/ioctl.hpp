// SPDX-License-Identifier: BSD-3-Clause
//
// The one place where ioctl(2) is called; also the way to one that isn't wrapped yet:
//
//   VMM_CHECK(kvm_ioctls::ioctl(vm.fd(), "KVM_SET_NR_MMU_PAGES", KVM_SET_NR_MMU_PAGES, 64ul));
#pragma once

#include <sys/ioctl.h>

#include "vmm_base/result.hpp"

namespace kvm_ioctls {

// Returns the call's own non-negative result. `name` is a literal and `operand` goes into the
// error.
template <class Argument>
vmm_base::Result<int> ioctl(int fd, const char* name, unsigned long request, Argument argument,
                            std::uint64_t operand = 0) noexcept {
  const int result = ::ioctl(fd, request, argument);
  if (result < 0) return vmm_base::last_error(name, operand);
  return result;
}

}  // namespace kvm_ioctls

// For the wrappers: the request's name is said once.
#define KVM_IOCTLS_CALL(fd, request, ...) ::kvm_ioctls::ioctl((fd), #request, request, __VA_ARGS__)
