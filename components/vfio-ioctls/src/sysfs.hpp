// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What sysfs and the files of /dev/vfio tell of a device before it can be opened.
#pragma once

#include <string>

#include "vfio_ioctls/open_error.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vfio_ioctls {

// The number of a device's IOMMU group. Missing::device or iommu_group.
OpenResult<unsigned> iommu_group_of(const std::string& device);

// Missing::vfio_driver, unless the device is bound to vfio-pci or another VFIO driver.
OpenResult<void> require_vfio_driver(const std::string& device);

// The path of a device's own file, below `root`. Missing::kernel if there is none.
OpenResult<std::string> own_file_of(const std::string& device, const std::string& root);

// open(2) for reading and writing. `lacking`: what to say if there is no such file; `busy`: if
// somebody else has it.
OpenResult<vmm_base::UniqueFd> open_file(const std::string& path, const char* lacking,
                                         const char* busy);

// "0000:02:02.0 is bound to virtio-pci": the devices that keep a group from being viable; empty for
// none.
std::string devices_in_the_way(const std::string& root, unsigned group);

}  // namespace vfio_ioctls
