// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_function.hpp"

#include <linux/pci_regs.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <array>
#include <utility>

#include "pci_root.hpp"
#include "vfio_ioctls/pci_config.hpp"

namespace vmm_reference {

using vmm_base::Error;
using vmm_base::Gpa;
using vmm_base::Result;

Result<VfioFunction> VfioFunction::create(vfio_ioctls::Device device, const kvm_ioctls::Vm& vm,
                                          IrqRoutes& routes, std::uint32_t slot,
                                          HostErrors& errors) {
  VMM_TRY(space, vfio_ioctls::read_pci_config(device));
  VMM_TRY(region, device.get_region_info(VFIO_PCI_CONFIG_REGION_INDEX));
  std::array<std::uint64_t, 6> sizes{};
  for (std::uint32_t index = 0; index < sizes.size(); ++index) {
    VMM_TRY(bar, device.get_region_info(index));
    sizes[index] = bar.size;
  }
  VMM_TRY(config, PciConfig::create(std::span(space).first<pci_config_size>(), sizes));
  VfioFunction function(std::move(device), vm, routes, errors, std::move(config),
                        std::move(region));
  // As after a reset: the guest turns memory and bus mastering on.
  VMM_CHECK(function.device_.write<std::uint16_t>(function.config_region_, PCI_COMMAND, 0));
  for (const PciMemoryBar& bar : function.config_.bars()) {
    VMM_CHECK(function.add_bar(bar.index, slot));
  }
  return function;
}

Result<void> VfioFunction::add_bar(std::uint32_t index, std::uint32_t& slot) {
  VMM_TRY(region, device_.get_region_info(index));
  constexpr std::uint32_t mappable =
      VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP;
  std::vector<vfio_ioctls::RegionArea> areas;
  if ((region.flags & mappable) == mappable) {
    areas = region.sparse_areas.value_or(std::vector{vfio_ioctls::RegionArea{0, region.size}});
  }
  // A memslot is whole pages; the rest is read and written at each exit.
  std::erase_if(areas, [](const vfio_ioctls::RegionArea& area) {
    return area.size == 0 || (area.offset | area.size) % vmm_base::page_size != 0;
  });
  if (areas.size() > max_slots / 6) areas.clear();
  Bar bar{std::move(region), {}, {}};
  for (const vfio_ioctls::RegionArea& area : areas) {
    VMM_TRY(mapping, device_.map(bar.region, area));
    bar.parts.push_back({slot++, area.offset, std::move(mapping)});
  }
  bars_.push_back(std::move(bar));
  return vmm_base::success();
}

Result<void> VfioFunction::place_bars(Gpa& next, Gpa end) {
  for (const PciMemoryBar& bar : config_.bars()) {
    // A page at least, so that no two BARs share one.
    const std::uint64_t size = std::max(bar.size, vmm_base::page_size);
    const Gpa at{(next.value + size - 1) / size * size};
    if (at > end || size > end.value - at.value) return Error{"room for a PCI BAR", ENOSPC, size};
    config_.set_bar(bar.index, at);
    next = at + size;
  }
  return vmm_base::success();
}

// --- configuration space ---

void VfioFunction::read_config(std::size_t offset, std::span<std::byte> bytes) {
  std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
  note(device_.read(config_region_, offset, bytes));
  config_.read(offset, bytes);
}

void VfioFunction::write_config(std::size_t offset, std::span<const std::byte> bytes) {
  note(write(offset, bytes));
}

Result<void> VfioFunction::write(std::size_t offset, std::span<const std::byte> bytes) {
  config_.write(offset, bytes);
  // The guest must not reach a BAR that the device doesn't decode: what it finds mapped there
  // would end us both. So the memslots go before the device learns of it, and come after.
  if (offset <= PCI_COMMAND && offset + bytes.size() > PCI_COMMAND) {
    const auto command = std::to_integer<unsigned>(bytes[PCI_COMMAND - offset]);
    decoding_ = (command & PCI_COMMAND_MEMORY) != 0;
  }
  VMM_CHECK(unmap_bars());
  // In one piece if it can be, as registers are written.
  std::size_t from = 0;
  for (std::size_t at = 0; at <= bytes.size(); ++at) {
    if (at < bytes.size() && !config_.is_ours(offset + at)) continue;
    if (at != from) {
      VMM_CHECK(device_.write(config_region_, offset + from, bytes.subspan(from, at - from)));
    }
    from = at + 1;
  }
  VMM_CHECK(map_bars());
  return update_msi();
}

// --- memory ---

Result<void> VfioFunction::map_parts(Bar& bar, Gpa at) {
  for (Part& part : bar.parts) {
    auto mapped = vm_->set_user_memory_region(part.slot, at + part.offset, part.mapping.size(),
                                              part.mapping.address());
    if (!mapped) {  // All or nothing.
      note(unmap_parts(bar));
      return mapped;
    }
    part.at = at + part.offset;
  }
  return vmm_base::success();
}

// What fails stays to be tried again.
Result<void> VfioFunction::unmap_parts(Bar& bar) {
  for (Part& part : bar.parts) {
    if (!part.at) continue;
    VMM_CHECK(vm_->set_user_memory_region(part.slot, *part.at, 0, nullptr));
    part.at.reset();
  }
  return vmm_base::success();
}

// Of those that moved, and of all when the device doesn't decode them any longer.
Result<void> VfioFunction::unmap_bars() {
  const std::vector<PciMemoryBar> wanted = config_.bars();
  for (std::size_t i = 0; i < bars_.size(); ++i) {
    Bar& bar = bars_[i];
    if (decoding_ && bar.at == wanted[i].address) continue;
    bar.at.reset();
    VMM_CHECK(unmap_parts(bar));
  }
  return vmm_base::success();
}

Result<void> VfioFunction::map_bars() {
  if (!decoding_) return vmm_base::success();
  const std::vector<PciMemoryBar> wanted = config_.bars();
  for (std::size_t i = 0; i < bars_.size(); ++i) {
    Bar& bar = bars_[i];
    const Gpa at = wanted[i].address;
    const Gpa start = pci_window.memory;
    // Nowhere else can a guest have a BAR, be it on RAM or on what the processor has there.
    if (bar.at || at < start || wanted[i].size > pci_window.memory_size ||
        at.value - start.value > pci_window.memory_size - wanted[i].size) {
      continue;
    }
    VMM_CHECK(map_parts(bar, at));
    bar.at = at;
  }
  return vmm_base::success();
}

const VfioFunction::Bar* VfioFunction::find(Gpa gpa, std::size_t size) const {
  for (const Bar& bar : bars_) {
    if (bar.at && gpa >= *bar.at && gpa.value - bar.at->value < bar.region.size &&
        size <= bar.region.size - (gpa.value - bar.at->value)) {
      return &bar;
    }
  }
  return nullptr;
}

bool VfioFunction::read_memory(Gpa gpa, std::span<std::byte> bytes) {
  const Bar* bar = find(gpa, bytes.size());
  if (bar == nullptr) return false;
  std::fill(bytes.begin(), bytes.end(), std::byte{0xff});
  note(device_.read(bar->region, gpa.value - bar->at->value, bytes));
  return true;
}

bool VfioFunction::write_memory(Gpa gpa, std::span<const std::byte> bytes) {
  const Bar* bar = find(gpa, bytes.size());
  if (bar == nullptr) return false;
  note(device_.write(bar->region, gpa.value - bar->at->value, bytes));
  return true;
}

// --- interrupts ---

Result<void> VfioFunction::update_msi() {
  const std::vector<PciConfig::MsiVector> wanted = config_.msi();
  if (wanted.size() != interrupts_.size()) {
    VMM_CHECK(stop_msi());
    if (!wanted.empty()) {
      VMM_CHECK(start_msi(wanted.size()));
    }
  }
  for (std::size_t i = 0; i < interrupts_.size(); ++i) {
    Interrupt& interrupt = interrupts_[i];
    if (interrupt.now == wanted[i]) continue;
    if (!interrupt.now || interrupt.now->route != wanted[i].route) {
      VMM_CHECK(routes_->set(interrupt.gsi, wanted[i].route));
    }
    interrupt.now = wanted[i];
    // What comes while it is masked waits in the eventfd, which KVM looks at first.
    if (wanted[i].masked) {
      VMM_CHECK(end(interrupt));
    } else if (!interrupt.irqfd) {
      VMM_TRY(irqfd, vm_->register_irqfd(interrupt.eventfd.get(), interrupt.gsi));
      interrupt.irqfd.emplace(std::move(irqfd));
    }
  }
  return vmm_base::success();
}

Result<void> VfioFunction::end(Interrupt& interrupt) {
  auto irqfd = std::exchange(interrupt.irqfd, std::nullopt);
  return irqfd ? irqfd->unregister() : vmm_base::success();
}

Result<void> VfioFunction::start_msi(std::size_t count) {
  std::vector<Interrupt> interrupts;
  std::vector<int> eventfds;
  for (std::size_t i = 0; i < count; ++i) {
    vmm_base::UniqueFd eventfd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!eventfd) return vmm_base::last_error("eventfd");
    if (gsis_.size() == i) gsis_.push_back(routes_->allocate());
    eventfds.push_back(eventfd.get());
    interrupts.push_back({std::move(eventfd), gsis_[i]});
  }
  VMM_CHECK(device_.set_irq_eventfds(VFIO_PCI_MSI_IRQ_INDEX, eventfds));
  interrupts_ = std::move(interrupts);
  return vmm_base::success();
}

Result<void> VfioFunction::stop_msi() {
  if (interrupts_.empty()) return vmm_base::success();
  const std::size_t count = interrupts_.size();
  for (Interrupt& interrupt : interrupts_) note(end(interrupt));
  interrupts_.clear();
  VMM_CHECK(device_.disable_irqs(VFIO_PCI_MSI_IRQ_INDEX));
  for (std::size_t i = 0; i < count; ++i) {
    VMM_CHECK(routes_->clear(gsis_[i]));
  }
  return vmm_base::success();
}

}  // namespace vmm_reference
