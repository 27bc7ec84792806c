// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// How late an event is raised, by a TimerfdBackend in an epoll loop, beside an epoll loop that
// waits for a timerfd and does nothing else: by turns, one deadline each.
//
//   lateness [SAMPLES]    2000 by default; JSON on stdout: ns, in the order in which they were
//   taken
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "xen_timer/handler.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace {

using namespace xen_timer;
using xen_clock::HostClock;

struct Recorder {
  std::int64_t argument[2] = {};
  std::int64_t raised_at = 0;

  bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte> to) {
    std::memcpy(to.data(), argument, to.size());
    return true;
  }
  GuestTime guest_now(XenVcpuId) { return GuestTime(HostClock::now().time_since_epoch()); }
  Result<void> raise_event(XenVcpuId, EventPort) {
    raised_at = HostClock::now().time_since_epoch().count();
    return vmm_base::success();
  }
};

std::int64_t host_now() { return HostClock::now().time_since_epoch().count(); }

int epoll_for(int fd) {
  const int epoll = ::epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{.events = EPOLLIN, .data = {}};
  ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
  return epoll;
}
void wait_for(int epoll) {
  epoll_event event;
  while (::epoll_wait(epoll, &event, 1, -1) != 1) {
  }
}
void print(const char* name, const std::vector<std::int64_t>& samples, const char* end) {
  std::printf("  \"%s\": [", name);
  for (std::size_t i = 0; i < samples.size(); ++i) {
    std::printf("%s%lld", i == 0 ? "" : ", ", static_cast<long long>(samples[i]));
  }
  std::printf("]%s\n", end);
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 2000;
  constexpr XenVcpuId vcpu{0};
  Recorder vmm;
  auto backend = TimerfdBackend::create(1);
  if (!backend) {
    std::fprintf(stderr, "lateness: %s\n", backend.error().message().c_str());
    return 1;
  }
  Handler timer(vmm, backend.value());
  if (!timer.bind(vcpu, {3})) return 1;
  const int ours = epoll_for(backend.value().fd());

  const int fd = ::timerfd_create(HostClock::id, TFD_CLOEXEC | TFD_NONBLOCK);
  const int bare = epoll_for(fd);

  const xen_abi::Hypercall set_singleshot{
      .number = xen_abi::hypercall::vcpu_op,
      .params = {xen_abi::vcpuop::set_singleshot_timer, vcpu.value, 64}};
  std::vector<std::int64_t> ours_late;
  std::vector<std::int64_t> bare_late;
  for (int i = 0; i < count; ++i) {
    const std::int64_t distance = 300'000 + i * 7919LL % 1'000'000;

    vmm.raised_at = 0;
    vmm.argument[0] = host_now() + distance;
    if (timer.handle(vcpu, set_singleshot)->guest.rax() != 0) return 1;
    while (vmm.raised_at == 0) {
      wait_for(ours);
      if (!timer.expire()) return 1;
    }
    ours_late.push_back(vmm.raised_at - vmm.argument[0]);

    const std::int64_t deadline = host_now() + distance;
    itimerspec spec{};
    spec.it_value = {deadline / 1'000'000'000, deadline % 1'000'000'000};
    ::timerfd_settime(fd, TFD_TIMER_ABSTIME, &spec, nullptr);
    wait_for(bare);
    std::uint64_t expirations = 0;
    (void)!::read(fd, &expirations, sizeof(expirations));
    bare_late.push_back(host_now() - deadline);
  }
  std::puts("{");
  print("ours", ours_late, ",");
  print("bare", bare_late, "");
  std::puts("}");
}
