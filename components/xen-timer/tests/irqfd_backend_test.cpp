// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// On real time and real fds, so nothing here says how late is too late. KVM is not needed: the
// router only notes where an eventfd's signal would go.
#include "xen_timer/irqfd_backend.hpp"

#include <dirent.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <optional>
#include <thread>
#include <vector>

#include "failing_syscall.hpp"
#include "io_uring.hpp"
#include "xen_timer/handler.hpp"

namespace xen_timer {
namespace {

using xen_clock::Duration;
using xen_clock::HostClock;
using xen_clock::HostTime;

constexpr auto us = Duration(std::chrono::microseconds(1));
constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};

// --- what it takes
// --------------------------------------------------------------------------------

struct RouterDouble {
  struct Route {
    EventPort port{};
    int eventfd = -1;
  };
  std::array<Route, 2> routes{};
  unsigned calls = 0;
  int failure = 0;

  Result<void> route_event(XenVcpuId vcpu, EventPort port, int eventfd) {
    ++calls;
    if (failure != 0) return vmm_base::Error{"KVM_IRQFD", failure, vcpu.value};
    routes[vcpu.value] = {port, eventfd};
    return vmm_base::success();
  }
};
using Irqfd = IrqfdBackend<RouterDouble>;
static_assert(Backend<Irqfd>);

std::vector<int> open_fds() {
  std::vector<int> fds;
  DIR* directory = ::opendir("/proc/self/fd");
  while (const dirent* entry = ::readdir(directory)) {
    const int fd = std::atoi(entry->d_name);
    if (entry->d_name[0] != '.' && fd != ::dirfd(directory)) fds.push_back(fd);
  }
  ::closedir(directory);
  return fds;
}
// Makes `f` run with room for `count` more fds than are open.
template <class F>
void with_room_for(rlim_t count, F&& f) {
  // Fills the gaps below the highest.
  std::vector<vmm_base::UniqueFd> gaps;
  const auto fds = open_fds();
  const auto highest = *std::max_element(fds.begin(), fds.end());
  for (int fd = ::dup(0); fd >= 0; fd = ::dup(0)) {
    vmm_base::UniqueFd owned(fd);
    if (fd > highest) break;
    gaps.push_back(std::move(owned));
  }
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  rlimit few = old;
  few.rlim_cur = static_cast<rlim_t>(highest) + 1 + count;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  f();
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
}

struct IrqfdCreate : NeedsIoUring {
  RouterDouble router;
};

TEST_F(IrqfdCreate, TakesTwoFdsAVcpuAndOneMoreAndGivesThemBack) {
  const auto before = open_fds();
  {
    const auto created = Irqfd::create(router, 2);
    ASSERT_TRUE(created);
    EXPECT_EQ(open_fds().size(), before.size() + 5);
  }
  EXPECT_EQ(open_fds(), before);
}

TEST_F(IrqfdCreate, ReportsEmfileAtEachFd) {
  constexpr std::array operations{"timerfd_create", "eventfd", "io_uring_setup", "eventfd",
                                  "io_uring_setup"};
  auto& bare = router;  // UBSan needs an fd to look at a vptr: not through `this` in there
  const auto before = open_fds();
  for (rlim_t room = 0; room < operations.size(); ++room) {
    with_room_for(room, [&] {
      const auto created = Irqfd::create(bare, 2);
      ASSERT_FALSE(created) << room;
      EXPECT_EQ(created.error(), (vmm_base::Error{operations[room], EMFILE, 0})) << room;
    });
    EXPECT_EQ(open_fds(), before) << room;
  }
  with_room_for(operations.size(), [&] { EXPECT_TRUE(Irqfd::create(bare, 2)); });
}

TEST(IrqfdCreateAnywhere, RefusesCountsOfVcpusThatNoDomainHas) {
  RouterDouble router;
  for (const std::uint32_t count : {0u, max_vcpus + 1, 1u << 31, ~0u}) {
    const auto created = Irqfd::create(router, count);
    ASSERT_FALSE(created);
    EXPECT_EQ(created.error(), (vmm_base::Error{"xen_timer create: vcpu_count", EINVAL, count}));
  }
}

TEST(IrqfdCreateAnywhere, ReportsWhatIoUringSetupSays) {
  RouterDouble router;
  const auto before = open_fds();
  for (const int code : {ENOSYS, EPERM, EINVAL, ENOMEM}) {
    with_failing_syscall(SYS_io_uring_setup, code, [&] {
      const auto created = Irqfd::create(router, 1);
      ASSERT_FALSE(created);
      EXPECT_EQ(created.error(), (vmm_base::Error{"io_uring_setup", code, 0}));
    });
  }
  EXPECT_EQ(open_fds(), before);
}

// --- the path, as QueueBackend calls it
// -------------------------------------------------------------

struct IrqfdPathTest : NeedsIoUring {
  RouterDouble router;
  std::optional<IrqfdPath<RouterDouble>> path;

