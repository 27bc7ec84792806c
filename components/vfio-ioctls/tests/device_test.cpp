// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What of a device can be had of any file: reads, writes and mappings within their bounds, and the
// errors of files that are no device.
#include "vfio_ioctls/device.hpp"

#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <limits>

#include "print.hpp"
#include "vfio_ioctls/pci_config.hpp"

namespace vfio_ioctls {
namespace {

using vmm_base::Error;
using vmm_base::UniqueFd;

// A file of three pages that stands for a device; its middle page for a region.
class AnyFile : public testing::Test {
 protected:
  AnyFile() : device(make()) {
    region.index = 2;
    region.flags =
        VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | VFIO_REGION_INFO_FLAG_MMAP;
    region.size = 4096;
    region.offset = 4096;
  }
  static UniqueFd make() {
    UniqueFd fd(::memfd_create("device", MFD_CLOEXEC));
    if (!fd || ::ftruncate(fd.get(), 3 * 4096) != 0) std::abort();
    return fd;
  }

  Device device;
  RegionInfo region;
};

TEST_F(AnyFile, ReadsWhatIsWrittenAtTheRegionsOffset) {
  ASSERT_TRUE(device.write<std::uint32_t>(region, 8, 0x11223344));
  EXPECT_EQ(device.read<std::uint32_t>(region, 8).value(), 0x11223344U);
  EXPECT_EQ(device.read<std::uint8_t>(region, 11).value(), 0x11U);
  std::uint32_t in_file = 0;
  ASSERT_EQ(::pread(device.fd(), &in_file, 4, 4096 + 8), 4);
  EXPECT_EQ(in_file, 0x11223344U);
}

TEST_F(AnyFile, NothingOutsideTheRegionIsReadWrittenOrMapped) {
  std::array<std::byte, 8> bytes{};
  for (const std::uint64_t offset :
       {std::uint64_t{4089}, std::uint64_t{4096}, std::uint64_t{4097}, std::uint64_t{1} << 63,
        std::numeric_limits<std::uint64_t>::max()}) {
    EXPECT_EQ(device.read(region, offset, bytes).error(),
              (Error{"read of a region", EFAULT, offset}));
    EXPECT_EQ(device.write(region, offset, bytes).error(),
              (Error{"write of a region", EFAULT, offset}));
    EXPECT_EQ(device.map(region, {offset, 4096}).error(),
              (Error{"mmap of a region", EFAULT, offset}));
  }
  EXPECT_TRUE(device.read(region, 4088, bytes));
  EXPECT_TRUE(device.read(region, 4096, {}));
  EXPECT_EQ(device.map(region, {0, 4097}).error().code, EFAULT);
}

TEST_F(AnyFile, ARegionThatTheFileDoesntHaveIsEio) {
  region.offset = 2 * 4096 + 4092;
  std::array<std::byte, 8> bytes{};
  EXPECT_EQ(device.read(region, 0, bytes).error(), (Error{"read of a region", EIO, 4}));
}

TEST_F(AnyFile, MapsARegionAndAnAreaOfIt) {
  region.size = 2 * 4096;
  ASSERT_TRUE(device.write<std::uint64_t>(region, 4096, 77));
  auto whole = device.map(region);
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole.value().size(), 8192U);
  EXPECT_EQ(whole.value().read<std::uint64_t>(4096).value(), 77U);
  region.sparse_areas = {{4096, 4096}};
  auto area = device.map(region, region.sparse_areas->front());
  ASSERT_TRUE(area);
  EXPECT_EQ(area.value().read<std::uint64_t>(0).value(), 77U);
  EXPECT_EQ(device.map(region).error(), (Error{"mmap of a region", EINVAL, 2}));
}

TEST_F(AnyFile, MapsOnlyWhatMayBeMapped) {
  region.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
  EXPECT_EQ(device.map(region).error(), (Error{"mmap of a region", EINVAL, 2}));
}

TEST_F(AnyFile, ARegistersAccessIsCheckedAndOfItsSize) {
  auto mapped = device.map(region);
  ASSERT_TRUE(mapped);
  const RegionMapping& registers = mapped.value();
  ASSERT_TRUE(registers.write<std::uint16_t>(4094, 0xabcd));
  EXPECT_EQ(registers.read<std::uint32_t>(4092).value(), 0xabcd0000U);
  EXPECT_EQ(registers.read<std::uint32_t>(4093).error(),
            (Error{"read of a mapped region", EFAULT, 4093}));
  EXPECT_EQ(registers.read<std::uint32_t>(4094).error().code, EFAULT);
  EXPECT_EQ(registers.read<std::uint32_t>(4096).error().code, EFAULT);
  EXPECT_EQ(registers.read<std::uint32_t>(~std::size_t{0}).error().code, EFAULT);
  EXPECT_EQ(registers.read<std::uint32_t>(2).error(),
            (Error{"read of a mapped region", EINVAL, 2}));
  EXPECT_EQ(registers.write<std::uint8_t>(4096, 1).error(),
            (Error{"write of a mapped region", EFAULT, 4096}));
}

TEST_F(AnyFile, AMappingMovesAndOutlivesItsDevice) {
  auto mapped = device.map(region);
  ASSERT_TRUE(mapped);
  RegionMapping mine = std::move(mapped.value());
  EXPECT_EQ(mapped.value().address(), nullptr);
  EXPECT_EQ(mapped.value().read<std::uint8_t>(0).error().code, EFAULT);
  { const Device gone = std::move(device); }
  EXPECT_TRUE(mine.write<std::uint8_t>(0, 1));
  EXPECT_EQ(device.fd(), -1);
  EXPECT_EQ(device.read<std::uint8_t>(region, 0).error(), (Error{"read of a region", EBADF, 0}));

  void* const address = mine.address();
  { const RegionMapping gone = std::move(mine); }
  EXPECT_EQ(::msync(address, 4096, MS_ASYNC), -1) << "still mapped";
}

// Each call, of a file that is no device, or is closed: its own name, operand and errno.
TEST_F(AnyFile, ErrorsNameTheCall) {
  const Device closed{UniqueFd()};
  const std::array<int, 1> none{-1};
  for (const auto& [which, code] :
       {std::pair<const Device*, int>{&device, ENOTTY}, {&closed, EBADF}}) {
    EXPECT_EQ(which->get_info().error(), (Error{"VFIO_DEVICE_GET_INFO", code, 0}));
    EXPECT_EQ(which->get_region_info(7).error(), (Error{"VFIO_DEVICE_GET_REGION_INFO", code, 7}));
    EXPECT_EQ(which->get_irq_info(3).error(), (Error{"VFIO_DEVICE_GET_IRQ_INFO", code, 3}));
    EXPECT_EQ(which->set_irq_eventfds(1, none).error(), (Error{"VFIO_DEVICE_SET_IRQS", code, 1}));
    EXPECT_EQ(which->set_irq_eventfds(2, {}).error(), (Error{"VFIO_DEVICE_SET_IRQS", code, 2}));
    EXPECT_EQ(which->set_unmask_eventfd(0, -1).error(), (Error{"VFIO_DEVICE_SET_IRQS", code, 0}));
    EXPECT_EQ(which->disable_irqs(2).error(), (Error{"VFIO_DEVICE_SET_IRQS", code, 2}));
    EXPECT_EQ(which->mask_irq(2).error().code, code);
    EXPECT_EQ(which->unmask_irq(2).error().code, code);
    EXPECT_EQ(which->trigger_irq(2).error().code, code);
    EXPECT_EQ(which->reset().error(), (Error{"VFIO_DEVICE_RESET", code, 0}));
    EXPECT_EQ(which->attach_iommufd_pt(5).error(),
              (Error{"VFIO_DEVICE_ATTACH_IOMMUFD_PT", code, 5}));
    EXPECT_EQ(which->detach_iommufd_pt().error(),
              (Error{"VFIO_DEVICE_DETACH_IOMMUFD_PT", code, 0}));
    EXPECT_EQ(read_pci_config(*which).error().operation,
              std::string("VFIO_DEVICE_GET_REGION_INFO"));
  }
}

}  // namespace
}  // namespace vfio_ioctls
