// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The double's own calls, which it makes inside its ioctl(2), don't count: with --wrap=ioctl.
#include <cstdarg>

#include "failing_calls.hpp"

extern "C" int __real_ioctl(int fd, unsigned long request, ...);
extern "C" int __wrap_ioctl(int fd, unsigned long request, ...) {
  const failing::Unseen unseen;
  va_list arguments;
  va_start(arguments, request);
  const auto word = va_arg(arguments, unsigned long);
  va_end(arguments);
  return __real_ioctl(fd, request, word);
}
