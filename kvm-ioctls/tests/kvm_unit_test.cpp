// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Stands in for libc's ioctl() in the tests without a /dev/kvm.
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <utility>

#include "scripted_ioctl.hpp"

namespace {
kvm_ioctls::ScriptedIoctl::Answer scripted;
}

kvm_ioctls::ScriptedIoctl::ScriptedIoctl(Answer answer) { scripted = std::move(answer); }
kvm_ioctls::ScriptedIoctl::~ScriptedIoctl() { scripted = nullptr; }

extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (scripted) return scripted(fd, request, argument);
  return static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
}
