// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// For tests of what signals an eventfd by an io_uring, on real time and real fds.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "real_time.hpp"
#include "xen_timer/signalling_timer.hpp"

namespace xen_timer {

// How often it was signalled since it was last asked.
inline std::uint64_t signals(int eventfd) {
  std::uint64_t count = 0;
  return ::read(eventfd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}
// Why SignallingTimer can't be tested here; nullptr where it can.
inline const char* no_io_uring() {
  const auto created = SignallingTimer::create();
  if (created) return nullptr;
  if (created.error().code == ENOSYS) return "this kernel has no io_uring";
  if (created.error().code == EPERM) return "io_uring is not permitted here";
  return created.error().code == EINVAL ? "this kernel's io_uring is older than Linux 6.1"
                                        : nullptr;
}
struct NeedsIoUring : testing::Test {
  void SetUp() override {
    if (const char* why = no_io_uring()) GTEST_SKIP() << why;
  }
};

}  // namespace xen_timer
