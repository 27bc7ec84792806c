// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// An IOMMU group: the devices that the IOMMU can't keep apart, and that go to one user together.
// Any thread may call.
#pragma once

#include <string>
#include <utility>

#include "vfio_ioctls/container.hpp"
#include "vfio_ioctls/device.hpp"
#include "vfio_ioctls/open_error.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vfio_ioctls {

class Group {
 public:
  // Opens the group of a device: of "/sys/bus/pci/devices/0000:00:10.0", say. `root` stands before
  // /dev and /sys/kernel. A group can be open only once. Missing::device, iommu_group, vfio_driver,
  // permission, exclusivity or kernel.
  static OpenResult<Group> open(const std::string& device, const std::string& root = "");

  [[nodiscard]] unsigned number() const noexcept { return number_; }

  // VFIO_GROUP_GET_STATUS: VFIO_GROUP_FLAGS_*.
  [[nodiscard]] vmm_base::Result<std::uint32_t> get_status() const noexcept;

  // VFIO_GROUP_SET_CONTAINER. Missing::viability if a device of the group has another driver, which
  // the message names; EINVAL if it has a container.
  [[nodiscard]] OpenResult<void> set_container(const Container& container) const;
  // VFIO_GROUP_UNSET_CONTAINER. EBUSY while a device is open. With its last group a container loses
  // IOMMU and mappings.
  [[nodiscard]] vmm_base::Result<void> unset_container() const noexcept;

  // VFIO_GROUP_GET_DEVICE_FD, by the device's name or its path. The device holds the group open.
  // EINVAL without a container or IOMMU, ENODEV if no such device of the group has a VFIO driver;
  // operand the group's number.
  [[nodiscard]] vmm_base::Result<Device> get_device(const std::string& device) const;

  // -1 if moved from.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  Group(vmm_base::UniqueFd fd, unsigned number, std::string root) noexcept
      : fd_(std::move(fd)), number_(number), root_(std::move(root)) {}
  vmm_base::UniqueFd fd_;
  unsigned number_;
  std::string root_;
};

}  // namespace vfio_ioctls
