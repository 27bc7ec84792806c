// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What each call asks of the kernel, and what is made of its answers, without a device: ioctl() is
// a kernel that a test scripts. edu_lab.cpp has the same on devices.
#include <gtest/gtest.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "print.hpp"
#include "scripted_kernel.hpp"
#include "vfio_ioctls/container.hpp"
#include "vfio_ioctls/device.hpp"
#include "vfio_ioctls/iommufd.hpp"
#include "vfio_ioctls/uapi.hpp"

namespace vfio_ioctls {
namespace {

using vmm_base::Error;
using vmm_base::UniqueFd;

template <class T>
T& as(void* argument) {
  return *static_cast<T*>(argument);
}

// A VFIO_DEVICE_SET_IRQS as the kernel sees it.
struct IrqSet {
  std::uint32_t flags;
  std::uint32_t index;
  std::uint32_t start;
  std::uint32_t count;
  std::vector<int> eventfds;
  friend bool operator==(const IrqSet&, const IrqSet&) = default;
};

class Requests : public testing::Test {
 protected:
  static UniqueFd file() { return UniqueFd(::memfd_create("vfio", MFD_CLOEXEC)); }
  ~Requests() override { kernel = nullptr; }

  // What the call asks by VFIO_DEVICE_SET_IRQS, which it makes once.
  template <class Call>
  IrqSet asked(Call&& call) {
    std::vector<IrqSet> sets;
    kernel = [&](unsigned long request, void* argument) {
      EXPECT_EQ(request, std::uint64_t{VFIO_DEVICE_SET_IRQS});
      const auto& set = as<vfio_irq_set>(argument);
      IrqSet seen{set.flags, set.index, set.start, set.count, {}};
      if ((set.flags & VFIO_IRQ_SET_DATA_EVENTFD) != 0) {
        seen.eventfds.resize(set.count);
        if (set.count != 0) std::memcpy(seen.eventfds.data(), set.data, set.count * sizeof(int));
      }
      EXPECT_EQ(set.argsz, sizeof(set) + seen.eventfds.size() * sizeof(int));
      sets.push_back(std::move(seen));
      return 0;
    };
    EXPECT_TRUE(call());
    EXPECT_EQ(sets.size(), 1U);
    return sets.at(0);
  }

