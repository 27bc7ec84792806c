// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Drives real devices by a real kernel's VFIO, each test by group and container, and by iommufd
// where the kernel has it. In the lab, with --edu: QEMU's edu devices (its docs/specs/edu has the
// registers) and an e1000e, for MSI-X, are bound to vfio-pci there.
//
//   tests/lab/run --kernel 7.3 --edu -- edu_lab
#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/fsuid.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>

#include "print.hpp"
#include "vfio_ioctls/group.hpp"
#include "vfio_ioctls/iommufd.hpp"
#include "vfio_ioctls/pci_config.hpp"

namespace vfio_ioctls {
namespace {

using vmm_base::Error;
using vmm_base::Result;
using vmm_base::UniqueFd;

// tests/lab/run makes them so.
const std::string devices = "/sys/bus/pci/devices/";
const std::string edu = devices + "0000:00:10.0";         // Alone in its group; can't be reset.
const std::string with_reset = devices + "0000:01:01.0";  // The only device behind its bridge.
const std::string shared = devices + "0000:02:01.0";      // Shares its group with a virtio device.
const std::string e1000e = devices + "0000:00:13.0";

bool has_iommufd() { return ::access("/dev/iommu", F_OK) == 0; }
// The kernel that is in the lab for its iommufd.
bool needs_iommufd() {
  const char* kernel = std::getenv("LAB_KERNEL");
  return kernel != nullptr && std::string(kernel).find("iommufd") != std::string::npos;
}

// A device that may do DMA, by either way.
struct Attached {
  Device device;
  std::function<Result<DmaMapping>(Iova, std::span<std::byte>, DmaAccess)> map_dma;
  std::function<Result<std::vector<IovaRange>>()> iova_ranges;
};

OpenResult<Attached> attach_by_group(const std::string& path) {
  VMM_TRY(opened, Container::open());
  auto container = std::make_shared<Container>(std::move(opened));
  VMM_TRY(group, Group::open(path));
  VMM_CHECK(group.set_container(*container));
  VMM_CHECK(container->set_iommu(VFIO_TYPE1v2_IOMMU));
  VMM_TRY(device, group.get_device(path));
  return Attached{std::move(device),
                  [container](Iova iova, std::span<std::byte> memory, DmaAccess access) {
                    return container->map_dma(iova, memory, access);
                  },
                  [container]() -> Result<std::vector<IovaRange>> {
                    VMM_TRY(info, container->get_iommu_info());
                    return info.iova_ranges;
                  }};
}

OpenResult<Attached> attach_by_iommufd(const std::string& path) {
  VMM_TRY(iommufd, Iommufd::open());
  VMM_TRY(made, iommufd.alloc_ioas());
  auto ioas = std::make_shared<Ioas>(std::move(made));
  VMM_TRY(device, iommufd.open_device(path));
  VMM_CHECK(device.attach_iommufd_pt(ioas->id()));
  return Attached{std::move(device),
                  [ioas](Iova iova, std::span<std::byte> memory, DmaAccess access) {
                    return ioas->map_dma(iova, memory, access);
                  },
                  [ioas] { return ioas->iova_ranges(); }};
}

enum class Way { group, iommufd };

// EXPECT_TRUE that says the error.
template <class R>
testing::AssertionResult ok(const R& result) {
  if (result) return testing::AssertionSuccess();
  return testing::AssertionFailure() << result.error().message();
}

// Waits, for at most 20 s, until done() is true; returns whether it is.
template <class Done>
bool eventually(Done&& done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!done()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

class EventFd {
 public:
  EventFd() : fd_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}
  [[nodiscard]] int get() const { return fd_.get(); }
  // The signals since the last look, after waiting for the first; 0 if none came in 20 s.
  [[nodiscard]] eventfd_t wait() const { return read(20000); }
  // The same, of those that should not be: waits long enough for one to come.
  [[nodiscard]] eventfd_t unwanted() const { return read(200); }
  void signal() const { ::eventfd_write(fd_.get(), 1); }

 private:
  [[nodiscard]] eventfd_t read(int milliseconds) const {
    pollfd readable{fd_.get(), POLLIN, 0};
    eventfd_t count = 0;
    if (::poll(&readable, 1, milliseconds) == 1) ::eventfd_read(fd_.get(), &count);
    return count;
  }
  UniqueFd fd_;
};

// Two pages of memory.
class Pages {
 public:
  Pages()
      : bytes_(static_cast<std::byte*>(
            ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  ~Pages() { ::munmap(bytes_, size); }
  static constexpr std::size_t size = 8192;
  [[nodiscard]] std::span<std::byte> all() const { return {bytes_, size}; }
  // Of `page`, the first 256 bytes, which is what the tests transfer.
  [[nodiscard]] std::span<std::byte> block(std::size_t page) const {
    return {bytes_ + page * 4096, 256};
  }
  void fill(std::size_t page, std::byte first) const {
    for (auto& byte : block(page)) {
      byte = first;
      first = static_cast<std::byte>(std::to_integer<unsigned>(first) + 1);
    }
  }
  [[nodiscard]] bool same() const { return std::ranges::equal(block(0), block(1)); }

 private:
  std::byte* bytes_;
};

// The edu device's registers.
class Edu {
 public:
  explicit Edu(const Device& device) : registers_(make(device)) {}

  static constexpr std::size_t identification = 0x00, liveness = 0x04, factorial = 0x08,
                               status = 0x20, interrupt_status = 0x24, raise = 0x60,
                               acknowledge = 0x64, source = 0x80, destination = 0x88, count = 0x90,
                               command = 0x98;
  static constexpr std::uint32_t computing = 0x01, interrupt_after_factorial = 0x80;
  static constexpr std::uint64_t buffer = 0x40000;  // In the device, as its DMA engine sees it.

  [[nodiscard]] std::uint32_t get(std::size_t offset) const {
    return registers_.read<std::uint32_t>(offset).value();
  }
  void set(std::size_t offset, std::uint32_t value) const {
    ASSERT_TRUE(ok(registers_.write<std::uint32_t>(offset, value)));
  }
  // Copies 256 bytes into the device's buffer, or out of it; true once it is done.
  [[nodiscard]] bool copy_in(Iova from) const { return dma(from.value, buffer, 0x1); }
  [[nodiscard]] bool copy_out(Iova to) const { return dma(buffer, to.value, 0x3); }
  // The same out, but returns at once; an interrupt tells of the end.
  void start_copy_out(Iova to) const { start(buffer, to.value, 0x7); }

 private:
  static RegionMapping make(const Device& device) {
    return device.map(device.get_region_info(VFIO_PCI_BAR0_REGION_INDEX).value()).value();
  }
  void start(std::uint64_t from, std::uint64_t to, std::uint64_t how) const {
    ASSERT_TRUE(ok(registers_.write<std::uint64_t>(source, from)));
    ASSERT_TRUE(ok(registers_.write<std::uint64_t>(destination, to)));
    ASSERT_TRUE(ok(registers_.write<std::uint64_t>(count, 256)));
    ASSERT_TRUE(ok(registers_.write<std::uint64_t>(command, how)));
  }
  [[nodiscard]] bool dma(std::uint64_t from, std::uint64_t to, std::uint64_t how) const {
    start(from, to, how);
    return eventually([&] { return (registers_.read<std::uint64_t>(command).value() & 1) == 0; });
  }
  RegionMapping registers_;
};

class Assigned : public testing::TestWithParam<Way> {
 protected:
  void SetUp() override {
    if (GetParam() == Way::iommufd && !has_iommufd()) {
      ASSERT_FALSE(needs_iommufd()) << "no /dev/iommu";
      GTEST_SKIP() << "this kernel has no iommufd";
    }
  }
  // Opens a device; nothing else may have it.
  void open(const std::string& path) {
    auto made = GetParam() == Way::group ? attach_by_group(path) : attach_by_iommufd(path);
    if (!made) throw std::runtime_error(made.error().message());  // Fails the test.
    attached_.emplace(std::move(made.value()));
  }
  [[nodiscard]] const Device& device() const { return attached_->device; }
  [[nodiscard]] Attached& attached() { return *attached_; }
  // The device may write to memory from now on, its MSI among that.
  void let_it_master() {
    const auto config = device().get_region_info(VFIO_PCI_CONFIG_REGION_INDEX).value();
    const auto old = device().read<std::uint16_t>(config, PCI_COMMAND).value();
    ASSERT_TRUE(ok(device().write<std::uint16_t>(config, PCI_COMMAND, old | PCI_COMMAND_MASTER)));
  }
  [[nodiscard]] Result<void> set_eventfd(std::uint32_t index, const EventFd& eventfd) const {
    const std::array<int, 1> fds{eventfd.get()};
    return device().set_irq_eventfds(index, fds);
  }

 private:
  std::optional<Attached> attached_;
};

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

// --- Interrupts ------------------------------------------------------------

TEST_P(Assigned, InterruptsByMsi) {
  open(edu);
  let_it_master();
  const Edu registers(device());
  const EventFd interrupt;
  ASSERT_TRUE(ok(set_eventfd(VFIO_PCI_MSI_IRQ_INDEX, interrupt)));

  registers.set(Edu::status, Edu::interrupt_after_factorial);
  registers.set(Edu::factorial, 5);
  EXPECT_EQ(interrupt.wait(), 1U);
  EXPECT_EQ(registers.get(Edu::factorial), 120U);
  EXPECT_EQ(registers.get(Edu::interrupt_status), 1U);
  registers.set(Edu::acknowledge, 1);
  EXPECT_EQ(registers.get(Edu::interrupt_status), 0U);

  ASSERT_TRUE(ok(device().trigger_irq(VFIO_PCI_MSI_IRQ_INDEX)));
  EXPECT_EQ(interrupt.wait(), 1U);

  // One kind at a time, and MSI can't be masked here.
  EXPECT_EQ(set_eventfd(VFIO_PCI_INTX_IRQ_INDEX, interrupt).error(),
            (Error{"VFIO_DEVICE_SET_IRQS", EINVAL, VFIO_PCI_INTX_IRQ_INDEX}));
  EXPECT_EQ(device().mask_irq(VFIO_PCI_MSI_IRQ_INDEX).error(),
            (Error{"VFIO_DEVICE_SET_IRQS", ENOTTY, VFIO_PCI_MSI_IRQ_INDEX}));

  // Another eventfd takes its place; then none.
  const EventFd other;
  ASSERT_TRUE(ok(set_eventfd(VFIO_PCI_MSI_IRQ_INDEX, other)));
  registers.set(Edu::raise, 2);
  EXPECT_EQ(other.wait(), 1U);
  EXPECT_EQ(interrupt.unwanted(), 0U);
  registers.set(Edu::acknowledge, 2);
  ASSERT_TRUE(ok(device().disable_irqs(VFIO_PCI_MSI_IRQ_INDEX)));
  registers.set(Edu::raise, 2);
  EXPECT_EQ(other.unwanted(), 0U);
  EXPECT_EQ(device().disable_irqs(VFIO_PCI_MSI_IRQ_INDEX).error(),
            (Error{"VFIO_DEVICE_SET_IRQS", EINVAL, VFIO_PCI_MSI_IRQ_INDEX}));
  registers.set(Edu::acknowledge, 2);
}

TEST_P(Assigned, RefusesInterruptsThatItHasNot) {
  open(edu);
  const EventFd eventfd;
  const std::array<int, 2> two{eventfd.get(), eventfd.get()};
  EXPECT_EQ(device().set_irq_eventfds(VFIO_PCI_MSI_IRQ_INDEX, two).error(),
            (Error{"VFIO_DEVICE_SET_IRQS", EINVAL, VFIO_PCI_MSI_IRQ_INDEX}));
  EXPECT_FALSE(set_eventfd(VFIO_PCI_MSIX_IRQ_INDEX, eventfd));
  const std::array<int, 1> not_an_eventfd{device().fd()};
  EXPECT_EQ(device().set_irq_eventfds(VFIO_PCI_MSI_IRQ_INDEX, not_an_eventfd).error(),
            (Error{"VFIO_DEVICE_SET_IRQS", EINVAL, VFIO_PCI_MSI_IRQ_INDEX}));
  EXPECT_TRUE(ok(set_eventfd(VFIO_PCI_MSI_IRQ_INDEX, eventfd)));
}

TEST_P(Assigned, InterruptsByIntxWhichMasksItself) {
  open(edu);
  const Edu registers(device());
  const EventFd interrupt;
  ASSERT_TRUE(ok(set_eventfd(VFIO_PCI_INTX_IRQ_INDEX, interrupt)));

  registers.set(Edu::raise, 0x10);
  EXPECT_EQ(interrupt.wait(), 1U);
  // Still raised, and masked since: nothing more until unmasked, and then at once.
  EXPECT_EQ(interrupt.unwanted(), 0U);
  ASSERT_TRUE(ok(device().unmask_irq(VFIO_PCI_INTX_IRQ_INDEX)));
  EXPECT_EQ(interrupt.wait(), 1U);
  registers.set(Edu::acknowledge, 0x10);
  ASSERT_TRUE(ok(device().unmask_irq(VFIO_PCI_INTX_IRQ_INDEX)));
  EXPECT_EQ(interrupt.unwanted(), 0U);

  // Masked by us.
  ASSERT_TRUE(ok(device().mask_irq(VFIO_PCI_INTX_IRQ_INDEX)));
  registers.set(Edu::raise, 0x20);
  EXPECT_EQ(interrupt.unwanted(), 0U);
  ASSERT_TRUE(ok(device().unmask_irq(VFIO_PCI_INTX_IRQ_INDEX)));
  EXPECT_EQ(interrupt.wait(), 1U);

  // Unmasked by an eventfd.
  const EventFd unmask;
  ASSERT_TRUE(ok(device().set_unmask_eventfd(VFIO_PCI_INTX_IRQ_INDEX, unmask.get())));
  unmask.signal();
  EXPECT_EQ(interrupt.wait(), 1U);
  ASSERT_TRUE(ok(device().set_unmask_eventfd(VFIO_PCI_INTX_IRQ_INDEX, -1)));
  registers.set(Edu::acknowledge, 0x20);

  ASSERT_TRUE(ok(device().trigger_irq(VFIO_PCI_INTX_IRQ_INDEX)));
  EXPECT_EQ(interrupt.wait(), 1U);
  ASSERT_TRUE(ok(device().disable_irqs(VFIO_PCI_INTX_IRQ_INDEX)));
  registers.set(Edu::raise, 0x40);
  EXPECT_EQ(interrupt.unwanted(), 0U);
  registers.set(Edu::acknowledge, 0x40);
}

// An Intel 82574L: software sets one of its interrupt causes.
TEST_P(Assigned, InterruptsByEachMsixVector) {
  open(e1000e);
  let_it_master();
  const auto msix = pci_msix(read_pci_config(device()).value());
  ASSERT_TRUE(msix);
  EXPECT_EQ(msix->vectors, 5);
  EXPECT_EQ(device().get_irq_info(VFIO_PCI_MSIX_IRQ_INDEX).value().count, 5U);
  EXPECT_TRUE(device().get_region_info(msix->table_bar).value().msix_mappable);

  const std::array<EventFd, 5> interrupts;
  std::array<int, 5> fds{};
  std::ranges::transform(interrupts, fds.begin(), [](const EventFd& one) { return one.get(); });
  ASSERT_TRUE(ok(device().set_irq_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, fds)));
  EXPECT_TRUE(pci_msix(read_pci_config(device()).value())->enabled);

  auto registers = device().map(device().get_region_info(VFIO_PCI_BAR0_REGION_INDEX).value());
  ASSERT_TRUE(ok(registers));
  const auto set = [&](std::size_t offset, std::uint32_t value) {
    ASSERT_TRUE(ok(registers.value().write<std::uint32_t>(offset, value)));
  };
  constexpr std::size_t cause_set = 0xc8, mask_set = 0xd0, vectors = 0xe4, cause = 0xc0;
  constexpr std::uint32_t other = 1 << 24;
  for (std::uint32_t vector = 0; vector < 5; ++vector) {
    set(vectors, (8 | vector) << 16);  // The cause "other" goes to this vector.
    set(mask_set, other);
    set(cause_set, other);
    EXPECT_EQ(interrupts[vector].wait(), 1U) << vector;
    static_cast<void>(registers.value().read<std::uint32_t>(cause));  // Clears it.
    set(cause, other);
  }
  for (const auto& interrupt : interrupts) EXPECT_EQ(interrupt.unwanted(), 0U);

  // One taken away, the others stay.
  const std::array<int, 1> none{-1};
  ASSERT_TRUE(ok(device().set_irq_eventfds(VFIO_PCI_MSIX_IRQ_INDEX, none, 2)));
  ASSERT_TRUE(ok(device().trigger_irq(VFIO_PCI_MSIX_IRQ_INDEX, 2)));
  ASSERT_TRUE(ok(device().trigger_irq(VFIO_PCI_MSIX_IRQ_INDEX, 3)));
  EXPECT_EQ(interrupts[3].wait(), 1U);
  EXPECT_EQ(interrupts[2].unwanted(), 0U);
}

// --- DMA -------------------------------------------------------------------

constexpr Iova iova{0x100000};
constexpr Iova second_page{0x101000};

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
    auto made = GetParam() == Way::group ? attach_by_group(edu) : attach_by_iommufd(edu);
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

// --- What is said when a device can't be had -------------------------------

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
  const auto made = GetParam() == Way::group ? attach_by_group(shared) : attach_by_iommufd(shared);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().missing, Missing::viability);
  const std::string why = "group is not viable: 0000:02:02.0 is bound to virtio-pci";
  EXPECT_NE(made.error().message().find(why), std::string::npos) << made.error().message();
  EXPECT_EQ(made.error().message().find("/dev/vfio/"), 0U) << made.error().message();
}

TEST_P(Assigned, ADeviceOfTheKernelsIsNotBound) {
  const std::string host_bridge = devices + "0000:00:00.0";
  const auto made =
      GetParam() == Way::group ? attach_by_group(host_bridge) : attach_by_iommufd(host_bridge);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().missing, Missing::vfio_driver);
  EXPECT_EQ(made.error().message(), host_bridge + "/driver: bound to no driver, not to vfio-pci");
}

