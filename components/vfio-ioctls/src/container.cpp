// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_ioctls/container.hpp"

#include "info.hpp"
#include "sysfs.hpp"
#include "vfio_ioctls/ioctl.hpp"

namespace vfio_ioctls {

using vmm_base::Error;
using vmm_base::Result;
using vmm_base::UniqueFd;

namespace {

Result<void> unmap_type1(int fd, std::uint32_t /*ioas*/, Iova iova, std::uint64_t size) noexcept {
  vfio_iommu_type1_dma_unmap unmap{};
  unmap.argsz = sizeof(unmap);
  unmap.iova = iova.value;
  unmap.size = size;
  VMM_CHECK(VFIO_IOCTLS_CALL(fd, VFIO_IOMMU_UNMAP_DMA, &unmap, iova.value));
  // It succeeds on nothing, too, and says how much it found.
  if (unmap.size != size) return Error{"VFIO_IOMMU_UNMAP_DMA", ENOENT, iova.value};
  return vmm_base::success();
}

}  // namespace

OpenResult<Container> Container::open(const std::string& path) {
  VMM_TRY(fd, open_file(path, "this kernel has no VFIO containers, or its module vfio isn't loaded",
                        "somebody else has it open"));
  VMM_TRY(container, from_fd(std::move(fd)));
  return std::move(container);
}

Result<Container> Container::from_fd(UniqueFd fd) {
  VMM_TRY(version, VFIO_IOCTLS_CALL(fd.get(), VFIO_GET_API_VERSION, 0));
  if (version != VFIO_API_VERSION) {
    return Error{"VFIO_GET_API_VERSION", ENOTSUP, static_cast<std::uint64_t>(version)};
  }
  return Container(std::make_shared<const UniqueFd>(std::move(fd)));
}

Result<int> Container::check_extension(std::uint32_t extension) const noexcept {
  return VFIO_IOCTLS_CALL(fd(), VFIO_CHECK_EXTENSION, static_cast<unsigned long>(extension),
                          extension);
}

Result<void> Container::set_iommu(std::uint32_t type) const noexcept {
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_SET_IOMMU, static_cast<unsigned long>(type), type));
  return vmm_base::success();
}

Result<IommuInfo> Container::get_iommu_info() const {
  VMM_TRY(answer, read_info("VFIO_IOMMU_GET_INFO", vfio_iommu_type1_info{},
                            [&](vfio_iommu_type1_info* info) {
                              return VFIO_IOCTLS_CALL(fd(), VFIO_IOMMU_GET_INFO, info);
                            }));
  return decode_iommu_info(answer);
}

Result<DmaMapping> Container::map_dma(Iova iova, std::span<std::byte> memory,
                                      DmaAccess access) const {
  vfio_iommu_type1_dma_map map{};
  map.argsz = sizeof(map);
  if (access != DmaAccess::write) map.flags |= VFIO_DMA_MAP_FLAG_READ;
  if (access != DmaAccess::read) map.flags |= VFIO_DMA_MAP_FLAG_WRITE;
  map.vaddr = reinterpret_cast<std::uintptr_t>(memory.data());
  map.iova = iova.value;
  map.size = memory.size();
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_IOMMU_MAP_DMA, &map, iova.value));
  return DmaMapping(fd_, unmap_type1, 0, iova, memory.size());
}

}  // namespace vfio_ioctls
