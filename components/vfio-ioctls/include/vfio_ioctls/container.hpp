// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A container: an IOMMU's address space that the groups in it share (/dev/vfio/vfio, type1).
//
//   VMM_TRY(container, Container::open());
//   VMM_TRY(group, Group::open("/sys/bus/pci/devices/0000:00:10.0"));
//   VMM_CHECK(group.set_container(container));
//   VMM_CHECK(container.set_iommu(VFIO_TYPE1v2_IOMMU));
//   VMM_TRY(mapping, container.map_dma(Iova{0}, ram, DmaAccess::read_write));
//
// Any thread may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "vfio_ioctls/dma.hpp"
#include "vfio_ioctls/open_error.hpp"
#include "vfio_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vfio_ioctls {

struct IommuInfo {
  std::uint64_t page_sizes = 0;                // A bit each; 0 if the kernel doesn't tell.
  std::vector<IovaRange> iova_ranges;          // What may be mapped; since Linux 5.4.
  std::optional<std::uint32_t> dma_available;  // Mappings still free; since 5.10.
};

class Container {
 public:
  // Opens VFIO's file. Missing::kernel without it, Missing::permission; and ENOTSUP, operand the
  // version found, if its API isn't VFIO_API_VERSION.
  static OpenResult<Container> open(const std::string& path = "/dev/vfio/vfio");
  // The same for a file that somebody else has opened, as in a sandbox.
  static vmm_base::Result<Container> from_fd(vmm_base::UniqueFd fd);

  // VFIO_CHECK_EXTENSION: 0 for absent, for instance of VFIO_TYPE1v2_IOMMU.
  [[nodiscard]] vmm_base::Result<int> check_extension(std::uint32_t extension) const noexcept;

  // VFIO_SET_IOMMU, once there is a group: VFIO_TYPE1v2_IOMMU, which unmaps only what was mapped.
  // EPERM if the platform doesn't remap interrupts, so that a device could send any.
  [[nodiscard]] vmm_base::Result<void> set_iommu(std::uint32_t type) const noexcept;

  // VFIO_IOMMU_GET_INFO, once the IOMMU is set. EBADMSG, operand an offset, for an answer whose
  // sizes are wrong.
  [[nodiscard]] vmm_base::Result<IommuInfo> get_iommu_info() const;

  // VFIO_IOMMU_MAP_DMA: the devices of all groups reach `memory` at `iova`; both, and the size, are
  // whole pages of the IOMMU's. Pins it all. EEXIST if some of it is mapped, EINVAL outside
  // iova_ranges or before set_iommu(), ENOMEM above RLIMIT_MEMLOCK, ENOSPC beyond dma_available;
  // operand the IOVA.
  [[nodiscard]] vmm_base::Result<DmaMapping> map_dma(Iova iova, std::span<std::byte> memory,
                                                     DmaAccess access) const;

  // -1 if moved from.
  [[nodiscard]] int fd() const noexcept { return fd_ ? fd_->get() : -1; }

 private:
  explicit Container(std::shared_ptr<const vmm_base::UniqueFd> fd) noexcept : fd_(std::move(fd)) {}
  std::shared_ptr<const vmm_base::UniqueFd> fd_;
};

}  // namespace vfio_ioctls
