// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "irq_routes.hpp"

#include <utility>

namespace vmm_reference {

using vmm_base::Result;

std::vector<kvm_irq_routing_entry> gsi_routing_table(
    const std::map<std::uint32_t, IrqRoute>& routes) {
  constexpr std::uint32_t pic_gsis = 16;
  std::vector<kvm_irq_routing_entry> table;
  const auto add = [&table](std::uint32_t gsi, std::uint32_t type) -> kvm_irq_routing_entry& {
    kvm_irq_routing_entry& entry = table.emplace_back();
    entry.gsi = gsi;
    entry.type = type;
    return entry;
  };
  for (std::uint32_t gsi = 0; gsi < irqchip_gsis; ++gsi) {
    if (gsi < pic_gsis) {
      auto& pic = add(gsi, KVM_IRQ_ROUTING_IRQCHIP);
      pic.u.irqchip = {gsi / 8, gsi % 8};  // KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE
    }
    add(gsi, KVM_IRQ_ROUTING_IRQCHIP).u.irqchip = {KVM_IRQCHIP_IOAPIC, gsi};
  }
  for (const auto& [gsi, route] : routes) {
    if (const auto* msi = std::get_if<MsiRoute>(&route)) {
      auto& entry = add(gsi, KVM_IRQ_ROUTING_MSI).u.msi;
      entry.address_lo = static_cast<std::uint32_t>(msi->address);
      entry.address_hi = static_cast<std::uint32_t>(msi->address >> 32);
      entry.data = msi->data;
    } else {
      const auto& event = std::get<EventRoute>(route);
      add(gsi, KVM_IRQ_ROUTING_XEN_EVTCHN).u.xen_evtchn = {event.port.value, event.vcpu.value,
                                                           KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL};
    }
  }
  return table;
}

std::uint32_t IrqRoutes::allocate() {
  const std::scoped_lock lock(mutex_);
  return next_++;
}

Result<void> IrqRoutes::set(std::uint32_t gsi, IrqRoute route) {
  const std::scoped_lock lock(mutex_);
  auto changed = routes_;
  changed.insert_or_assign(gsi, route);
  return replace(std::move(changed));
}

Result<void> IrqRoutes::clear(std::uint32_t gsi) {
  const std::scoped_lock lock(mutex_);
  auto changed = routes_;
  changed.erase(gsi);
  return replace(std::move(changed));
}

Result<void> IrqRoutes::replace(std::map<std::uint32_t, IrqRoute> routes) {
  VMM_CHECK(vm_.set_gsi_routing(gsi_routing_table(routes)));
  routes_ = std::move(routes);
  return vmm_base::success();
}

}  // namespace vmm_reference
