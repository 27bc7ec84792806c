// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Runs a VMM over a KvmDouble again and again: each of the ioctls that it takes fails in turn, each
// other system call that makes something, each thread and each allocation; which has to be said,
// with its cause, and to leave nothing open. A VMM here is `std::string vmm(const KvmDouble&)`,
// which returns all that it has to say; or takes a function, too, from whose call on things fail.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <functional>
#include <iterator>
#include <string>
#include <vector>

#include "failing_calls.hpp"
#include "kvm_ioctls/double.hpp"

namespace vmm_reference {

using kvm_ioctls::KvmDouble;
using Names = std::vector<std::string>;
using FromNowOn = std::function<void()>;

inline std::size_t open_fds() {
  const std::filesystem::directory_iterator fds("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(fds), end(fds)));
}

template <class Vmm>
std::string run(const Vmm& vmm, const KvmDouble& kvm, const FromNowOn& from_now_on) {
  if constexpr (std::invocable<const Vmm&, const KvmDouble&, const FromNowOn&>) {
    return vmm(kvm, from_now_on);
  } else {
    from_now_on();
    return vmm(kvm);
  }
}

// The nth ioctl fails, for every n.
template <class Vmm>
void fail_each(const Vmm& vmm) {
  const std::size_t fds = open_fds();
  std::size_t n = 1;
  for (;; ++n) {
    const KvmDouble kvm;
    std::size_t fails = 0;
    const std::string said = run(vmm, kvm, [&] {
      fails = kvm.calls().size() + n;
      kvm.fail_call(fails, EIO);
    });
    const auto calls = kvm.calls();
    EXPECT_EQ(kvm.leaks(), Names{});
    ASSERT_NE(fails, 0u) << said;
    if (calls.size() < fails) break;
    const std::string name = calls[fails - 1].name;
    EXPECT_NE(said.find(name + "("), std::string::npos)
        << "call " << n << ", " << name << ": " << said;
    EXPECT_NE(said.find("Input/output error"), std::string::npos) << said;
  }
  EXPECT_EQ(open_fds(), fds);
  EXPECT_GT(n, 4u);
  std::printf("%zu ioctls failed in turn\n", n - 1);
}

// The same for the nth system call, or allocation, that isn't an ioctl. What the VMM, or
// Boost.Asio, does in another way is well, if the guest is: `good` is said of that.
template <class Vmm>
void fail_each_other(const Vmm& vmm, failing::Of of, const std::string& good) {
  const std::size_t fds = open_fds();
  std::size_t n = 1;
  for (;; ++n) {
    const KvmDouble kvm;
    std::string said;
    try {
      said = run(vmm, kvm, [&] { failing::next(n, ENOMEM, of); });
    } catch (const std::exception& error) {  // as main() does
      said = error.what();
    }
    const failing::Seen seen = failing::none();
    EXPECT_EQ(kvm.leaks(), Names{});
    if (seen.failed == nullptr) {
      EXPECT_EQ(said, good);
      break;
    }
    if (said == good && of == failing::Of::calls) continue;
    const bool caused = said.find("Cannot allocate memory") != std::string::npos ||
                        said.find("bad_alloc") != std::string::npos ||
                        said.find("out of memory") != std::string::npos ||
                        (said.find("pthread_create(") != std::string::npos &&
                         said.find("Resource temporarily unavailable") != std::string::npos);
    EXPECT_TRUE(caused) << n << ", " << seen.failed << ": " << said;
  }
  EXPECT_EQ(open_fds(), fds);
  EXPECT_GT(n, 5u);
  std::printf("%zu failed in turn\n", n - 1);
}

}  // namespace vmm_reference
