// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// On real time and real fds, so nothing here says how late is too late.
#include "xen_timer/signalling_timer.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <optional>
#include <random>
#include <thread>
#include <utility>

#include "failing_syscall.hpp"
#include "io_uring.hpp"

namespace xen_timer {
namespace {

using xen_clock::Duration;
using xen_clock::HostClock;
using xen_clock::HostTime;

void spin_until(HostTime time) {
  while (HostClock::now() < time) {
  }
}

struct Signalling : NeedsIoUring {
  std::optional<SignallingTimer> timer;
  int fd = -1;

  void SetUp() override {
    NeedsIoUring::SetUp();
    if (IsSkipped()) return;
    auto created = SignallingTimer::create();
    ASSERT_TRUE(created) << created.error().message();
    timer.emplace(std::move(created.value()));
    ASSERT_TRUE(timer->attach());
    fd = timer->eventfd();
  }
  void set(HostTime due) {
    const auto result = timer->set(due);
    ASSERT_TRUE(result) << result.error().message();
    ASSERT_TRUE(result.value());
  }
  // Of a deadline that may have passed while it was set.
  void expect_signalled() {
    ASSERT_TRUE(readable(fd, forever));
    EXPECT_TRUE(timer->signalled());
    const std::uint64_t count = signals(fd);
    ASSERT_GE(count, 1u);
    ASSERT_LE(count, 2u);
  }
};

TEST_F(Signalling, OnceWhenItIsDueAndNotBefore) {
  for (int i = 0; i < 20; ++i) {
    const HostTime due = HostClock::now() + ms;
    set(due);
    EXPECT_FALSE(HostClock::now() < due && timer->signalled());
    ASSERT_TRUE(readable(fd, forever));
    EXPECT_GE(HostClock::now(), due);
    EXPECT_TRUE(timer->signalled());
    EXPECT_EQ(signals(fd), 1u);
    EXPECT_FALSE(readable(fd, 1));
  }
}

TEST_F(Signalling, WhatHasPassedSignalsAtOnce) {
  for (const HostTime due : {HostClock::now() - ms, HostTime{}, HostTime(-ms), HostTime::min()}) {
    set(due);
    expect_signalled();
  }
}

TEST_F(Signalling, NothingAtFirstAndNothingOnceStopped) {
  EXPECT_FALSE(readable(fd));
  timer->stop();
  for (int i = 0; i < 20; ++i) {
    set(HostClock::now() + 2 * ms);
    timer->stop();
    if (timer->signalled()) (void)signals(fd);  // a busy machine
    EXPECT_FALSE(readable(fd, 5));
  }
  set(HostClock::now());  // and it works again
  expect_signalled();
}

TEST_F(Signalling, SetAgainBeforeItsExpiryTheLastCounts) {
  set(HostClock::now() + ms);
  set(HostClock::now() + hour);
  (void)signals(fd);  // a busy machine
  EXPECT_FALSE(readable(fd, 5));
  EXPECT_FALSE(timer->signalled());
  const HostTime due = HostClock::now() + ms;
  set(due);
  ASSERT_TRUE(readable(fd, forever));
  EXPECT_GE(HostClock::now(), due);
  expect_signalled();
}

TEST_F(Signalling, OneThatIsDueAtOnceInPlaceOfOneThatIsWaitedForSignals) {
  for (int i = 0; i < 2000; ++i) {
    set(HostClock::now() + hour);
    set(HostClock::now() + Duration(i % 50 * 100));
    expect_signalled();
  }
  EXPECT_FALSE(readable(fd, 1));
}

TEST_F(Signalling, SetAgainAfterItsExpiryUnseenItSignalsForEach) {
  for (int i = 0; i < 1000; ++i) {
    set(HostClock::now());
    ASSERT_TRUE(readable(fd, forever));
    set(HostClock::now() + hour);  // before anybody has read the eventfd
    const std::uint64_t count = signals(fd);
    ASSERT_GE(count, 1u) << i;
    ASSERT_LE(count, 2u) << i;
  }
}

// An expiry that the ring completes while it is told to is not the next one's.
TEST_F(Signalling, WhatExpiresAsItIsSetIsNotTakenForTheNext) {
  for (int i = 0; i < 20'000; ++i) {
    set(HostClock::now() + Duration(i % 100 * 100));
    ASSERT_TRUE(readable(fd, forever));
    (void)signals(fd);
    set(HostClock::now() + hour);
    ASSERT_FALSE(timer->signalled()) << i;
    ASSERT_FALSE(readable(fd)) << i;
  }
}

// Deadlines of a few microseconds, replaced or stopped at any moment around their expiry.
TEST_F(Signalling, ThousandsOfTimesReplacedAroundItsExpiryEachSignalsOrWasReplaced) {
  std::mt19937 random(1);
  const auto few = [&] { return Duration(std::uniform_int_distribution(0, 30'000)(random)); };
  unsigned replaced = 0;
  unsigned signalled = 0;
  for (int i = 0; i < 5'000; ++i) {
    const HostTime first = HostClock::now() + few();
    set(first);
    spin_until(HostClock::now() + few());
    const bool cancel = i % 2 == 0;
    if (cancel) {
      timer->stop();
    } else {
      set(HostClock::now() + few());
    }
    const bool in_time = HostClock::now() < first;  // replaced before it can have signalled
    std::uint64_t count = signals(fd);
    if (in_time) ++replaced;
    if (!cancel) {
      while (!timer->signalled()) {
      }
      if (count == 0) {  // signalled() may know before the eventfd does
        ASSERT_TRUE(readable(fd, forever));
      }
      count += signals(fd);
      ASSERT_GE(count, 1u) << i;
    }
    const std::uint64_t most = (in_time ? 0U : 2U) + (cancel ? 0U : 2U);
    if (count < most && readable(fd, i % 50 == 0 ? 20 : 1)) count += signals(fd);
    ASSERT_LE(count, most) << i;
    if (cancel) signalled += count != 0;
  }
  EXPECT_FALSE(readable(fd, 5));
  EXPECT_GT(replaced, 0u);   // the test has seen
  EXPECT_GT(signalled, 0u);  // both
}

TEST_F(Signalling, MovesWithWhatItWaitsFor) {
  set(HostClock::now() + 2 * ms);
  SignallingTimer moved(std::move(*timer));
  timer.reset();
  EXPECT_EQ(moved.eventfd(), fd);
  ASSERT_TRUE(readable(fd, forever));
  EXPECT_EQ(signals(fd), 1u);
  ASSERT_TRUE(moved.set(HostClock::now()));
  ASSERT_TRUE(readable(fd, forever));
}

// --- threads ---

TEST_F(Signalling, NobodyHasAttachedNothingIsSet) {
  auto fresh = SignallingTimer::create();
  ASSERT_TRUE(fresh);
  EXPECT_FALSE(fresh.value().set(HostClock::now()).value());
  EXPECT_FALSE(readable(fresh.value().eventfd(), 5));
}

TEST_F(Signalling, AnotherThreadCanOnlyStopIt) {
  for (const bool by_set : {false, true}) {
    set(HostClock::now() + 1000 * ms);
    std::thread([&] {
      if (by_set) {
        EXPECT_FALSE(timer->set(HostClock::now()).value());
      } else {
        timer->stop();
      }
    }).join();
    EXPECT_FALSE(timer->signalled());
    EXPECT_FALSE(readable(fd, 1050));
    set(HostClock::now());
    expect_signalled();
  }
}

TEST_F(Signalling, AttachedToAnotherThreadItGoesOn) {
  set(HostClock::now() + hour);
  std::thread([&] {
    ASSERT_TRUE(timer->attach());
    EXPECT_FALSE(timer->signalled());
    set(HostClock::now() + ms);
    ASSERT_TRUE(readable(fd, forever));
    expect_signalled();
    timer->stop();
  }).join();
  EXPECT_FALSE(timer->set(HostClock::now()).value());
  ASSERT_TRUE(timer->attach());
  EXPECT_FALSE(readable(fd, 5));
  set(HostClock::now());
  expect_signalled();
}

TEST_F(Signalling, WhatAThreadThatHasEndedHasSetStillComes) {
  HostTime due;
  std::thread([&] {
    ASSERT_TRUE(timer->attach());
    due = HostClock::now() + 20 * ms;
    set(due);
  }).join();
  ASSERT_TRUE(readable(fd, forever));
  EXPECT_GE(HostClock::now(), due);
  expect_signalled();
  ASSERT_TRUE(timer->attach());
  set(HostClock::now());
  expect_signalled();
}

TEST_F(Signalling, AttachedAnewItKeepsWhatIsSet) {
  const HostTime due = HostClock::now() + 20 * ms;
  set(due);
  ASSERT_TRUE(timer->attach());
  ASSERT_TRUE(readable(fd, forever));
  EXPECT_GE(HostClock::now(), due);
  expect_signalled();
}

TEST_F(Signalling, AThreadThatCannotAttachLeavesWhatIsSet) {
  for (const long number : {SYS_io_uring_setup, SYS_io_uring_register, SYS_io_uring_enter}) {
    const HostTime due = HostClock::now() + 100 * ms;
    set(due);
    with_failing_syscall(number, ENOMEM, [&] {
      EXPECT_EQ(timer->attach().error().code, ENOMEM);
      EXPECT_FALSE(timer->signalled());
    });
    if (IsSkipped()) return;
    ASSERT_TRUE(readable(fd, forever));
    EXPECT_GE(HostClock::now(), due);
    expect_signalled();
    set(HostClock::now());  // it is this thread's still
    expect_signalled();
  }
}

// Where CLOCK_BOOTTIME reads otherwise than the kernel's own, which it takes a deadline by
// before 7.1.
TEST_F(Signalling, InATimeNamespaceItIsRefusedOrRight) {
  for (const char* offset : {"boottime 1000 0\n", "boottime -1 0\n"}) {
    const pid_t child = ::fork();
    if (child == 0) {
      if (::unshare(CLONE_NEWTIME) != 0) ::_exit(77);
      const int offsets = ::open("/proc/self/timens_offsets", O_WRONLY);
      const auto size = static_cast<ssize_t>(std::strlen(offset));
      if (offsets < 0 || ::write(offsets, offset, std::strlen(offset)) != size) ::_exit(77);
      const pid_t inside = ::fork();
      if (inside != 0) {
        int status = 0;
        ::waitpid(inside, &status, 0);
        ::_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
      }
      auto in_there = SignallingTimer::create();
      if (!in_there) ::_exit(2);
      const auto attached = in_there.value().attach();
      if (!attached) ::_exit(attached.error().code == ENOTSUP ? 0 : 3);
      const HostTime due = HostClock::now() + 5 * ms;
      if (!in_there.value().set(due)) ::_exit(4);
      if (!readable(in_there.value().eventfd(), 5000)) ::_exit(5);
      ::_exit(HostClock::now() >= due ? 0 : 6);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "no time namespace may be made here";
    EXPECT_EQ(WEXITSTATUS(status), 0) << offset;
  }
}

// --- how it ends, and what it lets others do ---

TEST_F(Signalling, TheEndIsNotSignalled) {
  const vmm_base::UniqueFd kept(::dup(fd));
  set(HostClock::now() + hour);
  timer.reset();
  EXPECT_FALSE(readable(kept.get(), 20));
}

int ring_of_this_process() {
  int ring = -1;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (std::filesystem::read_symlink(entry, gone) == "anon_inode:[io_uring]") {
      ring = std::stoi(entry.path().filename());
    }
  }
  return ring;
}
template <class T>
T* map_ring(int ring, off_t what) {
  void* at = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, ring, what);
  return at == MAP_FAILED ? nullptr : static_cast<T*>(at);
}

// As somebody would use it who has taken the process over.
TEST_F(Signalling, ItsRingDoesNothingButTimeOut) {
  const int ring = ring_of_this_process();
  ASSERT_GE(ring, 0);
  io_uring_params same{};  // another ring of that size has the same offsets
  same.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
  const vmm_base::UniqueFd other(static_cast<int>(::syscall(SYS_io_uring_setup, 2, &same)));
  auto* entries = map_ring<io_uring_sqe>(ring, IORING_OFF_SQES);
  auto* shared = map_ring<char>(ring, IORING_OFF_SQ_RING);
  ASSERT_TRUE(other && entries && shared);

  auto& tail = *reinterpret_cast<std::uint32_t*>(shared + same.sq_off.tail);
  const std::uint32_t index = tail & (same.sq_entries - 1);
  entries[index] = {};
  entries[index].opcode = IORING_OP_NOP;
  reinterpret_cast<std::uint32_t*>(shared + same.sq_off.array)[index] = index;
  __atomic_store_n(&tail, tail + 1, __ATOMIC_RELEASE);
  EXPECT_EQ(::syscall(SYS_io_uring_enter, ring, 1, 0, IORING_ENTER_GETEVENTS, nullptr, 0), 1);
  const auto& head = *reinterpret_cast<std::uint32_t*>(shared + same.cq_off.head);
  const auto* done = reinterpret_cast<io_uring_cqe*>(shared + same.cq_off.cqes);
  EXPECT_EQ(done[head & (same.cq_entries - 1)].res, -EACCES);

  EXPECT_EQ(::syscall(SYS_io_uring_register, ring, IORING_REGISTER_FILES, &ring, 1), -1);
  EXPECT_EQ(errno, EACCES);
  ::munmap(entries, 4096);
  ::munmap(shared, 4096);
  set(HostClock::now());
  expect_signalled();
}

TEST_F(Signalling, WhatItCannotDoItSays) {
  for (const int code : {ENOSYS, EPERM, EINVAL, ENOMEM}) {
    with_failing_syscall(SYS_io_uring_setup, code, [&] {
      EXPECT_EQ(SignallingTimer::create().error(), (vmm_base::Error{"io_uring_setup", code, 0}));
    });
  }
  with_failing_syscall(SYS_io_uring_register, ENOMEM, [&] {
    EXPECT_EQ(SignallingTimer::create().error(),
              (vmm_base::Error{"io_uring_register", ENOMEM, IORING_REGISTER_EVENTFD}));
    EXPECT_EQ(timer->attach().error().code, ENOMEM);
  });
  if (IsSkipped()) return;
  with_failing_syscall(SYS_io_uring_enter, EAGAIN, [&] {
    auto fresh = SignallingTimer::create();
    EXPECT_EQ(fresh.value().attach().error(), (vmm_base::Error{"io_uring_enter", EAGAIN, 1}));
    EXPECT_FALSE(fresh.value().set(HostClock::now()).value());
  });
  ASSERT_TRUE(timer->attach());
  set(HostClock::now());
  expect_signalled();
}

}  // namespace
}  // namespace xen_timer
