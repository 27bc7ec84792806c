// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What takes so long, on a line of a terminal's that is gone when it is over.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace vmm_reference {

// Whether standard error is a terminal, and one on which a line can be rewritten: TERM is set, and
// not to "dumb".
[[nodiscard]] bool is_live_terminal();

class Progress {
 public:
  // From `loop`'s third second on, each second; nothing at all unless is_live_terminal().
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

// The same of work that has no loop: said by a thread, which the sandbox lets the main thread start
// only while it makes machines.
class BlockingProgress {
 public:
  explicit BlockingProgress(std::string what, bool terminal = is_live_terminal());
  ~BlockingProgress();
  BlockingProgress(const BlockingProgress&) = delete;
  BlockingProgress& operator=(const BlockingProgress&) = delete;

 private:
  void run();

  std::string what_;
  std::mutex mutex_;
  std::condition_variable ended_;
  bool is_over_ = false;
  std::thread thread_;
};

// The same of work that can start no thread, and knows how far it is.
class ByteProgress {
 public:
  explicit ByteProgress(std::string what, bool terminal = is_live_terminal());
  ~ByteProgress();
  ByteProgress(const ByteProgress&) = delete;
  ByteProgress& operator=(const ByteProgress&) = delete;

  void done(std::uint64_t bytes);  // more of them

 private:
  std::string what_;
  bool terminal_;
  std::uint64_t bytes_ = 0;
  std::chrono::steady_clock::time_point next_;
  bool said_ = false;
};

}  // namespace vmm_reference
