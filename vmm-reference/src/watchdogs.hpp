// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// SCHEDOP_watchdog's: each bites unless the guest sets it anew in time.
#pragma once

#include <array>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>

#include "xen_hcall/sched_op.hpp"

namespace vmm_reference {

class Watchdogs {
 public:
  // By index: what is left until it bites, ns; none where it never does.
  using Left = std::array<std::optional<std::int64_t>, xen_hcall::watchdog_count>;

  // `bite` is called by the loop.
  Watchdogs(boost::asio::io_context& loop, std::function<void()> bite);

  // From any thread. nullopt: never.
  void set(std::uint32_t index, std::optional<std::chrono::nanoseconds> after);
  // Also of those whose time is out while the loop is busy: 0.
  [[nodiscard]] Left left();
  void set_all(const Left& left);

 private:
  using Timer = boost::asio::steady_timer;

  boost::asio::io_context& loop_;
  std::function<void()> bite_;
  std::mutex mutex_;
  std::array<std::optional<Timer::time_point>, xen_hcall::watchdog_count> due_;  // with mutex_ held
  std::array<Timer, xen_hcall::watchdog_count> timers_;                          // the loop's
};

}  // namespace vmm_reference
