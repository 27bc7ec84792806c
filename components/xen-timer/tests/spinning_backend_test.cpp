// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_timer/spinning_backend.hpp"

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <functional>
#include <thread>
#include <vector>

#include "xen_timer/handler.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace xen_timer {
namespace {

using xen_clock::HostClock;
using xen_clock::HostTime;

static_assert(OwnThreadBackend<SpinningBackend>);
static_assert(!OwnThreadBackend<TimerfdBackend>);
static_assert(Alarm<SignalAlarm>);
static_assert(EarlyAlarm<SpinningAlarm<SignalAlarm>>);
static_assert(EarlyAlarm<SpinningAlarm<TimerfdAlarm>>);
static_assert(!EarlyAlarm<TimerfdAlarm>);

constexpr EventPort port{1};
constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};
constexpr Duration us = std::chrono::microseconds(1);
constexpr Duration ms = std::chrono::milliseconds(1);

// Reading the clock takes its time, so that who waits for it gets on.
struct Time {
  static constexpr Duration reading{100};
  HostTime now = HostTime(ms);
  HostTime due = HostTime::max();
  std::function<void()> on_reading;
};
struct TickingAlarm {
  Time* time;
  HostTime now() {
    time->now += Time::reading;
    if (time->on_reading) time->on_reading();
    return time->now;
  }
  Result<void> set(HostTime due) {
    time->due = due;
    return vmm_base::success();
  }
  int fd() { return -1; }
};

struct Spinning : testing::Test {
  static constexpr SpinLimits limits{.longest = 200 * us, .one_in = 4};
  Time time;
  QueueBackend<SpinningAlarm<TickingAlarm>> backend{SpinningAlarm(TickingAlarm{&time}, limits), 2};
  struct Event {
    std::uint32_t vcpu;
    Duration late;
  };
  std::vector<Event> events;
  GuestTime deadlines[2] = {};

  Spinning() {
    for (const XenVcpuId vcpu : {vcpu0, vcpu1}) {
      EXPECT_TRUE(backend.bind(
          vcpu, port, [this](XenVcpuId) { return guest_now(); },
          [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); }));
    }
  }
  [[nodiscard]] GuestTime guest_now() const { return GuestTime(time.now.time_since_epoch()); }
  void arm(XenVcpuId vcpu, Duration ahead) {
    deadlines[vcpu.value] = guest_now() + ahead;
    EXPECT_TRUE(backend.arm(vcpu, deadlines[vcpu.value], guest_now()));
  }
  void expire() {
    EXPECT_TRUE(
        backend.expire([this](XenVcpuId) { return guest_now(); },
                       [this](XenVcpuId vcpu, EventPort) {
                         events.push_back({vcpu.value, guest_now() - deadlines[vcpu.value]});
                         return Result<void>(vmm_base::success());
                       }));
  }
  // Sleeps until the alarm, and takes `waking` to wake up; true unless there is none.
  bool wake(Duration waking) {
    if (time.due == HostTime::max()) return false;
    time.now = std::max(time.now, time.due) + waking;
    expire();
    return true;
  }
  void fire_one(Duration ahead, Duration waking) {
    const std::size_t before = events.size();
    arm(vcpu0, ahead);
    while (events.size() == before) ASSERT_TRUE(wake(waking));
  }
  // What a deadline that is far away would be woken early by.
  Duration lead() { return backend.alarm().lead(); }
  Duration spun() { return backend.alarm().spun(); }
};

TEST_F(Spinning, LearnsToBeWokenEarlyByAsLongAsWakingTakes) {
  fire_one(10 * ms, 80 * us);
  EXPECT_GE(events.back().late, 80 * us);
  for (int i = 0; i < 300; ++i) fire_one(10 * ms, 80 * us);
  EXPECT_GE(lead(), 75 * us);
  EXPECT_LE(lead(), 95 * us);
  events.clear();
  for (int i = 0; i < 160; ++i) fire_one(10 * ms, 80 * us);
  const auto punctual = std::count_if(events.begin(), events.end(),
                                      [](const Event& event) { return event.late < us; });
  EXPECT_GE(punctual, 140);
  for (int i = 0; i < 1000; ++i) fire_one(10 * ms, 10 * us);
  EXPECT_LE(lead(), 15 * us);
}

