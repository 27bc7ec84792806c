// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The user's end of the guest's serial line: standard input and output, a terminal or not.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "escape_keys.hpp"
#include "raw_terminal.hpp"
#include "signal_file.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {

class Console {
 public:
  // What takes input, and says how many bytes of it.
  using Guest = std::function<std::size_t(std::span<const std::uint8_t>)>;

  // `leave` is called by the loop when the user wants to: by Ctrl-A x on a terminal, by a signal
  // that asks a program to end, or because what the guest says can't be written: see failure(). So
  // is `snapshot`: by Ctrl-A s, or by SIGUSR2; SIGUSR1 is KickSignal's. Made before threads are, so
  // that no signal finds one to end; SIGPIPE has to be ignored. Throws boost::system::system_error.
  Console(
      boost::asio::io_context& loop, std::function<void()> leave,
      std::function<void()> snapshot = [] {});
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;
  // Writes what is left, and gives the terminal back.
  ~Console();

  // Why what the guest says couldn't be written. The loop's, or when that has ended.
  [[nodiscard]] const std::optional<vmm_base::Error>& failure() const noexcept { return failure_; }

  // From here on, by the loop, `guest` gets what is typed.
  void connect(Guest guest);

  // --- from any thread ---

  // A byte of the guest's. Without delay: whoever writes holds the line's lock, and the loop may
  // want that.
  void write(std::uint8_t byte);
  // To be called now and then, without a lock: waits while `limit` bytes aren't written yet.
  void await_room();
  // The guest has room for input again.
  void ready_for_input();

 private:
  static constexpr std::size_t limit = 64 << 10;  // bytes
  static constexpr std::size_t typed_ahead = 4 << 10;

  void flush();
  void await_input();
  void read_input();
  void pass_on();
  void await_signal();

  boost::asio::io_context& loop_;
  std::function<void()> leave_;
  std::function<void()> snapshot_;
  std::optional<RawTerminal> terminal_;

  std::mutex mutex_;
  std::condition_variable written_;
  std::string output_;  // with mutex_ held

  // The loop's.
  vmm_base::UniqueFd input_;  // an epoll of standard input alone
  boost::asio::posix::stream_descriptor input_ready_;
  SignalFile signals_;
  boost::asio::posix::stream_descriptor signal_waits_;
  EscapeKeys keys_;
  std::vector<std::uint8_t> typed_;  // that the guest hasn't taken
  bool always_ready_ = false;        // as a file is
  bool at_end_ = false;
  std::optional<vmm_base::Error> failure_;
  Guest guest_;
};

}  // namespace vmm_reference
