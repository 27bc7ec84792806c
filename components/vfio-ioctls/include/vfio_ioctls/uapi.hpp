// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The kernel's own <linux/vfio.h>, and what is newer than Debian 12's (6.1): a device's own file
// (Linux 6.6) and iommufd (6.2). Written down here as they first were, which every later kernel
// still takes; under names of our own, so that the kernel's headers may come, too, and are
// compared.
#pragma once

#include <linux/ioctl.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <cstddef>

#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#endif

namespace vfio_ioctls::uapi {

// --- On a device's own file ------------------------------------------------

struct BindIommufd {
  __u32 argsz;
  __u32 flags;
  __s32 iommufd;
  __u32 out_devid;
};
struct AttachIommufdPt {
  __u32 argsz;
  __u32 flags;
  __u32 pt_id;  // An IOAS in; the page table that it became, out.
};
struct DetachIommufdPt {
  __u32 argsz;
  __u32 flags;
};
static_assert(sizeof(BindIommufd) == 16 && offsetof(BindIommufd, iommufd) == 8 &&
              offsetof(BindIommufd, out_devid) == 12);
static_assert(sizeof(AttachIommufdPt) == 12 && offsetof(AttachIommufdPt, pt_id) == 8);
static_assert(sizeof(DetachIommufdPt) == 8);

// --- On /dev/iommu ---------------------------------------------------------

struct IommuDestroy {
  __u32 size;
  __u32 id;
};
struct IoasAlloc {
  __u32 size;
  __u32 flags;
  __u32 out_ioas_id;
};
struct IovaRange {
  __u64 start;
  __u64 last;  // Inclusive.
};
struct IoasIovaRanges {
  __u32 size;
  __u32 ioas_id;
  __u32 num_iovas;  // Room in, number out.
  __u32 reserved;
  __u64 allowed_iovas;  // Address of IovaRange[num_iovas].
  __u64 out_iova_alignment;
};
struct IoasMap {
  __u32 size;
  __u32 flags;
  __u32 ioas_id;
  __u32 reserved;
  __u64 user_va;
  __u64 length;
  __u64 iova;
};
struct IoasUnmap {
  __u32 size;
  __u32 ioas_id;
  __u64 iova;
  __u64 length;
};
static_assert(sizeof(IommuDestroy) == 8 && offsetof(IommuDestroy, id) == 4);
static_assert(sizeof(IoasAlloc) == 12 && offsetof(IoasAlloc, out_ioas_id) == 8);
static_assert(sizeof(IovaRange) == 16 && offsetof(IovaRange, last) == 8);
static_assert(sizeof(IoasIovaRanges) == 32 && offsetof(IoasIovaRanges, num_iovas) == 8 &&
              offsetof(IoasIovaRanges, allowed_iovas) == 16 &&
              offsetof(IoasIovaRanges, out_iova_alignment) == 24);
static_assert(sizeof(IoasMap) == 40 && offsetof(IoasMap, ioas_id) == 8 &&
              offsetof(IoasMap, user_va) == 16 && offsetof(IoasMap, length) == 24 &&
              offsetof(IoasMap, iova) == 32);
static_assert(sizeof(IoasUnmap) == 24 && offsetof(IoasUnmap, iova) == 8 &&
              offsetof(IoasUnmap, length) == 16);

inline constexpr __u32 ioas_map_fixed_iova = 1 << 0;
inline constexpr __u32 ioas_map_writeable = 1 << 1;
inline constexpr __u32 ioas_map_readable = 1 << 2;

#ifdef VFIO_DEVICE_BIND_IOMMUFD
static_assert(offsetof(::vfio_device_bind_iommufd, iommufd) == offsetof(BindIommufd, iommufd) &&
              offsetof(::vfio_device_bind_iommufd, out_devid) == offsetof(BindIommufd, out_devid));
static_assert(offsetof(::vfio_device_attach_iommufd_pt, pt_id) == offsetof(AttachIommufdPt, pt_id));
static_assert(VFIO_DEVICE_BIND_IOMMUFD == _IO(VFIO_TYPE, VFIO_BASE + 18));
static_assert(VFIO_DEVICE_ATTACH_IOMMUFD_PT == _IO(VFIO_TYPE, VFIO_BASE + 19));
static_assert(VFIO_DEVICE_DETACH_IOMMUFD_PT == _IO(VFIO_TYPE, VFIO_BASE + 20));
#endif
#ifdef IOMMU_IOAS_MAP
static_assert(sizeof(::iommu_destroy) == sizeof(IommuDestroy));
static_assert(sizeof(::iommu_ioas_alloc) == sizeof(IoasAlloc));
static_assert(sizeof(::iommu_iova_range) == sizeof(IovaRange));
static_assert(sizeof(::iommu_ioas_iova_ranges) == sizeof(IoasIovaRanges));
static_assert(sizeof(::iommu_ioas_map) == sizeof(IoasMap) &&
              offsetof(::iommu_ioas_map, iova) == offsetof(IoasMap, iova));
static_assert(sizeof(::iommu_ioas_unmap) == sizeof(IoasUnmap));
static_assert(IOMMU_DESTROY == _IO(IOMMUFD_TYPE, 0x80) &&
              IOMMU_IOAS_ALLOC == _IO(IOMMUFD_TYPE, 0x81) &&
              IOMMU_IOAS_IOVA_RANGES == _IO(IOMMUFD_TYPE, 0x84) &&
              IOMMU_IOAS_MAP == _IO(IOMMUFD_TYPE, 0x85) &&
              IOMMU_IOAS_UNMAP == _IO(IOMMUFD_TYPE, 0x86));
static_assert(ioas_map_fixed_iova == IOMMU_IOAS_MAP_FIXED_IOVA &&
              ioas_map_writeable == IOMMU_IOAS_MAP_WRITEABLE &&
              ioas_map_readable == IOMMU_IOAS_MAP_READABLE);
#endif

}  // namespace vfio_ioctls::uapi

#ifndef VFIO_DEVICE_BIND_IOMMUFD
#define VFIO_DEVICE_BIND_IOMMUFD _IO(VFIO_TYPE, VFIO_BASE + 18)
#define VFIO_DEVICE_ATTACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 19)
#define VFIO_DEVICE_DETACH_IOMMUFD_PT _IO(VFIO_TYPE, VFIO_BASE + 20)
#endif
#ifndef IOMMU_IOAS_MAP
#define IOMMU_DESTROY _IO(VFIO_TYPE, 0x80)
#define IOMMU_IOAS_ALLOC _IO(VFIO_TYPE, 0x81)
#define IOMMU_IOAS_IOVA_RANGES _IO(VFIO_TYPE, 0x84)
#define IOMMU_IOAS_MAP _IO(VFIO_TYPE, 0x85)
#define IOMMU_IOAS_UNMAP _IO(VFIO_TYPE, 0x86)
#endif
