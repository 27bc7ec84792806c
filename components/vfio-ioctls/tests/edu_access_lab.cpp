// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// How a device is had, by group and by iommufd, and what is said when it can't be.
#include <sys/fsuid.h>

#include "edu_fixture.hpp"

namespace vfio_ioctls {
namespace {

TEST_P(Assigned, TwoUsersAreOneTooMany) {
  open(edu);
  const auto group = Group::open(edu);
  ASSERT_FALSE(group);
  EXPECT_EQ(group.error().missing, Missing::exclusivity) << group.error().message();
  if (!has_iommufd()) return;
  const auto device = Iommufd::open().value().open_device(edu);
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().missing, Missing::exclusivity) << device.error().message();
}

TEST_P(Assigned, AGroupThatTheKernelSharesIsNotViable) {
  const auto made = attach(GetParam(), shared);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().missing, Missing::viability);
  const std::string why = "group is not viable: 0000:02:02.0 is bound to virtio-pci";
  EXPECT_NE(made.error().message().find(why), std::string::npos) << made.error().message();
  EXPECT_EQ(made.error().message().find("/dev/vfio/"), 0U) << made.error().message();
}

TEST_P(Assigned, ADeviceOfTheKernelsIsNotBound) {
  const std::string host_bridge = devices + "0000:00:00.0";
  const auto made = attach(GetParam(), host_bridge);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().missing, Missing::vfio_driver);
  EXPECT_EQ(made.error().message(), host_bridge + "/driver: bound to no driver, not to vfio-pci");
}

TEST_P(Assigned, NobodyHasNoPermission) {
  ::setfsuid(65534);
  const auto made = attach(GetParam(), edu);
  ::setfsuid(0);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().missing, Missing::permission);
  const std::string why = ": Permission denied: this user needs to read and write it";
  EXPECT_NE(made.error().message().find(why), std::string::npos) << made.error().message();
}

TEST(GroupAndContainer, HaveAnOrder) {
  auto container = Container::open();
  ASSERT_TRUE(ok(container));
  EXPECT_GT(container.value().check_extension(VFIO_TYPE1v2_IOMMU).value(), 0);
  EXPECT_EQ(container.value().check_extension(VFIO_SPAPR_TCE_IOMMU).value(), 0);
  EXPECT_EQ(container.value().set_iommu(VFIO_TYPE1v2_IOMMU).error(),
            (Error{"VFIO_SET_IOMMU", EINVAL, VFIO_TYPE1v2_IOMMU}));
  const Pages memory;
  EXPECT_EQ(container.value().map_dma(iova, memory.all(), DmaAccess::read).error(),
            (Error{"VFIO_IOMMU_MAP_DMA", EINVAL, iova.value}));
  EXPECT_EQ(container.value().get_iommu_info().error(), (Error{"VFIO_IOMMU_GET_INFO", EINVAL, 0}));

  auto group = Group::open(edu);
  ASSERT_TRUE(ok(group));
  const std::uint64_t number = group.value().number();
  EXPECT_EQ(group.value().get_status().value(), std::uint32_t{VFIO_GROUP_FLAGS_VIABLE});
  EXPECT_EQ(group.value().get_device(edu).error(),
            (Error{"VFIO_GROUP_GET_DEVICE_FD", EINVAL, number}));
  EXPECT_EQ(group.value().unset_container().error(),
            (Error{"VFIO_GROUP_UNSET_CONTAINER", EINVAL, number}));
  ASSERT_TRUE(ok(group.value().set_container(container.value())));
  EXPECT_EQ(group.value().get_status().value(),
            std::uint32_t{VFIO_GROUP_FLAGS_VIABLE | VFIO_GROUP_FLAGS_CONTAINER_SET});
  EXPECT_EQ(vmm_base::Error(group.value().set_container(container.value()).error()),
            (Error{"VFIO_GROUP_SET_CONTAINER", EINVAL, number}));
  ASSERT_TRUE(ok(container.value().set_iommu(VFIO_TYPE1v2_IOMMU)));
  EXPECT_EQ(group.value().get_device(e1000e).error(),
            (Error{"VFIO_GROUP_GET_DEVICE_FD", ENODEV, number}));

  auto mapping = container.value().map_dma(iova, memory.all(), DmaAccess::read);
  ASSERT_TRUE(ok(mapping));
  {
    const auto device = group.value().get_device(edu);
    ASSERT_TRUE(ok(device));
    EXPECT_EQ(group.value().unset_container().error(),
              (Error{"VFIO_GROUP_UNSET_CONTAINER", EBUSY, number}));
  }
  ASSERT_TRUE(ok(group.value().unset_container()));
  EXPECT_EQ(mapping.value().unmap().error(), (Error{"VFIO_IOMMU_UNMAP_DMA", EINVAL, iova.value}));
}

