// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a device reaches: DMA through mappings, their ends, and address spaces.
#include "edu_fixture.hpp"

namespace vfio_ioctls {
namespace {

TEST_P(Assigned, CopiesThroughAMappedBuffer) {
  open(edu);
  let_it_master();
  const Edu registers(device());
  const Pages memory;
  memory.fill(0, std::byte{7});
  memory.fill(1, std::byte{0});
  auto mapping = attached().map_dma(iova, memory.all(), DmaAccess::read_write);
  ASSERT_TRUE(ok(mapping));
  EXPECT_EQ(mapping.value().iova(), iova);
  EXPECT_EQ(mapping.value().size(), Pages::size);
  ASSERT_FALSE(memory.same());
  ASSERT_TRUE(registers.copy_in(iova));
  ASSERT_TRUE(registers.copy_out(second_page));
  EXPECT_TRUE(memory.same());

  // And tells when it is done.
  const EventFd interrupt;
  ASSERT_TRUE(ok(set_eventfd(VFIO_PCI_MSI_IRQ_INDEX, interrupt)));
  memory.fill(1, std::byte{0});
  registers.start_copy_out(second_page);
  EXPECT_EQ(interrupt.wait(), 1U);
  EXPECT_EQ(registers.get(Edu::interrupt_status), 0x100U);
  EXPECT_TRUE(memory.same());
  registers.set(Edu::acknowledge, 0x100);
}

TEST_P(Assigned, ReachesNothingOnceTheOwnerHasUnmapped) {
  open(edu);
  let_it_master();
  const Edu registers(device());
  const Pages memory;
  memory.fill(0, std::byte{7});
  {
    auto mapping = attached().map_dma(iova, memory.all(), DmaAccess::read_write);
    ASSERT_TRUE(ok(mapping));
    ASSERT_TRUE(registers.copy_in(iova));
    memory.fill(1, std::byte{0});
    const DmaMapping moved = std::move(mapping.value());
    EXPECT_EQ(mapping.value().size(), 0U);
    EXPECT_TRUE(ok(mapping.value().unmap()));  // Nothing: `moved` has it.
    ASSERT_TRUE(registers.copy_out(second_page));
    ASSERT_TRUE(memory.same());
    memory.fill(1, std::byte{0});
  }
  ASSERT_TRUE(registers.copy_out(second_page));
  EXPECT_FALSE(memory.same()) << "the device wrote to memory that was unmapped";

  // The place is free again.
  auto again = attached().map_dma(iova, memory.all(), DmaAccess::read_write);
  ASSERT_TRUE(ok(again));
  EXPECT_EQ(attached().map_dma(second_page, memory.all(), DmaAccess::read_write).error().code,
            EEXIST);
  ASSERT_TRUE(registers.copy_out(second_page));
  EXPECT_TRUE(memory.same());
  EXPECT_TRUE(ok(again.value().unmap()));
  EXPECT_EQ(again.value().size(), 0U);
  EXPECT_TRUE(ok(again.value().unmap()));
}

TEST_P(Assigned, OnlyReadsWhatItMayOnlyRead) {
  open(edu);
  let_it_master();
  const Edu registers(device());
  const Pages memory;
  memory.fill(0, std::byte{7});
  memory.fill(1, std::byte{0});
  {
    auto mapping = attached().map_dma(iova, memory.all(), DmaAccess::read);
    ASSERT_TRUE(ok(mapping));
    ASSERT_TRUE(registers.copy_in(iova));
    ASSERT_TRUE(registers.copy_out(second_page));
    EXPECT_FALSE(memory.same()) << "the device wrote to memory that it may only read";
  }
  auto mapping = attached().map_dma(iova, memory.all(), DmaAccess::read_write);
  ASSERT_TRUE(ok(mapping));
  ASSERT_TRUE(registers.copy_out(second_page));
  EXPECT_TRUE(memory.same());
}

TEST_P(Assigned, KnowsWhereItMayMap) {
  open(edu);
  const auto ranges = attached().iova_ranges();
  ASSERT_TRUE(ok(ranges));
  const auto within = [&](Iova at) {
    return std::ranges::any_of(ranges.value(), [&](const IovaRange& range) {
      return range.first <= at && at <= range.last;
    });
  };
  constexpr Iova interrupts{0xfee00000};  // Where a PC takes MSIs.
  EXPECT_TRUE(within(iova));
  EXPECT_FALSE(within(interrupts));
  const Pages memory;
  const auto refused = attached().map_dma(interrupts, memory.all(), DmaAccess::read_write);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, EINVAL);
  EXPECT_EQ(refused.error().operand, interrupts.value);
  EXPECT_EQ(attached().map_dma(Iova{1}, memory.all(), DmaAccess::read_write).error().code, EINVAL);
}

TEST_P(Assigned, AMappingMayOutliveTheDevice) {
  const Pages memory;
  std::optional<DmaMapping> mapping;
  {
    auto made = attach(GetParam(), edu);
    ASSERT_TRUE(ok(made));
    auto mapped = made.value().map_dma(iova, memory.all(), DmaAccess::read_write);
    ASSERT_TRUE(ok(mapped));
    mapping.emplace(std::move(mapped.value()));
  }
  const auto unmapped = mapping->unmap();
  if (GetParam() == Way::group) {  // Gone before, with the container's last group.
    ASSERT_FALSE(unmapped);
    EXPECT_EQ(unmapped.error(), (Error{"VFIO_IOMMU_UNMAP_DMA", EINVAL, iova.value}));
  } else {
    EXPECT_TRUE(ok(unmapped));
  }
  open(edu);  // All is free again.
}

TEST(GroupAndContainer, OneContainerHasTheDevicesOfTwoGroups) {
  auto container = Container::open();
  ASSERT_TRUE(ok(container));
  auto first_group = Group::open(edu);
  auto second_group = Group::open(with_reset);
  ASSERT_TRUE(ok(first_group));
  ASSERT_TRUE(ok(second_group));
  ASSERT_TRUE(ok(first_group.value().set_container(container.value())));
  ASSERT_TRUE(ok(container.value().set_iommu(VFIO_TYPE1v2_IOMMU)));
  ASSERT_TRUE(ok(second_group.value().set_container(container.value())));
  const Pages memory;
  const auto mapping = container.value().map_dma(iova, memory.all(), DmaAccess::read_write);
  ASSERT_TRUE(ok(mapping));
  const auto first = first_group.value().get_device(edu);
  const auto second = second_group.value().get_device(with_reset);
  for (const auto* device : {&first, &second}) {
    ASSERT_TRUE(ok(*device));
    let_it_master(device->value());
    const Edu registers(device->value());
    memory.fill(0, device == &first ? std::byte{7} : std::byte{99});
    ASSERT_TRUE(registers.copy_in(iova));
    ASSERT_TRUE(registers.copy_out(second_page));
    EXPECT_TRUE(memory.same());
  }
}

TEST_F(WithIommufd, ADetachedDeviceReachesNothingAndAnotherAddressSpaceItsOwn) {
  auto iommufd = Iommufd::open();
  ASSERT_TRUE(ok(iommufd));
  auto one = iommufd.value().alloc_ioas();
  auto two = iommufd.value().alloc_ioas();
  ASSERT_TRUE(ok(one));
  ASSERT_TRUE(ok(two));
  auto device = iommufd.value().open_device(edu);
  ASSERT_TRUE(ok(device));
  let_it_master(device.value());
  const Edu registers(device.value());
  const Pages first, second;
  first.fill(0, std::byte{7});
  second.fill(1, std::byte{0});
  const auto of_one = one.value().map_dma(iova, first.all(), DmaAccess::read_write);
  const auto of_two = two.value().map_dma(iova, second.all(), DmaAccess::read_write);
  ASSERT_TRUE(ok(of_one));
  ASSERT_TRUE(ok(of_two));

  ASSERT_TRUE(ok(device.value().attach_iommufd_pt(one.value().id())));
  ASSERT_TRUE(registers.copy_in(iova));
  ASSERT_TRUE(ok(device.value().detach_iommufd_pt()));
  ASSERT_TRUE(registers.copy_out(second_page));
  EXPECT_FALSE(first.same()) << "the device wrote while it was detached";
  ASSERT_TRUE(ok(device.value().attach_iommufd_pt(two.value().id())));
  ASSERT_TRUE(registers.copy_out(second_page));
  EXPECT_FALSE(first.same()) << "the device wrote to an address space that it has left";
  EXPECT_TRUE(std::ranges::equal(second.block(1), first.block(0)));
}

}  // namespace
}  // namespace vfio_ioctls
