// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// For tests of what signals an eventfd by kernel AIO, on real time and real fds.
#pragma once

#include <gtest/gtest.h>
#include <linux/aio_abi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "real_time.hpp"

namespace xen_timer {

// How often it was signalled since it was last asked.
inline std::uint64_t signals(int eventfd) {
  std::uint64_t count = 0;
  return ::read(eventfd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}
// Why SignallingTimer can't be tested here; nullptr where it can.
inline const char* no_kernel_aio() {
  aio_context_t context = 0;
  if (::syscall(SYS_io_setup, 1, &context) == 0) {
    ::syscall(SYS_io_destroy, context);
    return nullptr;
  }
  if (errno == ENOSYS) return "this kernel has no AIO";
  return errno == EPERM ? "kernel AIO is not permitted here" : nullptr;
}
struct NeedsKernelAio : testing::Test {
  void SetUp() override {
    if (const char* why = no_kernel_aio()) GTEST_SKIP() << why;
  }
};

}  // namespace xen_timer
