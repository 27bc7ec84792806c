// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "progress.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <optional>
#include <string>
#include <thread>

#include "vmm_base/unique_fd.hpp"

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

// On a terminal of that kind; of none where it is null.
bool is_live(const char* kind) {
  const vmm_base::UniqueFd master(::posix_openpt(O_RDWR | O_NOCTTY));
  EXPECT_EQ(::unlockpt(master.get()), 0);
  const vmm_base::UniqueFd terminal(::open(::ptsname(master.get()), O_RDWR | O_NOCTTY));
  EXPECT_NE(::isatty(terminal.get()), 0);
  if (kind == nullptr) {
    ::unsetenv("TERM");
  } else {
    ::setenv("TERM", kind, 1);
  }
  const vmm_base::UniqueFd before(::dup(STDERR_FILENO));
  ::dup2(terminal.get(), STDERR_FILENO);
  const bool live = is_live_terminal();
  ::dup2(before.get(), STDERR_FILENO);
  return live;
}

TEST(Terminal, IsLiveUnlessItIsDumbOrOfNoKind) {
  EXPECT_TRUE(is_live("xterm"));
  EXPECT_FALSE(is_live("dumb"));
  EXPECT_FALSE(is_live(nullptr));
}
TEST(Terminal, AFileIsNone) {
  ::setenv("TERM", "xterm", 1);
  testing::internal::CaptureStderr();
  EXPECT_FALSE(is_live_terminal());
  testing::internal::GetCapturedStderr();
}

}  // namespace
}  // namespace vmm_reference
