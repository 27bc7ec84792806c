// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_rest.hpp"

#include <cstdint>

#include "machine_state.hpp"

namespace vmm_reference {

Result<void> XenRest::save_xen(XenSnapshot& xen) {
  VMM_CHECK(platform_.save(xen));
  handlers_.save(xen);
  for (std::uint32_t id = 0; id < machine_.vcpus.size(); ++id) {
    VMM_TRY(timers, timers_.save(XenVcpuId{id}));
    xen.vcpus[id].timers = timers;
    if (!host_.evtchn_send) continue;
    VMM_TRY(known, machine_.vcpus[id].xen_vcpu_get_attr<kvm_ioctls::XenVcpuIdAttr>());
    xen.vcpus[id].timers.kvm_xen_id = known.id;
  }
  return vmm_base::success();
}

Result<void> XenRest::save(Snapshot& snapshot) {
  VMM_CHECK(save_machine(host_, machine_, snapshot));
  VMM_CHECK(save_xen(*snapshot.xen));
  // After the runstates, which may have changed until they were read.
  VMM_CHECK(save_clocks(
      machine_,
      [&](XenVcpuId id) {
        return static_cast<std::uint64_t>(platform_.guest_now(id).time_since_epoch().count());
      },
      snapshot));
  save_ram(machine_, snapshot);
  return vmm_base::success();
}

Result<void> XenRest::with(Snapshot& snapshot, const std::function<Result<void>(Snapshot&)>& use) {
  snapshot.xen.emplace().watchdogs = watchdogs_.left();
  Result<void> result = timers_.pause();
  const auto also = [&result](Result<void> next) {
    if (result) result = next;
  };
  if (result) also(or_no_memory([&] { return save(snapshot); }));
  if (result) also(or_no_memory([&] { return use(snapshot); }));
  if (snapshot.clock.guest != 0) {
    also(or_no_memory([&] { return restore_clocks(machine_, snapshot); }));
    platform_.forget_clocks();
  }
  also(or_no_memory([&]() -> Result<void> {
    watchdogs_.set_all(snapshot.xen->watchdogs);
    return vmm_base::success();
  }));
  also(timers_.resume());
  return result;
}

Result<void> XenRest::restore(const Snapshot& snapshot, std::chrono::nanoseconds later) {
  const XenSnapshot& xen = *snapshot.xen;
  // No event before all is in its place.
  VMM_CHECK(timers_.pause());
  VMM_CHECK(restore_machine(host_, machine_, snapshot));
  VMM_CHECK(restore_clocks(machine_, snapshot, later));
  VMM_CHECK(platform_.restore(xen));
  VMM_CHECK(handlers_.restore(xen));
  for (std::uint32_t id = 0; id < machine_.vcpus.size(); ++id) {
    VMM_CHECK(timers_.restore(XenVcpuId{id}, xen.vcpus[id].timers));
  }
  VMM_CHECK(platform_.raise_pending(xen));
  watchdogs_.set_all(xen.watchdogs);
  return timers_.resume();
}

}  // namespace vmm_reference
