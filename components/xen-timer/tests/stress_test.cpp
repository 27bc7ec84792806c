// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Eight vCPUs' threads arm, cancel, start and stop ticks (those of other vCPUs, too), bind and save
// while a ninth serves; each thread knows exactly what may and must have come of what it did. Ten
// million operations in all; XEN_TIMER_STRESS=1000 sets how many.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <limits>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "xen_timer/handler.hpp"
#include "xen_timer/queue_backend.hpp"

namespace xen_timer {
namespace {

constexpr std::uint64_t operations_by_default = 10'000'000;

constexpr std::uint32_t threads = 8;
// The vCPUs 0 to 7 are the threads', for single shots; thread n sets the ticks of vCPU 8 + n, too;
// and those of the last are everybody's.
constexpr std::uint32_t vcpus = 2 * threads + 1;
constexpr XenVcpuId everybodys{2 * threads};
constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t turn = 10'000;  // ns that pass from one expire() to the next

struct Time {
  std::atomic<std::int64_t> ns = 1'000'000;
};
struct TimeAlarm {
  Time* time;
  xen_clock::HostTime now() { return xen_clock::HostTime(Duration(time->ns.load())); }
  Result<void> set(xen_clock::HostTime) { return vmm_base::success(); }
  int fd() { return -1; }
};

// What is wanted of a vCPU's events, written by the thread that sets its timers.
struct alignas(64) Watch {
  std::atomic<std::int64_t> not_before = never;
  std::array<std::atomic<std::uint32_t>, 2> ports{};  // two while it is being bound
  std::atomic<std::uint64_t> events = 0;
  // Ticks: not atomic, as whoever raises one is to be alone with them.
  std::int64_t period = 0;
  std::int64_t last = 0;
  std::int64_t next = 0;
};

struct Vmm {
  Time* time = nullptr;
  std::array<Watch, vcpus> watches{};
  std::atomic<unsigned> early = 0;
  std::atomic<unsigned> misdirected = 0;
  static thread_local std::uint64_t argument;
  static thread_local std::int64_t now_told;  // what guest_now() was last answered on this thread
  static thread_local bool starting;          // in set_periodic_timer

  bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte> to) {
    std::memset(to.data(), 0, to.size());
    std::memcpy(to.data(), &argument, sizeof(argument));
    return true;
  }
  GuestTime guest_now(XenVcpuId) {
    now_told = time->ns.load();
    return xen_clock::guest_time(now_told);
  }
  Result<void> raise_event(XenVcpuId vcpu, EventPort port) {
    Watch& watch = watches[vcpu.value];
    // In this order, for a bind that has returned may just be writing them.
    if (port.value != watch.ports[1] && port.value != watch.ports[0]) ++misdirected;
    if (vcpu == everybodys) return vmm_base::success();
    if (vcpu.value >= threads) {
      if (now_told < watch.next) ++early;
      if (starting) watch.next = now_told;
      watch.last = watch.next + (now_told - watch.next) / watch.period * watch.period;
      watch.next = watch.last + watch.period;
    } else if (time->ns < watch.not_before) {
      ++early;
    }
    ++watch.events;
    return vmm_base::success();
  }
};
thread_local std::uint64_t Vmm::argument = 0;
thread_local std::int64_t Vmm::now_told = 0;
thread_local bool Vmm::starting = false;

// A kernel that keeps near deadlines, and fires them on the ninth thread, too.
struct Kernel {
  struct Timer {
    std::mutex mutex;  // as the kernel has one
    std::optional<std::int64_t> deadline;
    EventPort port{};
    int calls = 0;  // of the path's, which are not to overlap; not atomic, so that it shows
  };
  std::array<Timer, vcpus> timers;

  void fire(Vmm& vmm) {
    for (std::uint32_t id = 0; id < vcpus; ++id) {
      Timer& timer = timers[id];
      const std::scoped_lock lock(timer.mutex);
      if (!timer.deadline || *timer.deadline > vmm.guest_now({id}).time_since_epoch().count()) {
        continue;
      }
      timer.deadline.reset();
      (void)vmm.raise_event({id}, timer.port);
    }
  }
};
struct StressedPath {
  static constexpr Duration horizon = Duration(2 * turn);
  Kernel* kernel;

  Result<void> set(XenVcpuId vcpu, EventPort port, std::optional<std::int64_t> deadline) {
    Kernel::Timer& timer = kernel->timers[vcpu.value];
    ++timer.calls;
    const std::scoped_lock lock(timer.mutex);
    timer.deadline = deadline;
    timer.port = port;
    return vmm_base::success();
  }
  Result<void> bind(XenVcpuId vcpu, EventPort port) { return set(vcpu, port, std::nullopt); }
  Result<bool> arm(XenVcpuId vcpu, EventPort port, GuestTime deadline, GuestTime) {
    VMM_CHECK(set(vcpu, port, deadline.time_since_epoch().count()));
    return true;
  }
  Result<void> cancel(XenVcpuId vcpu, EventPort port) { return set(vcpu, port, std::nullopt); }
  Result<void> park(XenVcpuId vcpu) { return set(vcpu, EventPort{}, std::nullopt); }
  Result<std::optional<GuestTime>> armed(XenVcpuId vcpu) {
    Kernel::Timer& timer = kernel->timers[vcpu.value];
    ++timer.calls;
    const std::scoped_lock lock(timer.mutex);
    if (!timer.deadline) return std::optional<GuestTime>{};
    return std::optional(xen_clock::guest_time(*timer.deadline));
  }
};

// One vCPU's thread, and what it knows.
template <class BackEnd>
class VcpuThread {
 public:
  static constexpr bool has_kernel = !std::same_as<BackEnd, QueueBackend<TimeAlarm>>;

