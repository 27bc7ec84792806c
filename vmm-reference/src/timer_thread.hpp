// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Where the timers' events come from, as far as they aren't the kernel's.
#pragma once

#include <poll.h>
#include <sys/eventfd.h>

#include <cstdio>
#include <iterator>
#include <system_error>
#include <thread>
#include <utility>

#include "sandbox.hpp"
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
    try {
      return TimerThread(std::move(stop), std::thread([&handler, timer_fd, stop_fd] {
                           run(handler, timer_fd, stop_fd);
                         }));
    } catch (const std::system_error& error) {
      return vmm_base::Error{"pthread_create", error.code().value()};
    }
  }
  TimerThread(TimerThread&&) = default;
  TimerThread& operator=(TimerThread&&) = delete;
  ~TimerThread() {
    if (!thread_.joinable()) return;
    ::eventfd_write(stop_.get(), 1);
    thread_.join();
  }

 private:
  template <class Handler>
  static void run(Handler& handler, int timer_fd, int stop_fd) {
    sandbox::confine(sandbox::timers);
    constexpr int retry_ms = 100;
    bool said = false;
    int timeout = -1;
    pollfd fds[] = {{timer_fd, POLLIN, 0}, {stop_fd, POLLIN, 0}};
    while (fds[1].revents == 0) {
      if (::poll(fds, std::size(fds), timeout) < 0) continue;
      auto expired = handler.expire();
      // What couldn't be set makes nothing readable.
      timeout = expired ? -1 : retry_ms;
      // Once: a guest can cause it at will.
      if (!expired && !std::exchange(said, true)) {
        std::fprintf(stderr, "timers: %s\n", expired.error().message().c_str());
      }
    }
  }

  TimerThread(vmm_base::UniqueFd stop, std::thread thread)
      : stop_(std::move(stop)), thread_(std::move(thread)) {}
  vmm_base::UniqueFd stop_;
  std::thread thread_;
};

}  // namespace vmm_reference