TEST_F(Spinning, IsNeverEarly) {
  std::uint64_t seed = 1;
  for (int i = 0; i < 2000; ++i) {
    seed = seed * 6364136223846793005 + 1442695040888963407;
    fire_one(Duration(seed >> 44), Duration(seed >> 20 & 0x1ffff));
  }
  for (const Event& event : events) ASSERT_GE(event.late, Duration{});
  EXPECT_GT(spun(), Duration{});
}

TEST_F(Spinning, NoDeadlineIsSpunForLongerThanTheLimit) {
  for (int i = 0; i < 500; ++i) fire_one(10 * ms, 199 * us);
  EXPECT_GE(lead(), 195 * us);
  const Duration before = spun();
  fire_one(10 * ms, Duration{});
  EXPECT_GT(spun() - before, 150 * us);
  EXPECT_LE(spun() - before, limits.longest);
}

TEST_F(Spinning, WhatNoLeadWouldHelpAgainstTeachesNothing) {
  for (int i = 0; i < 100; ++i) fire_one(10 * ms, 4 * ms);
  EXPECT_EQ(lead(), Duration{});
  EXPECT_EQ(spun(), Duration{});
}

TEST_F(Spinning, ADeadlineThatIsPastOnceSetTeachesNothing) {
  for (int i = 0; i < 100; ++i) fire_one(Duration{}, 100 * us);
  EXPECT_EQ(lead(), Duration{});
}

TEST_F(Spinning, HoweverOftenAGuestArmsItSpinsNoMoreThanItsShare) {
  for (int i = 0; i < 500; ++i) fire_one(10 * ms, 150 * us);
  for (const Duration ahead : {50 * us, 160 * us, 300 * us, 700 * us}) {
    const HostTime begin = time.now;
    const Duration before = spun();
    for (int i = 0; i < 1000; ++i) fire_one(ahead, Duration{});
    const Duration all = time.now - begin;
    EXPECT_LE(spun() - before, limits.longest + all / limits.one_in) << ahead.count();
    // What it slept instead teaches that waking takes no time.
    for (int i = 0; i < 500; ++i) fire_one(10 * ms, 150 * us);
  }
  EXPECT_GE(lead(), 140 * us);
}

TEST_F(Spinning, WhatWasCancelledIsNotSpunFor) {
  for (int i = 0; i < 300; ++i) fire_one(10 * ms, 80 * us);
  const Duration before = spun();
  arm(vcpu0, 10 * ms);
  ASSERT_TRUE(backend.cancel(vcpu0));
  EXPECT_TRUE(wake({}));
  EXPECT_FALSE(wake({}));
  EXPECT_EQ(spun(), before);
}

TEST_F(Spinning, AnIdleGuestIsNotWokenFor) {
  fire_one(10 * ms, 80 * us);
  EXPECT_EQ(time.due, HostTime::max());
  EXPECT_FALSE(wake({}));
}

TEST_F(Spinning, ADeadlineArmedMeanwhileIsServedInItsTime) {
  for (int i = 0; i < 300; ++i) fire_one(10 * ms, 80 * us);
  events.clear();
  arm(vcpu0, 10 * ms);
  time.now = time.due + 20 * us;
  time.on_reading = [this] {
    if (guest_now() < deadlines[0] - 40 * us) return;
    time.on_reading = {};
    arm(vcpu1, 10 * us);
  };
  while (events.size() < 2) {
    expire();
    time.now = std::max(time.now, time.due);
  }
  EXPECT_EQ(events[0].vcpu, 1u);
  EXPECT_EQ(events[1].vcpu, 0u);
  for (const Event& event : events) {
    EXPECT_GE(event.late, Duration{});
    EXPECT_LT(event.late, us);
  }
}

TEST_F(Spinning, APauseEndsTheWaitWithoutAnEvent) {
  for (int i = 0; i < 300; ++i) fire_one(10 * ms, 80 * us);
  events.clear();
  arm(vcpu0, 10 * ms);
  time.now = time.due;
  time.on_reading = [this] {
    if (guest_now() < deadlines[0] - 40 * us) return;
    time.on_reading = {};
    ASSERT_TRUE(
        backend.pause([this](XenVcpuId) { return guest_now(); },
                      [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); }));
  };
  expire();
  EXPECT_LT(guest_now(), deadlines[0] - 30 * us);
  EXPECT_TRUE(events.empty());
  EXPECT_EQ(time.due, HostTime::max());
  ASSERT_TRUE(backend.resume([this](XenVcpuId) { return guest_now(); }));
  EXPECT_TRUE(wake({}));
  EXPECT_EQ(events.size(), 1u);
}

