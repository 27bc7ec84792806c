// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console.hpp"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <boost/asio/post.hpp>
#include <boost/system/system_error.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <utility>

namespace vmm_reference {

namespace asio = boost::asio;
using boost::system::error_code;

Console::Console(asio::io_context& loop, std::function<void()> leave,
                 std::function<void()> snapshot)
    : loop_(loop),
      leave_(std::move(leave)),
      snapshot_(std::move(snapshot)),
      terminal_(RawTerminal::enter(STDIN_FILENO)),
      input_(::epoll_create1(EPOLL_CLOEXEC)),
      input_ready_(loop),
      signals_({SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGCONT, SIGUSR2}),
      signal_waits_(loop, signals_.fd()) {
  if (!input_) {
    throw boost::system::system_error(errno, boost::system::system_category(), "epoll_create1");
  }
  await_signal();
}

Console::~Console() {
  flush();
  input_ready_.release();  // input_ closes it
  signal_waits_.release();
}

void Console::await_signal() {
  signal_waits_.async_wait(asio::posix::descriptor_base::wait_read, [this](error_code failed) {
    if (failed) return;
    while (const auto signal = signals_.next()) {
      if (signal == SIGCONT) {
        if (terminal_) terminal_->again();
      } else if (signal == SIGUSR2) {
        snapshot_();
      } else {
        leave_();
      }
    }
    await_signal();
  });
}

// --- output ---

void Console::write(std::uint8_t byte) {
  const std::scoped_lock lock(mutex_);
  output_ += static_cast<char>(byte);
  if (output_.size() == 1) asio::post(loop_, [this] { flush(); });
}

void Console::await_room() {
  std::unique_lock lock(mutex_);
  // A stopped loop doesn't say that it is.
  while (output_.size() >= limit && !loop_.stopped()) {
    written_.wait_for(lock, std::chrono::milliseconds(20));
  }
}

void Console::flush() {
  std::string output;
  {
    const std::scoped_lock lock(mutex_);
    output.swap(output_);
    written_.notify_all();
  }
  for (std::size_t at = 0; at < output.size();) {
    const ssize_t size = ::write(STDOUT_FILENO, output.data() + at, output.size() - at);
    if (size > 0) {
      at += static_cast<std::size_t>(size);
    } else if (errno != EINTR) {
      failure_ = vmm_base::last_error("write to standard output");
      leave_();
      return;
    }
  }
}

// --- input ---

void Console::connect(Guest guest) {
  guest_ = std::move(guest);
  // Asio makes what it waits for non-blocking: not our standard input, which is others', too, and
  // our output if it is a terminal, but this.
  epoll_event wanted{};
  wanted.events = EPOLLIN;
  if (::epoll_ctl(input_.get(), EPOLL_CTL_ADD, STDIN_FILENO, &wanted) != 0) {
    always_ready_ = errno == EPERM;  // else there is none
    at_end_ = !always_ready_;
  }
  error_code failed;
  input_ready_.assign(input_.get(), failed);
  await_input();
}

void Console::await_input() {
  // From a terminal we read on, for the keys that are ours; other input waits for the guest.
  if (at_end_ || (!terminal_ && !typed_.empty())) return;
  if (always_ready_) return asio::post(loop_, [this] { read_input(); });
  input_ready_.async_wait(asio::posix::descriptor_base::wait_read, [this](error_code failed) {
    if (!failed) read_input();
  });
}

void Console::read_input() {
  std::array<std::uint8_t, 256> input;
  const ssize_t size = ::read(STDIN_FILENO, input.data(), input.size());
  if (size == 0 || (size < 0 && errno != EINTR && errno != EAGAIN)) {
    at_end_ = true;
    return;
  }
  const std::span read(input.data(), size < 0 ? 0 : static_cast<std::size_t>(size));
  if (!terminal_) {
    typed_.assign(read.begin(), read.end());
  } else {
    for (const std::uint8_t key : read) {
      switch (keys_.feed(key, typed_)) {
        case EscapeKeys::Command::none:
          break;
        case EscapeKeys::Command::snapshot:
          snapshot_();
          break;
        case EscapeKeys::Command::leave:
          leave_();
          return;
      }
    }
  }
  if (terminal_ && typed_.size() > typed_ahead) typed_.resize(typed_ahead);
  pass_on();
  await_input();
}

void Console::pass_on() {
  if (typed_.empty()) return;
  const std::size_t taken = guest_(typed_);
  typed_.erase(typed_.begin(), typed_.begin() + static_cast<std::ptrdiff_t>(taken));
}

void Console::ready_for_input() {
  asio::post(loop_, [this] {
    const bool waited = !terminal_ && !typed_.empty();
    pass_on();
    if (waited && typed_.empty()) await_input();
  });
}

}  // namespace vmm_reference