TEST_P(Assigned, NobodyHasNoPermission) {
  ::setfsuid(65534);
  const auto made = GetParam() == Way::group ? attach_by_group(edu) : attach_by_iommufd(edu);
  ::setfsuid(0);
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().missing, Missing::permission);
  const std::string why = ": Permission denied: this user needs to read and write it";
  EXPECT_NE(made.error().message().find(why), std::string::npos) << made.error().message();
}

INSTANTIATE_TEST_SUITE_P(Way, Assigned, testing::Values(Way::group, Way::iommufd),
                         [](const auto& way) {
                           return way.param == Way::group ? "ByGroup" : "ByIommufd";
                         });

// --- Of one way only -------------------------------------------------------

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
    const auto config = device->value().get_region_info(VFIO_PCI_CONFIG_REGION_INDEX).value();
    ASSERT_TRUE(ok(device->value().write<std::uint16_t>(config, PCI_COMMAND,
                                                        PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY)));
    const Edu registers(device->value());
    memory.fill(0, device == &first ? std::byte{7} : std::byte{99});
    ASSERT_TRUE(registers.copy_in(iova));
    ASSERT_TRUE(registers.copy_out(second_page));
    EXPECT_TRUE(memory.same());
  }
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

class WithIommufd : public testing::Test {
 protected:
  void SetUp() override {
    if (has_iommufd()) return;
    ASSERT_FALSE(needs_iommufd()) << "no /dev/iommu";
    GTEST_SKIP() << "this kernel has no iommufd";
  }
};

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

TEST_F(WithIommufd, ADetachedDeviceReachesNothingAndAnotherAddressSpaceItsOwn) {
  auto iommufd = Iommufd::open();
  ASSERT_TRUE(ok(iommufd));
  auto one = iommufd.value().alloc_ioas();
  auto two = iommufd.value().alloc_ioas();
  ASSERT_TRUE(ok(one));
  ASSERT_TRUE(ok(two));
  auto device = iommufd.value().open_device(edu);
  ASSERT_TRUE(ok(device));
  const auto config = device.value().get_region_info(VFIO_PCI_CONFIG_REGION_INDEX).value();
  ASSERT_TRUE(ok(device.value().write<std::uint16_t>(config, PCI_COMMAND,
                                                     PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY)));
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