TEST(GroupAndContainer, AMappingThatWentWithTheLastGroupIsMissed) {
  auto container = Container::open();
  auto group = Group::open(edu);
  ASSERT_TRUE(ok(container));
  ASSERT_TRUE(ok(group));
  const Pages memory;
  std::optional<DmaMapping> mapping;
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(ok(group.value().set_container(container.value())));
    ASSERT_TRUE(ok(container.value().set_iommu(VFIO_TYPE1v2_IOMMU)));
    if (mapping) break;
    auto mapped = container.value().map_dma(iova, memory.all(), DmaAccess::read);
    ASSERT_TRUE(ok(mapped));
    mapping.emplace(std::move(mapped.value()));
    ASSERT_TRUE(ok(group.value().unset_container()));
  }
  // The kernel has nothing against unmapping nothing.
  const auto unmapped = mapping->unmap();
  ASSERT_FALSE(unmapped);
  EXPECT_EQ(unmapped.error(), (Error{"VFIO_IOMMU_UNMAP_DMA", ENOENT, iova.value}));
}

TEST(GroupAndContainer, TellOfTheIommu) {
  auto container = Container::open();
  auto group = Group::open(edu);
  ASSERT_TRUE(ok(container));
  ASSERT_TRUE(ok(group));
  ASSERT_TRUE(ok(group.value().set_container(container.value())));
  ASSERT_TRUE(ok(container.value().set_iommu(VFIO_TYPE1v2_IOMMU)));
  const auto before = container.value().get_iommu_info();
  ASSERT_TRUE(ok(before));
  EXPECT_TRUE(before.value().page_sizes & 4096);
  EXPECT_GE(before.value().iova_ranges.size(), 2U);
  ASSERT_TRUE(before.value().dma_available);
  const Pages memory;
  const auto mapping = container.value().map_dma(iova, memory.all(), DmaAccess::read_write);
  ASSERT_TRUE(ok(mapping));
  EXPECT_EQ(container.value().get_iommu_info().value().dma_available,
            *before.value().dma_available - 1);
}

TEST(WithoutIommufd, TheKernelIsSaidToLackIt) {
  if (has_iommufd()) GTEST_SKIP() << "this kernel has it";
  ASSERT_FALSE(needs_iommufd());
  const auto iommufd = Iommufd::open();
  ASSERT_FALSE(iommufd);
  EXPECT_EQ(iommufd.error().missing, Missing::kernel);
  EXPECT_EQ(iommufd.error().message(),
            "/dev/iommu: this kernel has no iommufd, or its module isn't loaded");
  const auto device = Iommufd(UniqueFd()).open_device(edu);
  ASSERT_FALSE(device);
  EXPECT_EQ(device.error().missing, Missing::kernel) << device.error().message();
}

TEST_F(WithIommufd, AnAddressSpaceStaysWhileADeviceIsAttached) {
  auto iommufd = Iommufd::open();
  ASSERT_TRUE(ok(iommufd));
  auto ioas = iommufd.value().alloc_ioas();
  ASSERT_TRUE(ok(ioas));
  const std::uint32_t id = ioas.value().id();
  auto device = iommufd.value().open_device(edu);
  ASSERT_TRUE(ok(device));
  EXPECT_EQ(device.value().attach_iommufd_pt(id + 100).error(),
            (Error{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", ENOENT, id + 100}));
  ASSERT_TRUE(ok(device.value().attach_iommufd_pt(id)));
  EXPECT_EQ(ioas.value().destroy().error(), (Error{"IOMMU_DESTROY", EBUSY, id}));
  ASSERT_TRUE(ok(device.value().detach_iommufd_pt()));
  const Pages memory;
  auto mapping = ioas.value().map_dma(iova, memory.all(), DmaAccess::read);
  ASSERT_TRUE(ok(mapping));
  ASSERT_TRUE(ok(ioas.value().destroy()));
  EXPECT_EQ(mapping.value().unmap().error(), (Error{"IOMMU_IOAS_UNMAP", ENOENT, iova.value}));
  EXPECT_TRUE(ok(ioas.value().destroy()));
  EXPECT_EQ(ioas.value().map_dma(iova, memory.all(), DmaAccess::read).error(),
            (Error{"IOMMU_IOAS_MAP", EBADF, iova.value}));
  EXPECT_EQ(ioas.value().iova_ranges().error(), (Error{"IOMMU_IOAS_IOVA_RANGES", EBADF, id}));
}

}  // namespace
}  // namespace vfio_ioctls
