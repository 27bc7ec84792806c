// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// VCPUOP_set_singleshot_timer from the decoded call to the answer, on a clock that is a number,
// beside the least that any handler of it does: copy the argument in, read the clock, keep the
// deadline.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <vector>

#include "xen_abi/vcpu.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/timerfd_backend.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace {

using namespace xen_timer;

struct Vmm {
  std::array<std::byte, 4096> ram{};
  GuestTime now{};

  bool copy_from_guest(XenVcpuId, Gva from, std::span<std::byte> to) {
    if (from.value > ram.size() || to.size() > ram.size() - from.value) return false;
    std::memcpy(to.data(), ram.data() + from.value, to.size());
    return true;
  }
  GuestTime guest_now(XenVcpuId) { return now; }
  Result<void> raise_event(XenVcpuId, EventPort) { return vmm_base::success(); }
  // The guest's next deadline, at `at` of its memory.
  void ask(std::uint64_t at, std::int64_t deadline) {
    std::memcpy(ram.data() + at, &deadline, sizeof(deadline));
  }
};

xen_abi::Hypercall set_singleshot(XenVcpuId vcpu, std::uint64_t at) {
  return {.number = xen_abi::hypercall::vcpu_op,
          .params = {xen_abi::vcpuop::set_singleshot_timer, vcpu.value, at}};
}

constexpr std::int64_t period = 4'000'000;

void set_singleshot_timer(benchmark::State& state) {
  const auto vcpus = static_cast<std::uint32_t>(state.range(0));
  Vmm vmm;
  VirtualBackend backend(vcpus);
  Handler timer(vmm, backend);
  for (std::uint32_t id = 0; id < vcpus; ++id) {
    if (!timer.bind({id}, {std::min(id + 1, 4095u)})) state.SkipWithError("bind");
  }
  std::uint32_t id = 0;
  for (auto _ : state) {
    vmm.now += Duration(1000);
    vmm.ask(64, vmm.now.time_since_epoch().count() + period);
    const auto answer = timer.handle({id}, set_singleshot({id}, 64));
    benchmark::DoNotOptimize(answer->guest.rax());
    if (++id == vcpus) id = 0;
  }
  // As when Linux ticks: each vCPU's next deadline is the last of all.
  state.counters["settime"] =
      static_cast<double>(backend.alarm().sets()) / static_cast<double>(state.iterations());
}
BENCHMARK(set_singleshot_timer)->Arg(1)->Arg(4)->Arg(64)->Arg(4096);

void limit(benchmark::State& state) {
  Vmm vmm;
  struct Kept {
    std::int64_t deadline = 0;
    GuestTime at{};
  };
  const auto vcpus = static_cast<std::uint32_t>(state.range(0));
  std::vector<Kept> kept(vcpus);
  std::uint32_t id = 0;
  for (auto _ : state) {
    vmm.now += Duration(1000);
    vmm.ask(64, vmm.now.time_since_epoch().count() + period);
    std::array<std::byte, 16> argument;
    if (!vmm.copy_from_guest({id}, {64}, argument)) state.SkipWithError("copy");
    std::memcpy(&kept[id].deadline, argument.data(), 8);
    kept[id].at = vmm.guest_now({id});
    benchmark::DoNotOptimize(kept[id]);
    if (++id == vcpus) id = 0;
  }
}
BENCHMARK(limit)->Arg(1)->Arg(4)->Arg(64)->Arg(4096);

// The same with a timerfd, whose clock is the host's, and with what one timerfd_settime() costs.
void set_singleshot_timer_by_timerfd(benchmark::State& state) {
  const auto vcpus = static_cast<std::uint32_t>(state.range(0));
  Vmm vmm;
  auto backend = TimerfdBackend::create(vcpus);
  if (!backend) return state.SkipWithError("timerfd");
  Handler timer(vmm, backend.value());
  for (std::uint32_t id = 0; id < vcpus; ++id) {
    if (!timer.bind({id}, {std::min(id + 1, 4095u)})) state.SkipWithError("bind");
  }
  std::uint32_t id = 0;
  for (auto _ : state) {
    vmm.now = GuestTime(xen_clock::HostClock::now().time_since_epoch());
    vmm.ask(64, vmm.now.time_since_epoch().count() + period);
    const auto answer = timer.handle({id}, set_singleshot({id}, 64));
    benchmark::DoNotOptimize(answer->guest.rax());
    if (++id == vcpus) id = 0;
  }
}
BENCHMARK(set_singleshot_timer_by_timerfd)->Arg(1)->Arg(64);

void timerfd_settime_alone(benchmark::State& state) {
  auto alarm = TimerfdAlarm::create();
  if (!alarm) return state.SkipWithError("timerfd");
  for (auto _ : state) {
    if (!alarm.value().set(xen_clock::HostClock::now() + Duration(period)))
      state.SkipWithError("set");
  }
}
BENCHMARK(timerfd_settime_alone);

}  // namespace