// A vCPU's thread that is in KVM_RUN, or in what is as that: the signal is let in there alone, and
// ends it. On real time, so nothing here says how late is too late.
struct OwnThreads : testing::Test {
  static constexpr int signal = SIGUSR1;
  struct Vmm {
    const HostTime begin = HostClock::now();
    std::array<std::atomic<GuestTime>, 2> fired_at{};
    std::array<std::atomic<int>, 2> fired{};
    std::atomic<bool> on_another = false;
    bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte>) { return false; }
    GuestTime guest_now(XenVcpuId) { return GuestTime(HostClock::now() - begin + 1 * ms); }
    Result<void> raise_event(XenVcpuId vcpu, EventPort) {
      if (thread != static_cast<int>(vcpu.value)) on_another = true;
      fired_at[vcpu.value] = guest_now(vcpu);
      ++fired[vcpu.value];
      return vmm_base::success();
    }
  };
  static inline thread_local int thread = -1;
  static inline thread_local void* signalled_with = nullptr;

  void SetUp() override {
    struct sigaction action {};
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
      if (info->si_code == SI_TIMER) signalled_with = info->si_value.sival_ptr;
    };
    action.sa_flags = SA_SIGINFO | SA_RESTART;
    ASSERT_EQ(::sigaction(signal, &action, nullptr), 0);
    for (const XenVcpuId vcpu : {vcpu0, vcpu1}) ASSERT_TRUE(timer.bind(vcpu, port));
  }
  // Calls body() on a vCPU's thread.
  template <class F>
  static std::thread on_thread(XenVcpuId vcpu, F body) {
    return std::thread([vcpu, body] {
      thread = static_cast<int>(vcpu.value);
      sigset_t blocked;
      sigemptyset(&blocked);
      sigaddset(&blocked, signal);
      ::pthread_sigmask(SIG_BLOCK, &blocked, nullptr);
      body();
    });
  }
  // Whether it was interrupted within a minute.
  static bool run_vcpu() {
    sigset_t all;
    ::pthread_sigmask(SIG_SETMASK, nullptr, &all);
    sigdelset(&all, signal);
    const timespec minute{60, 0};
    return ::ppoll(nullptr, 0, &minute, &all) == -1 && errno == EINTR;
  }
  void arm(XenVcpuId vcpu, Duration ahead) {
    const auto at = vmm.guest_now(vcpu) + ahead;
    const xen_abi::Hypercall call{
        .number = xen_abi::hypercall::set_timer_op,
        .params = {static_cast<std::uint64_t>(at.time_since_epoch().count())},
        .long_mode = true};
    const auto answer = timer.handle(vcpu, call);
    EXPECT_TRUE(answer && answer->host);
    deadlines[vcpu.value] = at;
  }
  bool serve_next(XenVcpuId vcpu) {
    for (const int before = vmm.fired[vcpu.value]; vmm.fired[vcpu.value] == before;) {
      if (!run_vcpu()) return false;
      EXPECT_TRUE(timer.expire(vcpu));
    }
    EXPECT_GE(vmm.fired_at[vcpu.value].load(), deadlines[vcpu.value]);
    return true;
  }

  Vmm vmm;
  SpinningBackend backend = SpinningBackend::create(2).value();
  Handler<Vmm, SpinningBackend> timer{vmm, backend};
  GuestTime deadlines[2] = {};  // each its thread's
};

TEST_F(OwnThreads, AVcpuInTheKernelIsTakenOutAndServesItsOwn) {
  std::vector<std::thread> threads;
  for (const XenVcpuId vcpu : {vcpu0, vcpu1}) {
    threads.push_back(on_thread(vcpu, [this, vcpu] {
      int own = 0;
      ASSERT_TRUE(backend.attach(vcpu, signal, &own));
      for (int n = 0; n < 50; ++n) {
        arm(vcpu, (1 + vcpu.value) * ms);
        ASSERT_TRUE(serve_next(vcpu));
        ASSERT_EQ(signalled_with, &own);
      }
    }));
  }
  for (std::thread& each : threads) each.join();
  EXPECT_EQ(vmm.fired[0], 50);
  EXPECT_EQ(vmm.fired[1], 50);
  EXPECT_FALSE(vmm.on_another);
  EXPECT_GE(backend.spun(), Duration{});
}

