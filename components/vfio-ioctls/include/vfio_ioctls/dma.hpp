// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Memory that devices may reach, for as long as its owner lives. Comes from Container::map_dma() or
// Ioas::map_dma().
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <utility>

#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vfio_ioctls {

// An address as a device sees it, translated by the IOMMU. For a guest's device it is the guest
// physical address.
struct Iova {
  std::uint64_t value;
  friend auto operator<=>(const Iova&, const Iova&) = default;
};

// What the device may do.
enum class DmaAccess { read, write, read_write };

// A range that may be mapped; `last` is inclusive.
struct IovaRange {
  Iova first;
  Iova last;
  friend bool operator==(const IovaRange&, const IovaRange&) = default;
};

// Unmaps at its end; until then the memory has to stay where it is, and the kernel keeps its pages
// in place. Holds the IOMMU's file, so it may outlive the container or the iommufd.
class DmaMapping {
 public:
  DmaMapping(DmaMapping&& other) noexcept
      : fd_(std::move(other.fd_)),
        unmap_(other.unmap_),
        ioas_(other.ioas_),
        iova_(other.iova_),
        size_(std::exchange(other.size_, 0)) {}
  // What it was before is unmapped.
  DmaMapping& operator=(DmaMapping other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(unmap_, other.unmap_);
    std::swap(ioas_, other.ioas_);
    std::swap(iova_, other.iova_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~DmaMapping() { static_cast<void>(unmap()); }

  [[nodiscard]] Iova iova() const noexcept { return iova_; }
  // In bytes; 0 once it is unmapped or moved from.
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }

  // Unmaps now: the device reaches the memory no more when this returns. VFIO_IOMMU_UNMAP_DMA or
  // IOMMU_IOAS_UNMAP, operand the IOVA; EINVAL or ENOENT if the mapping has gone before, as it does
  // when a container loses its last group.
  vmm_base::Result<void> unmap() noexcept {
    if (size_ == 0) return vmm_base::success();
    const auto fd = std::move(fd_);
    return unmap_(fd->get(), ioas_, iova_, std::exchange(size_, 0));
  }

 private:
  friend class Container;
  friend class Ioas;
  using Unmap = vmm_base::Result<void> (*)(int fd, std::uint32_t ioas, Iova iova,
                                           std::uint64_t size) noexcept;
  DmaMapping(std::shared_ptr<const vmm_base::UniqueFd> fd, Unmap by, std::uint32_t ioas, Iova at,
             std::uint64_t bytes) noexcept
      : fd_(std::move(fd)), unmap_(by), ioas_(ioas), iova_(at), size_(bytes) {}

  std::shared_ptr<const vmm_base::UniqueFd> fd_;
  Unmap unmap_;
  std::uint32_t ioas_;  // 0 for a container.
  Iova iova_;
  std::uint64_t size_;
};

}  // namespace vfio_ioctls
