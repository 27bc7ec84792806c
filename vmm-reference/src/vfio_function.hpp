// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A host's PCI device as a function of the guest's bus: its memory BARs are KVM's memslots, so that
// the guest reaches its registers without an exit, and its MSIs are KVM's irqfds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "host_errors.hpp"
#include "irq_routes.hpp"
#include "kvm_ioctls/vm.hpp"
#include "pci_config.hpp"
#include "vfio_ioctls/device.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {

// Not for two threads at once.
class VfioFunction {
 public:
  // `slot`: the first of a few memslots that are the device's, max_slots of them. All must outlive
  // it. Errors of vfio_ioctls::Device and PciConfig::create().
  static vmm_base::Result<VfioFunction> create(vfio_ioctls::Device device, const kvm_ioctls::Vm& vm,
                                               IrqRoutes& routes, std::uint32_t slot,
                                               HostErrors& errors);
  static constexpr std::uint32_t max_slots = 64;

  // Puts each BAR at the lowest address from `next` on that suits it, as a PC's firmware does, and
  // `next` behind it. ENOSPC, operand the BAR's size, if `end` comes first.
  vmm_base::Result<void> place_bars(vmm_base::Gpa& next, vmm_base::Gpa end);

  // For PciRoot.
  void read_config(std::size_t offset, std::span<std::byte> bytes);
  void write_config(std::size_t offset, std::span<const std::byte> bytes);
  bool read_memory(vmm_base::Gpa gpa, std::span<std::byte> bytes);
  bool write_memory(vmm_base::Gpa gpa, std::span<const std::byte> bytes);

 private:
  // What of a BAR can be mapped: all of it or some, or nothing.
  struct Part {
    std::uint32_t slot;
    std::uint64_t offset;  // in the BAR
    vfio_ioctls::RegionMapping mapping;
    std::optional<vmm_base::Gpa> at{};  // where its memslot is
  };
  struct Bar {
    vfio_ioctls::RegionInfo region;
    std::vector<Part> parts;
    std::optional<vmm_base::Gpa> at;  // where the guest reaches it; none while it doesn't
  };
  struct Interrupt {
    vmm_base::UniqueFd eventfd;
    std::uint32_t gsi;
    std::optional<PciConfig::MsiVector> now{};
    std::optional<kvm_ioctls::IrqFd> irqfd{};  // While it isn't masked.
  };

  VfioFunction(vfio_ioctls::Device device, const kvm_ioctls::Vm& vm, IrqRoutes& routes,
               HostErrors& errors, PciConfig config, vfio_ioctls::RegionInfo config_region)
      : device_(std::move(device)),
        vm_(&vm),
        routes_(&routes),
        errors_(&errors),
        config_(std::move(config)),
        config_region_(std::move(config_region)) {}

  vmm_base::Result<void> add_bar(std::uint32_t index, std::uint32_t& slot);
  // Make the memslots and the interrupts what the configuration says.
  vmm_base::Result<void> unmap_bars();
  vmm_base::Result<void> map_bars();
  vmm_base::Result<void> map_parts(Bar& bar, vmm_base::Gpa at);
  vmm_base::Result<void> unmap_parts(Bar& bar);
  vmm_base::Result<void> update_msi();
  static vmm_base::Result<void> end(Interrupt& interrupt);
  vmm_base::Result<void> start_msi(std::size_t count);
  vmm_base::Result<void> stop_msi();
  vmm_base::Result<void> write(std::size_t offset, std::span<const std::byte> bytes);
  // The BAR with these bytes.
  const Bar* find(vmm_base::Gpa gpa, std::size_t size) const;
  void note(const vmm_base::Result<void>& result) { errors_->note(result); }

  vfio_ioctls::Device device_;
  const kvm_ioctls::Vm* vm_;
  IrqRoutes* routes_;
  HostErrors* errors_;
  PciConfig config_;
  vfio_ioctls::RegionInfo config_region_;
  std::vector<Bar> bars_;
  bool decoding_ = false;            // memory, by the command register
  std::vector<std::uint32_t> gsis_;  // as many as there have been interrupts
  std::vector<Interrupt> interrupts_;
};

}  // namespace vmm_reference
