// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Opens a device by iommufd, gives it a page of memory, and says who made it.
//
//   by_iommufd /sys/bus/pci/devices/0000:00:10.0
#include <linux/pci_regs.h>

#include <array>
#include <cstdio>

#include "vfio_ioctls/iommufd.hpp"

using namespace vfio_ioctls;

alignas(4096) std::array<std::byte, 4096> memory;

OpenResult<std::uint16_t> vendor(const char* path) {
  VMM_TRY(iommufd, Iommufd::open());
  VMM_TRY(ioas, iommufd.alloc_ioas());
  VMM_TRY(device, iommufd.open_device(path));
  VMM_CHECK(device.attach_iommufd_pt(ioas.id()));

  VMM_TRY(mapping, ioas.map_dma(Iova{0x100000}, memory, DmaAccess::read_write));

  VMM_TRY(config, device.get_region_info(VFIO_PCI_CONFIG_REGION_INDEX));
  VMM_TRY(id, device.read<std::uint16_t>(config, PCI_VENDOR_ID));
  VMM_CHECK(mapping.unmap());
  return id;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto id = vendor(argv[1]);
  if (!id) return std::puts(id.error().message().c_str()), 1;
  std::printf("%#06x\n", static_cast<unsigned>(id.value()));
}
