// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A file descriptor that closes itself.
#pragma once

#include <unistd.h>

#include <utility>

namespace vmm_base {

class UniqueFd {
 public:
  UniqueFd() noexcept = default;
  // Takes ownership; a negative number means none.
  explicit UniqueFd(int fd) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  // Closes the one it had.
  UniqueFd& operator=(UniqueFd other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~UniqueFd() {
    if (fd_ >= 0) ::close(fd_);
  }

  // The number, still owned here; -1 when there is none.
  [[nodiscard]] int get() const noexcept { return fd_; }
  // Gives up ownership.
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

}  // namespace vmm_base
