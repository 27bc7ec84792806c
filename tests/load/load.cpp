// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What stays of a guest that keeps the timers as busy as it can, and of many guests one after the
// other: no timer lost, none early, and nothing of memory, files and threads.
//
//   load TIMER_GUEST busy SECONDS VCPUS   each way of serving timers for so long
//   load TIMER_GUEST cycles COUNT         so many VMs of two vCPUs, started and stopped
#include <malloc.h>
#include <sys/utsname.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "domain.hpp"
#include "host.hpp"

namespace {

using namespace vmm_reference;

constexpr std::uint64_t mib = 1 << 20;

// What this process takes of its host.
struct Usage {
  std::uint64_t heap = 0;      // bytes: malloc's
  std::uint64_t resident = 0;  // bytes that no file backs: heaps, stacks, guest RAM
  std::uint64_t mapped = 0;    // bytes of address space
  std::size_t fds = 0;
  std::size_t threads = 0;

  static Usage now() {
    Usage usage;
    const struct mallinfo2 heap = ::mallinfo2();
    usage.heap = heap.uordblks + heap.hblkhd;
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
      const auto kib = [&](std::string_view name, std::uint64_t& to) {
        if (line.starts_with(name)) to = std::stoull(line.substr(name.size())) << 10;
      };
      kib("RssAnon:", usage.resident);
      kib("VmSize:", usage.mapped);
    }
    usage.fds = entries("/proc/self/fd");
    usage.threads = entries("/proc/self/task");
    return usage;
  }

 private:
  static std::size_t entries(const char* folder) {
    return static_cast<std::size_t>(std::distance(std::filesystem::directory_iterator(folder), {}));
  }
};

// The least and the most, in a part of the time from now on.
class Watch {
 public:
  Watch(std::chrono::milliseconds from, std::chrono::milliseconds to)
      : thread_([this, from, end = std::chrono::steady_clock::now() + to] {
          std::this_thread::sleep_for(from);
          while (std::chrono::steady_clock::now() < end) {
            look(Usage::now());
            std::this_thread::sleep_for(std::chrono::milliseconds(100));
          }
        }) {}
  // How far apart they are, of each. Waits for the end of that time.
  Usage span() {
    thread_.join();
    return {most_.heap - least_.heap, most_.resident - least_.resident,
            most_.mapped - least_.mapped, most_.fds - least_.fds, most_.threads - least_.threads};
  }
  [[nodiscard]] unsigned looks() const { return looks_; }

 private:
  void look(const Usage& now) {
    if (looks_++ == 0) least_ = most_ = now;
    const auto each = [&](auto Usage::*member) {
      least_.*member = std::min(least_.*member, now.*member);
      most_.*member = std::max(most_.*member, now.*member);
    };
    each(&Usage::heap);
    each(&Usage::resident);
    each(&Usage::mapped);
    each(&Usage::fds);
    each(&Usage::threads);
  }

  Usage least_;
  Usage most_;
  unsigned looks_ = 0;
  std::jthread thread_;  // the last: it uses the others
};

std::optional<RunReport> run(const Host& host, const std::vector<char>& guest, TimerMode mode,
                             std::uint32_t vcpus, const Options& options) {
  auto ran = run_domain(host, std::as_bytes(std::span(guest)), mode, vcpus, options);
  if (const auto* message = std::get_if<std::string>(&ran)) {
    std::printf("FAILED: %s\n", message->c_str());
    return std::nullopt;
  }
  return std::get<RunReport>(std::move(ran));
}

struct Sum {
  std::uint64_t armed = 0;
  std::uint64_t fired = 0;
  std::uint64_t lost = 0;
  std::uint64_t early = 0;
  std::uint64_t wrong = 0;                   // refused, unasked, or a clock that went back
  std::uint64_t fewest = ~std::uint64_t{0};  // armed by one vCPU
};

Sum sum_of(const RunReport& report) {
  Sum sum;
  for (const VcpuReport& vcpu : report.vcpus) {
    const TimerReport& guest = vcpu.guest;
    sum.armed += guest.armed;
    sum.fired += guest.fired;
    sum.lost += guest.armed - std::min(guest.armed, guest.fired);
    sum.early += guest.early;
    sum.wrong += guest.refused + guest.unasked + guest.back;
    sum.fewest = std::min<std::uint64_t>(sum.fewest, guest.armed);
  }
  return sum;
}

