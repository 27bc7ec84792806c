// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What one thread's call may count on while another's expire() is at work.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <latch>
#include <thread>

#include "xen_timer/queue_backend.hpp"

namespace xen_timer {
namespace {

using xen_clock::Duration;
using xen_clock::guest_time;
using xen_clock::HostTime;

constexpr EventPort port{1};
Result<void> no_event(XenVcpuId, EventPort) { return vmm_base::success(); }

// Time that several threads may read and move.
struct SharedClockAlarm {
  std::atomic<std::int64_t>* time;
  HostTime now() { return HostTime(Duration(time->load())); }
  Result<void> set(HostTime) { return vmm_base::success(); }
  int fd() { return -1; }
};

struct Threads : testing::Test {
  static constexpr std::uint32_t vcpus = 2;
  std::atomic<std::int64_t> time = 1;
  QueueBackend<SharedClockAlarm> backend{SharedClockAlarm{&time}, vcpus};

  Threads() {
    for (std::uint32_t vcpu = 0; vcpu < vcpus; ++vcpu) {
      EXPECT_TRUE(backend.bind(
          XenVcpuId{vcpu}, port, [this](XenVcpuId) { return guest_now(); }, no_event));
    }
  }
  GuestTime guest_now() { return guest_time(time.load()); }
  Result<void> bind(EventPort to) {
    return backend.bind(
        XenVcpuId{0}, to, [this](XenVcpuId) { return guest_now(); }, no_event);
  }
  Result<void> pause() {
    return backend.pause([this](XenVcpuId) { return guest_now(); }, no_event);
  }
  // Each vCPU runs in a thread of its own; this one serves until they are done.
  template <class RunVcpu, class Raise>
  void serve_while(const RunVcpu& run_vcpu, const Raise& raise) {
    std::atomic<std::uint32_t> running = vcpus;
    std::array<std::thread, vcpus> threads;
    for (std::uint32_t id = 0; id < vcpus; ++id) {
      threads[id] = std::thread([&, id] {
        run_vcpu(id);
        --running;
      });
    }
    while (running != 0) {
      ++time;
      EXPECT_TRUE(backend.expire([this](XenVcpuId) { return guest_now(); },
                                 [&](XenVcpuId vcpu, EventPort) {
                                   raise(vcpu.value);
                                   return Result<void>(vmm_base::success());
                                 }));
      std::this_thread::yield();
    }
    for (std::thread& thread : threads) thread.join();
  }
};

// `call`, made while an event of vCPU 0 is being raised, returns only when it has been.
void expect_to_wait_for_the_event(QueueBackend<SharedClockAlarm>& backend,
                                  std::atomic<int64_t>& time, bool tick,
                                  const std::function<Result<void>()>& call) {
  std::latch raising(1);
  std::atomic<bool> raised = false;
  std::atomic<bool> returned = false;
  const auto now = [&](XenVcpuId) { return guest_time(time.load()); };
  const auto none = [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); };
  ASSERT_TRUE(tick ? backend.start_ticks(XenVcpuId{0}, Duration(2), now({}), none)
                   : backend.arm(XenVcpuId{0}, guest_time(2), now({})));
  time = 2;
  std::thread waker([&] {
    EXPECT_TRUE(backend.expire(now, [&](XenVcpuId, EventPort) {
      raising.count_down();
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EXPECT_FALSE(returned);
      raised = true;
      return Result<void>(vmm_base::success());
    }));
  });
  raising.wait();
  EXPECT_TRUE(call());
  returned = true;
  EXPECT_TRUE(raised);
  waker.join();
}

TEST_F(Threads, CancelWaitsForAnEventThatIsBeingRaised) {
  expect_to_wait_for_the_event(backend, time, false, [&] { return backend.cancel(XenVcpuId{0}); });
}

TEST_F(Threads, ArmWaitsForAnEventThatIsBeingRaised) {
  expect_to_wait_for_the_event(
      backend, time, false, [&] { return backend.arm(XenVcpuId{0}, guest_time(9), guest_now()); });
}

TEST_F(Threads, BindWaitsForAnEventThatIsBeingRaised) {
  const auto unbind = [&] { return bind(EventPort{0}); };
  expect_to_wait_for_the_event(backend, time, false, unbind);
}

TEST_F(Threads, BindWaitsForATickThatIsBeingRaised) {
  const auto unbind = [&] { return bind(EventPort{0}); };
  expect_to_wait_for_the_event(backend, time, true, unbind);
}

TEST_F(Threads, StoppingTicksWaitsForATickThatIsBeingRaised) {
  expect_to_wait_for_the_event(backend, time, true,
                               [&] { return backend.stop_ticks(XenVcpuId{0}); });
}

TEST_F(Threads, StartingTicksWaitsForATickThatIsBeingRaised) {
  expect_to_wait_for_the_event(backend, time, true, [&] {
    return backend.start_ticks(XenVcpuId{0}, Duration(100), guest_now(), [](XenVcpuId, EventPort) {
      return Result<void>(vmm_base::success());
    });
  });
}

TEST_F(Threads, PauseWaitsForWhatIsBeingRaised) {
  expect_to_wait_for_the_event(backend, time, false, [&] { return pause(); });
  EXPECT_TRUE(backend.resume([&](XenVcpuId) { return guest_now(); }));
  time = 0;
  expect_to_wait_for_the_event(backend, time, true, [&] { return pause(); });
}

// A tick that comes at once is raised by whoever starts the ticks: another vCPU, for one.
TEST_F(Threads, BindWaitsForATickThatAnotherVcpuIsRaising) {
  time = 2;
  std::latch raising(1);
  std::atomic<bool> returned = false;
  std::thread other([&] {
    EXPECT_TRUE(
        backend.start_ticks(XenVcpuId{0}, Duration(2), guest_now(), [&](XenVcpuId, EventPort to) {
          EXPECT_EQ(to, port);
          raising.count_down();
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          EXPECT_FALSE(returned);
          return Result<void>(vmm_base::success());
        }));
  });
  raising.wait();
  EXPECT_TRUE(bind(EventPort{7}));
  returned = true;
  other.join();
}

TEST_F(Threads, AnotherVcpuIsNotHeldUpByAnEventThatIsBeingRaised) {
  ASSERT_TRUE(backend.arm(XenVcpuId{0}, guest_time(2), guest_now()));
  time = 2;
  EXPECT_TRUE(backend.expire([&](XenVcpuId) { return guest_now(); },
                             [&](XenVcpuId, EventPort) {
                               // It would hang here.
                               std::thread([&] {
                                 EXPECT_TRUE(backend.arm(XenVcpuId{1}, guest_time(9), guest_now()));
                                 EXPECT_TRUE(backend.cancel(XenVcpuId{1}));
                               }).join();
                               return Result<void>(vmm_base::success());
                             }));
}

// expire() may be called at any time, also while the domain is paused and resumed.
TEST_F(Threads, NoEventComesBetweenPauseAndResumeWhileAnotherThreadServes) {
  std::atomic<bool> done = false;
  std::atomic<int> fired = 0;
  std::thread server([&] {
    while (!done) {
      ++time;
      EXPECT_TRUE(backend.expire([&](XenVcpuId) { return guest_now(); },
                                 [&](XenVcpuId, EventPort) {
                                   ++fired;
                                   return Result<void>(vmm_base::success());
                                 }));
    }
  });
  int in_pause = 0;
  for (int i = 0; i < 200; ++i) {
    const int before = fired;
    ASSERT_TRUE(backend.arm(XenVcpuId{0}, guest_now() + Duration(i % 3), guest_now()));
    ASSERT_TRUE(pause());
    const int paused = fired;
    const std::int64_t since = time;
    while (time < since + 5) std::this_thread::yield();
    ASSERT_EQ(fired, paused) << i;
    if (paused == before) ++in_pause;
    ASSERT_TRUE(backend.resume([&](XenVcpuId) { return guest_now(); }));
    while (fired == before) std::this_thread::yield();
    ASSERT_EQ(fired, before + 1) << i;
  }
  EXPECT_GT(in_pause, 0);  // deadlines that came while it was paused
  done = true;
  server.join();
}

// Two vCPUs arm and cancel 25,000 times each while a third thread serves: 100,000 operations.
TEST_F(Threads, NoEventFollowsACancelAndNoneIsEarly) {
  constexpr int rounds = 25'000;
  std::array<std::atomic<bool>, vcpus> armed{};
  std::array<std::atomic<std::int64_t>, vcpus> deadline{};
  std::atomic<unsigned> unwanted = 0;
  std::atomic<unsigned> early = 0;
  const auto run_vcpu = [&](std::uint32_t id) {
    const XenVcpuId vcpu{id};
    for (int i = 0; i < rounds; ++i) {
      const GuestTime now = guest_now();
      const GuestTime due = now + Duration(i % 3);
      deadline[id] = due.time_since_epoch().count();
      armed[id] = true;
      if (!backend.arm(vcpu, due, now)) ++unwanted;
      if (i % 64 == 0) std::this_thread::yield();
      if (!backend.cancel(vcpu)) ++unwanted;
      armed[id] = false;
    }
  };
  serve_while(run_vcpu, [&](std::uint32_t id) {
    if (!armed[id]) ++unwanted;
    if (deadline[id] > time) ++early;
  });
  EXPECT_EQ(unwanted, 0u);
  EXPECT_EQ(early, 0u);
}

TEST_F(Threads, NoDeadlineIsForgotten) {
  constexpr int rounds = 5'000;
  std::array<std::atomic<int>, vcpus> fired{};
  const auto run_vcpu = [&](std::uint32_t id) {
    for (int i = 1; i <= rounds; ++i) {
      EXPECT_TRUE(backend.arm(XenVcpuId{id}, guest_now() + Duration(i % 3), guest_now()));
      while (fired[id] < i) std::this_thread::yield();
    }
  };
  serve_while(run_vcpu, [&](std::uint32_t id) { ++fired[id]; });
  EXPECT_EQ(fired[0], rounds);
  EXPECT_EQ(fired[1], rounds);
}

}  // namespace
}  // namespace xen_timer