  VcpuThread(std::uint32_t id, BackEnd& backend, Handler<Vmm, BackEnd>& timer, Vmm& vmm, Time& time)
      : vcpu_{id},
        ticking_{threads + id},
        backend_(backend),
        timer_(timer),
        vmm_(vmm),
        time_(time),
        random_(id + 1) {}

  void run(std::uint64_t operations) {
    for (std::uint64_t i = 0; i < operations; ++i) {
      switch (random() % 16) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
          arm(static_cast<std::int64_t>(random() % 4) * turn);
          break;
        case 6:
          arm(never / 2);
          break;
        case 7:
        case 8:
        case 9:
        case 10:
          cancel();
          break;
        case 11:
          if (ticks_running_) {
            stop_ticks();
          } else {
            start_ticks();
          }
          break;
        case 12:
          if (random() % 2 != 0) {
            set_periodic(everybodys, 1'000'000 + random() % 3'000'000);
          } else {
            call(xen_abi::vcpuop::stop_periodic_timer, everybodys);
          }
          break;
        case 13:
          bind(vcpu_);
          break;
        case 14:
          bind(ticking_);
          break;
        case 15:
          if (random() % 256 == 0) leave_alone();
          save();
          break;
      }
    }
    cancel();
    if (ticks_running_) stop_ticks();
  }
  unsigned wrong = 0;
  int wrong_line = 0;            // the last, in this file
  std::uint64_t left_alone = 0;  // deadlines, each seen to fire once
  std::uint64_t replaced = 0;    // deadlines, each seen not to fire

 private:
  std::uint64_t random() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_ >> 11;
  }
  void check(bool right, int line = __builtin_LINE()) {
    if (right) return;
    ++wrong;
    wrong_line = line;
  }
  Watch& single() { return vmm_.watches[vcpu_.value]; }
  Watch& ticks() { return vmm_.watches[ticking_.value]; }

  void call(std::uint32_t command, XenVcpuId target) {
    const auto answer = timer_.handle(
        vcpu_, {.number = xen_abi::hypercall::vcpu_op, .params = {command, target.value, 0}});
    check(answer && answer->guest.rax() == 0 && answer->host);
  }

  // --- the single shot: between `least_` and `most_` events when it has fired or is cancelled ---

  // What may have been seen by now.
  void check_events(std::uint64_t seen) {
    check(seen <= most_);
    if (!armed_) check(seen == least_);
  }
  void arm(std::int64_t ahead) {
    const std::uint64_t before = single().events;
    check_events(before);
    // The old one may fire until the call returns.
    const bool old_to_come = armed_ && before < most_;
    const std::int64_t old_deadline = deadline_;
    deadline_ = time_.ns + ahead;
    single().not_before = std::min(single().not_before.load(), deadline_);
    Vmm::argument = static_cast<std::uint64_t>(deadline_);
    call(xen_abi::vcpuop::set_singleshot_timer, vcpu_);
    single().not_before = deadline_;
    const std::uint64_t after = single().events;
    const std::int64_t now = time_.ns;  // after what it has seen
    const bool old_in_time = old_to_come && old_deadline <= now;
    armed_ = true;
    if (now < deadline_) {  // whatever was seen was the old one's
      check(after <= before + (old_in_time ? 1 : 0));
      if (old_to_come && after == before) ++replaced;
      least_ = most_ = after + 1;
    } else {
      least_ = before + 1;
      most_ = before + 1 + (old_in_time ? 1 : 0);
      check(after <= most_);
    }
  }
  void cancel() {
    check_events(single().events);
    call(xen_abi::vcpuop::stop_singleshot_timer, vcpu_);
    const std::uint64_t after = single().events;
    check(after <= most_);
    if (armed_ && after + 1 == least_) ++replaced;
    armed_ = false;
    single().not_before = never;
    least_ = most_ = after;  // no more from here on
  }
  void leave_alone() {
    if (ticks_running_) {
      const std::uint64_t ticked = ticks().events;
      while (ticks().events == ticked) std::this_thread::yield();
    }
    if (!armed_ || least_ != most_ || deadline_ > time_.ns + 100 * turn) return;
    while (single().events < least_) std::this_thread::yield();
    const std::int64_t seen = time_.ns;
    check(deadline_ <= seen);
    while (time_.ns < seen + 2 * turn) std::this_thread::yield();  // a second one would come now
    check(single().events == least_);
    armed_ = false;
    single().not_before = never;
    ++left_alone;
  }

  // --- ticks ---

  void set_periodic(XenVcpuId target, std::uint64_t period) {
    Vmm::argument = period;
    call(xen_abi::vcpuop::set_periodic_timer, target);
  }
  void start_ticks() {
    check(ticks().events == tick_events_);
    ticks().period = 1'000'000 + static_cast<std::int64_t>(random() % 1'000'000);
    ticks().next = ticks().last + ticks().period;
    const auto period = static_cast<std::uint64_t>(ticks().period);
    Vmm::starting = true;
    set_periodic(ticking_, period);
    Vmm::starting = false;
    ticks_running_ = true;
  }
  void stop_ticks() {
    call(xen_abi::vcpuop::stop_periodic_timer, ticking_);
    ticks_running_ = false;
    tick_events_ = ticks().events;  // no more from here on
  }

  // --- ports, and what is saved ---

  void bind(XenVcpuId vcpu) {
    if constexpr (has_kernel) {
      if (random() % 4 == 0) {
        check(timer_.hand_over(vcpu, random() % 2 != 0).has_value());
      }
    }
    auto& ports = vmm_.watches[vcpu.value].ports;
    const std::uint32_t port = 1 + static_cast<std::uint32_t>(random() % 4095);
    ports[1] = port;
    check(timer_.bind(vcpu, EventPort{port}).has_value());
    ports[0] = port;  // and to the old one goes nothing from here on
    // As it was moved, it may have fired: a second event is harmless, the vCPU hasn't run since.
    if (has_kernel && vcpu == vcpu_ && armed_ && deadline_ <= time_.ns) ++most_;
  }
  void save() {
    const auto saved = timer_.save(vcpu_);
    check(saved.has_value());
    const std::uint64_t seen = single().events;
    if (!armed_) check(!saved.value().deadline);
    if (armed_ && least_ == most_ && seen < least_) {  // it wasn't seen even after
      check(saved.value().deadline == xen_clock::guest_time(deadline_));
    }
  }

  XenVcpuId vcpu_;
  XenVcpuId ticking_;
  BackEnd& backend_;
  Handler<Vmm, BackEnd>& timer_;
  Vmm& vmm_;
  Time& time_;
  std::uint64_t random_;
  bool armed_ = false;
  std::int64_t deadline_ = never;
  std::uint64_t least_ = 0;
  std::uint64_t most_ = 0;
  bool ticks_running_ = false;
  std::uint64_t tick_events_ = 0;
};

