// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "progress.hpp"

#include <gtest/gtest.h>

#include <thread>

namespace vmm_reference {
namespace {

std::string said_in(std::chrono::milliseconds time, bool terminal) {
  testing::internal::CaptureStderr();
  {
    ByteProgress progress("saving", terminal);
    progress.done(3 << 20);
    std::this_thread::sleep_for(time);
    progress.done(1 << 19);
    progress.done(1 << 20);
  }
  return testing::internal::GetCapturedStderr();
}

TEST(ByteProgress, IsSaidFromTheThirdSecondOnAndIsGoneAtTheEnd) {
  EXPECT_EQ(said_in(std::chrono::milliseconds(2001), true), "\r\x1b[Ksaving: 3.5 MiB\r\x1b[K");
}
TEST(ByteProgress, IsNotForAFile) {
  EXPECT_EQ(said_in(std::chrono::milliseconds(2001), false), "");
}

}  // namespace
}  // namespace vmm_reference
