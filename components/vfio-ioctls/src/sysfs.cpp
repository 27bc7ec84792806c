// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "sysfs.hpp"

#include <fcntl.h>

#include <charconv>
#include <filesystem>
#include <optional>
#include <utility>

namespace vfio_ioctls {
namespace {

namespace fs = std::filesystem;
using vmm_base::Error;

// The last part of what a symbolic link points to.
std::optional<std::string> link_name(const std::string& path) {
  std::error_code failed;
  const fs::path target = fs::read_symlink(path, failed);
  if (failed) return std::nullopt;
  return target.filename().string();
}

bool is_vfio_driver(const std::string& name) { return name.find("vfio") != std::string::npos; }

OpenError lacks(Missing what, std::string file, std::string reason, Error error) {
  return OpenError{what, error, std::move(file), std::move(reason)};
}

}  // namespace

OpenResult<unsigned> iommu_group_of(const std::string& device) {
  std::error_code failed;
  if (!fs::exists(device, failed)) {
    return lacks(Missing::device, device, "there is no such device", Error{"stat", ENOENT});
  }
  const std::string link = device + "/iommu_group";
  const std::string name = link_name(link).value_or("");
  unsigned number = 0;
  const auto [end, bad] = std::from_chars(name.data(), name.data() + name.size(), number);
  if (bad != std::errc() || end != name.data() + name.size()) {
    return lacks(Missing::iommu_group, link,
                 "the device is in no IOMMU group; the machine has no IOMMU, or it is off",
                 Error{"readlink", ENOENT});
  }
  return number;
}

OpenResult<void> require_vfio_driver(const std::string& device) {
  const std::string link = device + "/driver";
  const auto name = link_name(link);
  if (name && is_vfio_driver(*name)) return vmm_base::success();
  return lacks(Missing::vfio_driver, link,
               "bound to " + name.value_or("no driver") + ", not to vfio-pci",
               Error{"readlink", ENODEV});
}

OpenResult<std::string> own_file_of(const std::string& device, const std::string& root) {
  const std::string folder = device + "/vfio-dev";
  std::error_code failed;
  fs::directory_iterator entry(folder, failed);
  if (failed || entry == fs::directory_iterator()) {
    return lacks(Missing::kernel, folder, "this kernel has no files for VFIO devices",
                 Error{"opendir", ENOENT});
  }
  return root + "/dev/vfio/devices/" + entry->path().filename().string();
}

OpenResult<vmm_base::UniqueFd> open_file(const std::string& path, const char* lacking,
                                         const char* busy) {
  vmm_base::UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
  if (fd) return fd;
  const Error error = vmm_base::last_error("open");
  switch (error.code) {
    case ENOENT:
    case ENOTDIR:
    case ENXIO:
    case ENODEV:
      return lacks(Missing::kernel, path, lacking, error);
    case EACCES:
    case EPERM:
      return lacks(
          Missing::permission, path,
          std::string(strerrordesc_np(error.code)) + ": this user needs to read and write it",
          error);
    case EBUSY:
      return lacks(Missing::exclusivity, path, busy, error);
    default:
      return lacks(Missing::nothing, path, strerrordesc_np(error.code), error);
  }
}

std::string devices_in_the_way(const std::string& root, unsigned group) {
  std::string said;
  std::error_code failed;
  const fs::directory_iterator devices(
      root + "/sys/kernel/iommu_groups/" + std::to_string(group) + "/devices", failed);
  for (auto entry = begin(devices); !failed && entry != end(devices); entry.increment(failed)) {
    const auto driver = link_name(entry->path().string() + "/driver");
    // The kernel lets these be: they start no DMA of their own.
    if (!driver || is_vfio_driver(*driver) || *driver == "pci-stub" || *driver == "pcieport") {
      continue;
    }
    if (!said.empty()) said += ", ";
    said += entry->path().filename().string() + " is bound to " + *driver;
  }
  return said;
}

}  // namespace vfio_ioctls
