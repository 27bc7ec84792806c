// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A file that stands for one of KVM's.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

inline vmm_base::UniqueFd new_memfd(std::size_t size) {
  vmm_base::UniqueFd fd(::memfd_create("kvm_ioctls", MFD_CLOEXEC));
  EXPECT_EQ(::ftruncate(fd.get(), static_cast<off_t>(size)), 0);
  return fd;
}

}  // namespace kvm_ioctls
