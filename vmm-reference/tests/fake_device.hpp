// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A device of the host's without VFIO: its file is a memory file with the regions in a row, its
// ioctls are scripted. BAR 0 of 32 bits, which can be mapped; BAR 2, which can't; MSI of 2 vectors,
// 64 bits, maskable.
#pragma once

#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <tuple>
#include <utility>
#include <vector>

#include "vfio_ioctls/device.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {

constexpr std::uint64_t bar0_size = 2 * vmm_base::page_size, bar2_size = 256;
constexpr std::uint64_t bar0_at = 0x1000, bar2_at = 0x8000, config_at = 0x9000;  // in the file
constexpr std::size_t msi = 0x50;

struct FakeDevice {
  vmm_base::UniqueFd file{::memfd_create("device", MFD_CLOEXEC)};
  bool irqs_fail = false;
  std::vector<int> eventfds{};  // that it signals

  FakeDevice() {
    EXPECT_EQ(::ftruncate(file.get(), static_cast<off_t>(config_at + vmm_base::page_size)), 0);
    put<std::uint16_t>(PCI_STATUS, PCI_STATUS_CAP_LIST);
    put<std::uint16_t>(PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    put<std::uint32_t>(PCI_BASE_ADDRESS_0, 0xfea00000);
    put<std::uint32_t>(PCI_BASE_ADDRESS_2, 0xfeb00000);
    put<std::uint8_t>(PCI_CAPABILITY_LIST, msi);
    put<std::uint16_t>(msi, PCI_CAP_ID_MSI);
    put<std::uint16_t>(msi + PCI_MSI_FLAGS, PCI_MSI_FLAGS_MASKBIT | PCI_MSI_FLAGS_64BIT | 1 << 1);
  }
  [[nodiscard]] vfio_ioctls::Device opened() const {
    return vfio_ioctls::Device(vmm_base::UniqueFd(::dup(file.get())));
  }

  int ioctl(unsigned long request, void* argument) {
    if (request == VFIO_DEVICE_GET_REGION_INFO) {
      auto& info = *static_cast<vfio_region_info*>(argument);
      info.flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
      info.size = info.offset = 0;
      if (info.index == 0) {
        info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
        std::tie(info.size, info.offset) = std::pair(bar0_size, bar0_at);
      }
      if (info.index == 2) std::tie(info.size, info.offset) = std::pair(bar2_size, bar2_at);
      if (info.index == VFIO_PCI_CONFIG_REGION_INDEX) {
        std::tie(info.size, info.offset) = std::pair(std::uint64_t{256}, config_at);
      }
      return 0;
    }
    if (request != VFIO_DEVICE_SET_IRQS || irqs_fail) {
      errno = ENOTTY;
      return -1;
    }
    const auto& set = *static_cast<const vfio_irq_set*>(argument);
    eventfds.resize(set.count);
    if (set.count != 0) std::memcpy(eventfds.data(), set.data, set.count * sizeof(int));
    return 0;
  }

  template <class T>
  void put(std::uint64_t at, T value) const {
    EXPECT_EQ(::pwrite(file.get(), &value, sizeof(T), static_cast<off_t>(config_at + at)),
              static_cast<ssize_t>(sizeof(T)));
  }
  template <class T>
  [[nodiscard]] T in_file(std::uint64_t at) const {
    T value{};
    EXPECT_EQ(::pread(file.get(), &value, sizeof(T), static_cast<off_t>(at)),
              static_cast<ssize_t>(sizeof(T)));
    return value;
  }
};

}  // namespace vmm_reference
