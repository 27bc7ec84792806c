// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Signals as a file. Not Asio's signal_set: where memory lacks as its first is made, Boost 1.74
// goes on with a service that is gone.
#pragma once

#include <sys/signalfd.h>

#include <boost/system/system_error.hpp>
#include <cerrno>
#include <csignal>
#include <initializer_list>
#include <optional>

#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {

class SignalFile {
 public:
  // Blocks them in this thread, and in those that it starts while this lives.
  // Throws boost::system::system_error: signalfd's.
  explicit SignalFile(std::initializer_list<int> signals) {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int signal : signals) ::sigaddset(&set, signal);
    fd_ = vmm_base::UniqueFd(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
    if (!fd_)
      throw boost::system::system_error(errno, boost::system::system_category(), "signalfd");
    ::pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  SignalFile(const SignalFile&) = delete;
  SignalFile& operator=(const SignalFile&) = delete;
  // One that waits is forgotten: nobody is there for it any more.
  ~SignalFile() {
    while (next()) continue;
    ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
  }

  // Readable while one waits.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  std::optional<int> next() noexcept {
    signalfd_siginfo info{};
    if (::read(fd_.get(), &info, sizeof(info)) != sizeof(info)) return std::nullopt;
    return static_cast<int>(info.ssi_signo);
  }

 private:
  vmm_base::UniqueFd fd_;
  sigset_t before_{};
};

}  // namespace vmm_reference
