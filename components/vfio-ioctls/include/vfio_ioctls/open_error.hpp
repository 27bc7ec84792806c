// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Why a device could not be had: which file, and which right or part is missing. Most users meet
// VFIO by one of these, and an errno alone doesn't tell them apart.
//
//   if (auto group = Group::open("/sys/bus/pci/devices/0000:00:10.0"); !group) {
//     puts(group.error().message().c_str());
//   }
//
//   /sys/bus/pci/devices/0000:00:10.0/driver: bound to e1000e, not to vfio-pci
#pragma once

#include <boost/outcome/basic_result.hpp>
#include <boost/outcome/policy/all_narrow.hpp>
#include <string>
#include <utility>

#include "vmm_base/result.hpp"

namespace vfio_ioctls {

enum class Missing {
  nothing,      // None of these: a call failed.
  device,       // There is no such device.
  iommu_group,  // The device is in no IOMMU group: there is no IOMMU, or it is off.
  vfio_driver,  // The device is bound to no VFIO driver, vfio-pci for instance.
  kernel,       // The kernel lacks it, or its module isn't loaded.
  permission,   // This user may not open the file.
  exclusivity,  // Somebody else has the file open already.
  viability,    // Another device of the group is in the hands of a driver of the kernel.
};

struct OpenError {
  OpenError() = default;
  OpenError(Missing what, vmm_base::Error cause, std::string path, std::string why)
      : missing(what), error(cause), file(std::move(path)), reason(std::move(why)) {}
  // A call's error as it is; so that VMM_TRY takes both kinds.
  OpenError(vmm_base::Error cause) : error(cause) {}  // NOLINT(google-explicit-constructor)
  // And back, without the file.
  operator vmm_base::Error() const noexcept {
    return error;
  }  // NOLINT(google-explicit-constructor)

  // "/dev/vfio/26: Permission denied: this user needs to read and write it"
  [[nodiscard]] std::string message() const {
    return file.empty() ? error.message() : file + ": " + reason;
  }

  Missing missing = Missing::nothing;
  vmm_base::Error error;  // The call that failed, or that would have.
  std::string file;       // Empty where only the call is known.
  std::string reason;
};

// Narrow contracts, as vmm_base::Result's.
template <class T>
using OpenResult =
    boost::outcome_v2::basic_result<T, OpenError, boost::outcome_v2::policy::all_narrow>;

}  // namespace vfio_ioctls
