// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// iommufd, and a device's own file: the successors of container and group. Linux 6.6, where
// CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV are set.
//
//   VMM_TRY(iommufd, Iommufd::open());
//   VMM_TRY(ioas, iommufd.alloc_ioas());
//   VMM_TRY(device, iommufd.open_device("/sys/bus/pci/devices/0000:00:10.0"));
//   VMM_CHECK(device.attach_iommufd_pt(ioas.id()));
//   VMM_TRY(mapping, ioas.map_dma(Iova{0}, ram, DmaAccess::read_write));
//
// Any thread may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "vfio_ioctls/device.hpp"
#include "vfio_ioctls/dma.hpp"
#include "vfio_ioctls/open_error.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vfio_ioctls {

// An address space, to which any number of devices is attached. Its end destroys it, unless one
// still is; then it ends with the iommufd. Holds the iommufd open.
class Ioas {
 public:
  Ioas(Ioas&&) noexcept = default;
  Ioas& operator=(Ioas&& other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(id_, other.id_);
    return *this;
  }
  ~Ioas() { static_cast<void>(destroy()); }

  [[nodiscard]] std::uint32_t id() const noexcept { return id_; }

  // IOMMU_IOAS_MAP, at a fixed IOVA: the attached devices reach `memory` at `iova`, both, and the
  // size, in whole pages. Pins it all once a device is attached. EEXIST if some of it is mapped,
  // EINVAL outside iova_ranges(), ENOMEM above RLIMIT_MEMLOCK; operand the IOVA.
  [[nodiscard]] vmm_base::Result<DmaMapping> map_dma(Iova iova, std::span<std::byte> memory,
                                                     DmaAccess access) const;

  // IOMMU_IOAS_IOVA_RANGES: what may be mapped; attaching a device may narrow it.
  [[nodiscard]] vmm_base::Result<std::vector<IovaRange>> iova_ranges() const;

  // IOMMU_DESTROY now. EBUSY while a device is attached.
  vmm_base::Result<void> destroy() noexcept;

 private:
  friend class Iommufd;
  Ioas(std::shared_ptr<const vmm_base::UniqueFd> fd, std::uint32_t id) noexcept
      : fd_(std::move(fd)), id_(id) {}
  std::shared_ptr<const vmm_base::UniqueFd> fd_;  // None once destroyed or moved from.
  std::uint32_t id_;
};

class Iommufd {
 public:
  // Opens iommufd's file. Missing::kernel without it, Missing::permission.
  static OpenResult<Iommufd> open(const std::string& path = "/dev/iommu");
  // Takes a file that somebody else has opened, as in a sandbox.
  explicit Iommufd(vmm_base::UniqueFd fd)
      : fd_(std::make_shared<const vmm_base::UniqueFd>(std::move(fd))) {}

  // IOMMU_IOAS_ALLOC.
  [[nodiscard]] vmm_base::Result<Ioas> alloc_ioas() const;

  // Opens a device's own file ("/sys/bus/pci/devices/0000:00:10.0" tells which) and gives it to
  // this iommufd: VFIO_DEVICE_BIND_IOMMUFD. It can do no DMA until it is attached. `root` stands
  // before /dev. Missing::device, iommu_group, vfio_driver, permission, kernel; exclusivity if the
  // group's file or another iommufd has it; viability if another device of the group has another
  // driver.
  [[nodiscard]] OpenResult<Device> open_device(const std::string& device,
                                               const std::string& root = "") const;

  // -1 if moved from.
  [[nodiscard]] int fd() const noexcept { return fd_ ? fd_->get() : -1; }

 private:
  std::shared_ptr<const vmm_base::UniqueFd> fd_;
};

}  // namespace vfio_ioctls
