// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A kernel for zero_cost that does what it is asked at once: ioctl() without a /dev/kvm.
#include <linux/kvm.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdarg>

namespace {
constexpr int run_size = 3 * 4096;

int new_fd() {
  const int fd = ::memfd_create("zero_cost", MFD_CLOEXEC);
  return ::ftruncate(fd, run_size) == 0 ? fd : -1;
}
}  // namespace

extern "C" int ioctl(int, unsigned long request, ...) noexcept {
  switch (request) {
    case KVM_GET_API_VERSION:
      return KVM_API_VERSION;
    case KVM_GET_VCPU_MMAP_SIZE:
      return run_size;
    case KVM_CREATE_VM:
    case KVM_CREATE_VCPU:
      return new_fd();
    default:
      return 0;
  }
}
