// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What can be counted exactly, whatever else the machine does: instructions of hot paths, and
// system calls. tests/bench/exact runs it and holds the counts against those recorded in exact.txt.
//
//   exact instructions   under callgrind, which writes a file a path
//   exact syscalls       by itself: a line a path, "NAME COUNT", a hundred times what one call
//   makes
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>
#include <valgrind/callgrind.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "../../xen-hcall/benches/forty.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/irqfd_backend.hpp"
#include "xen_timer/spinning_backend.hpp"
#include "xen_timer/timerfd_backend.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace {

using namespace xen_timer;

constexpr std::uint32_t vcpus = 64;
constexpr int calls = 1000;
constexpr Duration period = std::chrono::milliseconds(4);

// The guest's clock stands where it is put; the kernel takes whatever it is given.
struct Vmm {
  std::int64_t argument[2] = {};
  GuestTime now = GuestTime(xen_clock::HostClock::now().time_since_epoch());
  std::uint64_t events = 0;

  bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte> to) {
    std::memcpy(to.data(), argument, to.size());
    return true;
  }
  GuestTime guest_now(XenVcpuId) { return now; }
  Result<void> raise_event(XenVcpuId, EventPort) {
    ++events;
    return vmm_base::success();
  }
  Result<void> set_timer(XenVcpuId, EventPort, std::optional<GuestTime>) {
    return vmm_base::success();
  }
  Result<std::optional<GuestTime>> timer(XenVcpuId) { return std::optional<GuestTime>{}; }
  Result<void> route_event(XenVcpuId, EventPort, int) { return vmm_base::success(); }
};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "exact: %s\n", what.c_str());
  std::exit(1);
}

template <class Backend>
struct Guest {
  Vmm vmm;
  Backend backend;
  Handler<Vmm, Backend> timer{vmm, backend};
  std::uint32_t next = 0;

  template <class Make>
  explicit Guest(Make&& make) : backend(make(vmm)) {
    for (std::uint32_t id = 0; id < vcpus; ++id) {
      if (!timer.bind({id}, {id + 1})) die("bind");
    }
  }
  XenVcpuId another() { return {next++ % vcpus}; }
  void call(XenVcpuId vcpu, std::uint64_t number, std::array<std::uint64_t, 3> params) {
    const xen_abi::Hypercall call{.number = number, .params = {params[0], params[1], params[2]}};
    const auto answer = timer.handle(vcpu, call);
    if (!answer || !answer->host || answer->guest.rax() != 0) die("a timer call");
  }
  // Linux' tick: each vCPU's next deadline is later than any that is armed.
  void tick() {
    vmm.now += Duration(1000);
    arm(another(), period);
  }
  void arm(XenVcpuId vcpu, Duration ahead) {
    vmm.argument[0] = (vmm.now + ahead).time_since_epoch().count();
    call(vcpu, xen_abi::hypercall::vcpu_op,
         {xen_abi::vcpuop::set_singleshot_timer, vcpu.value, 64});
  }
  void set_timer_op() {
    vmm.now += Duration(1000);
    call(another(), xen_abi::hypercall::set_timer_op,
         {static_cast<std::uint64_t>((vmm.now + period).time_since_epoch().count())});
  }
  void stop() {
    const XenVcpuId vcpu = another();
    call(vcpu, xen_abi::hypercall::vcpu_op, {xen_abi::vcpuop::stop_singleshot_timer, vcpu.value});
  }
  void expire() {
    if (!timer.expire()) die("expire");
  }
};

struct Path {
  std::string name;
  std::function<void()> once;
  std::function<void()> before = [] {};  // not counted; only where system calls are
};

template <class Result>
auto must(Result result) {
  if (!result) die(result.error().message());
  return std::move(result).assume_value();
}
// This thread is the vCPU's.
template <class Backend>
void attach(Backend& backend, XenVcpuId vcpu) {
  if constexpr (requires { backend.attach(vcpu, SIGUSR1); }) must(backend.attach(vcpu, SIGUSR1));
  if constexpr (requires { backend.attach(vcpu); }) must(backend.attach(vcpu));
}
using Simulated = Guest<VirtualBackend>;

