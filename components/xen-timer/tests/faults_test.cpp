// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The back ends on the kernel's own timers, each of their system calls and allocations failing in
// turn while a guest arms and cancels: what is armed comes once, and what went wrong is said.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

#include "failing_calls.hpp"
#include "io_uring.hpp"
#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/irqfd_backend.hpp"
#include "xen_timer/spinning_backend.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace xen_timer {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using xen_clock::HostClock;
using xen_clock::HostTime;

constexpr std::uint32_t vcpus = 2;
constexpr XenVcpuId vcpu0{0};
constexpr XenVcpuId vcpu1{1};

// Guest time is host time; KVM's timers and irqfds are what the test looks at. Allocates nothing.
struct Vmm {
  std::array<unsigned, vcpus> events{};
  std::array<std::byte, 16> argument{};

  bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte> to) {
    std::memcpy(to.data(), argument.data(), to.size());
    return true;
  }
  GuestTime guest_now(XenVcpuId) { return GuestTime(HostClock::now().time_since_epoch()); }
  Result<void> raise_event(XenVcpuId vcpu, EventPort) {
    ++events[vcpu.value];
    return vmm_base::success();
  }

  // The kernel's side.
  std::array<int, vcpus> eventfds{-1, -1};
  std::array<std::optional<GuestTime>, vcpus> timers{};
  Result<void> route_event(XenVcpuId vcpu, EventPort port, int eventfd) {
    eventfds[vcpu.value] = port == EventPort{} ? -1 : eventfd;
    return vmm_base::success();
  }
  Result<void> set_timer(XenVcpuId vcpu, EventPort, std::optional<GuestTime> deadline) {
    timers[vcpu.value] = deadline;
    return vmm_base::success();
  }
  Result<std::optional<GuestTime>> timer(XenVcpuId vcpu) { return timers[vcpu.value]; }
  void look() {
    for (std::uint32_t id = 0; id < vcpus; ++id) {
      std::uint64_t count = 0;
      if (eventfds[id] >= 0 && ::read(eventfds[id], &count, sizeof(count)) == sizeof(count)) {
        events[id] += static_cast<unsigned>(count);
      }
      if (timers[id] && *timers[id] <= guest_now(XenVcpuId{id})) {
        timers[id].reset();
        ++events[id];
      }
    }
  }
};

struct Timerfd {
  static constexpr bool has_path = false;
  static auto create(Vmm&) { return TimerfdBackend::create(vcpus); }
};
// The test's thread is each vCPU's, of Spinning, too.
struct Irqfd {
  static constexpr bool has_path = true;
  static Result<IrqfdBackend<Vmm>> create(Vmm& vmm) {
    auto backend = IrqfdBackend<Vmm>::create(vmm, vcpus);
    if (!backend) return backend;
    VMM_CHECK(backend.assume_value().attach(vcpu0));
    VMM_CHECK(backend.assume_value().attach(vcpu1));
    return backend;
  }
};
struct Delegated {
  static constexpr bool has_path = true;
  static auto create(Vmm& vmm) { return DelegatedBackend<Vmm>::create(vmm, vcpus); }
};
struct Spinning {
  static constexpr bool has_path = false;
  static inline std::atomic<bool> signalled = false;
  static Result<SpinningBackend> create(Vmm&) {
    std::signal(SIGUSR1, [](int) { signalled = true; });
    auto backend = SpinningBackend::create(vcpus);
    if (!backend) return backend;
    VMM_CHECK(backend.assume_value().attach(vcpu0, SIGUSR1));
    VMM_CHECK(backend.assume_value().attach(vcpu1, SIGUSR1));
    return backend;
  }
};
struct WayName {
  template <class Way>
  static std::string GetName(int) {
    if (std::is_same_v<Way, Spinning>) return "Spinning";
    if (std::is_same_v<Way, Timerfd>) return "Timerfd";
    return std::is_same_v<Way, Irqfd> ? "Irqfd" : "Delegated";
  }
};

