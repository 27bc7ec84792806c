// SPDX-License-Identifier: BSD-3-Clause
#include "vcpu_threads.hpp"

#include <gtest/gtest.h>

#include <array>
#include <atomic>

namespace vmm_reference {
namespace {

// KVM_RUN, as far as kicks are concerned: goes on until it is told to return.
struct DoubleVcpu {
  std::atomic<bool> exit_wanted = false;
  std::atomic<bool> inside = false;
  void request_exit(bool wanted) { exit_wanted = wanted; }
  void run() {
    inside = true;
    while (!exit_wanted) std::this_thread::yield();
    inside = false;
  }
};

struct Threads : testing::Test {
  static constexpr std::uint32_t count = 3;
  std::array<DoubleVcpu, count> vcpus;
  VcpuThreads<DoubleVcpu> threads{vcpus};

  void run(XenVcpuId id) {
    do {
      vcpus[id.value].run();
    } while (threads.serve(id));
  }
  void start() {
    threads.start([this](XenVcpuId id) { run(id); }, [] {});
  }
};

TEST_F(Threads, WorkIsDoneOutsideKvmRunOnTheVcpusOwnThread) {
  start();
  for (std::uint32_t id = 0; id < count; ++id) {
    const auto thread = threads.run_on(XenVcpuId{id}, [&] {
      EXPECT_FALSE(vcpus[id].inside);
      return std::this_thread::get_id();
    });
    EXPECT_NE(thread, std::this_thread::get_id());
    EXPECT_EQ(threads.run_on(XenVcpuId{id}, [] { return std::this_thread::get_id(); }), thread);
  }
}

TEST_F(Threads, WithoutAThreadWorkIsDoneHere) {
  const auto here = [] { return std::this_thread::get_id(); };
  EXPECT_EQ(threads.run_on(XenVcpuId{1}, here), std::this_thread::get_id());
  start();
  threads.stop();
  EXPECT_EQ(threads.run_on(XenVcpuId{1}, here), std::this_thread::get_id());
}

TEST_F(Threads, OnItsOwnThreadWorkIsDoneAtOnce) {
  start();
  EXPECT_EQ(
      threads.run_on(XenVcpuId{1}, [&] { return threads.run_on(XenVcpuId{1}, [] { return 7; }); }),
      7);
}

TEST_F(Threads, VcpusThatAskEachOtherAllTheTimeDontHang) {
  constexpr int rounds = 2000;
  std::atomic<int> done = 0;
  std::atomic<std::uint32_t> asking = count;
  threads.start(
      [&](XenVcpuId id) {
        for (int i = 0; i < rounds; ++i) {
          done += threads.run_on(XenVcpuId{(id.value + 1) % count}, [] { return 1; });
        }
        --asking;
        run(id);
      },
      [] {});
  while (asking != 0) std::this_thread::yield();
  EXPECT_EQ(done, rounds * static_cast<int>(count));
}

TEST_F(Threads, NoKickIsLost) {
  start();
  for (int i = 0; i < 20'000; ++i) {
    EXPECT_EQ(threads.run_on(XenVcpuId{0}, [i] { return i; }), i);
  }
}

TEST_F(Threads, TheLastOneToEndSaysSo) {
  std::atomic<int> said = 0;
  std::atomic<std::uint32_t> ended = 0;
  threads.start([&](XenVcpuId) { ++ended; },
                [&] {
                  EXPECT_EQ(ended, count);
                  ++said;
                });
  threads.stop();
  EXPECT_EQ(said, 1);
}

}  // namespace
}  // namespace vmm_reference
