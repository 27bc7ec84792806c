// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_ioctls/iommufd.hpp"

#include "sysfs.hpp"
#include "vfio_ioctls/ioctl.hpp"
#include "vfio_ioctls/uapi.hpp"

namespace vfio_ioctls {

using vmm_base::Error;
using vmm_base::Result;

namespace {

Result<void> unmap_ioas(int fd, std::uint32_t ioas, Iova iova, std::uint64_t size) noexcept {
  uapi::IoasUnmap unmap{};
  unmap.size = sizeof(unmap);
  unmap.ioas_id = ioas;
  unmap.iova = iova.value;
  unmap.length = size;
  VMM_CHECK(VFIO_IOCTLS_CALL(fd, IOMMU_IOAS_UNMAP, &unmap, iova.value));
  return vmm_base::success();
}

}  // namespace

OpenResult<Iommufd> Iommufd::open(const std::string& path) {
  VMM_TRY(fd, open_file(path, "this kernel has no iommufd, or its module isn't loaded",
                        "somebody else has it open"));
  return Iommufd(std::move(fd));
}

Result<Ioas> Iommufd::alloc_ioas() const {
  uapi::IoasAlloc alloc{};
  alloc.size = sizeof(alloc);
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), IOMMU_IOAS_ALLOC, &alloc));
  return Ioas(fd_, alloc.out_ioas_id);
}

OpenResult<Device> Iommufd::open_device(const std::string& device, const std::string& root) const {
  VMM_TRY(group, iommu_group_of(device));
  VMM_CHECK(require_vfio_driver(device));
  VMM_TRY(file, own_file_of(device, root));
  VMM_TRY(device_fd, open_file(file, "this kernel has no files for VFIO devices",
                               "somebody else has it open"));
  uapi::BindIommufd bind{};
  bind.argsz = sizeof(bind);
  bind.iommufd = fd();
  auto bound = VFIO_IOCTLS_CALL(device_fd.get(), VFIO_DEVICE_BIND_IOMMUFD, &bind);
  if (bound) return Device(std::move(device_fd));
  const Error error = bound.error();
  // EPERM, of a group that isn't viable; EBUSY, if the group's file is open; EINVAL, if another has
  // the device's own.
  if (error.code != EPERM && error.code != EBUSY && error.code != EINVAL) return error;
  const std::string others = devices_in_the_way(root, group);
  if (!others.empty()) {
    return OpenError{Missing::viability, error, file,
                     "the device's group is not viable: " + others};
  }
  if (error.code == EPERM) return error;
  return OpenError{Missing::exclusivity, error, file, "somebody else has the device"};
}

Result<DmaMapping> Ioas::map_dma(Iova iova, std::span<std::byte> memory, DmaAccess access) const {
  uapi::IoasMap map{};
  map.size = sizeof(map);
  map.flags = uapi::ioas_map_fixed_iova;
  if (access != DmaAccess::write) map.flags |= uapi::ioas_map_readable;
  if (access != DmaAccess::read) map.flags |= uapi::ioas_map_writeable;
  map.ioas_id = id_;
  map.user_va = reinterpret_cast<std::uintptr_t>(memory.data());
  map.length = memory.size();
  map.iova = iova.value;
  VMM_CHECK(VFIO_IOCTLS_CALL(fd_ ? fd_->get() : -1, IOMMU_IOAS_MAP, &map, iova.value));
  return DmaMapping(fd_, unmap_ioas, id_, iova, memory.size());
}

Result<std::vector<IovaRange>> Ioas::iova_ranges() const {
  std::vector<uapi::IovaRange> ranges(16);
  for (;;) {
    uapi::IoasIovaRanges query{};
    query.size = sizeof(query);
    query.ioas_id = id_;
    query.num_iovas = static_cast<std::uint32_t>(ranges.size());
    query.allowed_iovas = reinterpret_cast<std::uintptr_t>(ranges.data());
    auto called = VFIO_IOCTLS_CALL(fd_ ? fd_->get() : -1, IOMMU_IOAS_IOVA_RANGES, &query, id_);
    if (called && query.num_iovas <= ranges.size()) {
      ranges.resize(query.num_iovas);
      break;
    }
    if (!called && called.error().code != EMSGSIZE) return called.error();
    if (query.num_iovas <= ranges.size() || query.num_iovas > 65536) {
      return Error{"IOMMU_IOAS_IOVA_RANGES", EBADMSG, query.num_iovas};
    }
    ranges.resize(query.num_iovas);
  }
  std::vector<IovaRange> result;
  result.reserve(ranges.size());
  for (const auto& range : ranges) result.push_back({Iova{range.start}, Iova{range.last}});
  return result;
}

Result<void> Ioas::destroy() noexcept {
  if (!fd_) return vmm_base::success();
  uapi::IommuDestroy destroy{};
  destroy.size = sizeof(destroy);
  destroy.id = id_;
  VMM_CHECK(VFIO_IOCTLS_CALL(fd_->get(), IOMMU_DESTROY, &destroy, id_));
  fd_.reset();
  return vmm_base::success();
}

}  // namespace vfio_ioctls
