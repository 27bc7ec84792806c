// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "console.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <utility>

#include "escape_keys.hpp"
#include "raw_terminal.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {
namespace {

struct Keys : testing::Test {
  EscapeKeys keys;
  std::vector<std::uint8_t> typed;
  unsigned snapshots = 0;
  // False: the user leaves.
  bool feed(const std::string& text) {
    for (const char key : text) {
      const auto command = keys.feed(static_cast<std::uint8_t>(key), typed);
      if (command == EscapeKeys::Command::leave) return false;
      snapshots += command == EscapeKeys::Command::snapshot ? 1 : 0;
    }
    return true;
  }
  std::string guests() { return {typed.begin(), typed.end()}; }
};

TEST_F(Keys, AllButTheVmmsAreTheGuests) {
  EXPECT_TRUE(feed("ls\r\x03\x18x"));
  EXPECT_EQ(guests(), "ls\r\x03\x18x");
}

TEST_F(Keys, CtrlAXLeavesAlsoInTwoPieces) {
  EXPECT_TRUE(feed("a\x01"));
  EXPECT_FALSE(feed("xb"));
  EXPECT_EQ(guests(), "a");
}

TEST_F(Keys, CtrlASTakesASnapshotAndIsNotTheGuests) {
  EXPECT_TRUE(feed("as\x01sb\x01"));
  EXPECT_EQ(snapshots, 1u);
  EXPECT_TRUE(feed("Ss"));
  EXPECT_EQ(snapshots, 2u);
  EXPECT_EQ(guests(), "asbs");
}

TEST_F(Keys, CtrlATwiceIsOne) {
  EXPECT_TRUE(feed("\x01\x01x\x01qx"));
  EXPECT_EQ(guests(), "\x01xx");
}

// The slave's end of a new terminal.
struct Terminal : testing::Test {
  void TestBody() override {}  // so that others may have one
  int master = ::posix_openpt(O_RDWR | O_NOCTTY);
  int slave = ::grantpt(master) == 0 && ::unlockpt(master) == 0
                  ? ::open(::ptsname(master), O_RDWR | O_NOCTTY)
                  : -1;
  ~Terminal() override {
    ::close(slave);
    ::close(master);
  }
  [[nodiscard]] tcflag_t modes() const {
    termios now{};
    EXPECT_EQ(::tcgetattr(slave, &now), 0);
    return now.c_lflag;
  }
};

TEST_F(Terminal, IsRawAndGivenBack) {
  ASSERT_GE(slave, 0);
  const tcflag_t before = modes();
  ASSERT_NE(before & ICANON, 0u);
  {
    auto raw = RawTerminal::enter(slave);
    ASSERT_TRUE(raw);
    EXPECT_EQ(modes() & (ICANON | ECHO | ISIG), 0u);
  }
  EXPECT_EQ(modes(), before);
}

TEST_F(Terminal, IsGivenBackByAProcessThatCrashes) {
  const tcflag_t before = modes();
  const pid_t child = ::fork();
  if (child == 0) {
    auto raw = RawTerminal::enter(slave);
    std::raise(SIGABRT);
    std::_Exit(0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGABRT);
  EXPECT_EQ(modes(), before);
}

TEST_F(Terminal, WhatIsNoTerminalIsLeftAlone) {
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  EXPECT_FALSE(RawTerminal::enter(ends[0]));
  ::close(ends[0]);
  ::close(ends[1]);
}

// Standard input and output are pipes.
struct OnPipes : testing::Test {
  int saved[2] = {::dup(0), ::dup(1)};
  int in[2];
  int out[2];
  boost::asio::io_context loop;
  bool left = false;
  OnPipes() {
    std::signal(SIGPIPE, SIG_IGN);  // as main() does
    EXPECT_EQ(::pipe(in), 0);
    EXPECT_EQ(::pipe(out), 0);
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::close(in[0]);
    ::close(out[1]);
  }
  ~OnPipes() override {
    ::dup2(saved[0], 0);
    ::dup2(saved[1], 1);
    for (const int fd : {saved[0], saved[1]}) ::close(fd);
  }
  void type(const std::string& text) {
    EXPECT_EQ(::write(in[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
};

TEST_F(OnPipes, InputWaitsForTheGuestAndNoneIsLost) {
  std::string got;
  std::size_t room = 2;
  Console console(loop, [&] { left = true; });
  console.connect([&](std::span<const std::uint8_t> typed) {
    const std::size_t taken = std::min(room, typed.size());
    got.append(typed.begin(), typed.begin() + static_cast<std::ptrdiff_t>(taken));
    room -= taken;
    return taken;
  });
  type("a\x01xyz");  // not from a terminal: no key is ours
  ::close(in[1]);
  for (int i = 0; i < 10 && loop.run_one_for(std::chrono::milliseconds(50)) != 0; ++i) {
  }
  EXPECT_EQ(got, "a\x01");
  room = 100;
  console.ready_for_input();
  for (int i = 0; i < 10 && loop.run_one_for(std::chrono::milliseconds(50)) != 0; ++i) {
  }
  EXPECT_EQ(got, "a\x01xyz");
  EXPECT_FALSE(left);
}

TEST_F(OnPipes, WhatTheGuestSaysIsWrittenAtTheLatestInTheEnd) {
  {
    Console console(loop, [&] { left = true; });
    for (const char byte : {'h', 'i'}) console.write(static_cast<std::uint8_t>(byte));
  }
  char said[8];
  EXPECT_EQ(::read(out[0], said, sizeof(said)), 2);
  EXPECT_EQ(std::memcmp(said, "hi", 2), 0);
}

TEST_F(OnPipes, ThatNobodyReadsItEndsIt) {
  ::close(out[0]);
  Console console(loop, [&] { left = true; });
  console.write('x');
  for (int i = 0; i < 4 && !left; ++i) loop.run_one_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(left);
  ASSERT_TRUE(console.failure());
  EXPECT_EQ(console.failure()->code, EPIPE);
}

TEST_F(OnPipes, ASignalOfTheUsersIsSeenByTheLoopAndByNobodyElse) {
  int snapshots = 0;
  sigset_t before, after;
  ::pthread_sigmask(SIG_BLOCK, nullptr, &before);
  {
    Console console(
        loop, [&] { left = true; }, [&] { ++snapshots; });
    // A thread that begins now: a signal of the process's doesn't end it.
    std::thread([] { ::kill(::getpid(), SIGUSR2); }).join();
    loop.run_one_for(std::chrono::seconds(10));
    EXPECT_EQ(snapshots, 1);
    EXPECT_FALSE(left);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGQUIT}) {
      ::kill(::getpid(), signal);
      loop.run_one_for(std::chrono::seconds(10));
      EXPECT_TRUE(std::exchange(left, false)) << signal;
    }
    ::kill(::getpid(), SIGTERM);  // that came too late
  }
  ::pthread_sigmask(SIG_BLOCK, nullptr, &after);
  for (const int signal : {SIGTERM, SIGUSR2}) {
    EXPECT_EQ(::sigismember(&after, signal), ::sigismember(&before, signal)) << signal;
  }
}

// Who shares the terminal with us, our own output first, doesn't expect EAGAIN.
TEST_F(OnPipes, TheTerminalStaysBlocking) {
  const Terminal terminal;
  ASSERT_GE(terminal.slave, 0);
  for (const int fd : {0, 1}) ASSERT_EQ(::dup2(terminal.slave, fd), fd);
  const int before = ::fcntl(terminal.slave, F_GETFL);
  ASSERT_EQ(before & O_NONBLOCK, 0);
  std::string got;
  {
    Console console(loop, [&] { left = true; });
    console.connect([&](std::span<const std::uint8_t> typed) {
      got.append(typed.begin(), typed.end());
      return typed.size();
    });
    EXPECT_EQ(::fcntl(terminal.slave, F_GETFL), before);
    for (const char* key : {"l", "s", "\r"}) {
      ASSERT_EQ(::write(terminal.master, key, 1), 1);
      for (int i = 0; i < 4; ++i) loop.run_one_for(std::chrono::milliseconds(50));
    }
    EXPECT_EQ(::fcntl(terminal.slave, F_GETFL), before);
  }
  EXPECT_EQ(got, "ls\r");
  EXPECT_FALSE(left);
  EXPECT_EQ(::fcntl(terminal.slave, F_GETFL), before);
}

TEST_F(OnPipes, AFileIsReadToItsEnd) {
  const vmm_base::UniqueFd file(::memfd_create("typed", MFD_CLOEXEC));
  ASSERT_EQ(::write(file.get(), "abc", 3), 3);
  ASSERT_EQ(::lseek(file.get(), 0, SEEK_SET), 0);
  ASSERT_EQ(::dup2(file.get(), 0), 0);
  std::string got;
  Console console(loop, [&] { left = true; });
  console.connect([&](std::span<const std::uint8_t> typed) {
    got.append(typed.begin(), typed.end());
    return typed.size();
  });
  for (int i = 0; i < 4; ++i) loop.run_one_for(std::chrono::milliseconds(50));
  EXPECT_EQ(got, "abc");
  EXPECT_FALSE(left);
}

}  // namespace
}  // namespace vmm_reference
