// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A terminal whose every key goes to the guest at once. It is given back as it was by the
// destructor, and by a signal that ends the process, but SIGKILL; of SIGSYS the sandbox's handler
// is in charge.
#pragma once

#include <termios.h>

#include <optional>

namespace vmm_reference {

// One at a time in a process.
class RawTerminal {
 public:
  // None if `fd` is no terminal.
  static std::optional<RawTerminal> enter(int fd);
  RawTerminal(RawTerminal&& other) noexcept;
  RawTerminal& operator=(RawTerminal&&) = delete;
  ~RawTerminal();

  // For a handler of a signal that ends the process: gives back the one that there is, if any.
  static void give_back() noexcept;

  // Once more, after the process was stopped and its shell has set the terminal.
  void again() const noexcept;

 private:
  explicit RawTerminal(int fd) noexcept : fd_(fd) {}
  int fd_;
};

}  // namespace vmm_reference
