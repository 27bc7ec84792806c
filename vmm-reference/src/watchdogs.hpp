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
#include <optional>
#include <utility>

#include "xen_hcall/sched_op.hpp"

namespace vmm_reference {

class Watchdogs {
 public:
  // `bite` is called by the loop.
  Watchdogs(boost::asio::io_context& loop, std::function<void()> bite);

  // From any thread. nullopt: never.
  void set(std::uint32_t index, std::optional<std::chrono::seconds> after);

 private:
  using Timer = boost::asio::steady_timer;

  boost::asio::io_context& loop_;
  std::function<void()> bite_;
  std::array<Timer, xen_hcall::watchdog_count> timers_;
};

}  // namespace vmm_reference