TEST_F(OwnThreads, WhatIsArmedBeforeTheThreadIsThereComesOnceItIs) {
  arm(vcpu0, ms);
  std::this_thread::sleep_for(2 * ms);
  EXPECT_EQ(vmm.fired[0], 0);
  on_thread(vcpu0, [this] {
    ASSERT_TRUE(backend.attach(vcpu0, signal));
    ASSERT_TRUE(serve_next(vcpu0));
  }).join();
  EXPECT_EQ(vmm.fired[0], 1);
}

TEST_F(OwnThreads, AVcpuMayMoveToAnotherThread) {
  arm(vcpu0, 20 * ms);
  on_thread(vcpu0, [this] { ASSERT_TRUE(backend.attach(vcpu0, signal)); }).join();
  on_thread(vcpu0, [this] {
    ASSERT_TRUE(backend.attach(vcpu0, signal));
    ASSERT_TRUE(serve_next(vcpu0));
  }).join();
  EXPECT_EQ(vmm.fired[0], 1);
}

TEST_F(OwnThreads, WhatWasDueDuringAPauseIsSignalledOnceItIsOver) {
  on_thread(vcpu0, [this] {
    ASSERT_TRUE(backend.attach(vcpu0, signal));
    arm(vcpu0, ms);
    std::thread([this] {  // the VMM's
      ASSERT_TRUE(timer.pause());
      std::this_thread::sleep_for(3 * ms);
      ASSERT_TRUE(timer.expire());
      EXPECT_EQ(vmm.fired[0], 0);
      ASSERT_TRUE(timer.resume());
    })
        .join();
    ASSERT_TRUE(serve_next(vcpu0));
  }).join();
  EXPECT_EQ(vmm.fired[0], 1);
}

TEST_F(OwnThreads, ThePeriodicTimerOfAnotherVcpuTicksOnItsThread) {
  std::atomic<bool> attached = false;
  std::thread ticking = on_thread(vcpu1, [&] {
    ASSERT_TRUE(backend.attach(vcpu1, signal));
    attached = true;
    while (vmm.fired[1] < 3) {
      ASSERT_TRUE(run_vcpu());
      ASSERT_TRUE(timer.expire(vcpu1));
    }
  });
  on_thread(vcpu0, [&] {
    while (!attached) std::this_thread::yield();
    const GuestTime now = vmm.guest_now(vcpu1);
    // Not yet due, so that the first comes on its thread, too.
    ASSERT_TRUE(backend.restore_ticks(vcpu1, ms, now, now));
  }).join();
  ticking.join();
  EXPECT_FALSE(vmm.on_another);
}

TEST_F(OwnThreads, ErrorsNameTheVcpuThatTheVmmKnows) {
  EXPECT_EQ(timer.hand_over(vcpu1, true).error(),
            (vmm_base::Error{"xen_timer hand_over: no timer in the kernel", ENOTSUP, 1}));
  EXPECT_EQ(timer.expire(XenVcpuId{2}).error(), (vmm_base::Error{"xen_timer expire", EINVAL, 2}));
  const auto raise = [](XenVcpuId, EventPort) { return Result<void>(vmm_base::success()); };
  const GuestTime now = vmm.guest_now(vcpu1);
  ASSERT_TRUE(backend.arm(vcpu1, now + Duration(1), now));
  std::this_thread::sleep_for(ms);
  EXPECT_EQ(backend
                .expire(
                    vcpu1, [](XenVcpuId) { return GuestTime{}; }, raise)
                .error(),
            (vmm_base::Error{"guest clock went backwards", EINVAL, 1}));
}

TEST_F(OwnThreads, ASignalThatThereIsntIsAnErrorAndChangesNothing) {
  on_thread(vcpu0, [this] {
    ASSERT_TRUE(backend.attach(vcpu0, signal));
    arm(vcpu0, ms);
    EXPECT_EQ(backend.attach(vcpu0, 4711).error(), (vmm_base::Error{"timer_create", EINVAL, 4711}));
    ASSERT_TRUE(serve_next(vcpu0));
  }).join();
}

TEST(SpinningBackendCreate, RefusesCountsOfVcpusThatNoDomainHas) {
  const auto created = SpinningBackend::create(0);
  ASSERT_FALSE(created);
  EXPECT_EQ(created.error(), (vmm_base::Error{"xen_timer create: vcpu_count", EINVAL, 0}));
}

}  // namespace
}  // namespace xen_timer
