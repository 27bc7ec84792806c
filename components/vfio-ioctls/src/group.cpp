// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_ioctls/group.hpp"

#include "sysfs.hpp"
#include "vfio_ioctls/ioctl.hpp"

namespace vfio_ioctls {

using vmm_base::Error;
using vmm_base::Result;

OpenResult<Group> Group::open(const std::string& device, const std::string& root) {
  VMM_TRY(number, iommu_group_of(device));
  VMM_CHECK(require_vfio_driver(device));
  VMM_TRY(fd, open_file(root + "/dev/vfio/" + std::to_string(number),
                        "there is no file for the group, though its device has a VFIO driver",
                        "somebody else has the group open"));
  return Group(std::move(fd), number, root);
}

Result<std::uint32_t> Group::get_status() const noexcept {
  vfio_group_status status{};
  status.argsz = sizeof(status);
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_GROUP_GET_STATUS, &status, number_));
  return status.flags;
}

OpenResult<void> Group::set_container(const Container& container) const {
  VMM_TRY(status, get_status());
  if ((status & VFIO_GROUP_FLAGS_VIABLE) == 0) {
    std::string why = devices_in_the_way(root_, number_);
    if (why.empty()) why = "a device of it belongs to the kernel";
    return OpenError{Missing::viability, Error{"VFIO_GROUP_SET_CONTAINER", EPERM, number_},
                     root_ + "/dev/vfio/" + std::to_string(number_),
                     "the group is not viable: " + why};
  }
  int container_fd = container.fd();
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_GROUP_SET_CONTAINER, &container_fd, number_));
  return vmm_base::success();
}

Result<void> Group::unset_container() const noexcept {
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_GROUP_UNSET_CONTAINER, 0, number_));
  return vmm_base::success();
}

Result<Device> Group::get_device(const std::string& device) const {
  const std::string name = device.substr(device.rfind('/') + 1);
  VMM_TRY(device_fd, VFIO_IOCTLS_CALL(fd(), VFIO_GROUP_GET_DEVICE_FD, name.c_str(), number_));
  return Device(vmm_base::UniqueFd(device_fd));
}

}  // namespace vfio_ioctls
