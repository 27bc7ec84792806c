// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Runs one hostile guest after the other, each for two seconds, whatever becomes of it; then a
// well-behaved one, in the same process, for each way of serving timers. Good if this process is
// still there, is no larger, has no more files open and threads running, and the last lost no
// timer.
//
//   hostile HOSTILE_GUEST TIMER_GUEST [SECONDS [VCPUS]]
#include <fcntl.h>
#include <malloc.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

#include "domain.hpp"
#include "host.hpp"
#include "report.hpp"

namespace {

using namespace vmm_reference;
using Clock = std::chrono::steady_clock;

constexpr std::uint64_t mib = 1 << 20;
constexpr std::chrono::seconds one_run{2};

std::vector<char> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "hostile: can't read %s\n", path.c_str());
    std::exit(2);
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t entries(const char* folder) {
  return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
}

// What this process takes of its host.
struct Usage {
  std::uint64_t anonymous = 0;  // bytes: heaps and stacks; and guest RAM, where there is some
  std::size_t fds = 0;
  std::size_t threads = 0;

  static Usage now() {
    Usage usage;
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      if (line.starts_with("RssAnon:")) usage.anonymous = std::stoull(line.substr(8)) << 10;
    }
    usage.fds = entries("/proc/self/fd");
    usage.threads = entries("/proc/self/task");
    return usage;
  }
  // A thread that was joined may still be listed for a moment.
  static Usage at_rest(const Usage& before) {
    Usage usage = now();
    for (int tries = 0; usage.threads > before.threads && tries < 100; ++tries, usage = now()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    return usage;
  }
};

// How far this process's heap moves while guests run: guest RAM isn't in it.
class HeapWatch {
 public:
  [[nodiscard]] std::uint64_t span() const { return most_ - least_; }  // bytes

 private:
  static std::uint64_t size() {
    const struct mallinfo2 heap = ::mallinfo2();
    return heap.uordblks + heap.hblkhd;
  }
  void watch(const std::stop_token& stop) {
    for (; !stop.stop_requested(); std::this_thread::sleep_for(std::chrono::milliseconds(20))) {
      const std::uint64_t now = size();
      least_ = std::min(least_.load(), now);
      most_ = std::max(most_.load(), now);
    }
  }
  std::atomic<std::uint64_t> least_ = size();
  std::atomic<std::uint64_t> most_ = least_.load();
  std::jthread thread_{[this](const std::stop_token& stop) { watch(stop); }};
};

// A guest prints what it likes; it isn't for the reader of this test.
class Silence {
 public:
  Silence() : stderr_(::dup(2)) {
    const int null = ::open("/dev/null", O_WRONLY | O_CLOEXEC);
    ::dup2(null, 2);
    ::close(null);
  }
  Silence(const Silence&) = delete;
  Silence& operator=(const Silence&) = delete;
  ~Silence() {
    ::dup2(stderr_, 2);
    ::close(stderr_);
  }

 private:
  int stderr_;
};

// One that can't be stopped: which it was, and the end.
volatile std::uint32_t running_seed = 0;
void cant_be_stopped(int) {
  std::array<char, 64> text{};
  const int length = std::snprintf(text.data(), text.size(),
                                   "FAILED: hostile guest %u can't be stopped\n", running_seed);
  [[maybe_unused]] const auto n = ::write(1, text.data(), static_cast<std::size_t>(length));
  ::_exit(1);
}

class Test {
 public:
  Test(const Host& host, std::uint32_t vcpus) : host_(host), modes_(host.modes()), vcpus_(vcpus) {}

  // `count` is what the guest makes of it. nullopt: the VM couldn't be set up.
  std::optional<RunReport> run(const std::vector<char>& guest, TimerMode mode, std::uint32_t count,
                               std::chrono::seconds timeout) {
    Options options;
    options.count = count;
    options.timeout = timeout;
    auto ran = run_domain(host_, std::as_bytes(std::span(guest)), mode, vcpus_, options);
    if (const auto* message = std::get_if<std::string>(&ran)) {
      std::printf("%s\n", message->c_str());
      return std::nullopt;
    }
    return std::get<RunReport>(std::move(ran));
  }

  // Hostile guests for so long, each with a number and a way to serve timers of its own; false
  // where one couldn't even be started.
  bool attack(const std::vector<char>& guest, std::chrono::seconds duration) {
    const Silence silence;
    for (const auto end = Clock::now() + duration; Clock::now() < end; ++seed_) {
      running_seed = seed_;
      ::alarm(60);
      const auto report = run(guest, modes_[seed_ % modes_.size()], seed_, one_run);
      ::alarm(0);
      if (!report) return false;
      ++runs_;
      survived_ += report->timed_out;
      for (const std::string& fault : report->faults) ++faults_[kind_of(fault)];
      if (!report->vcpus.empty()) count_calls(report->vcpus.front().text);
    }
    return true;
  }

