// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Drives real devices by a real kernel's VFIO, each test by group and container, and by iommufd
// where the kernel has it. In the lab, with --edu: QEMU's edu devices (its docs/specs/edu has the
// registers) and an e1000e, for MSI-X, are bound to vfio-pci there.
//
//   tests/lab/run --kernel 7.3 --edu -- edu_lab
#include "edu_fixture.hpp"

#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <cstdarg>
#include <mutex>
#include <set>

#include "vfio_ioctls/uapi.hpp"

namespace {

std::mutex called_mutex;
std::set<unsigned long> called;  // and succeeded

}  // namespace

// The kernel's, and noted.
extern "C" int ioctl(int fd, unsigned long request, ...) noexcept {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  const auto result = static_cast<int>(::syscall(SYS_ioctl, fd, request, argument));
  if (result >= 0) {
    const std::scoped_lock lock(called_mutex);
    called.insert(request);
  }
  return result;
}

namespace vfio_ioctls {
namespace {

// Every ioctl of the README's table has succeeded, once all tests have run; readme.cmake looks that
// the table's are here.
class Table : public testing::Environment {
 public:
  void TearDown() override {
    if (testing::GTEST_FLAG(filter) != "*") return;
    struct Row {
      const char* name;
      unsigned long request;
      bool by_iommufd;
    };
#define ROW(request, by_iommufd) \
  Row { #request, request, by_iommufd }
    for (const Row& row : {ROW(VFIO_GET_API_VERSION, false),
                           ROW(VFIO_CHECK_EXTENSION, false),
                           ROW(VFIO_SET_IOMMU, false),
                           ROW(VFIO_IOMMU_GET_INFO, false),
                           ROW(VFIO_IOMMU_MAP_DMA, false),
                           ROW(VFIO_IOMMU_UNMAP_DMA, false),
                           ROW(VFIO_GROUP_GET_STATUS, false),
                           ROW(VFIO_GROUP_SET_CONTAINER, false),
                           ROW(VFIO_GROUP_UNSET_CONTAINER, false),
                           ROW(VFIO_GROUP_GET_DEVICE_FD, false),
                           ROW(VFIO_DEVICE_GET_INFO, false),
                           ROW(VFIO_DEVICE_GET_REGION_INFO, false),
                           ROW(VFIO_DEVICE_GET_IRQ_INFO, false),
                           ROW(VFIO_DEVICE_SET_IRQS, false),
                           ROW(VFIO_DEVICE_RESET, false),
                           ROW(VFIO_DEVICE_BIND_IOMMUFD, true),
                           ROW(VFIO_DEVICE_ATTACH_IOMMUFD_PT, true),
                           ROW(VFIO_DEVICE_DETACH_IOMMUFD_PT, true),
                           ROW(IOMMU_IOAS_ALLOC, true),
                           ROW(IOMMU_IOAS_IOVA_RANGES, true),
                           ROW(IOMMU_IOAS_MAP, true),
                           ROW(IOMMU_IOAS_UNMAP, true),
                           ROW(IOMMU_DESTROY, true)}) {
      if (row.by_iommufd && !has_iommufd()) continue;
      EXPECT_TRUE(called.contains(row.request)) << row.name << " has never succeeded here";
    }
#undef ROW
  }
};
const auto* const table = testing::AddGlobalTestEnvironment(new Table);

// --- Regions and configuration space ---------------------------------------

TEST_P(Assigned, TellsOfItsRegionsAndInterrupts) {
  open(edu);
  const auto info = device().get_info().value();
  EXPECT_TRUE(info.flags & VFIO_DEVICE_FLAGS_PCI);
  EXPECT_FALSE(info.flags & VFIO_DEVICE_FLAGS_RESET);
  EXPECT_GE(info.regions, std::uint32_t{VFIO_PCI_NUM_REGIONS});
  EXPECT_GE(info.irqs, std::uint32_t{VFIO_PCI_NUM_IRQS});

  const auto bar0 = device().get_region_info(VFIO_PCI_BAR0_REGION_INDEX).value();
  EXPECT_EQ(bar0.size, 1U << 20);
  EXPECT_EQ(bar0.flags & 7U,
            std::uint32_t{VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
                          VFIO_REGION_INFO_FLAG_MMAP});
  EXPECT_FALSE(bar0.sparse_areas);
  EXPECT_EQ(device().get_region_info(VFIO_PCI_BAR1_REGION_INDEX).value().size, 0U);
  EXPECT_EQ(device().get_region_info(1000).error(),
            (Error{"VFIO_DEVICE_GET_REGION_INFO", EINVAL, 1000}));

  const auto intx = device().get_irq_info(VFIO_PCI_INTX_IRQ_INDEX).value();
  EXPECT_EQ(intx.count, 1U);
  EXPECT_EQ(intx.flags, std::uint32_t{VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE |
                                      VFIO_IRQ_INFO_AUTOMASKED});
  EXPECT_EQ(device().get_irq_info(VFIO_PCI_MSI_IRQ_INDEX).value().count, 1U);
  EXPECT_EQ(device().get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).value().count, 0U);
  EXPECT_EQ(device().get_irq_info(1000).error(), (Error{"VFIO_DEVICE_GET_IRQ_INFO", EINVAL, 1000}));
}

TEST_P(Assigned, ReadsIdentification) {
  open(edu);
  const Edu registers(device());
  EXPECT_EQ(registers.get(Edu::identification), 0x010000edU);
  registers.set(Edu::liveness, 0x12345678);
  EXPECT_EQ(registers.get(Edu::liveness), ~0x12345678U);
  // By read(2) and write(2), too.
  const auto bar0 = device().get_region_info(VFIO_PCI_BAR0_REGION_INDEX).value();
  EXPECT_EQ(device().read<std::uint32_t>(bar0, Edu::identification).value(), 0x010000edU);
  ASSERT_TRUE(ok(device().write<std::uint32_t>(bar0, Edu::liveness, 1)));
  EXPECT_EQ(registers.get(Edu::liveness), ~1U);
}

TEST_P(Assigned, HasConfigurationSpace) {
  open(edu);
  const auto config = read_pci_config(device());
  ASSERT_TRUE(ok(config));
  EXPECT_EQ(pci_read<std::uint32_t>(config.value(), PCI_VENDOR_ID), 0x11e81234U);
  const auto bars = pci_bars(config.value());
  ASSERT_EQ(bars.size(), 1U);
  EXPECT_EQ(bars[0].index, 0U);
  EXPECT_FALSE(bars[0].io || bars[0].wide);
  const auto msi = pci_msi(config.value());
  ASSERT_TRUE(msi);
  EXPECT_EQ(msi->vectors, 1);
  EXPECT_TRUE(msi->wide);
  EXPECT_FALSE(msi->enabled);
  EXPECT_FALSE(pci_msix(config.value()));
  EXPECT_FALSE(find_pci_capability(config.value(), PCI_CAP_ID_EXP));

  // A register that is the device's own, and one that VFIO keeps for us.
  const auto region = device().get_region_info(VFIO_PCI_CONFIG_REGION_INDEX).value();
  EXPECT_EQ(device().read<std::uint8_t>(region, PCI_CLASS_DEVICE + 1U).value(), 0U);
  ASSERT_TRUE(ok(device().write<std::uint32_t>(region, PCI_BASE_ADDRESS_0, 0xffffffff)));
  EXPECT_EQ(device().read<std::uint32_t>(region, PCI_BASE_ADDRESS_0).value(), 0xfff00000U);
}

TEST_P(Assigned, ComputesAFactorial) {
  open(edu);
  const Edu registers(device());
  registers.set(Edu::factorial, 10);
  ASSERT_TRUE(eventually([&] { return (registers.get(Edu::status) & Edu::computing) == 0; }));
  EXPECT_EQ(registers.get(Edu::factorial), 3628800U);
}

// --- Reset -----------------------------------------------------------------

TEST_P(Assigned, IsReset) {
  open(with_reset);
  ASSERT_TRUE(device().get_info().value().flags & VFIO_DEVICE_FLAGS_RESET);
  const auto config = device().get_region_info(VFIO_PCI_CONFIG_REGION_INDEX).value();
  const auto line = [&] {
    return device().read<std::uint16_t>(config, PCI_STATUS).value() & PCI_STATUS_INTERRUPT;
  };
  {
    const Edu registers(device());
    registers.set(Edu::raise, 1);
  }
  ASSERT_TRUE(line());
  ASSERT_TRUE(ok(device().reset()));
  EXPECT_FALSE(line());
  const Edu registers(device());
  EXPECT_EQ(registers.get(Edu::identification), 0x010000edU);
  registers.set(Edu::acknowledge, 1);
}

TEST_P(Assigned, CantBeResetWhereTheMachineHasNoWay) {
  open(edu);
  EXPECT_EQ(device().reset().error(), (Error{"VFIO_DEVICE_RESET", EINVAL, 0}));
}

INSTANTIATE_TEST_SUITE_P(Way, Assigned, testing::Values(Way::group, Way::iommufd),
                         [](const auto& way) {
                           return way.param == Way::group ? "ByGroup" : "ByIommufd";
                         });

}  // namespace
}  // namespace vfio_ioctls
