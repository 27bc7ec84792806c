// SPDX-License-Identifier: BSD-3-Clause
//
// Stands in for libc's ioctl() in the tests against a real /dev/kvm, and says at the end which of
// KVM's the kernel did: "called 0xae80 ok", or "called 0xae9a 22" with the errno. The README's
// column "succeeded on" was made of that.
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <mutex>

#include "kvm_ioctls/uapi.hpp"

namespace {

std::mutex mutex;
std::map<unsigned long, int> outcomes;  // 0 once it succeeded, else the last errno

struct Report : testing::Environment {
  void TearDown() override {
    const std::scoped_lock lock(mutex);
    for (const auto& [request, error] : outcomes) {
      if (error == 0) {
        std::printf("called %#lx ok\n", request);
      } else {
        std::printf("called %#lx %d\n", request, error);
      }
    }
  }
};
const auto* const report = testing::AddGlobalTestEnvironment(new Report);

}  // namespace

extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  const long result = ::syscall(SYS_ioctl, fd, request, argument);
  const int error = result < 0 ? errno : 0;
  if (_IOC_TYPE(request) == KVMIO) {
    const std::scoped_lock lock(mutex);
    const auto [at, is_new] = outcomes.emplace(request, error);
    if (!is_new && at->second != 0) at->second = error;
  }
  errno = error;
  return static_cast<int>(result);
}