  void SetUp() override {
    NeedsIoUring::SetUp();
    if (IsSkipped()) return;
    auto created = IrqfdPath<RouterDouble>::create(router, 1);
    ASSERT_TRUE(created) << created.error().message();
    path.emplace(std::move(created.value()));
    ASSERT_TRUE(path->attach(vcpu0));
    ASSERT_TRUE(path->bind(vcpu0, EventPort{10}));
  }
  Result<bool> arm(Duration ahead) {
    return path->arm(vcpu0, EventPort{10}, GuestTime(ahead), GuestTime{});
  }
  int eventfd() { return router.routes[0].eventfd; }
};

TEST_F(IrqfdPathTest, BindStopsTheTimerAndForgetsItsDeadline) {
  ASSERT_TRUE(arm(2 * ms));
  ASSERT_TRUE(path->bind(vcpu0, EventPort{42}));
  (void)signals(eventfd());  // in time, on a busy machine
  EXPECT_EQ(path->armed(vcpu0).value(), std::nullopt);
  EXPECT_FALSE(readable(eventfd(), 5));
}

TEST_F(IrqfdPathTest, WithoutAPortNothingIsArmed) {
  ASSERT_TRUE(path->bind(vcpu0, EventPort{}));
  const auto armed = arm(ms);
  ASSERT_FALSE(armed);
  EXPECT_EQ(armed.error(), (vmm_base::Error{"event route", ENOTCONN, 0}));
  EXPECT_FALSE(readable(eventfd(), 5));
}

// Nobody looks at the guest's clock at the expiry, which NTP may have slewed the host's against.
TEST_F(IrqfdPathTest, TheTimerIsSetLaterByWhatNtpMaySlew) {
  const Duration rest = IrqfdPath<RouterDouble>::horizon;
  for (int i = 0; i < 20; ++i) {
    const HostTime before = HostClock::now();
    ASSERT_TRUE(arm(rest));
    while (signals(eventfd()) == 0) {
    }
    EXPECT_GE(HostClock::now(), before + rest + xen_clock::slew_margin(rest));
  }
}

// --- the back end
// -----------------------------------------------------------------------------------

// A VMM whose guests' clocks are the host's, and a KVM that is just the eventfds.
struct IrqfdTest : NeedsIoUring {
  struct Vmm {
    HostTime begin = HostClock::now();
    Duration offset{};
    std::vector<std::uint32_t> raised;  // by us and not by the eventfds: ports
    bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte>) { return false; }
    GuestTime guest_now(XenVcpuId) { return GuestTime(HostClock::now() - begin + offset); }
    Result<void> raise_event(XenVcpuId, EventPort port) {
      raised.push_back(port.value);
      return vmm_base::success();
    }
  };
  RouterDouble router;
  Vmm vmm;
  std::optional<Irqfd> backend;
  std::optional<Handler<Vmm, Irqfd>> timer;

