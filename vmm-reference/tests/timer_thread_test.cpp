// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "timer_thread.hpp"

#include <gtest/gtest.h>
#include <sys/eventfd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {
namespace {

// Fails so often, then no more; the back end is never readable but for the first time.
struct Handler {
  explicit Handler(int failures) : to_fail(failures) {}
  vmm_base::UniqueFd backend{::eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK)};
  std::atomic<int> to_fail;
  std::atomic<int> calls = 0;

  vmm_base::Result<void> expire() {
    ::eventfd_t count = 0;
    (void)::eventfd_read(backend.get(), &count);
    ++calls;
    if (to_fail == 0) return vmm_base::success();
    --to_fail;
    return vmm_base::Error{"timerfd_settime", ENOMEM};
  }
  // Only where it is never called does this take so long.
  void await(int wanted) const {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (calls < wanted && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
};

TEST(TimerThread, CallsAgainAfterAnErrorThoughNothingIsReadable) {
  testing::internal::CaptureStderr();
  Handler handler(1);
  {
    auto thread = TimerThread::start(handler, handler.backend.get());
    ASSERT_TRUE(thread);
    handler.await(2);
    EXPECT_EQ(handler.calls, 2);
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "timers: timerfd_settime(0x0): Cannot allocate memory\n");
}

TEST(TimerThread, SaysAnErrorOnceAndEndsThoughItGoesOn) {
  testing::internal::CaptureStderr();
  Handler handler(1'000'000);
  {
    auto thread = TimerThread::start(handler, handler.backend.get());
    ASSERT_TRUE(thread);
    handler.await(3);
    EXPECT_GE(handler.calls, 3);
  }
  const int calls = handler.calls;
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  EXPECT_EQ(handler.calls, calls) << "after its end";
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "timers: timerfd_settime(0x0): Cannot allocate memory\n");
}

}  // namespace
}  // namespace vmm_reference
