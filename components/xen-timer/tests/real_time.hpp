// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// For tests on real time and real fds, so that nothing says how late is too late.
#pragma once

#include <poll.h>

#include <chrono>

#include "xen_clock/clock.hpp"

namespace xen_timer {

inline constexpr auto hour = xen_clock::Duration(std::chrono::hours(1));
inline constexpr auto ms = xen_clock::Duration(std::chrono::milliseconds(1));

inline constexpr int forever = 60'000;  // ms, so that a hang is a failure

inline bool readable(int fd, int timeout_ms = 0) {
  pollfd entry{.fd = fd, .events = POLLIN, .revents = 0};
  return ::poll(&entry, 1, timeout_ms) == 1;
}

}  // namespace xen_timer