  // Every timer, in every way to serve them.
  bool serves_well(const std::vector<char>& guest) {
    bool good = true;
    print_head(stdout);
    for (const TimerMode mode : modes_) {
      constexpr std::uint32_t timers = 200;
      const auto report = run(guest, mode, timers, std::chrono::seconds(60));
      if (!report) return false;
      const Verdict verdict = judge(*report, timers);
      good = print_rows(stdout, *report, verdict) && verdict.good && good;
    }
    return good;
  }

  // False if something that should have been called hasn't been.
  bool tell() const {
    std::printf("%u hostile guests, of which %u lived until they were stopped; their calls:", runs_,
                survived_);
    for (const auto& [name, count] : calls_) {
      std::printf(" %s %llu", name.c_str(), static_cast<unsigned long long>(count));
    }
    std::printf("\n");
    for (const auto& [fault, count] : faults_) std::printf("  %4u x %s\n", count, fault.c_str());
    std::fflush(stdout);
    const auto some = [&](const char* name) {
      const auto found = calls_.find(name);
      return found != calls_.end() && found->second != 0;
    };
    // From ring 3 there are calls only where they are instructions; and not every KVM without
    // KVM_XEN bears VM86.
    return some("kernel") && some("compat") && some("succeeded") &&
           (!host_.xen_exits || some("ring3")) &&
           (vcpus_ == 1 || (some("changed") && some("unpaged"))) &&
           (vcpus_ == 1 || !host_.xen_exits || some("vm86"));
  }

 private:
  // "vCPU 1: 17 host errors, the first: X(0x5): Y" is "host errors, the first: X".
  static std::string kind_of(const std::string& fault) {
    const auto from = fault.find_first_not_of("0123456789 :", fault.find(": "));
    return fault.substr(std::min(from, fault.size()), fault.find('(') - from);
  }
  void count_calls(const std::string& text) {
    std::istringstream lines(text);
    std::string name;
    for (std::uint64_t count = 0; lines >> name >> count;) calls_[name] += count;
  }

  const Host& host_;
  std::vector<TimerMode> modes_;
  std::uint32_t vcpus_;
  std::uint32_t seed_ = 1;
  std::uint32_t runs_ = 0;
  std::uint32_t survived_ = 0;
  std::map<std::string, std::uint64_t> calls_;
  std::map<std::string, unsigned> faults_;
};

int number(const char* text) {
  int value = 0;
  const std::string_view all(text);
  const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value);
  if (error != std::errc{} || end != all.data() + all.size() || value < 1) {
    std::fprintf(stderr, "hostile: not a number: %s\n", text);
    std::exit(2);
  }
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3 || argc > 5) {
    std::fprintf(stderr, "hostile HOSTILE_GUEST TIMER_GUEST [SECONDS [VCPUS]]\n");
    return 2;
  }
  const std::vector<char> hostile_guest = read_file(argv[1]);
  const std::vector<char> timer_guest = read_file(argv[2]);
  const std::chrono::seconds duration(argc > 3 ? number(argv[3]) : 30);
  const auto vcpus = static_cast<std::uint32_t>(argc > 4 ? number(argv[4]) : 4);

  auto opened = Host::open("/dev/kvm");
  if (const auto* message = std::get_if<std::string>(&opened)) {
    std::fprintf(stderr, "hostile: %s\n", message->c_str());
    return 1;
  }
  const Host& host = std::get<Host>(opened);
  utsname kernel{};
  ::uname(&kernel);
  std::printf("Linux %s: %s\n", kernel.release, host.description().c_str());

  std::fflush(stdout);
  ::signal(SIGALRM, cant_be_stopped);
  Test test(host, vcpus);
  // What is allocated once, is by now: threads' heaps, above all.
  if (!test.attack(hostile_guest, one_run * 4)) return 1;
  const Usage before = Usage::now();
  std::uint64_t heap = 0;
  {
    const HeapWatch watch;
    if (!test.attack(hostile_guest, duration)) return 1;
    heap = watch.span();
  }
  const Usage after = Usage::at_rest(before);
  const bool was_called = test.tell();
  const bool no_larger = after.anonymous < before.anonymous + mib && heap < mib;
  const bool no_more = after.fds == before.fds && after.threads == before.threads;
  const auto more = [](auto now, auto then) {
    return static_cast<long long>(now) - static_cast<long long>(then);
  };
  std::printf(
      "this process: its heap moved by %llu KiB meanwhile; since then it has %+lld KiB of memory, "
      "%+lld files, %+lld threads\n",
      static_cast<unsigned long long>(heap >> 10), more(after.anonymous, before.anonymous) / 1024,
      more(after.fds, before.fds), more(after.threads, before.threads));
  const bool serves = test.serves_well(timer_guest);

  if (!was_called) std::printf("FAILED: not all that should have been called was\n");
  if (!no_larger) std::printf("FAILED: it takes, or took meanwhile, over 1 MiB more than before\n");
  if (!no_more) std::printf("FAILED: files or threads are left\n");
  if (!serves) std::printf("FAILED: a well-behaved guest lost timers\n");
  const bool good = was_called && no_larger && no_more && serves;
  std::printf("%d of 4 checks passed\n", was_called + no_larger + no_more + serves);
  return good ? 0 : 1;
}
