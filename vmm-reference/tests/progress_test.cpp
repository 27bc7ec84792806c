// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "progress.hpp"

#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <optional>
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

TEST(BlockingProgress, IsSaidWhileWorkBlocksAndIsGoneAtTheEnd) {
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe(ends.data()), 0);
  const int before = ::dup(STDERR_FILENO);
  ::dup2(ends[1], STDERR_FILENO);
  std::optional<BlockingProgress> progress(std::in_place, "reading", true);
  pollfd readable{ends[0], POLLIN, 0};
  const int ready = ::poll(&readable, 1, 60'000);
  progress.reset();
  ::dup2(before, STDERR_FILENO);
  ::close(before);
  ::close(ends[1]);
  std::string said(1000, '\0');
  said.resize(static_cast<std::size_t>(::read(ends[0], said.data(), said.size())));
  ::close(ends[0]);
  EXPECT_EQ(ready, 1);
  EXPECT_EQ(said.find("\r\x1b[Kreading: 2 s"), 0u);
  EXPECT_TRUE(said.ends_with(" s\r\x1b[K")) << said;
}
TEST(BlockingProgress, IsNotForAFile) {
  testing::internal::CaptureStderr();
  {
    const BlockingProgress progress("reading", false);
    std::this_thread::sleep_for(std::chrono::milliseconds(2001));
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}
TEST(BlockingProgress, IsNotForWhatIsOverSoon) {
  testing::internal::CaptureStderr();
  { const BlockingProgress progress("reading", true); }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
}

}  // namespace
}  // namespace vmm_reference
