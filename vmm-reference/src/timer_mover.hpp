// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Shows that a timer can move under a running guest: to the kernel and back, all the time.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <utility>
#include <vector>

#include "vmm_base/ids.hpp"

namespace vmm_reference {

class TimerMover {
 public:
  // Calls `kick`, after which each vCPU's thread is to call move(), every 300 us.
  TimerMover(boost::asio::io_context& loop, std::size_t vcpus, std::function<void()> kick);

  // On the vCPU's thread.
  template <class Handler>
  void move(Handler& timer, vmm_base::XenVcpuId id) {
    char& in_kernel = in_kernel_[id.value];
    in_kernel = in_kernel == 0 ? 1 : 0;
    auto moved = timer.hand_over(id, in_kernel != 0);
    if (!moved) std::fprintf(stderr, "timers: %s\n", moved.error().message().c_str());
  }

 private:
  void wait();

  boost::asio::steady_timer tick_;
  std::function<void()> kick_;
  std::vector<char> in_kernel_;  // by Xen vCPU id; not bool, for each thread has its own
};

}  // namespace vmm_reference