// So far ahead that none fires, and nearer than the horizon of an irqfd.
template <class Backend, class Make>
void add_arming(std::vector<Path>& paths, const std::string& name, Make make) {
  auto guest = std::make_shared<Guest<Backend>>(make);
  constexpr Duration far = std::chrono::milliseconds(31);
  constexpr XenVcpuId vcpu{5};
  const auto stop = [=] {
    guest->call(vcpu, xen_abi::hypercall::vcpu_op,
                {xen_abi::vcpuop::stop_singleshot_timer, vcpu.value});
  };
  const auto idle = [=] {
    stop();
    // In the process that is traced: such timers don't go with a fork.
    attach(guest->backend, vcpu);
    guest->expire();
    guest->vmm.now = GuestTime(xen_clock::HostClock::now().time_since_epoch());
  };
  const auto armed = [=] {
    idle();
    guest->arm(vcpu, far);
  };
  paths.push_back({name + ": arm the first", [=] { guest->arm(vcpu, far); }, idle});
  paths.push_back(
      {name + ": move it ahead", [=] { guest->arm(vcpu, far + Duration(500'000)); }, armed});
  paths.push_back({name + ": stop", stop, armed});
}

std::vector<Path> syscall_paths() {
  std::vector<Path> paths;
  add_arming<TimerfdBackend>(paths, "timerfd",
                             [](Vmm&) { return must(TimerfdBackend::create(vcpus)); });
  add_arming<SpinningBackend>(paths, "spinning",
                              [](Vmm&) { return must(SpinningBackend::create(vcpus)); });
  add_arming<IrqfdBackend<Vmm>>(
      paths, "irqfd", [](Vmm& vmm) { return must(IrqfdBackend<Vmm>::create(vmm, vcpus)); });
  add_arming<DelegatedBackend<Vmm>>(
      paths, "delegated", [](Vmm& vmm) { return must(DelegatedBackend<Vmm>::create(vmm, vcpus)); });
  auto guest = std::make_shared<Guest<TimerfdBackend>>(
      [](Vmm&) { return must(TimerfdBackend::create(vcpus)); });
  const auto due = [guest] {
    guest->vmm.now = GuestTime(xen_clock::HostClock::now().time_since_epoch());
    guest->arm({3}, Duration(20'000));
    ::usleep(100);
    guest->vmm.now += Duration(1'000'000);
  };
  paths.push_back({"timerfd: serve the last", [guest] { guest->expire(); }, due});
  paths.push_back({"timerfd: serve one of two", [guest] { guest->expire(); },
                   [guest, due] {
                     due();
                     guest->arm({4}, std::chrono::hours(1));
                   }});
  auto ticking = std::make_shared<Guest<TimerfdBackend>>(
      [](Vmm&) { return must(TimerfdBackend::create(vcpus)); });
  for (std::uint32_t id = 0; id < vcpus; ++id) ticking->tick();
  paths.push_back({"timerfd: tick of one of 64 vCPUs", [ticking] { ticking->tick(); }});
  return paths;
}

std::vector<Path> instruction_paths() {
  std::vector<Path> paths;
  const auto simulated = [] {
    auto guest = std::make_shared<Simulated>([](Vmm&) { return VirtualBackend(vcpus); });
    for (std::uint32_t id = 0; id < vcpus; ++id) guest->tick();
    return guest;
  };
  const auto ticking = simulated();
  paths.push_back({"set_singleshot_timer, 64 vCPUs", [ticking] { ticking->tick(); }});
  paths.push_back({"set_timer_op, 64 vCPUs", [ticking] { ticking->set_timer_op(); }});
  paths.push_back({"set_singleshot_timer, stop it", [ticking] {
                     ticking->tick();
                     --ticking->next;
                     ticking->stop();
                   }});
  const auto firing = simulated();
  paths.push_back({"set_singleshot_timer, serve it", [firing] {
                     firing->tick();
                     firing->backend.alarm().advance(Duration(1000));
                     firing->expire();
                   }});
  const auto guest = simulated();
  paths.push_back({"a hypercall that isn't a timer's", [guest] {
                     const xen_abi::Hypercall call{.number = 17};
                     if (guest->timer.handle({1}, call)) die("not a timer's");
                   }});
  for (const bool one : {false, true}) {
    auto ops = std::make_shared<forty::Ops>();
    auto some = std::make_shared<std::vector<xen_abi::Hypercall>>(forty::some_calls(one));
    auto next = std::make_shared<std::size_t>(0);
    paths.push_back({one ? "40 handlers, one of them" : "40 handlers, any of them", [=] {
                       volatile auto rax =
                           ops->dispatcher({1}, (*some)[(*next)++ % some->size()]).guest.rax();
                       (void)rax;
                     }});
  }
  for (const std::uint32_t n : {1u, 1'000u, 1'000'000u}) {
    auto queue = std::make_shared<TimerQueue>(n);
    auto random = std::make_shared<std::mt19937_64>(1);
    const auto move = [=](std::uint32_t id) {
      queue->set(id, xen_clock::HostTime(Duration((*random)() >> 24)));
    };
    for (std::uint32_t id = 0; id < n; ++id) move(id);
    paths.push_back({"move one of " + std::to_string(n) + " deadlines",
                     [=] { move(static_cast<std::uint32_t>((*random)() % n)); }});
    paths.push_back({"take out the first of " + std::to_string(n) + ", put it in", [=] {
                       const std::uint32_t id = queue->first();
                       queue->remove(id);
                       move(id);
                     }});
  }
  return paths;
}

void count_instructions() {
  for (const Path& path : instruction_paths()) {
    for (int i = 0; i < 100; ++i) path.once();
    CALLGRIND_ZERO_STATS;
    for (int i = 0; i < calls; ++i) path.once();
    CALLGRIND_DUMP_STATS_AT(path.name.c_str());
  }
}

// --- system calls, as a tracer sees them --------------------------------------------------------

constexpr long mark = 0xc0ffee;  // no system call: what the traced says to its tracer
enum Mark : long { skip, count, path_done };

// The paths are made here: what a thread has attached isn't inherited.
[[noreturn]] void be_traced() {
  const auto paths = syscall_paths();
  ::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
  ::raise(SIGSTOP);
  for (const Path& path : paths) {
    for (int i = 0; i < 100; ++i) {
      path.before();
      ::syscall(mark, count);
      path.once();
      ::syscall(mark, skip);
    }
    ::syscall(mark, path_done);
  }
  ::_exit(0);
}

void count_syscalls() {
  const auto paths = syscall_paths();
  sigset_t own;  // of a vCPU's thread; one that comes would stop the traced
  sigemptyset(&own);
  sigaddset(&own, SIGUSR1);
  ::sigprocmask(SIG_BLOCK, &own, nullptr);
  const pid_t child = ::fork();
  if (child == 0) be_traced();
  int status = 0;
  ::waitpid(child, &status, 0);
  ::ptrace(PTRACE_SETOPTIONS, child, nullptr, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL);
  bool counting = false;
  bool entering = true;
  unsigned counted = 0;
  std::vector<unsigned> each;
  auto path = paths.begin();
  for (;; entering = !entering) {
    ::ptrace(PTRACE_SYSCALL, child, nullptr, nullptr);
    ::waitpid(child, &status, 0);
    if (WIFEXITED(status)) break;
    if (!WIFSTOPPED(status) || WSTOPSIG(status) != (SIGTRAP | 0x80)) die("the traced died");
    if (!entering) continue;
    user_regs_struct registers{};
    ::ptrace(PTRACE_GETREGS, child, nullptr, &registers);
    if (registers.orig_rax != mark) {
      counted += counting ? 1 : 0;
    } else if (registers.rdi == path_done) {
      // The median: whoever is kept from running for longer than a deadline makes another call.
      std::sort(each.begin(), each.end());
      std::printf("%s\t%u\n", path->name.c_str(), 100 * each.at(each.size() / 2));
      each.clear();
      ++path;
    } else {
      if (registers.rdi == skip) each.push_back(std::exchange(counted, 0u));
      counting = registers.rdi == count;
    }
  }
  if (path != paths.end() || WEXITSTATUS(status) != 0) die("not all paths were counted");
}

// --- a guest that sleeps ------------------------------------------------------------------------

// Switches of the calling thread to another, as the kernel counts them.
long switches() {
  rusage usage{};
  ::getrusage(RUSAGE_THREAD, &usage);
  return usage.ru_nvcsw;
}

template <class Backend, class Make>
std::thread idle(const char* name, int stop, Make make) {
  return std::thread([=] {
    Guest<Backend> guest(make);
    for (std::uint32_t id = 0; id < vcpus; ++id) attach(guest.backend, {id});
    for (std::uint32_t id = 0; id < vcpus; ++id) guest.arm({id}, std::chrono::hours(1));
    pollfd fds[] = {{guest.backend.fd(), POLLIN, 0}, {stop, POLLIN, 0}};
    const long before = switches();
    while (fds[1].revents == 0) {
      if (::poll(fds, std::size(fds), -1) < 0) continue;
      if (fds[0].revents != 0) guest.expire();
    }
    std::printf("%s\t%ld\n", name, switches() - before - 1);  // the last was the end
  });
}

void count_wakeups() {
  const int stop = ::eventfd(0, EFD_CLOEXEC);
  std::signal(SIGUSR1, [](int) {});  // which wakes up, nevertheless
  std::vector<std::thread> threads;
  threads.push_back(idle<TimerfdBackend>("timerfd", stop,
                                         [](Vmm&) { return must(TimerfdBackend::create(vcpus)); }));
  threads.push_back(idle<SpinningBackend>(
      "spinning", stop, [](Vmm&) { return must(SpinningBackend::create(vcpus)); }));
  threads.push_back(idle<IrqfdBackend<Vmm>>(
      "irqfd", stop, [](Vmm& vmm) { return must(IrqfdBackend<Vmm>::create(vmm, vcpus)); }));
  std::this_thread::sleep_for(std::chrono::seconds(10));
  ::eventfd_write(stop, 1);
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc == 2 ? argv[1] : "";
  if (what == "instructions") {
    count_instructions();
  } else if (what == "syscalls") {
    count_syscalls();
  } else if (what == "idle") {
    count_wakeups();
  } else {
    die("usage: exact instructions|syscalls|idle");
  }
}
