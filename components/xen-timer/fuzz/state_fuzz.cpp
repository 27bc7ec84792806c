// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Any bytes as a saved state. What is taken is written back byte for byte, and goes into a handler
// and out again; its events come on its own port, and none that isn't armed. What is refused
// changes nothing.
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "must.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/state.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace xen_timer {
namespace {

struct Vmm {
  GuestTime clock = xen_clock::guest_time(1);
  EventPort port{};
  unsigned events = 0;

  bool copy_from_guest(XenVcpuId, Gva, std::span<std::byte>) { return false; }
  GuestTime guest_now(XenVcpuId) { return clock; }
  Result<void> raise_event(XenVcpuId vcpu, EventPort to) {
    MUST(vcpu == XenVcpuId{1} && to == port && to != EventPort{});
    ++events;
    return vmm_base::success();
  }
};

void run(std::span<const std::byte> bytes) {
  constexpr XenVcpuId id{1};
  Vmm vmm;
  VirtualBackend backend(2);
  Handler timer(vmm, backend);

  const auto state = decode(bytes);
  if (!state) {
    MUST(state.error().code == EINVAL || state.error().code == ENOTSUP);
    return;
  }
  const auto again = encode(state.value());
  MUST(std::memcmp(again.data(), bytes.data(), again.size()) == 0);

  VcpuTimers timers = state.value();
  MUST(timer.pause().has_value());
  MUST(timer.restore(id, timers).has_value());
  timers.kvm_xen_id.reset();  // the VMM's to keep
  MUST(encode(timer.save(id).value()) == encode(timers));
  MUST(encode(timer.save(XenVcpuId{0}).value()) == encode({}));
  vmm.port = timers.port;
  MUST(timer.resume().has_value());

  // Far into its future, by a few long steps.
  const bool armed = timers.deadline || timers.period != Duration{};
  for (int step = 0; step < 4; ++step) {
    constexpr Duration hours = std::chrono::hours(1000);
    vmm.clock = xen_clock::saturating_add(vmm.clock, hours);
    backend.alarm().advance(hours);
    MUST(timer.expire().has_value());
  }
  MUST(vmm.events == 0 || (armed && timers.port != EventPort{}));
  MUST(decode(encode(timer.save(id).value())).has_value());
}

}  // namespace
}  // namespace xen_timer

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Of its own size, so that a read beyond it is seen.
  const std::vector<std::uint8_t> exact(data, data + size);
  xen_timer::run(std::as_bytes(std::span(exact)));
  return 0;
}