  void SetUp() override {
    NeedsIoUring::SetUp();
    if (IsSkipped()) return;
    auto created = Irqfd::create(router, 2);
    ASSERT_TRUE(created) << created.error().message();
    backend.emplace(std::move(created.value()));
    timer.emplace(vmm, *backend);
    ASSERT_TRUE(backend->attach(vcpu0));  // this thread is both
    ASSERT_TRUE(backend->attach(vcpu1));
    ASSERT_TRUE(timer->bind(vcpu0, EventPort{10}));
    ASSERT_TRUE(timer->bind(vcpu1, EventPort{11}));
  }
  GuestTime now() { return vmm.guest_now({}); }
  // By set_timer_op; whether the host was content.
  Result<void> arm(XenVcpuId vcpu, GuestTime deadline) {
    const auto answer = timer->handle(
        vcpu, {.number = xen_abi::hypercall::set_timer_op,
               .params = {static_cast<std::uint64_t>(deadline.time_since_epoch().count())}});
    EXPECT_TRUE(answer && answer->guest == xen_abi::GuestResult::ok());
    return answer->host;
  }
  Result<void> cancel(XenVcpuId vcpu) { return arm(vcpu, GuestTime{}); }
  int eventfd(XenVcpuId vcpu) { return router.routes[vcpu.value].eventfd; }
  // How many events the vCPU has had since it was last asked. On a busy machine some are late when
  // we come to arm them, and raised by us: by_kernel counts the others.
  std::uint64_t events(XenVcpuId vcpu) {
    const std::uint64_t by_signal = signals(eventfd(vcpu));
    const std::uint64_t by_us = vmm.raised.size();
    vmm.raised.clear();
    by_kernel += by_signal;
    return by_signal + by_us;
  }
  std::uint64_t by_kernel = 0;
  static constexpr int patience = 1000;  // attempts to be faster than a deadline
  // Serves the back end until the vCPU has one.
  void serve_until_event(XenVcpuId vcpu) {
    while (vmm.raised.empty()) {
      std::array<pollfd, 2> fds{{{.fd = eventfd(vcpu), .events = POLLIN, .revents = 0},
                                 {.fd = backend->fd(), .events = POLLIN, .revents = 0}}};
      ASSERT_GE(::poll(fds.data(), fds.size(), forever), 1);
      if (fds[1].revents != 0) {
        ASSERT_TRUE(timer->expire());
      }
      if (fds[0].revents != 0) return;
    }
  }
};

TEST_F(IrqfdTest, EachVcpuHasAnEventfdOfItsOwnAlwaysTheSame) {
  const int first = eventfd(vcpu0);
  EXPECT_NE(first, eventfd(vcpu1));
  EXPECT_EQ(router.routes[1].port, EventPort{11});
  ASSERT_TRUE(timer->bind(vcpu0, EventPort{42}));
  EXPECT_EQ(router.routes[0].port, EventPort{42});
  EXPECT_EQ(eventfd(vcpu0), first);
  ASSERT_TRUE(timer->unbind(vcpu0));
  EXPECT_EQ(router.routes[0].port, EventPort{});
}

TEST_F(IrqfdTest, ANearDeadlineSignalsItsVcpuOnceAndWakesNobody) {
  for (int i = 0; by_kernel < 10; ++i) {
    ASSERT_LT(i, patience);
    const GuestTime deadline = now() + 2 * ms;
    ASSERT_TRUE(arm(vcpu1, deadline));
    serve_until_event(vcpu1);
    EXPECT_GE(now(), deadline);
    EXPECT_EQ(events(vcpu1), 1u);
    EXPECT_EQ(timer->save(vcpu1).value().deadline, std::nullopt);
  }
  EXPECT_FALSE(readable(backend->fd()));
  EXPECT_FALSE(readable(eventfd(vcpu0)));
}

TEST_F(IrqfdTest, AFarDeadlineComesFromUs) {
  const GuestTime deadline = now() + 60 * ms;
  ASSERT_TRUE(arm(vcpu0, deadline));
  EXPECT_EQ(timer->save(vcpu0).value().deadline, deadline);
  serve_until_event(vcpu0);
  EXPECT_GE(now(), deadline);
  EXPECT_EQ(events(vcpu0), 1u);
  EXPECT_EQ(by_kernel, 0u);
}

TEST_F(IrqfdTest, WhatAnotherThreadArmsComesFromUsAndThenItIsTheKernelsAgain) {
  for (int i = 0; i < 3; ++i) {
    GuestTime deadline = now() + 10 * ms;
    std::thread([&] { ASSERT_TRUE(arm(vcpu0, deadline)); }).join();
    serve_until_event(vcpu0);
    EXPECT_GE(now(), deadline);
    EXPECT_EQ(events(vcpu0), 1u);
    EXPECT_EQ(by_kernel, 0u);
  }
  for (int i = 0; by_kernel == 0; ++i) {
    ASSERT_LT(i, patience);
    ASSERT_TRUE(arm(vcpu0, now() + 2 * ms));
    serve_until_event(vcpu0);
    EXPECT_EQ(events(vcpu0), 1u);
  }
}

