// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A device: its regions, its interrupts, its reset. Comes from Group::get_device() or
// Iommufd::open_device(), and is the same from then on.
//
//   VMM_TRY(bar0, device.get_region_info(VFIO_PCI_BAR0_REGION_INDEX));
//   VMM_TRY(registers, device.map(bar0));
//   VMM_TRY(identification, registers.read<std::uint32_t>(0));
//
// Any thread may call; what two do to one region or interrupt at a time is the device's business.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "vfio_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vfio_ioctls {

struct DeviceInfo {
  std::uint32_t flags = 0;  // VFIO_DEVICE_FLAGS_*
  std::uint32_t regions = 0;
  std::uint32_t irqs = 0;
};

// A part of a region.
struct RegionArea {
  std::uint64_t offset;  // In the region, bytes.
  std::uint64_t size;
  friend bool operator==(const RegionArea&, const RegionArea&) = default;
};

struct RegionType {
  std::uint32_t type;
  std::uint32_t subtype;
  friend bool operator==(const RegionType&, const RegionType&) = default;
};

struct RegionInfo {
  std::uint32_t index = 0;
  std::uint32_t flags = 0;   // VFIO_REGION_INFO_FLAG_*
  std::uint64_t size = 0;    // In bytes; 0 if the device has no such region.
  std::uint64_t offset = 0;  // In the device's file.
  // VFIO_REGION_INFO_CAP_SPARSE_MMAP: the only parts that may be mapped, where it is there.
  std::optional<std::vector<RegionArea>> sparse_areas;
  std::optional<RegionType> type;  // VFIO_REGION_INFO_CAP_TYPE
  bool msix_mappable = false;      // VFIO_REGION_INFO_CAP_MSIX_MAPPABLE
};

struct IrqInfo {
  std::uint32_t index = 0;
  std::uint32_t flags = 0;  // VFIO_IRQ_INFO_*
  std::uint32_t count = 0;  // Of interrupts; 0 if the device has no such kind.
};

