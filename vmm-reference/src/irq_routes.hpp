// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The VM's table of what each GSI does. KVM takes it only as a whole, so it has one owner.
//
//   const std::uint32_t gsi = routes.allocate();
//   VMM_CHECK(routes.set(gsi, MsiRoute{.address = 0xfee00000, .data = 0x41}));
//   VMM_TRY(irqfd, vm.register_irqfd(eventfd, gsi));
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <variant>
#include <vector>

#include "kvm_ioctls/vm.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"
#include "xen_abi/event_channel.hpp"

namespace vmm_reference {

struct MsiRoute {
  std::uint64_t address;
  std::uint32_t data;
  friend bool operator==(const MsiRoute&, const MsiRoute&) = default;
};
// Needs KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL, Linux 5.17.
struct EventRoute {
  xen_abi::EventPort port;
  vmm_base::KvmVcpuId vcpu;
};
using IrqRoute = std::variant<MsiRoute, EventRoute>;

inline constexpr std::uint32_t irqchip_gsis = 24;  // The IOAPIC's pins.

// The table that begins with the pins of KVM_CREATE_IRQCHIP as that routes them.
std::vector<kvm_irq_routing_entry> gsi_routing_table(
    const std::map<std::uint32_t, IrqRoute>& routes);

// Any thread may call.
class IrqRoutes {
 public:
  // `vm` has its interrupt controllers, and must outlive it.
  explicit IrqRoutes(const kvm_ioctls::Vm& vm) : vm_(vm) {}

  // A GSI that is nobody else's; it does nothing yet.
  std::uint32_t allocate();
  // From now on, also for an irqfd that is registered.
  vmm_base::Result<void> set(std::uint32_t gsi, IrqRoute route);
  vmm_base::Result<void> clear(std::uint32_t gsi);

 private:
  // A route that KVM refuses leaves the others as they are. With mutex_ held.
  vmm_base::Result<void> replace(std::map<std::uint32_t, IrqRoute> routes);

  const kvm_ioctls::Vm& vm_;
  std::mutex mutex_;
  std::uint32_t next_ = irqchip_gsis;
  std::map<std::uint32_t, IrqRoute> routes_;  // by GSI
};

}  // namespace vmm_reference
