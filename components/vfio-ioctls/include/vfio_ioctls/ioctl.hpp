// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The one place where ioctl(2) is called; also the way to one that isn't wrapped:
//
//   VMM_CHECK(vfio_ioctls::ioctl(device.fd(), "VFIO_DEVICE_FEATURE", VFIO_DEVICE_FEATURE,
//   &feature));
#pragma once

#include <sys/ioctl.h>

#include <cstdint>

#include "vmm_base/result.hpp"

namespace vfio_ioctls {

// Returns the call's own non-negative result. `name` is a literal, and `operand` goes into the
// error.
template <class Argument>
vmm_base::Result<int> ioctl(int fd, const char* name, unsigned long request, Argument argument,
                            std::uint64_t operand = 0) noexcept {
  const int result = ::ioctl(fd, request, argument);
  if (result < 0) return vmm_base::last_error(name, operand);
  return result;
}

}  // namespace vfio_ioctls

// For the wrappers: (fd, request, argument, operand), in which the request's name is said once.
#define VFIO_IOCTLS_CALL(fd, request, ...) \
  ::vfio_ioctls::ioctl((fd), #request, request, __VA_ARGS__)