template <class BackEnd, class Fire>
void stress(BackEnd backend, Vmm& vmm, Time& time, Fire&& fire) {
  const char* asked = std::getenv("XEN_TIMER_STRESS");
  const std::uint64_t operations =
      asked != nullptr ? std::strtoull(asked, nullptr, 10) : operations_by_default;

  vmm.time = &time;
  Handler<Vmm, BackEnd> timer(vmm, backend);
  for (std::uint32_t id = 0; id < vcpus; ++id) {
    for (auto& port : vmm.watches[id].ports) port = 1;
    ASSERT_TRUE(timer.bind(XenVcpuId{id}, EventPort{1}));
  }

  std::vector<VcpuThread<BackEnd>> vcpu_threads;
  for (std::uint32_t id = 0; id < threads; ++id) {
    vcpu_threads.emplace_back(id, backend, timer, vmm, time);
  }
  std::atomic<std::uint32_t> running = threads;
  std::vector<std::thread> started;
  for (auto& vcpu : vcpu_threads) {
    started.emplace_back([&] {
      vcpu.run(operations / threads);
      --running;
    });
  }
  while (running != 0) {
    time.ns += turn;
    EXPECT_TRUE(timer.expire());
    fire();
  }
  for (std::thread& thread : started) thread.join();

  EXPECT_EQ(vmm.early, 0u);
  EXPECT_EQ(vmm.misdirected, 0u);
  std::uint64_t events = 0;
  for (const Watch& watch : vmm.watches) events += watch.events;
  std::uint64_t left_alone = 0;
  std::uint64_t replaced = 0;
  for (const auto& vcpu : vcpu_threads) {
    EXPECT_EQ(vcpu.wrong, 0u) << "line " << vcpu.wrong_line;
    left_alone += vcpu.left_alone;
    replaced += vcpu.replaced;
  }
  EXPECT_GT(left_alone, operations / 100'000);
  EXPECT_GT(replaced, operations / 100);
  std::cout << operations << " operations: " << events << " events, " << replaced
            << " deadlines replaced, " << left_alone << " waited for\n";
}

TEST(Stress, EightVcpusWhileANinthThreadServes) {
  Time time;
  Vmm vmm;
  stress(QueueBackend<TimeAlarm>(TimeAlarm{&time}, vcpus), vmm, time, [] {});
}

TEST(Stress, EightVcpusWhileANinthThreadServesAndTheKernelHasWhatIsNear) {
  Time time;
  Vmm vmm;
  Kernel kernel;
  stress(QueueBackend<TimeAlarm, StressedPath>(TimeAlarm{&time}, vcpus, StressedPath{&kernel}), vmm,
         time, [&] { kernel.fire(vmm); });
}

}  // namespace
}  // namespace xen_timer
