// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// ioctl() of a test program, in whose one file this is: a kernel that the test scripts, or the real
// one.
#pragma once

#include <sys/syscall.h>
#include <unistd.h>

#include <cstdarg>
#include <functional>

namespace {
std::function<int(unsigned long request, void* argument)> kernel;
}

extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (kernel) return kernel(request, argument);
  return static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
}
