// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "progress.hpp"

#include <unistd.h>

#include <cstdio>
#include <utility>

namespace vmm_reference {

Progress::Progress(boost::asio::io_context& loop, std::string what)
    : tick_(loop), what_(std::move(what)) {
  if (!what_.empty() && ::isatty(STDERR_FILENO) != 0) wait(std::chrono::seconds(2));
}

Progress::~Progress() {
  if (passed_.count() != 0) std::fprintf(stderr, "\r\x1b[K");
}

void Progress::wait(std::chrono::seconds ahead) {
  tick_.expires_after(ahead);
  tick_.async_wait([this, ahead](boost::system::error_code cancelled) {
    if (cancelled) return;
    passed_ += ahead;
    std::fprintf(stderr, "\r\x1b[K%s: %lld s", what_.c_str(),
                 static_cast<long long>(passed_.count()));
    wait(std::chrono::seconds(1));
  });
}

ByteProgress::ByteProgress(std::string what, bool terminal)
    : what_(std::move(what)),
      terminal_(terminal),
      next_(std::chrono::steady_clock::now() + std::chrono::seconds(2)) {}

ByteProgress::~ByteProgress() {
  if (said_) std::fprintf(stderr, "\r\x1b[K");
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
