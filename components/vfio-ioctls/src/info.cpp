// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "info.hpp"

#include <limits>

#include "vfio_ioctls/capability.hpp"

namespace vfio_ioctls {
namespace {

using vmm_base::Error;
using vmm_base::Result;

constexpr char region_call[] = "VFIO_DEVICE_GET_REGION_INFO";
constexpr char iommu_call[] = "VFIO_IOMMU_GET_INFO";

// Where a capability, or what is wrong in it, stands in the answer.
std::uint64_t place(std::span<const std::byte> answer, const Capability& capability) {
  return answer.size() - capability.bytes.size();
}

}  // namespace

Result<RegionInfo> decode_region_info(std::span<const std::byte> answer) {
  vfio_region_info raw{};
  if (answer.size() < sizeof(raw)) return Error{region_call, EBADMSG, answer.size()};
  std::memcpy(&raw, answer.data(), sizeof(raw));
  RegionInfo info;
  info.index = raw.index;
  info.flags = raw.flags;
  info.size = raw.size;
  info.offset = raw.offset;
  // read(2) and mmap(2) take it as a file's offset, which is signed.
  constexpr auto last = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  if (raw.offset > last || raw.size > last - raw.offset) {
    return Error{region_call, EBADMSG, offsetof(vfio_region_info, size)};
  }
  if ((raw.flags & VFIO_REGION_INFO_FLAG_CAPS) == 0) return info;

  VMM_CHECK(walk_capabilities(
      region_call, answer, sizeof(raw), raw.cap_offset,
      [&](const Capability& capability) -> Result<void> {
        const Error wrong{region_call, EBADMSG, place(answer, capability)};
        switch (capability.id) {
          case VFIO_REGION_INFO_CAP_SPARSE_MMAP: {
            const auto count = capability.element<std::uint32_t>(sizeof(vfio_info_cap_header), 0);
            if (!count) return wrong;
            constexpr auto fixed = sizeof(vfio_region_info_cap_sparse_mmap);
            info.sparse_areas.emplace();
            for (std::uint32_t n = 0; n < *count; ++n) {
              const auto area = capability.element<vfio_region_sparse_mmap_area>(fixed, n);
              if (!area || area->offset > info.size || area->size > info.size - area->offset) {
                return wrong;
              }
              info.sparse_areas->push_back({area->offset, area->size});
            }
            break;
          }
          case VFIO_REGION_INFO_CAP_TYPE: {
            const auto type = capability.as<vfio_region_info_cap_type>();
            if (!type) return wrong;
            info.type = RegionType{type->type, type->subtype};
            break;
          }
          case VFIO_REGION_INFO_CAP_MSIX_MAPPABLE:
            info.msix_mappable = true;
            break;
          default:
            break;
        }
        return vmm_base::success();
      }));
  return info;
}

Result<IommuInfo> decode_iommu_info(std::span<const std::byte> answer) {
  vfio_iommu_type1_info raw{};
  if (answer.size() < sizeof(raw)) return Error{iommu_call, EBADMSG, answer.size()};
  std::memcpy(&raw, answer.data(), sizeof(raw));
  IommuInfo info;
  if ((raw.flags & VFIO_IOMMU_INFO_PGSIZES) != 0) info.page_sizes = raw.iova_pgsizes;
  if ((raw.flags & VFIO_IOMMU_INFO_CAPS) == 0) return info;

  VMM_CHECK(walk_capabilities(
      iommu_call, answer, sizeof(raw), raw.cap_offset,
      [&](const Capability& capability) -> Result<void> {
        const Error wrong{iommu_call, EBADMSG, place(answer, capability)};
        switch (capability.id) {
          case VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE: {
            const auto count = capability.element<std::uint32_t>(sizeof(vfio_info_cap_header), 0);
            if (!count) return wrong;
            constexpr auto fixed = sizeof(vfio_iommu_type1_info_cap_iova_range);
            for (std::uint32_t n = 0; n < *count; ++n) {
              const auto range = capability.element<vfio_iova_range>(fixed, n);
              if (!range || range->end < range->start) return wrong;
              info.iova_ranges.push_back({Iova{range->start}, Iova{range->end}});
            }
            break;
          }
          case VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL: {
            const auto available = capability.as<vfio_iommu_type1_info_dma_avail>();
            if (!available) return wrong;
            info.dma_available = available->avail;
            break;
          }
          default:
            break;
        }
        return vmm_base::success();
      }));
  return info;
}

}  // namespace vfio_ioctls