TEST_F(IrqfdTest, AVcpuWhoseThreadHasNotAttachedIsServedByUs) {
  auto fresh = Irqfd::create(router, 1);
  ASSERT_TRUE(fresh);
  backend.emplace(std::move(fresh.value()));
  timer.emplace(vmm, *backend);
  ASSERT_TRUE(timer->bind(vcpu0, EventPort{10}));
  const GuestTime deadline = now() + 5 * ms;
  ASSERT_TRUE(arm(vcpu0, deadline));
  serve_until_event(vcpu0);
  EXPECT_GE(now(), deadline);
  EXPECT_EQ(events(vcpu0), 1u);
  EXPECT_EQ(by_kernel, 0u);
}

TEST_F(IrqfdTest, AThreadThatCannotAttachIsSaidAndTheEventsComeFromUs) {
  with_failing_syscall(SYS_io_uring_register, ENOMEM, [&] {
    EXPECT_EQ(backend->attach(vcpu0).error().code, ENOMEM);
    ASSERT_TRUE(arm(vcpu0, now() + 2 * ms));
    serve_until_event(vcpu0);
  });
  EXPECT_EQ(events(vcpu0), 1u);
  EXPECT_EQ(by_kernel, 0u);
}

TEST_F(IrqfdTest, SavedInTheKernelItIsThere) {
  std::optional<GuestTime> saved;
  for (int i = 0; !saved; ++i) {
    ASSERT_LT(i, patience);
    const GuestTime deadline = now() + 20 * ms;
    ASSERT_TRUE(arm(vcpu0, deadline));
    saved = timer->save(vcpu0).value().deadline;
    EXPECT_EQ(saved.value_or(deadline), deadline);
  }
}

TEST_F(IrqfdTest, APastDeadlineIsRaisedBeforeTheCallReturns) {
  ASSERT_TRUE(arm(vcpu0, now() + 10 * ms));
  const auto before = vmm.raised.size();
  ASSERT_TRUE(arm(vcpu0, now() - us));
  EXPECT_EQ(vmm.raised.size(), before + 1);
  (void)events(vcpu0);
  EXPECT_FALSE(readable(eventfd(vcpu0), 15));
}

TEST_F(IrqfdTest, NoSignalFollowsACancel) {
  for (unsigned i = 0; i < 1000; ++i) {
    ASSERT_TRUE(arm(vcpu0, now() + i % 20 * us));
    ASSERT_TRUE(cancel(vcpu0));
    EXPECT_EQ(timer->save(vcpu0).value().deadline, std::nullopt);
    EXPECT_LE(events(vcpu0), 2u);  // of one that passed while it was armed
    if (i % 100 == 0) {
      EXPECT_FALSE(readable(eventfd(vcpu0), 1));
    }
  }
}

TEST_F(IrqfdTest, EveryDeadlineLeftAloneSignals) {
  for (int i = 0; i < 2000; ++i) {
    ASSERT_TRUE(arm(vcpu0, now() + hour));
    const GuestTime replaced = now() + 20 * ms;
    ASSERT_TRUE(arm(vcpu0, replaced));
    ASSERT_TRUE(arm(vcpu0, now() + 30 * us));
    const bool in_time = now() < replaced;  // not on a busy machine
    serve_until_event(vcpu0);
    const std::uint64_t signalled = events(vcpu0);
    if (in_time) {
      ASSERT_GE(signalled, 1u) << i;
      ASSERT_LE(signalled, 2u) << i;  // of a deadline that passes while it is armed
    } else {
      (void)readable(eventfd(vcpu0), 1);
      (void)events(vcpu0);
    }
  }
  EXPECT_FALSE(readable(eventfd(vcpu0), 2));
  EXPECT_GT(by_kernel, 0u);
}

TEST_F(IrqfdTest, RebindingMovesTheDeadline) {
  const GuestTime deadline = now() + 20 * ms;
  ASSERT_TRUE(arm(vcpu0, deadline));
  ASSERT_TRUE(timer->bind(vcpu0, EventPort{42}));
  ASSERT_TRUE(timer->bind(vcpu0, EventPort{43}));
  serve_until_event(vcpu0);
  EXPECT_GE(now(), deadline);
  EXPECT_EQ(events(vcpu0), 1u);
}

