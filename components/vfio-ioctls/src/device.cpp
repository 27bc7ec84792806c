// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vfio_ioctls/device.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "info.hpp"
#include "vfio_ioctls/ioctl.hpp"

namespace vfio_ioctls {

using vmm_base::Error;
using vmm_base::Result;

namespace {

// That [offset, offset + size) lies within the region.
Result<void> check_range(const char* name, const RegionInfo& region, std::uint64_t offset,
                         std::uint64_t size) noexcept {
  if (offset > region.size || size > region.size - offset) return Error{name, EFAULT, offset};
  return vmm_base::success();
}

// Transfers `size` bytes by transfer(done) -> what pread(2) or pwrite(2) returned for the rest.
template <class Transfer>
Result<void> transfer_all(const char* name, std::uint64_t offset, std::size_t size,
                          Transfer&& transfer) noexcept {
  for (std::size_t done = 0; done < size;) {
    const ssize_t count = transfer(done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return vmm_base::last_error(name, offset + done);
    if (count == 0) return Error{name, EIO, done};
    done += static_cast<std::size_t>(count);
  }
  return vmm_base::success();
}

}  // namespace

RegionMapping::~RegionMapping() {
  if (address_ != nullptr) ::munmap(address_, size_);
}

Result<DeviceInfo> Device::get_info() const noexcept {
  vfio_device_info info{};
  info.argsz = sizeof(info);
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_DEVICE_GET_INFO, &info));
  return DeviceInfo{info.flags, info.num_regions, info.num_irqs};
}

Result<RegionInfo> Device::get_region_info(std::uint32_t index) const {
  vfio_region_info header{};
  header.index = index;
  VMM_TRY(answer, read_info("VFIO_DEVICE_GET_REGION_INFO", header, [&](vfio_region_info* info) {
            return VFIO_IOCTLS_CALL(fd(), VFIO_DEVICE_GET_REGION_INFO, info, index);
          }));
  return decode_region_info(answer);
}

Result<void> Device::read(const RegionInfo& region, std::uint64_t offset,
                          std::span<std::byte> bytes) const noexcept {
  VMM_CHECK(check_range("read of a region", region, offset, bytes.size()));
  return transfer_all("read of a region", offset, bytes.size(), [&](std::size_t done) {
    return ::pread(fd(), bytes.data() + done, bytes.size() - done,
                   static_cast<off_t>(region.offset + offset + done));
  });
}

Result<void> Device::write(const RegionInfo& region, std::uint64_t offset,
                           std::span<const std::byte> bytes) const noexcept {
  VMM_CHECK(check_range("write of a region", region, offset, bytes.size()));
  return transfer_all("write of a region", offset, bytes.size(), [&](std::size_t done) {
    return ::pwrite(fd(), bytes.data() + done, bytes.size() - done,
                    static_cast<off_t>(region.offset + offset + done));
  });
}

Result<RegionMapping> Device::map(const RegionInfo& region) const noexcept {
  if (region.sparse_areas) return Error{"mmap of a region", EINVAL, region.index};
  return map(region, {0, region.size});
}

Result<RegionMapping> Device::map(const RegionInfo& region, RegionArea area) const noexcept {
  VMM_CHECK(check_range("mmap of a region", region, area.offset, area.size));
  if ((region.flags & VFIO_REGION_INFO_FLAG_MMAP) == 0) {
    return Error{"mmap of a region", EINVAL, region.index};
  }
  int protection = 0;
  if ((region.flags & VFIO_REGION_INFO_FLAG_READ) != 0) protection |= PROT_READ;
  if ((region.flags & VFIO_REGION_INFO_FLAG_WRITE) != 0) protection |= PROT_WRITE;
  void* address = ::mmap(nullptr, area.size, protection, MAP_SHARED, fd(),
                         static_cast<off_t>(region.offset + area.offset));
  if (address == MAP_FAILED) return vmm_base::last_error("mmap of a region", region.index);
  return RegionMapping(address, area.size);
}

Result<IrqInfo> Device::get_irq_info(std::uint32_t index) const noexcept {
  vfio_irq_info info{};
  info.argsz = sizeof(info);
  info.index = index;
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_DEVICE_GET_IRQ_INFO, &info, index));
  return IrqInfo{info.index, info.flags, info.count};
}

Result<void> Device::set_irq_eventfds(std::uint32_t index, std::span<const int> eventfds,
                                      std::uint32_t start) const {
  return set_eventfds(VFIO_IRQ_SET_ACTION_TRIGGER, index, start, eventfds);
}
Result<void> Device::set_unmask_eventfd(std::uint32_t index, int eventfd,
                                        std::uint32_t start) const {
  return set_eventfds(VFIO_IRQ_SET_ACTION_UNMASK, index, start, std::span(&eventfd, 1));
}

Result<void> Device::set_eventfds(std::uint32_t action, std::uint32_t index, std::uint32_t start,
                                  std::span<const int> eventfds) const {
  static_assert(sizeof(int) == sizeof(__s32));
  std::vector<std::byte> buffer(sizeof(vfio_irq_set) + eventfds.size_bytes());
  vfio_irq_set set{};
  set.argsz = static_cast<std::uint32_t>(buffer.size());
  set.flags = VFIO_IRQ_SET_DATA_EVENTFD | action;
  set.index = index;
  set.start = start;
  set.count = static_cast<std::uint32_t>(eventfds.size());
  std::memcpy(buffer.data(), &set, sizeof(set));
  if (!eventfds.empty()) {
    std::memcpy(buffer.data() + sizeof(set), eventfds.data(), eventfds.size_bytes());
  }
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_DEVICE_SET_IRQS, buffer.data(), index));
  return vmm_base::success();
}

Result<void> Device::disable_irqs(std::uint32_t index) const noexcept {
  return set_irqs(VFIO_IRQ_SET_ACTION_TRIGGER, index, 0, 0);
}
Result<void> Device::mask_irq(std::uint32_t index, std::uint32_t start) const noexcept {
  return set_irqs(VFIO_IRQ_SET_ACTION_MASK, index, start, 1);
}
Result<void> Device::unmask_irq(std::uint32_t index, std::uint32_t start) const noexcept {
  return set_irqs(VFIO_IRQ_SET_ACTION_UNMASK, index, start, 1);
}
Result<void> Device::trigger_irq(std::uint32_t index, std::uint32_t start) const noexcept {
  return set_irqs(VFIO_IRQ_SET_ACTION_TRIGGER, index, start, 1);
}

Result<void> Device::set_irqs(std::uint32_t flags, std::uint32_t index, std::uint32_t start,
                              std::uint32_t count) const noexcept {
  vfio_irq_set set{};
  set.argsz = sizeof(set);
  set.flags = VFIO_IRQ_SET_DATA_NONE | flags;
  set.index = index;
  set.start = start;
  set.count = count;
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_DEVICE_SET_IRQS, &set, index));
  return vmm_base::success();
}

Result<void> Device::reset() const noexcept {
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_DEVICE_RESET, 0));
  return vmm_base::success();
}

Result<void> Device::attach_iommufd_pt(std::uint32_t ioas_id) const noexcept {
  uapi::AttachIommufdPt attach{};
  attach.argsz = sizeof(attach);
  attach.pt_id = ioas_id;
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach, ioas_id));
  return vmm_base::success();
}

Result<void> Device::detach_iommufd_pt() const noexcept {
  uapi::DetachIommufdPt detach{};
  detach.argsz = sizeof(detach);
  VMM_CHECK(VFIO_IOCTLS_CALL(fd(), VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach));
  return vmm_base::success();
}

}  // namespace vfio_ioctls
