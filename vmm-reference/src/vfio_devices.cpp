// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_devices.hpp"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <string_view>
#include <utility>

#include "grant_frames.hpp"

namespace vmm_reference {

using vfio_ioctls::Missing;
using vfio_ioctls::OpenError;
using vfio_ioctls::OpenResult;
using vmm_base::Error;
using vmm_base::Gpa;
using vmm_base::Result;

namespace {

// What the user can do about it; empty where the error says all.
std::string advice(const std::string& path, const OpenError& error) {
  const std::string_view call = error.error.operation;
  switch (error.missing) {
    case Missing::device:
      return "give the device's folder, path=/sys/bus/pci/devices/0000:00:10.0 for instance";
    case Missing::iommu_group:
      return "turn the IOMMU on in the firmware's setup, and by intel_iommu=on or amd_iommu=on";
    case Missing::vfio_driver:
      return "as root: modprobe vfio-pci; echo vfio-pci >" + path + "/driver_override; echo " +
             path.substr(path.rfind('/') + 1) + " | tee " + path +
             "/driver/unbind /sys/bus/pci/drivers_probe";
    case Missing::kernel:
      return "as root: modprobe vfio-pci vfio_iommu_type1";
    case Missing::permission:
      return "run as root, or give this user the file";
    case Missing::exclusivity:
      return "end the program that has it, another VMM perhaps";
    case Missing::viability:
      return "bind all devices of the group to vfio-pci, or to no driver";
    case Missing::nothing:
      break;
  }
  if (call == "VFIO_SET_IOMMU" && error.error.code == EPERM) {
    return "this machine doesn't remap interrupts, so that a device could send any; to run that "
           "risk: echo 1 >/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts";
  }
  if (call == "VFIO_IOMMU_MAP_DMA" && error.error.code == ENOMEM) {
    return "all of the guest's RAM is pinned: raise the limit (ulimit -l), or give it less "
           "--memory";
  }
  if (call == "room for a PCI BAR") return "its memory has to fit in 1004 MiB below 4 GiB";
  return "";
}

// The group's number; none if that can't be told.
std::optional<std::string> group_name(const std::string& path) {
  std::error_code failed;
  const auto target = std::filesystem::read_symlink(path + "/iommu_group", failed);
  if (failed) return std::nullopt;
  return target.filename().string();
}

}  // namespace

std::variant<std::unique_ptr<VfioDevices>, std::string> VfioDevices::open(
    std::span<const std::string> paths, const Machine& machine, IrqRoutes& routes) {
  const auto complain = [](const std::string& path, const OpenError& error) {
    const std::string help = advice(path, error);
    const bool named = error.file.compare(0, path.size(), path) == 0;
    return "--vfio " + (named ? "" : path + ": ") + error.message() +
           (help.empty() ? "" : " (" + help + ")");
  };
  std::vector<std::string> folders;
  for (std::string path : paths) {
    while (path.size() > 1 && path.back() == '/') path.pop_back();
    std::error_code failed;
    if (!std::filesystem::exists(path + "/config", failed)) {
      return complain(path, OpenError{Missing::device, Error{"stat", ENOENT}, path,
                                      "there is no such PCI device"});
    }
    if (std::find(folders.begin(), folders.end(), path) != folders.end()) {
      return "--vfio " + path + ": given twice";
    }
    folders.push_back(std::move(path));
  }
  if (folders.size() > PciRoot<VfioFunction>::max_functions) {
    return std::string("--vfio: more devices than the bus has room for");
  }

  auto container = vfio_ioctls::Container::open();
  if (!container) return complain(folders.front(), container.error());
  std::unique_ptr<VfioDevices> devices(new VfioDevices(std::move(container).assume_value()));
  std::vector<VfioFunction> functions;
  // Behind RAM's memslots and those of grant frames.
  auto slot = static_cast<std::uint32_t>(machine.memory.regions().size()) + GrantFrames::max_frames;
  Gpa next = pci_window.memory;
  for (const std::string& path : folders) {
    auto function = devices->add(path, machine, routes, slot);
    if (!function) return complain(path, function.error());
    slot += VfioFunction::max_slots;
    auto placed = function.value().place_bars(next, pci_window.memory + pci_window.memory_size);
    if (!placed) return complain(path, placed.error());
    functions.push_back(std::move(function).assume_value());
  }
  devices->root_.emplace(std::move(functions));
  return devices;
}

OpenResult<VfioFunction> VfioDevices::add(const std::string& path, const Machine& machine,
                                          IrqRoutes& routes, std::uint32_t slot) {
  VMM_TRY(group, group_of(path, machine));
  VMM_TRY(device, group->get_device(path));
  VMM_TRY(function, VfioFunction::create(std::move(device), machine.vm, routes, slot, errors_));
  return std::move(function);
}

OpenResult<const vfio_ioctls::Group*> VfioDevices::group_of(const std::string& path,
                                                            const Machine& machine) {
  const auto name = group_name(path);
  for (const vfio_ioctls::Group& known : groups_) {
    if (name == std::to_string(known.number())) return &known;
  }
  VMM_TRY(group, vfio_ioctls::Group::open(path));
  VMM_CHECK(group.set_container(container_));
  if (groups_.empty()) {
    VMM_CHECK(container_.set_iommu(VFIO_TYPE1v2_IOMMU));
    for (const vm_memory::Region& region : machine.memory.regions()) {
      VMM_TRY(mapping, container_.map_dma({region.gpa().value},
                                          {region.host(), static_cast<std::size_t>(region.size())},
                                          vfio_ioctls::DmaAccess::read_write));
      ram_.push_back(std::move(mapping));
    }
    VMM_TRY(kvm, machine.vm.create_device(KVM_DEV_TYPE_VFIO));
    kvm_.emplace(std::move(kvm));
  }
  // KVM asks each group's IOMMU whether DMA is coherent with the processor's caches.
  VMM_CHECK(kvm_->set_device_attr(KVM_DEV_VFIO_GROUP, KVM_DEV_VFIO_GROUP_ADD, group.fd()));
  groups_.push_back(std::move(group));
  return &groups_.back();
}

}  // namespace vmm_reference
