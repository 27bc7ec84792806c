// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The host's devices that a guest is given: they reach its RAM, at its own addresses, and it finds
// them on a PCI bus.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "irq_routes.hpp"
#include "kvm_ioctls/device_attr.hpp"
#include "machine.hpp"
#include "pci_root.hpp"
#include "vfio_function.hpp"
#include "vfio_ioctls/container.hpp"
#include "vfio_ioctls/group.hpp"

namespace vmm_reference {

class VfioDevices {
 public:
  // `paths` as "/sys/bus/pci/devices/0000:00:10.0". Pins all of the guest's RAM. `machine` and
  // `routes` must outlive it. Error: a sentence that says what to do.
  static std::variant<std::unique_ptr<VfioDevices>, std::string> open(
      std::span<const std::string> paths, const Machine& machine, IrqRoutes& routes);

  [[nodiscard]] PciRoot<VfioFunction>& root() noexcept { return *root_; }
  // For when the guest is done.
  [[nodiscard]] const HostErrors& errors() const noexcept { return errors_; }

 private:
  explicit VfioDevices(vfio_ioctls::Container container) : container_(std::move(container)) {}
  vfio_ioctls::OpenResult<VfioFunction> add(const std::string& path, const Machine& machine,
                                            IrqRoutes& routes, std::uint32_t slot);
  // Opens it with its first device; then the devices reach the guest's RAM.
  vfio_ioctls::OpenResult<const vfio_ioctls::Group*> group_of(const std::string& path,
                                                              const Machine& machine);

  // In this order, so that the devices go first.
  vfio_ioctls::Container container_;
  std::vector<vfio_ioctls::Group> groups_;
  std::vector<vfio_ioctls::DmaMapping> ram_;
  std::optional<kvm_ioctls::Device> kvm_;  // by which KVM knows of the groups
  HostErrors errors_;
  std::optional<PciRoot<VfioFunction>> root_;
};

}  // namespace vmm_reference