  const Device device{file()};
};

// --- Interrupts ------------------------------------------------------------

constexpr std::uint32_t by_eventfd = VFIO_IRQ_SET_DATA_EVENTFD;
constexpr std::uint32_t by_itself = VFIO_IRQ_SET_DATA_NONE;

TEST_F(Requests, AnIntxsEventfdAndItsMasks) {
  constexpr std::uint32_t intx = VFIO_PCI_INTX_IRQ_INDEX;
  const std::array<int, 1> one{5};
  EXPECT_EQ(asked([&] { return device.set_irq_eventfds(intx, one); }),
            (IrqSet{by_eventfd | VFIO_IRQ_SET_ACTION_TRIGGER, intx, 0, 1, {5}}));
  EXPECT_EQ(asked([&] { return device.mask_irq(intx); }),
            (IrqSet{by_itself | VFIO_IRQ_SET_ACTION_MASK, intx, 0, 1, {}}));
  EXPECT_EQ(asked([&] { return device.unmask_irq(intx); }),
            (IrqSet{by_itself | VFIO_IRQ_SET_ACTION_UNMASK, intx, 0, 1, {}}));
  EXPECT_EQ(asked([&] { return device.set_unmask_eventfd(intx, 6); }),
            (IrqSet{by_eventfd | VFIO_IRQ_SET_ACTION_UNMASK, intx, 0, 1, {6}}));
  EXPECT_EQ(asked([&] { return device.set_unmask_eventfd(intx, -1); }),
            (IrqSet{by_eventfd | VFIO_IRQ_SET_ACTION_UNMASK, intx, 0, 1, {-1}}));
  EXPECT_EQ(asked([&] { return device.trigger_irq(intx); }),
            (IrqSet{by_itself | VFIO_IRQ_SET_ACTION_TRIGGER, intx, 0, 1, {}}));
  EXPECT_EQ(asked([&] { return device.disable_irqs(intx); }),
            (IrqSet{by_itself | VFIO_IRQ_SET_ACTION_TRIGGER, intx, 0, 0, {}}));
}

TEST_F(Requests, MsixVectorsInAnyNumberFromAnyPlace) {
  constexpr std::uint32_t msix = VFIO_PCI_MSIX_IRQ_INDEX;
  const std::array<int, 3> three{7, -1, 9};
  EXPECT_EQ(asked([&] { return device.set_irq_eventfds(msix, three, 2); }),
            (IrqSet{by_eventfd | VFIO_IRQ_SET_ACTION_TRIGGER, msix, 2, 3, {7, -1, 9}}));
  const std::vector<int> all(2048, 8);  // as many as MSI-X has
  EXPECT_EQ(asked([&] { return device.set_irq_eventfds(msix, all); }),
            (IrqSet{by_eventfd | VFIO_IRQ_SET_ACTION_TRIGGER, msix, 0, 2048, all}));
  EXPECT_EQ(asked([&] { return device.trigger_irq(msix, 2047); }),
            (IrqSet{by_itself | VFIO_IRQ_SET_ACTION_TRIGGER, msix, 2047, 1, {}}));
  // None is no way to turn the kind off, which is without eventfds.
  EXPECT_EQ(asked([&] { return device.set_irq_eventfds(msix, {}); }),
            (IrqSet{by_eventfd | VFIO_IRQ_SET_ACTION_TRIGGER, msix, 0, 0, {}}));
}

TEST_F(Requests, AnIrqsInfoIsTheKernels) {
  kernel = [](unsigned long request, void* argument) {
    EXPECT_EQ(request, std::uint64_t{VFIO_DEVICE_GET_IRQ_INFO});
    auto& info = as<vfio_irq_info>(argument);
    EXPECT_EQ(info.argsz, sizeof(info));
    EXPECT_EQ(info.index, std::uint32_t{VFIO_PCI_MSIX_IRQ_INDEX});
    info.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
    info.count = 2048;
    return 0;
  };
  const auto info = device.get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX);
  ASSERT_TRUE(info);
  EXPECT_EQ(info.value().index, std::uint32_t{VFIO_PCI_MSIX_IRQ_INDEX});
  EXPECT_EQ(info.value().flags, std::uint32_t{VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE});
  EXPECT_EQ(info.value().count, 2048U);
}

// --- Device and regions ----------------------------------------------------

TEST_F(Requests, ADevicesInfoAndItsReset) {
  int resets = 0;
  kernel = [&](unsigned long request, void* argument) {
    if (request == VFIO_DEVICE_RESET) return ++resets, 0;
    EXPECT_EQ(request, std::uint64_t{VFIO_DEVICE_GET_INFO});
    auto& info = as<vfio_device_info>(argument);
    EXPECT_EQ(info.argsz, sizeof(info));
    info.flags = VFIO_DEVICE_FLAGS_PCI;
    info.num_regions = 9;
    info.num_irqs = 5;
    return 0;
  };
  const auto info = device.get_info();
  ASSERT_TRUE(info);
  EXPECT_EQ(info.value().flags, std::uint32_t{VFIO_DEVICE_FLAGS_PCI});
  EXPECT_EQ(info.value().regions, 9U);
  EXPECT_EQ(info.value().irqs, 5U);
  EXPECT_TRUE(device.reset());
  EXPECT_EQ(resets, 1);
}

// As the BAR with an MSI-X table was before Linux 4.16: around the table it may be mapped.
TEST_F(Requests, ARegionsInfoIsAskedForAgainWithRoomForItsCapabilities) {
  struct Answer {
    vfio_region_info info;
    vfio_info_cap_header header;  // vfio_region_info_cap_sparse_mmap, from here on
    std::uint32_t nr_areas;
    std::uint32_t reserved;
    vfio_region_sparse_mmap_area areas[2];
  };
  std::vector<std::uint32_t> rooms;
  kernel = [&](unsigned long request, void* argument) {
    EXPECT_EQ(request, std::uint64_t{VFIO_DEVICE_GET_REGION_INFO});
    auto& info = as<vfio_region_info>(argument);
    EXPECT_EQ(info.index, 3U);
    rooms.push_back(info.argsz);
    Answer answer{};
    answer.info = {
        sizeof(Answer), VFIO_REGION_INFO_FLAG_MMAP | VFIO_REGION_INFO_FLAG_CAPS, 3, 0, 0x4000,
        0x30000};
    answer.header = {VFIO_REGION_INFO_CAP_SPARSE_MMAP, 1, 0};
    answer.nr_areas = 2;
    answer.areas[0] = {0, 0x1000};
    answer.areas[1] = {0x2000, 0x2000};
    const bool fits = info.argsz >= sizeof(Answer);
    if (fits) answer.info.cap_offset = offsetof(Answer, header);
    std::memcpy(argument, &answer, fits ? sizeof(Answer) : sizeof(answer.info));
    return 0;
  };
  const auto region = device.get_region_info(3);
  ASSERT_TRUE(region) << region.error().message();
  EXPECT_EQ(rooms, (std::vector<std::uint32_t>{sizeof(vfio_region_info), sizeof(Answer)}));
  EXPECT_EQ(region.value().size, 0x4000U);
  EXPECT_EQ(region.value().offset, 0x30000U);
  EXPECT_EQ(region.value().sparse_areas, (std::vector<RegionArea>{{0, 0x1000}, {0x2000, 0x2000}}));
}

// --- DMA -------------------------------------------------------------------

std::span<std::byte> memory() {
  alignas(4096) static std::array<std::byte, 8192> bytes;
  return bytes;
}
constexpr Iova iova{0x100000};

struct Type1 : Requests {
  Type1() {
    kernel = [](unsigned long, void*) { return VFIO_API_VERSION; };
    container.emplace(std::move(Container::from_fd(file()).value()));
    kernel = [this](unsigned long request, void* argument) {
      if (request == VFIO_IOMMU_MAP_DMA) {
        const auto& map = as<vfio_iommu_type1_dma_map>(argument);
        EXPECT_EQ(map.argsz, sizeof(map));
        EXPECT_EQ(map.vaddr, reinterpret_cast<std::uintptr_t>(memory().data()));
        EXPECT_EQ(map.iova, iova.value);
        EXPECT_EQ(map.size, memory().size());
        flags = map.flags;
        return 0;
      }
      EXPECT_EQ(request, std::uint64_t{VFIO_IOMMU_UNMAP_DMA});
      auto& unmap = as<vfio_iommu_type1_dma_unmap>(argument);
      EXPECT_EQ(unmap.argsz, sizeof(unmap));
      EXPECT_EQ(unmap.flags, 0U);
      EXPECT_EQ(unmap.iova, iova.value);
      EXPECT_EQ(unmap.size, memory().size());
      unmap.size = unmapped.value_or(unmap.size);
      ++unmaps;
      return 0;
    };
  }
  std::optional<Container> container;
  std::uint32_t flags = 0;
  int unmaps = 0;
  std::optional<std::uint64_t> unmapped;  // what the kernel says, where that isn't all
};

TEST_F(Type1, ADeviceMayDoWhatTheMappingSays) {
  for (const auto& [access, expected] :
       {std::pair{DmaAccess::read, std::uint32_t{VFIO_DMA_MAP_FLAG_READ}},
        {DmaAccess::write, std::uint32_t{VFIO_DMA_MAP_FLAG_WRITE}},
        {DmaAccess::read_write, std::uint32_t{VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE}}}) {
    ASSERT_TRUE(container->map_dma(iova, memory(), access));
    EXPECT_EQ(flags, expected);
  }
  EXPECT_EQ(unmaps, 3);
}

TEST_F(Type1, AMappingIsUndoneOnceWhoeverHasItAndWithoutItsContainer) {
  {
    auto mapping = container->map_dma(iova, memory(), DmaAccess::read);
    ASSERT_TRUE(mapping);
    container.reset();
    DmaMapping mine = std::move(mapping.value());
    EXPECT_EQ(mapping.value().size(), 0U);
    EXPECT_TRUE(mapping.value().unmap());
    EXPECT_EQ(unmaps, 0);
    EXPECT_TRUE(mine.unmap());
    EXPECT_TRUE(mine.unmap());
  }
  EXPECT_EQ(unmaps, 1);
}

TEST_F(Type1, AMappingThatIsAssignedOverIsUndoneToo) {
  auto one = container->map_dma(iova, memory(), DmaAccess::read);
  auto other = container->map_dma(iova, memory(), DmaAccess::read);
  ASSERT_TRUE(one && other);
  one.value() = std::move(other.value());
  EXPECT_EQ(one.value().size(), memory().size());
  EXPECT_EQ(other.value().size(), 0U);
  EXPECT_EQ(unmaps, 1);
  EXPECT_TRUE(other.value().unmap());
  EXPECT_EQ(unmaps, 1);
}

TEST_F(Type1, WhatTheKernelDidntFindIsSaid) {
  unmapped = 4096;
  auto mapping = container->map_dma(iova, memory(), DmaAccess::read);
  ASSERT_TRUE(mapping);
  EXPECT_EQ(mapping.value().unmap().error(), (Error{"VFIO_IOMMU_UNMAP_DMA", ENOENT, iova.value}));
}

TEST_F(Type1, AnApiOfAnotherVersionIsRefused) {
  kernel = [](unsigned long, void*) { return VFIO_API_VERSION + 1; };
  const auto made = Container::from_fd(file());
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error(), (Error{"VFIO_GET_API_VERSION", ENOTSUP, VFIO_API_VERSION + 1}));
}

