// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Runs a VMM over a KvmDouble again and again: each of the ioctls that it takes fails in turn, each
// other system call that makes something, each thread and each allocation; which has to be said,
// with its cause, and to leave nothing open, allocated or mapped. A VMM here is `std::string
// vmm(const KvmDouble&)`, which returns all that it has to say; or takes a function, too, from
// whose call on things fail. What it writes to standard error, as the timers' thread does, is said,
// too.
#pragma once

#include <gtest/gtest.h>

#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <iterator>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "failing_calls.hpp"
#include "kvm_ioctls/double.hpp"
#include "options.hpp"
#include "xen_timer/signalling_timer.hpp"

namespace vmm_reference {

using kvm_ioctls::KvmDouble;
using Names = std::vector<std::string>;
using FromNowOn = std::function<void()>;

// Whether this machine lets us have what the mode needs beside KVM.
inline bool can_be_had(TimerMode mode) {
  return mode != TimerMode::irqfd || xen_timer::SignallingTimer::create().has_value();
}

// What a VMM that has ended must have given back.
struct Resources {
  std::size_t fds = 0;
  failing::Held held{};

  static Resources now() {
    const std::filesystem::directory_iterator fds("/proc/self/fd");
    return {static_cast<std::size_t>(std::distance(begin(fds), end(fds))), failing::held()};
  }
  bool operator==(const Resources&) const = default;
  friend std::ostream& operator<<(std::ostream& out, const Resources& r) {
    return out << r.fds << " files, " << r.held.blocks << " blocks, " << r.held.mapped
               << " mapped bytes";
  }
};

// What is written to `stderr` meanwhile, while no other thread is there as it begins and ends: by
// that name, so that what a sanitizer has to say isn't lost.
class Stderr {
 public:
  Stderr() : before_(std::exchange(stderr, ::open_memstream(&text_, &size_))) {}
  Stderr(const Stderr&) = delete;
  Stderr& operator=(const Stderr&) = delete;
  ~Stderr() {
    end();
    std::free(text_);
  }
  std::string text() {
    end();
    return {text_, size_};
  }

 private:
  void end() {
    if (before_ != nullptr) std::fclose(std::exchange(stderr, std::exchange(before_, nullptr)));
  }
  char* text_ = nullptr;
  std::size_t size_ = 0;
  std::FILE* before_;
};

template <class Vmm>
std::string run(const Vmm& vmm, const KvmDouble& kvm, const FromNowOn& from_now_on) {
  if constexpr (std::invocable<const Vmm&, const KvmDouble&, const FromNowOn&>) {
    return vmm(kvm, from_now_on);
  } else {
    from_now_on();
    return vmm(kvm);
  }
}

// As it runs if nothing fails, so that what libraries make once is there.
template <class Vmm>
Resources after_one(const Vmm& vmm) {
  {
    const KvmDouble kvm;
    (void)run(vmm, kvm, [] {});
  }
  return Resources::now();
}

// The nth ioctl fails, for every n.
template <class Vmm>
void fail_each(const Vmm& vmm) {
  const Resources before = after_one(vmm);
  std::size_t n = 1;
  for (bool failed = true; failed; ++n) {
    {
      const KvmDouble kvm;
      std::size_t fails = 0;
      Stderr aside;
      std::string said = run(vmm, kvm, [&] {
        fails = kvm.calls().size() + n;
        kvm.fail_call(fails, EIO);
      });
      said += aside.text();
      const auto calls = kvm.calls();
      EXPECT_EQ(kvm.leaks(), Names{});
      ASSERT_NE(fails, 0u) << said;
      failed = calls.size() >= fails;
      if (failed) {
        const std::string name = calls[fails - 1].name;
        EXPECT_NE(said.find(name + "("), std::string::npos)
            << "call " << n << ", " << name << ": " << said;
        EXPECT_NE(said.find("Input/output error"), std::string::npos) << said;
      }
    }
    ASSERT_EQ(Resources::now(), before) << "call " << n;
  }
  EXPECT_GT(n, 5u);
  std::printf("%zu ioctls failed in turn\n", n - 2);
}

#ifndef FAILING_CALLS_NONE
// Asio's loop does without an eventfd and without a timerfd, and doesn't look at what setting that
// came to.
inline const Names asio = {"eventfd", "timerfd_create", "timerfd_settime"};

// The same for the nth system call, or allocation, that isn't an ioctl. Where it is as `good` says
// nevertheless, the VMM, or Boost.Asio, did without that call: `spared` names those, in their
// order. There have to be `least`.
template <class Vmm>
void fail_each_other(const Vmm& vmm, failing::Of of, const std::string& good,
                     const Names& spared = {}, std::size_t least = 5) {
  std::vector<const char*> unsaid;
  unsaid.reserve(64);  // before what is counted
  const Resources before = after_one(vmm);
  std::size_t n = 1;
  for (bool failed = true; failed; ++n) {
    {
      const KvmDouble kvm;
      std::string said;
      Stderr aside;
      try {
        said = run(vmm, kvm, [&] { failing::next(n, ENOMEM, of); });
      } catch (const std::exception& error) {  // as main() does
        said = error.what();
      }
      const failing::Seen seen = failing::none();
      said += aside.text();
      EXPECT_EQ(kvm.leaks(), Names{});
      failed = seen.failed != nullptr;
      if (!failed) {
        EXPECT_EQ(said, good);
      } else if (said == good) {
        unsaid.push_back(seen.failed);
      } else {
        const bool caused = said.find("Cannot allocate memory") != std::string::npos ||
                            said.find("bad_alloc") != std::string::npos ||
                            said.find("out of memory") != std::string::npos ||
                            (said.find("pthread_create(") != std::string::npos &&
                             said.find("Resource temporarily unavailable") != std::string::npos);
        EXPECT_TRUE(caused) << n << ", " << seen.failed << ": " << said;
      }
    }
    ASSERT_EQ(Resources::now(), before) << "call " << n;
  }
  EXPECT_EQ(Names(unsaid.begin(), unsaid.end()), spared);
  EXPECT_GE(n - 2, least);
  std::printf("%zu failed in turn\n", n - 2);
}
#endif

}  // namespace vmm_reference
