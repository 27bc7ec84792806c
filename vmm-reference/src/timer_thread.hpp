// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Where the timers' events come from, as far as they aren't the kernel's.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>

#include <cstdio>
#include <iterator>
#include <thread>
#include <utility>

#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {

// Calls handler.expire() whenever the back end is readable, until stopped.
class TimerThread {
 public:
  template <class Handler>
  static vmm_base::Result<TimerThread> start(Handler& handler, int timer_fd) {
    vmm_base::UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
    if (!stop) return vmm_base::last_error("eventfd");
    const int stop_fd = stop.get();
    return TimerThread(std::move(stop), std::thread([&handler, timer_fd, stop_fd] {
                         bool said = false;
                         pollfd fds[] = {{timer_fd, POLLIN, 0}, {stop_fd, POLLIN, 0}};
                         while (fds[1].revents == 0) {
                           if (::poll(fds, std::size(fds), -1) < 0) continue;
                           auto expired = handler.expire();
                           // Once: a guest can cause it at will.
                           if (!expired && !std::exchange(said, true)) {
                             std::fprintf(stderr, "timers: %s\n",
                                          expired.error().message().c_str());
                           }
                         }
                       }));
  }
  TimerThread(TimerThread&&) = default;
  TimerThread& operator=(TimerThread&&) = delete;
  ~TimerThread() {
    if (!thread_.joinable()) return;
    ::eventfd_write(stop_.get(), 1);
    thread_.join();
  }

 private:
  TimerThread(vmm_base::UniqueFd stop, std::thread thread)
      : stop_(std::move(stop)), thread_(std::move(thread)) {}
  vmm_base::UniqueFd stop_;
  std::thread thread_;
};

}  // namespace vmm_reference