TEST_F(Type1, WhatAContainerCanAndWhichIommuItHas) {
  kernel = [](unsigned long request, void* argument) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(argument), std::uintptr_t{VFIO_TYPE1v2_IOMMU});
    return request == VFIO_CHECK_EXTENSION ? 1 : 0;
  };
  EXPECT_EQ(container->check_extension(VFIO_TYPE1v2_IOMMU).value(), 1);
  EXPECT_TRUE(container->set_iommu(VFIO_TYPE1v2_IOMMU));
  kernel = [](unsigned long, void*) {
    errno = EPERM;
    return -1;
  };
  EXPECT_EQ(container->check_extension(7).error(), (Error{"VFIO_CHECK_EXTENSION", EPERM, 7}));
  EXPECT_EQ(container->set_iommu(7).error(), (Error{"VFIO_SET_IOMMU", EPERM, 7}));
}

TEST_F(Type1, WhichPagesItsIommuMaps) {
  kernel = [](unsigned long request, void* argument) {
    EXPECT_EQ(request, std::uint64_t{VFIO_IOMMU_GET_INFO});
    auto& info = as<vfio_iommu_type1_info>(argument);
    info.flags = VFIO_IOMMU_INFO_PGSIZES;
    info.iova_pgsizes = 0x201000;
    return 0;
  };
  const auto info = container->get_iommu_info();
  ASSERT_TRUE(info);
  EXPECT_EQ(info.value().page_sizes, 0x201000u);
  kernel = [](unsigned long, void*) {
    errno = ENODEV;
    return -1;
  };
  EXPECT_EQ(container->get_iommu_info().error().code, ENODEV);
}