// A mapped part of a region. Stays valid when the device is closed; while the device is reset or
// its memory space is off, access waits or raises SIGBUS.
class RegionMapping {
 public:
  RegionMapping(RegionMapping&& other) noexcept
      : address_(std::exchange(other.address_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  RegionMapping& operator=(RegionMapping other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~RegionMapping();

  // Null if moved from. For KVM_SET_USER_MEMORY_REGION, for instance.
  [[nodiscard]] void* address() const noexcept { return address_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }

  // One access of T's size to a device's register, never split, merged or left out by the compiler.
  // EFAULT, operand the offset, if it isn't within the mapping; EINVAL if it isn't aligned.
  template <class T>
  [[nodiscard]] vmm_base::Result<T> read(std::size_t offset) const noexcept {
    VMM_CHECK(check<T>("read of a mapped region", offset));
    return *register_at<T>(offset);
  }
  template <class T>
  [[nodiscard]] vmm_base::Result<void> write(std::size_t offset,
                                             std::type_identity_t<T> value) const noexcept {
    VMM_CHECK(check<T>("write of a mapped region", offset));
    *register_at<T>(offset) = value;
    return vmm_base::success();
  }

 private:
  friend class Device;
  RegionMapping(void* address, std::size_t size) noexcept : address_(address), size_(size) {}

  template <class T>
  [[nodiscard]] vmm_base::Result<void> check(const char* name, std::size_t offset) const noexcept {
    static_assert(std::is_unsigned_v<T>, "a register is 1, 2, 4 or 8 bytes");
    if (offset > size_ || size_ - offset < sizeof(T)) return vmm_base::Error{name, EFAULT, offset};
    if (offset % sizeof(T) != 0) return vmm_base::Error{name, EINVAL, offset};
    return vmm_base::success();
  }
  // check() has been asked: it lies within the mapping, whose address is a page's.
  template <class T>
  [[nodiscard]] volatile T* register_at(std::size_t offset) const noexcept {
    return reinterpret_cast<volatile T*>(static_cast<std::byte*>(address_) + offset);
  }

  void* address_;
  std::size_t size_;
};

class Device {
 public:
  // Takes a device's file that somebody else has opened, as in a sandbox.
  explicit Device(vmm_base::UniqueFd fd) noexcept : fd_(std::move(fd)) {}

  // VFIO_DEVICE_GET_INFO.
  [[nodiscard]] vmm_base::Result<DeviceInfo> get_info() const noexcept;

  // --- Regions ---

  // VFIO_DEVICE_GET_REGION_INFO: VFIO_PCI_BAR0_REGION_INDEX and so on. EINVAL beyond
  // DeviceInfo::regions; EBADMSG, operand an offset, for an answer whose sizes are wrong.
  [[nodiscard]] vmm_base::Result<RegionInfo> get_region_info(std::uint32_t index) const;

  // All of `bytes`, at `offset` in the region. The kernel makes accesses of 4, 2 and 1 bytes of it
  // (8, too, since Linux 6.14). EFAULT, operand the offset, if some of it isn't within the region;
  // EINVAL if the region can't be read or written; EIO, operand the bytes done, if not all could.
  [[nodiscard]] vmm_base::Result<void> read(const RegionInfo& region, std::uint64_t offset,
                                            std::span<std::byte> bytes) const noexcept;
  [[nodiscard]] vmm_base::Result<void> write(const RegionInfo& region, std::uint64_t offset,
                                             std::span<const std::byte> bytes) const noexcept;
  // One number, little-endian on the device.
  template <class T>
  [[nodiscard]] vmm_base::Result<T> read(const RegionInfo& region,
                                         std::uint64_t offset) const noexcept {
    static_assert(std::is_unsigned_v<T>);
    T value = 0;
    VMM_CHECK(read(region, offset, std::as_writable_bytes(std::span(&value, 1))));
    return value;
  }
  template <class T>
  [[nodiscard]] vmm_base::Result<void> write(const RegionInfo& region, std::uint64_t offset,
                                             std::type_identity_t<T> value) const noexcept {
    static_assert(std::is_unsigned_v<T>);
    return write(region, offset, std::as_bytes(std::span(&value, 1)));
  }

  // mmap(2) of a region with VFIO_REGION_INFO_FLAG_MMAP, readable and writable as its flags say; or
  // of one of its sparse_areas. EINVAL if it has no such flag, or sparse areas and none is named;
  // EFAULT, operand the offset, if the area isn't within it.
  [[nodiscard]] vmm_base::Result<RegionMapping> map(const RegionInfo& region) const noexcept;
  [[nodiscard]] vmm_base::Result<RegionMapping> map(const RegionInfo& region,
                                                    RegionArea area) const noexcept;

  // --- Interrupts: `index` is VFIO_PCI_INTX_IRQ_INDEX, _MSI_, _MSIX_, _ERR_ or _REQ_ ---

  // VFIO_DEVICE_GET_IRQ_INFO.
  [[nodiscard]] vmm_base::Result<IrqInfo> get_irq_info(std::uint32_t index) const noexcept;

  // VFIO_DEVICE_SET_IRQS; operand the index in all of these. Each eventfd is signalled by the
  // interrupt `start` + its place; -1 takes one away. The first call turns the kind on in the
  // device, which writing to its configuration space doesn't: name all that will be wanted, as up
  // to Linux 6.4 more can't be added later. One of INTx, MSI and MSI-X at a time: EINVAL for a
  // second.
  [[nodiscard]] vmm_base::Result<void> set_irq_eventfds(std::uint32_t index,
                                                        std::span<const int> eventfds,
                                                        std::uint32_t start = 0) const;
  // Turns the kind off. EINVAL if it is off already.
  [[nodiscard]] vmm_base::Result<void> disable_irqs(std::uint32_t index) const noexcept;

  // Only of IRQs with VFIO_IRQ_INFO_MASKABLE: INTx. One with VFIO_IRQ_INFO_AUTOMASKED masks itself
  // when it is signalled, and waits for unmask_irq(). ENOTTY for MSI and MSI-X: mask those in the
  // device.
  [[nodiscard]] vmm_base::Result<void> mask_irq(std::uint32_t index,
                                                std::uint32_t start = 0) const noexcept;
  [[nodiscard]] vmm_base::Result<void> unmask_irq(std::uint32_t index,
                                                  std::uint32_t start = 0) const noexcept;
  // The same done by the kernel at each signal of an eventfd, as KVM's resampler gives it; -1 ends
  // it.
  [[nodiscard]] vmm_base::Result<void> set_unmask_eventfd(std::uint32_t index, int eventfd,
                                                          std::uint32_t start = 0) const;
  // Signals the eventfd as if the device had: a test of the way there.
  [[nodiscard]] vmm_base::Result<void> trigger_irq(std::uint32_t index,
                                                   std::uint32_t start = 0) const noexcept;

  // VFIO_DEVICE_RESET. EINVAL without VFIO_DEVICE_FLAGS_RESET.
  [[nodiscard]] vmm_base::Result<void> reset() const noexcept;

  // --- Only of a device from Iommufd::open_device() ---

  // VFIO_DEVICE_ATTACH_IOMMUFD_PT: from now on the device reaches what is mapped in this address
  // space, and only that; operand its id. ENOENT for one of another iommufd. ENOTTY for a group's
  // device.
  [[nodiscard]] vmm_base::Result<void> attach_iommufd_pt(std::uint32_t ioas_id) const noexcept;
  // VFIO_DEVICE_DETACH_IOMMUFD_PT: no DMA from now on.
  [[nodiscard]] vmm_base::Result<void> detach_iommufd_pt() const noexcept;

  // -1 if moved from.
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  [[nodiscard]] vmm_base::Result<void> set_eventfds(std::uint32_t action, std::uint32_t index,
                                                    std::uint32_t start,
                                                    std::span<const int> eventfds) const;
  [[nodiscard]] vmm_base::Result<void> set_irqs(std::uint32_t flags, std::uint32_t index,
                                                std::uint32_t start,
                                                std::uint32_t count) const noexcept;
  vmm_base::UniqueFd fd_;
};

}  // namespace vfio_ioctls