std::size_t open_fds() {
  const std::filesystem::directory_iterator fds("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(fds), end(fds)));
}

// A guest's life, of some 20 ms.
template <class B>
class Guest {
 public:
  Guest(Vmm& vmm, B& backend) : vmm_(vmm), backend_(backend), timer_(vmm, backend) {}

  // What was said of a failure; none if nothing was.
  [[nodiscard]] std::optional<vmm_base::Error> said() const { return said_; }
  [[nodiscard]] const char* lost() const { return lost_; }  // what didn't come; null if all did

  void live(bool has_path) {
    note(timer_.bind(vcpu0, EventPort{10}));
    note(timer_.bind(vcpu1, EventPort{11}));
    for (int round = 0; round < 3; ++round) {
      arm(vcpu0, microseconds(300));
      arm(vcpu1, microseconds(600));
      await(vcpu0, "the first vCPU's");
      await(vcpu1, "the second vCPU's");
    }
    arm(vcpu0, std::chrono::hours(1));
    arm(vcpu0, microseconds(300));
    await(vcpu0, "one in place of another");
    arm(vcpu0, -milliseconds(1));
    await(vcpu0, "one that had passed");
    arm(vcpu0, milliseconds(40));  // further ahead than an irqfd's timer may have
    arm(vcpu1, milliseconds(1));
    call(stop());
    await(vcpu1, "the other's, as one is stopped");
    note(timer_.hand_over(vcpu0, false));
    arm(vcpu0, microseconds(300));
    await(vcpu0, "one kept here");
    arm(vcpu0, milliseconds(2));
    if (has_path) note(timer_.hand_over(vcpu0, true));
    await(vcpu0, "one that was handed over");
    arm(vcpu0, milliseconds(1));
    note(timer_.pause());
    note(timer_.resume());
    await(vcpu0, "one through a pause");
    arm(vcpu0, microseconds(500));
    const auto saved = timer_.save(vcpu0);
    note(saved);
    if (saved) {
      await(vcpu0, "one that was saved");
      note(timer_.restore(vcpu0, saved.assume_value()));
      if (saved.assume_value().deadline) await(vcpu0, "one that was restored");
    }
    tick(vcpu1);
    note(timer_.unbind(vcpu0));
    note(timer_.unbind(vcpu1));
  }

 private:
  template <class T>
  void note(const Result<T>& result) {
    if (result) return;
    again_ = true;
    if (!said_) said_ = result.error();
  }
  void call(const xen_abi::Hypercall& hypercall, XenVcpuId vcpu = vcpu0) {
    const auto answer = timer_.handle(vcpu, hypercall);
    if (!answer || answer->guest.rax() != 0) lost_ = "a call";
    if (answer) note(answer->host);
  }
  void arm(XenVcpuId vcpu, Duration ahead) {
    vmm_.look();
    vmm_.events[vcpu.value] = 0;
    const auto deadline =
        static_cast<std::uint64_t>((vmm_.guest_now(vcpu) + ahead).time_since_epoch().count());
    std::memcpy(vmm_.argument.data(), &deadline, sizeof(deadline));
    call({.number = xen_abi::hypercall::vcpu_op,
          .params = {xen_abi::vcpuop::set_singleshot_timer, vcpu.value, 0},
          .long_mode = true},
         vcpu);
  }
  // Three of a periodic timer's, at least.
  void tick(XenVcpuId vcpu) {
    const std::uint64_t period = 1'000'000;
    std::memcpy(vmm_.argument.data(), &period, sizeof(period));
    vmm_.events[vcpu.value] = 0;
    xen_abi::Hypercall periodic = stop();
    periodic.params = {xen_abi::vcpuop::set_periodic_timer, vcpu.value, 0};
    call(periodic);
    pump([&] { return vmm_.events[vcpu.value] >= 3; });
    if (vmm_.events[vcpu.value] < 3) lost_ = "ticks";
    periodic.params[0] = xen_abi::vcpuop::stop_periodic_timer;
    call(periodic);
  }
  static xen_abi::Hypercall stop() {
    return {.number = xen_abi::hypercall::vcpu_op,
            .params = {xen_abi::vcpuop::stop_singleshot_timer, 0, 0},
            .long_mode = true};
  }
  void await(XenVcpuId vcpu, const char* what) {
    pump([&] { return vmm_.events[vcpu.value] != 0; });
    if (vmm_.events[vcpu.value] != 1) lost_ = what;
    vmm_.events[vcpu.value] = 0;
  }
  // As a VMM's thread does: expire() when the fd is readable, and after an error. Only where
  // something was lost does it take so long.
  template <class Done>
  void pump(const Done& done) {
    const HostTime end = HostClock::now() + std::chrono::seconds(10);
    while (!done() && HostClock::now() < end) {
      pollfd entry{backend_.fd(), POLLIN, 0};
      const bool readable = ::poll(&entry, 1, 0) == 1;
      const bool signalled = Spinning::signalled.exchange(false);
      if (readable || signalled || std::exchange(again_, false)) note(timer_.expire());
      vmm_.look();
    }
  }

  Vmm& vmm_;
  B& backend_;
  Handler<Vmm, B> timer_;
  std::optional<vmm_base::Error> said_;
  const char* lost_ = nullptr;
  bool again_ = false;
};

template <class Way>
struct Faults : testing::Test {
  void SetUp() override {
    if (!std::is_same_v<Way, Irqfd>) return;
    if (const char* why = no_io_uring()) GTEST_SKIP() << why;
  }
};
using Ways = testing::Types<Timerfd, Irqfd, Delegated, Spinning>;
TYPED_TEST_SUITE(Faults, Ways, WayName);

TYPED_TEST(Faults, OfEachSystemCallAreSaidAndLoseNoTimer) {
  const std::size_t fds = open_fds();
  const failing::Held held = failing::held();
  std::size_t failures = 0;
  for (std::size_t n = 1;; ++n) {
    Vmm vmm;
    std::optional<vmm_base::Error> said;
    const char* lost = nullptr;
    failing::next(n, ENOMEM);
    {
      auto created = TypeParam::create(vmm);
      if (created) {
        Guest guest(vmm, created.assume_value());
        guest.live(TypeParam::has_path);
        said = guest.said();
        lost = guest.lost();
      } else {
        said = created.error();
      }
    }
    const failing::Seen seen = failing::none();
    EXPECT_TRUE(failing::held() == held) << "call " << n << ": memory leaks";
    EXPECT_EQ(lost, nullptr) << "call " << n << ", "
                             << (seen.failed == nullptr ? "none" : seen.failed) << ": " << lost;
    if (seen.failed == nullptr) break;
    ++failures;
    ASSERT_TRUE(said) << "call " << n << ", " << seen.failed << ": nothing was said";
    EXPECT_EQ(said->code, ENOMEM) << said->message();
    EXPECT_STREQ(said->operation, seen.failed);
  }
  EXPECT_GE(failures, 5u);
  this->RecordProperty("failures", static_cast<int>(failures));
  EXPECT_EQ(open_fds(), fds);
}

TYPED_TEST(Faults, OfAllocationsLeaveNothingAndThereAreNoneLater) {
  const std::size_t fds = open_fds();
  const failing::Held held = failing::held();
  std::size_t failures = 0;
  for (std::size_t n = 1;; ++n) {
    Vmm vmm;
    EXPECT_TRUE(failing::held() == held) << "allocation " << n << ": memory leaks";
    failing::next(n, ENOMEM, failing::Of::allocations);
    try {
      auto created = TypeParam::create(vmm);
      const failing::Seen seen = failing::none();
      ASSERT_EQ(seen.failed, nullptr);
      ASSERT_TRUE(created);
      failing::next(1, ENOMEM, failing::Of::allocations);
      Guest guest(vmm, created.assume_value());
      guest.live(TypeParam::has_path);
      EXPECT_EQ(failing::none().calls, 0u);
      EXPECT_EQ(guest.lost(), nullptr);
      break;
    } catch (const std::bad_alloc&) {
      (void)failing::none();
      ++failures;
    }
  }
  EXPECT_GT(failures, 0u);
  EXPECT_EQ(open_fds(), fds);
}

}  // namespace
}  // namespace xen_timer