// --- iommufd ---------------------------------------------------------------

struct AddressSpace : Requests {
  AddressSpace() {
    kernel = [](unsigned long request, void* argument) {
      EXPECT_EQ(request, std::uint64_t{IOMMU_IOAS_ALLOC});
      auto& alloc = as<uapi::IoasAlloc>(argument);
      EXPECT_EQ(alloc.size, sizeof(alloc));
      alloc.out_ioas_id = 33;
      return 0;
    };
    ioas.emplace(std::move(Iommufd(file()).alloc_ioas().value()));
  }
  ~AddressSpace() override { kernel = nullptr; }  // before `ioas` asks it for its end
  std::optional<Ioas> ioas;
};

TEST_F(AddressSpace, MapsAndUnmapsAndEndsWithItself) {
  std::vector<unsigned long> requests;
  kernel = [&](unsigned long request, void* argument) {
    requests.push_back(request);
    if (request == IOMMU_IOAS_MAP) {
      const auto& map = as<uapi::IoasMap>(argument);
      EXPECT_EQ(map.size, sizeof(map));
      EXPECT_EQ(map.flags, uapi::ioas_map_fixed_iova | uapi::ioas_map_writeable);
      EXPECT_EQ(map.ioas_id, 33U);
      EXPECT_EQ(map.user_va, reinterpret_cast<std::uintptr_t>(memory().data()));
      EXPECT_EQ(map.length, memory().size());
      EXPECT_EQ(map.iova, iova.value);
    } else if (request == IOMMU_IOAS_UNMAP) {
      const auto& unmap = as<uapi::IoasUnmap>(argument);
      EXPECT_EQ(unmap.size, sizeof(unmap));
      EXPECT_EQ(unmap.ioas_id, 33U);
      EXPECT_EQ(unmap.iova, iova.value);
      EXPECT_EQ(unmap.length, memory().size());
    } else {
      EXPECT_EQ(as<uapi::IommuDestroy>(argument).size, sizeof(uapi::IommuDestroy));
      EXPECT_EQ(as<uapi::IommuDestroy>(argument).id, 33U);
    }
    return 0;
  };
  EXPECT_TRUE(ioas->map_dma(iova, memory(), DmaAccess::write));
  ioas.reset();
  EXPECT_EQ(requests,
            (std::vector<unsigned long>{IOMMU_IOAS_MAP, IOMMU_IOAS_UNMAP, IOMMU_DESTROY}));
}

