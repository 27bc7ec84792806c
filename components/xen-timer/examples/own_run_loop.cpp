// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VMM with a run loop of its own answers three questions, and has Xen's timers.
#include <poll.h>

#include <array>
#include <cstdio>
#include <cstring>

#include "xen_timer/handler.hpp"
#include "xen_timer/timerfd_backend.hpp"

struct MyVmm {
  std::array<std::byte, 4096> ram{};
  int events = 0;

  bool copy_from_guest(xen_timer::XenVcpuId, xen_timer::Gva from, std::span<std::byte> to) {
    if (from.value > ram.size() || to.size() > ram.size() - from.value) return false;
    std::memcpy(to.data(), ram.data() + from.value, to.size());
    return true;
  }
  xen_timer::GuestTime guest_now(xen_timer::XenVcpuId) {
    return xen_timer::GuestTime(xen_clock::HostClock::now().time_since_epoch());
  }
  xen_timer::Result<void> raise_event(xen_timer::XenVcpuId vcpu, xen_timer::EventPort port) {
    std::printf("vCPU %u: event %d on port %u\n", vcpu.value, ++events, port.value);
    return vmm_base::success();
  }
};

int main() {
  constexpr xen_timer::XenVcpuId vcpu{0};
  MyVmm vmm;
  auto backend = xen_timer::TimerfdBackend::create(1);
  if (!backend) return 1;  // backend.error().message() says why
  xen_timer::Handler timer(vmm, backend.value());
  if (!timer.bind(vcpu, {3})) return 1;  // the guest bound VIRQ_TIMER to port 3

  // A hypercall has come out of KVM_RUN: set_timer_op, 1 ms from now.
  const auto deadline = vmm.guest_now(vcpu).time_since_epoch() + std::chrono::milliseconds(1);
  const xen_abi::Hypercall call{.number = xen_abi::hypercall::set_timer_op,
                                .params = {static_cast<std::uint64_t>(deadline.count())}};
  const auto answer = timer.handle(vcpu, call);
  if (!answer || answer->guest.rax() != 0) return 1;  // nullopt: not a timer's call

  for (pollfd wake{backend.value().fd(), POLLIN, 0}; vmm.events == 0;) {
    if (::poll(&wake, 1, -1) < 0 || !timer.expire()) return 1;
  }
}