TEST_F(IrqfdTest, ARouteThatCannotBeSetIsSaidAndTheEventComesFromUs) {
  router.failure = ENOSPC;
  const auto bound = timer->bind(vcpu0, EventPort{42});
  ASSERT_FALSE(bound);
  EXPECT_EQ(bound.error(), (vmm_base::Error{"KVM_IRQFD", ENOSPC, 0}));
  bool said = false;
  for (int i = 0; !said; ++i) {
    ASSERT_LT(i, patience);
    const GuestTime deadline = now() + 20 * ms;
    const auto armed = arm(vcpu0, deadline);
    if (!armed) {
      EXPECT_EQ(armed.error(), (vmm_base::Error{"event route", ENOTCONN, 0}));
      said = true;
    }
    serve_until_event(vcpu0);
    EXPECT_GE(now(), deadline);
    EXPECT_EQ(vmm.raised, (std::vector<std::uint32_t>{42}));
    EXPECT_EQ(events(vcpu0), 1u);
  }
  EXPECT_EQ(by_kernel, 0u);
}

TEST_F(IrqfdTest, NoSignalComesWhilePaused) {
  for (std::uint64_t in_time = 1; in_time != 0;) {
    ASSERT_TRUE(arm(vcpu0, now() + 20 * ms));
    ASSERT_TRUE(timer->pause());
    in_time = events(vcpu0);  // before the pause, that is
    EXPECT_FALSE(readable(eventfd(vcpu0), 30));
    EXPECT_FALSE(readable(backend->fd()));
    EXPECT_EQ(vmm.raised.size(), 0u);
    vmm.offset = vmm.begin - HostClock::now();  // the clock is set back: to 0
    ASSERT_TRUE(timer->resume());
  }
  const GuestTime deadline = timer->save(vcpu0).value().deadline.value_or(GuestTime{});
  serve_until_event(vcpu0);
  EXPECT_GE(now(), deadline);
  EXPECT_EQ(events(vcpu0), 1u);
}

// Also where it is just being signalled.
TEST_F(IrqfdTest, WhatWasDueHasItsEventOncePaused) {
  for (int i = 0; i < 60; ++i) {
    const GuestTime deadline = now() + 300 * us;
    ASSERT_TRUE(arm(vcpu0, deadline));
    while (now() < deadline + (i % 30 - 10) * 3 * us) {
    }
    ASSERT_TRUE(timer->pause());
    const bool is_due = !timer->save(vcpu0).value().deadline;
    const std::uint64_t count = events(vcpu0);
    EXPECT_EQ(count != 0, is_due) << i;
    EXPECT_LE(count, 2u);  // twice is once as long as the vCPU doesn't run
    EXPECT_EQ(router.routes[0].port, EventPort{10});
    ASSERT_TRUE(timer->resume());
    ASSERT_TRUE(cancel(vcpu0));
    (void)readable(eventfd(vcpu0), 1);
    (void)events(vcpu0);
  }
  EXPECT_GT(by_kernel, 0u);
}

TEST_F(IrqfdTest, ARouteThatIsLostByAPauseIsSaidAndTheNextEventComesFromUs) {
  for (int i = 0; by_kernel == 0; ++i) {  // the kernel has to have had it
    ASSERT_LT(i, patience);
    ASSERT_TRUE(arm(vcpu0, now() + ms));
    serve_until_event(vcpu0);
    (void)events(vcpu0);
  }
  router.failure = ENOSPC;
  const auto paused = timer->pause();
  ASSERT_FALSE(paused);
  EXPECT_EQ(paused.error(), (vmm_base::Error{"KVM_IRQFD", ENOSPC, 0}));
  EXPECT_TRUE(timer->resume());
  const GuestTime deadline = now() + 20 * ms;
  (void)arm(vcpu0, deadline);
  serve_until_event(vcpu0);
  EXPECT_GE(now(), deadline);
  EXPECT_EQ(vmm.raised, (std::vector<std::uint32_t>{10}));
}

TEST_F(IrqfdTest, WhatIsOverdueAtResumeIsRaisedOnce) {
  ASSERT_TRUE(arm(vcpu0, now() + 20 * ms));
  ASSERT_TRUE(timer->pause());
  vmm.offset = hour;
  ASSERT_TRUE(timer->resume());
  serve_until_event(vcpu0);
  EXPECT_EQ(events(vcpu0), 1u);
  EXPECT_FALSE(readable(eventfd(vcpu0), 25));
}

}  // namespace
}  // namespace xen_timer