TEST_F(AddressSpace, IsDestroyedOnce) {
  int destroyed = 0;
  kernel = [&](unsigned long request, void*) {
    EXPECT_EQ(request, std::uint64_t{IOMMU_DESTROY});
    return ++destroyed, 0;
  };
  EXPECT_TRUE(ioas->destroy());
  EXPECT_TRUE(ioas->destroy());
  ioas.reset();
  EXPECT_EQ(destroyed, 1);
}

TEST_F(AddressSpace, ADeviceMayDoWhatTheMappingSays) {
  std::uint32_t flags = 0;
  kernel = [&](unsigned long request, void* argument) {
    if (request == IOMMU_IOAS_MAP) flags = as<uapi::IoasMap>(argument).flags;
    return 0;
  };
  constexpr std::uint32_t readable = uapi::ioas_map_readable;
  constexpr std::uint32_t writeable = uapi::ioas_map_writeable;
  for (const auto& [access, expected] : {std::pair{DmaAccess::read, readable},
                                         {DmaAccess::write, writeable},
                                         {DmaAccess::read_write, readable | writeable}}) {
    ASSERT_TRUE(ioas->map_dma(iova, memory(), access));
    EXPECT_EQ(flags, uapi::ioas_map_fixed_iova | expected);
  }
}

TEST_F(AddressSpace, HasAsManyRangesAsTheKernelSays) {
  static constexpr std::uint32_t many = 40;
  kernel = [](unsigned long, void* argument) {
    auto& query = as<uapi::IoasIovaRanges>(argument);
    const std::uint32_t room = std::exchange(query.num_iovas, std::uint32_t{many});
    if (room < many) {
      errno = EMSGSIZE;
      return -1;
    }
    auto* ranges = reinterpret_cast<uapi::IovaRange*>(query.allowed_iovas);  // NOLINT: an address
    for (std::uint32_t i = 0; i < many; ++i) ranges[i] = {i * 0x1000UL, i * 0x1000UL + 0xfff};
    return 0;
  };
  const auto ranges = ioas->iova_ranges();
  ASSERT_TRUE(ranges);
  ASSERT_EQ(ranges.value().size(), many);
  EXPECT_EQ(ranges.value()[39], (IovaRange{Iova{0x27000}, Iova{0x27fff}}));
}

TEST_F(AddressSpace, ANumberOfRangesThatCantBeIsRefused) {
  for (const std::uint32_t wrong : {16U, 65537U, 0xffffffffU}) {
    kernel = [&](unsigned long, void* argument) {
      as<uapi::IoasIovaRanges>(argument).num_iovas = wrong;
      errno = EMSGSIZE;
      return -1;
    };
    EXPECT_EQ(ioas->iova_ranges().error(), (Error{"IOMMU_IOAS_IOVA_RANGES", EBADMSG, wrong}));
  }
  kernel = [](unsigned long, void* argument) {
    as<uapi::IoasIovaRanges>(argument).num_iovas = 70000;  // and no error
    return 0;
  };
  EXPECT_EQ(ioas->iova_ranges().error(), (Error{"IOMMU_IOAS_IOVA_RANGES", EBADMSG, 70000}));
}

TEST_F(Requests, ADeviceIsAttachedToAnAddressSpaceAndDetached) {
  std::vector<std::pair<unsigned long, std::uint32_t>> seen;
  kernel = [&](unsigned long request, void* argument) {
    auto& attach = as<uapi::AttachIommufdPt>(argument);  // whose first members are the other's
    const bool is_attach = request == VFIO_DEVICE_ATTACH_IOMMUFD_PT;
    EXPECT_EQ(attach.argsz, is_attach ? sizeof(attach) : sizeof(uapi::DetachIommufdPt));
    EXPECT_EQ(attach.flags, 0U);
    seen.emplace_back(request, is_attach ? attach.pt_id : 0);
    return 0;
  };
  EXPECT_TRUE(device.attach_iommufd_pt(33));
  EXPECT_TRUE(device.detach_iommufd_pt());
  EXPECT_EQ(seen, (std::vector<std::pair<unsigned long, std::uint32_t>>{
                      {VFIO_DEVICE_ATTACH_IOMMUFD_PT, 33}, {VFIO_DEVICE_DETACH_IOMMUFD_PT, 0}}));
}

}  // namespace
}  // namespace vfio_ioctls
