// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "raw_terminal.hpp"

#include <unistd.h>

#include <csignal>
#include <utility>

namespace vmm_reference {

namespace {

// For the signal handler.
termios original;
volatile int terminal = -1;

constexpr int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

void give_back_and_die(int signal) {
  RawTerminal::give_back();
  ::raise(signal);  // SA_RESETHAND: now it does what it would have done
}

}  // namespace

std::optional<RawTerminal> RawTerminal::enter(int fd) {
  if (::tcgetattr(fd, &original) != 0) return std::nullopt;
  terminal = fd;
  struct sigaction action {};
  action.sa_handler = give_back_and_die;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_NODEFER;
  for (const int signal : fatal) ::sigaction(signal, &action, nullptr);
  RawTerminal raw(fd);
  raw.again();
  return raw;
}

void RawTerminal::give_back() noexcept {
  if (terminal >= 0) ::tcsetattr(terminal, TCSANOW, &original);
}

RawTerminal::RawTerminal(RawTerminal&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

RawTerminal::~RawTerminal() {
  if (fd_ < 0) return;
  // What is typed but not read yet is the guest's, not the shell's.
  ::tcsetattr(fd_, TCSAFLUSH, &original);
  terminal = -1;
  for (const int signal : fatal) ::signal(signal, SIG_DFL);
}

void RawTerminal::again() const noexcept {
  termios raw = original;
  ::cfmakeraw(&raw);
  ::tcsetattr(fd_, TCSADRAIN, &raw);
}

}  // namespace vmm_reference
