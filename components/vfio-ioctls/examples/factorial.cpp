// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Has QEMU's edu device compute 10!, and waits for its interrupt.
//
//   factorial /sys/bus/pci/devices/0000:00:10.0
#include <linux/pci_regs.h>
#include <sys/eventfd.h>

#include <cstdio>

#include "vfio_ioctls/group.hpp"

using namespace vfio_ioctls;

OpenResult<std::uint32_t> factorial(const char* path, std::uint32_t of) {
  VMM_TRY(container, Container::open());
  VMM_TRY(group, Group::open(path));
  VMM_CHECK(group.set_container(container));
  VMM_CHECK(container.set_iommu(VFIO_TYPE1v2_IOMMU));
  VMM_TRY(device, group.get_device(path));

  VMM_TRY(config, device.get_region_info(VFIO_PCI_CONFIG_REGION_INDEX));
  VMM_TRY(command,
          device.read<std::uint16_t>(config, PCI_COMMAND));  // Its MSI is a write to memory.
  VMM_CHECK(device.write<std::uint16_t>(config, PCI_COMMAND, command | PCI_COMMAND_MASTER));
  const vmm_base::UniqueFd interrupt(::eventfd(0, EFD_CLOEXEC));
  const int eventfds[] = {interrupt.get()};
  VMM_CHECK(device.set_irq_eventfds(VFIO_PCI_MSI_IRQ_INDEX, eventfds));

  VMM_TRY(bar0, device.get_region_info(VFIO_PCI_BAR0_REGION_INDEX));
  VMM_TRY(registers, device.map(bar0));
  VMM_CHECK(registers.write<std::uint32_t>(0x20, 0x80));  // Interrupt when done.
  VMM_CHECK(registers.write<std::uint32_t>(0x08, of));
  eventfd_t times = 0;
  if (::eventfd_read(interrupt.get(), &times) != 0) return vmm_base::last_error("read");
  VMM_TRY(product, registers.read<std::uint32_t>(0x08));
  return product;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto result = factorial(argv[1], 10);
  std::puts(result ? std::to_string(result.value()).c_str() : result.error().message().c_str());
  return result ? 0 : 1;
}
