// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "timer_mover.hpp"

#include <chrono>

namespace vmm_reference {

TimerMover::TimerMover(boost::asio::io_context& loop, std::size_t vcpus, std::function<void()> kick)
    : tick_(loop), kick_(std::move(kick)), in_kernel_(vcpus) {
  wait();
}

void TimerMover::wait() {
  tick_.expires_after(std::chrono::microseconds(300));
  tick_.async_wait([this](boost::system::error_code cancelled) {
    if (cancelled) return;
    kick_();
    wait();
  });
}

}  // namespace vmm_reference
