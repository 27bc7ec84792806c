// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What takes so long, on a line of a terminal's that is gone when it is over.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <string>

namespace vmm_reference {

class Progress {
 public:
  // From `loop`'s third second on, each second; nothing at all unless standard error is a terminal.
  Progress(boost::asio::io_context& loop, std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  void wait(std::chrono::seconds ahead);

  boost::asio::steady_timer tick_;
  std::string what_;
  std::chrono::seconds passed_{0};  // 0: nothing was said
};

}  // namespace vmm_reference
