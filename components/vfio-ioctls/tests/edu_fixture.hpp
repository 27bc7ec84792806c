// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The lab's devices, and how the tests on them drive and wait for them.
#pragma once

#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>

#include "print.hpp"
#include "vfio_ioctls/group.hpp"
#include "vfio_ioctls/iommufd.hpp"
#include "vfio_ioctls/pci_config.hpp"

namespace vfio_ioctls {

using vmm_base::Error;
using vmm_base::Result;
using vmm_base::UniqueFd;

// tests/lab/run makes them so.
inline const std::string devices = "/sys/bus/pci/devices/";
inline const std::string edu = devices + "0000:00:10.0";  // Alone in its group; can't be reset.
inline const std::string with_reset =
    devices + "0000:01:01.0";  // The only device behind its bridge.
inline const std::string shared =
    devices + "0000:02:01.0";  // Shares its group with a virtio device.
inline const std::string e1000e = devices + "0000:00:13.0";

inline bool has_iommufd() { return ::access("/dev/iommu", F_OK) == 0; }
// The kernel that is in the lab for its iommufd.
inline bool needs_iommufd() {
  const char* kernel = std::getenv("LAB_KERNEL");
  return kernel != nullptr && std::string(kernel).find("iommufd") != std::string::npos;
}

// A device that may do DMA, by either way.
struct Attached {
  Device device;
  std::function<Result<DmaMapping>(Iova, std::span<std::byte>, DmaAccess)> map_dma;
  std::function<Result<std::vector<IovaRange>>()> iova_ranges;
};

inline OpenResult<Attached> attach_by_group(const std::string& path) {
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

inline OpenResult<Attached> attach_by_iommufd(const std::string& path) {
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
inline OpenResult<Attached> attach(Way way, const std::string& path) {
  return way == Way::group ? attach_by_group(path) : attach_by_iommufd(path);
}

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

// Where the tests map those pages.
inline constexpr Iova iova{0x100000};
inline constexpr Iova second_page{0x101000};

// The device may write to memory from now on, its MSI among that.
inline void let_it_master(const Device& device) {
  const auto config = device.get_region_info(VFIO_PCI_CONFIG_REGION_INDEX).value();
  const auto old = device.read<std::uint16_t>(config, PCI_COMMAND).value();
  ASSERT_TRUE(ok(device.write<std::uint16_t>(config, PCI_COMMAND, old | PCI_COMMAND_MASTER)));
}

// A device by either way.
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
    auto made = attach(GetParam(), path);
    if (!made) throw std::runtime_error(made.error().message());  // Fails the test.
    attached_.emplace(std::move(made.value()));
  }
  [[nodiscard]] const Device& device() const { return attached_->device; }
  [[nodiscard]] Attached& attached() { return *attached_; }
  void let_it_master() { vfio_ioctls::let_it_master(device()); }
  [[nodiscard]] Result<void> set_eventfd(std::uint32_t index, const EventFd& eventfd) const {
    const std::array<int, 1> fds{eventfd.get()};
    return device().set_irq_eventfds(index, fds);
  }

 private:
  std::optional<Attached> attached_;
};

class WithIommufd : public testing::Test {
 protected:
  void SetUp() override {
    if (has_iommufd()) return;
    ASSERT_FALSE(needs_iommufd()) << "no /dev/iommu";
    GTEST_SKIP() << "this kernel has no iommufd";
  }
};

}  // namespace vfio_ioctls