bool busy(const Host& host, const std::vector<char>& guest, std::chrono::seconds duration,
          std::uint32_t vcpus) {
  bool good = true;
  for (const TimerMode mode : host.modes()) {
    Options options;
    options.load = duration;
    options.timeout = duration + std::chrono::seconds(120);
    // What is allocated once is by half the time. The guest begins after us, and so ends later.
    Watch watch(duration / 2, duration);
    const auto report = run(host, guest, mode, vcpus, options);
    if (!report) return false;
    const Sum sum = sum_of(*report);
    const Usage span = watch.span();
    // KVM's own timer may be a little early: the guest's clock isn't the one that it counts by.
    const bool ours = mode != TimerMode::kernel;
    // Resident is the guest's RAM, too, which it touches bit by bit.
    const bool fine = !report->timed_out && report->faults.empty() && sum.lost == 0 &&
                      (!ours || sum.early == 0) && sum.wrong == 0 && sum.fewest > 0 &&
                      span.heap < mib && span.mapped < mib && span.fds == 0 && span.threads == 0 &&
                      watch.looks() != 0;
    std::printf(
        "%s: %u vCPUs for %lld s: %llu armed, the slowest vCPU %llu; %llu lost, %llu early, %llu "
        "wrong; heap within %llu bytes, mapped %llu, resident %llu, fds %zu, threads %zu: %s\n",
        to_string(mode), vcpus, static_cast<long long>(duration.count()),
        static_cast<unsigned long long>(sum.armed), static_cast<unsigned long long>(sum.fewest),
        static_cast<unsigned long long>(sum.lost), static_cast<unsigned long long>(sum.early),
        static_cast<unsigned long long>(sum.wrong), static_cast<unsigned long long>(span.heap),
        static_cast<unsigned long long>(span.mapped),
        static_cast<unsigned long long>(span.resident), span.fds, span.threads,
        fine ? "ok" : "FAILED");
    if (report->timed_out) std::printf("  the time is out\n");
    for (const std::string& fault : report->faults) std::printf("  %s\n", fault.c_str());
    std::fflush(stdout);
    good = good && fine;
  }
  return good;
}

bool cycles(const Host& host, const std::vector<char>& guest, std::uint32_t count) {
  const std::vector<TimerMode> modes = host.modes();
  Options options;
  options.count = 2;
  bool good = true;
  const auto cycle = [&](std::uint32_t n) {
    const auto report = run(host, guest, modes[n % modes.size()], 2, options);
    good = good && report && !report->timed_out && report->faults.empty() &&
           sum_of(*report).lost == 0 && sum_of(*report).armed == 2 * options.count;
    return good;
  };
  // Threads' heaps, and what libraries make once.
  for (std::uint32_t n = 0; n < 40; ++n) {
    if (!cycle(n)) return false;
  }
  const Usage before = Usage::now();
  for (std::uint32_t n = 0; n < count; ++n) {
    if (!cycle(n)) {
      std::printf("FAILED: cycle %u\n", n);
      return false;
    }
  }
  const Usage after = Usage::now();
  const auto moved = [](std::uint64_t from, std::uint64_t to) {
    return static_cast<long long>(to) - static_cast<long long>(from);
  };
  good = after.fds == before.fds && after.threads == before.threads &&
         moved(before.heap, after.heap) < 1024 &&
         moved(before.resident, after.resident) < static_cast<long long>(mib) &&
         moved(before.mapped, after.mapped) < static_cast<long long>(mib);
  std::printf(
      "%u VMs started and stopped: fds %zu and %zu, threads %zu and %zu, heap %+lld bytes, "
      "resident %+lld, mapped %+lld: %s\n",
      count, before.fds, after.fds, before.threads, after.threads, moved(before.heap, after.heap),
      moved(before.resident, after.resident), moved(before.mapped, after.mapped),
      good ? "ok" : "FAILED");
  return good;
}

std::uint32_t number(const char* text) {
  std::uint32_t value = 0;
  const std::string_view all(text);
  const auto [end, error] = std::from_chars(all.data(), all.data() + all.size(), value);
  if (error != std::errc{} || end != all.data() + all.size() || value == 0) {
    std::fprintf(stderr, "load: not a number: %s\n", text);
    std::exit(2);
  }
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  // A thread's first malloc() maps an arena of 64 MiB, whenever that is; and mallinfo() sees one.
  (void)::mallopt(M_ARENA_MAX, 1);
  const std::string_view what = argc > 3 ? argv[2] : "";
  if ((what != "busy" || argc != 5) && (what != "cycles" || argc != 4)) {
    std::fprintf(stderr, "load TIMER_GUEST busy SECONDS VCPUS\nload TIMER_GUEST cycles COUNT\n");
    return 2;
  }
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> guest{std::istreambuf_iterator<char>(file), {}};
  auto opened = Host::open("/dev/kvm");
  if (const auto* message = std::get_if<std::string>(&opened)) {
    std::fprintf(stderr, "load: %s\n", message->c_str());
    return 1;
  }
  const Host& host = std::get<Host>(opened);
  utsname kernel{};
  ::uname(&kernel);
  std::printf("Linux %s: %s\n", kernel.release, host.description().c_str());
  const bool good = what == "busy"
                        ? busy(host, guest, std::chrono::seconds(number(argv[3])), number(argv[4]))
                        : cycles(host, guest, number(argv[3]));
  return good ? 0 : 1;
}
