// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "progress.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string_view>
#include <utility>

namespace vmm_reference {

namespace {

void say(const std::string& what, std::chrono::seconds passed) {
  std::fprintf(stderr, "\r\x1b[K%s: %lld s", what.c_str(), static_cast<long long>(passed.count()));
}
void unsay() { std::fprintf(stderr, "\r\x1b[K"); }

}  // namespace

bool is_live_terminal() {
  // NOLINTNEXTLINE(concurrency-mt-unsafe): nobody changes the environment
  const char* const kind = std::getenv("TERM");
  return ::isatty(STDERR_FILENO) != 0 && kind != nullptr && std::string_view(kind) != "dumb";
}

Progress::Progress(boost::asio::io_context& loop, std::string what)
    : tick_(loop), what_(std::move(what)) {
  if (!what_.empty() && is_live_terminal()) wait(std::chrono::seconds(2));
}

Progress::~Progress() {
  if (passed_.count() != 0) unsay();
}

void Progress::wait(std::chrono::seconds ahead) {
  tick_.expires_after(ahead);
  tick_.async_wait([this, ahead](boost::system::error_code cancelled) {
    if (cancelled) return;
    passed_ += ahead;
    say(what_, passed_);
    wait(std::chrono::seconds(1));
  });
}

BlockingProgress::BlockingProgress(std::string what, bool terminal) : what_(std::move(what)) {
  if (!terminal) return;
  try {
    thread_ = std::thread([this] { run(); });
  } catch (const std::exception&) {
    // The work is worth more than the word.
  }
}

BlockingProgress::~BlockingProgress() {
  if (!thread_.joinable()) return;
  {
    const std::scoped_lock lock(mutex_);
    is_over_ = true;
  }
  ended_.notify_one();
  thread_.join();
}

void BlockingProgress::run() {
  std::chrono::seconds passed{2};
  auto next = std::chrono::steady_clock::now() + passed;
  std::unique_lock lock(mutex_);
  bool said = false;
  while (!ended_.wait_until(lock, next, [this] { return is_over_; })) {
    said = true;
    say(what_, passed++);
    next += std::chrono::seconds(1);
  }
  if (said) unsay();
}

ByteProgress::ByteProgress(std::string what, bool terminal)
    : what_(std::move(what)),
      terminal_(terminal),
      next_(std::chrono::steady_clock::now() + std::chrono::seconds(2)) {}

ByteProgress::~ByteProgress() {
  if (said_) unsay();
}

void ByteProgress::done(std::uint64_t bytes) {
  bytes_ += bytes;
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || now < next_) return;
  next_ = now + std::chrono::seconds(1);
  said_ = true;
  std::fprintf(stderr, "\r\x1b[K%s: %.1f MiB", what_.c_str(),
               static_cast<double>(bytes_) / (1 << 20));
}

}  // namespace vmm_reference
