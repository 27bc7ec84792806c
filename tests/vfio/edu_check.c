// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Runs inside a Linux guest that was given QEMU's edu device (its docs/specs/edu has the
// registers), and drives it. Debian's kernels have no driver for it, nor VFIO without an IOMMU. So
// this is the driver, through sysfs: MSIs go to a vector of the kernel's that nothing else uses
// there, and /proc/interrupts counts them. A kernel that has CONFIG_VFIO_NOIOMMU sets the MSI up
// itself, in its vfio-pci. Either way DMA goes to the guest's physical addresses.
//
//   edu_check ADDRESS          prints "NAME VALUE" lines; ADDRESS as 0000:00:01.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  identification = 0x00,
  liveness = 0x04,
  factorial = 0x08,
  status = 0x20,
  interrupt_status = 0x24,
  raise_interrupt = 0x60,
  acknowledge = 0x64,
  dma_source = 0x80,
  dma_destination = 0x88,
  dma_count = 0x90,
  dma_command = 0x98,
};
static const uint64_t buffer = 0x40000;  // in the device, as its DMA engine sees it
static const size_t page = 4096;
static const size_t block = 256;  // bytes that are copied

static volatile uint8_t* registers;
static int by_vfio;
static int device;        // vfio-pci's file
static int config;        // the file with configuration space
static off_t config_at;   // where it is in there
static int interrupt;     // vfio-pci's eventfd
static off_t msi;         // the capability
static unsigned seen[2];  // interrupts so far, by CPU

static int checked(int result, const char* what) {
  if (result < 0) {
    printf("failed %s: %s\n", what, strerror(errno));
    exit(1);
  }
  return result;
}
static uint32_t get(unsigned offset) { return *(volatile uint32_t*)(registers + offset); }
static void set(unsigned offset, uint32_t value) {
  *(volatile uint32_t*)(registers + offset) = value;
}
static void set_wide(unsigned offset, uint64_t value) {
  *(volatile uint64_t*)(registers + offset) = value;
}

// The kernel's own of KVM's posted interrupts, which there are none of in a guest: it counts and
// acknowledges them.
static const uint32_t vector = 0xf2;
static void count_posted(unsigned counts[2]) {
  char line[512];
  FILE* file = fopen("/proc/interrupts", "r");
  counts[0] = counts[1] = 0;
  while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
    const char* row = strstr(line, "PIN:");
    if (row != NULL) sscanf(row + 4, "%u %u", &counts[0], &counts[1]);
  }
  if (file != NULL) fclose(file);
}

// How many interrupts came to this CPU; waits for the first, but not for ever.
static unsigned interrupts_of(int cpu, int milliseconds) {
  if (by_vfio) {
    struct pollfd readable = {interrupt, POLLIN, 0};
    eventfd_t count = 0;
    if (poll(&readable, 1, milliseconds) == 1) eventfd_read(interrupt, &count);
    return (unsigned)count;
  }
  for (int waited = 0;; ++waited) {
    unsigned now[2];
    count_posted(now);
    const unsigned came = now[cpu] - seen[cpu];
    if (came != 0 || waited == milliseconds) {
      memcpy(seen, now, sizeof(seen));
      return came;
    }
    usleep(1000);
  }
}
static unsigned interrupts(int milliseconds) { return interrupts_of(0, milliseconds); }

static void write_config(off_t offset, const void* value, size_t size) {
  checked((int)pwrite(config, value, size, config_at + offset), "to write config space");
}

static void open_by_sysfs(const char* address) {
  char path[128];
  snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/config", address);
  config = checked(open(path, O_RDWR), "to open config");
  snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource0", address);
  const int bar = checked(open(path, O_RDWR), "to open resource0");
  struct stat file;
  checked(fstat(bar, &file), "to look at resource0");
  printf("bar0-size %lld\n", (long long)file.st_size);
  registers = mmap(NULL, (size_t)file.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, bar, 0);
  checked(registers == MAP_FAILED ? -1 : 0, "to map BAR 0");
}

static void open_by_vfio(const char* address) {
  const int container = checked(open("/dev/vfio/vfio", O_RDWR), "to open /dev/vfio/vfio");
  const int group = checked(open("/dev/vfio/noiommu-0", O_RDWR), "to open the group");
  checked(ioctl(group, VFIO_GROUP_SET_CONTAINER, &container), "VFIO_GROUP_SET_CONTAINER");
  checked(ioctl(container, VFIO_SET_IOMMU, VFIO_NOIOMMU_IOMMU), "VFIO_SET_IOMMU");
  device = checked(ioctl(group, VFIO_GROUP_GET_DEVICE_FD, address), "VFIO_GROUP_GET_DEVICE_FD");
  struct vfio_region_info bar = {.argsz = sizeof(bar), .index = VFIO_PCI_BAR0_REGION_INDEX};
  checked(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &bar), "VFIO_DEVICE_GET_REGION_INFO");
  printf("bar0-size %llu\n", (unsigned long long)bar.size);
  registers = mmap(NULL, bar.size, PROT_READ | PROT_WRITE, MAP_SHARED, device, (off_t)bar.offset);
  checked(registers == MAP_FAILED ? -1 : 0, "to map BAR 0");
  struct vfio_region_info region = {.argsz = sizeof(region), .index = VFIO_PCI_CONFIG_REGION_INDEX};
  checked(ioctl(device, VFIO_DEVICE_GET_REGION_INFO, &region), "VFIO_DEVICE_GET_REGION_INFO");
  config = device;
  config_at = (off_t)region.offset;
}

static void look_at_config(void) {
  uint8_t space[256];
  checked((int)pread(config, space, sizeof(space), config_at), "to read config space");
  printf("config %02x%02x:%02x%02x\n", space[1], space[0], space[3], space[2]);
  printf("interrupt-pin %d\n", space[PCI_INTERRUPT_PIN]);
  for (uint8_t at = space[PCI_CAPABILITY_LIST]; at >= 0x40; at = space[at + PCI_CAP_LIST_NEXT]) {
    printf("capability %02x\n", space[at]);
    if (space[at] == PCI_CAP_ID_MSI) msi = at;
  }
  // The device may write to memory from now on, its MSI among that.
  const uint16_t command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
  write_config(PCI_COMMAND, &command, sizeof(command));
}

// To a CPU, by its APIC id.
static void aim_msi(uint32_t cpu) {
  const uint32_t address = 0xfee00000 | cpu << 12;
  write_config(msi + PCI_MSI_ADDRESS_LO, &address, sizeof(address));
}

static void turn_msi_on(void) {
  const struct vfio_irq_set on = {.argsz = sizeof(on) + sizeof(interrupt),
                                  .flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
                                  .index = VFIO_PCI_MSI_IRQ_INDEX,
                                  .count = 1};
  uint8_t call[sizeof(on) + sizeof(interrupt)];
  if (by_vfio) {
    interrupt = checked(eventfd(0, EFD_NONBLOCK), "eventfd");
    memcpy(call, &on, sizeof(on));
    memcpy(call + sizeof(on), &interrupt, sizeof(interrupt));
    checked(ioctl(device, VFIO_DEVICE_SET_IRQS, call), "VFIO_DEVICE_SET_IRQS");
    return;
  }
  const uint16_t enable = PCI_MSI_FLAGS_ENABLE;
  aim_msi(0);
  write_config(msi + PCI_MSI_DATA_64, &vector, 2);
  write_config(msi + PCI_MSI_FLAGS, &enable, sizeof(enable));
}
static void turn_msi_off(void) {
  struct vfio_irq_set off = {.argsz = sizeof(off),
                             .flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
                             .index = VFIO_PCI_MSI_IRQ_INDEX};
  const uint16_t disable = 0;
  if (by_vfio) {
    checked(ioctl(device, VFIO_DEVICE_SET_IRQS, &off), "VFIO_DEVICE_SET_IRQS, off");
    close(interrupt);
  } else {
    write_config(msi + PCI_MSI_FLAGS, &disable, sizeof(disable));
  }
}

// The kernel's own line of it, which has the name of the interrupt controller.
static void show_interrupt(void) {
  FILE* file = fopen("/proc/interrupts", "r");
  char line[512];
  while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
    if (strstr(line, "vfio-msi") != NULL) printf("in-proc %s", line);
  }
  if (file != NULL) fclose(file);
}

// A page's guest physical address; the kernel doesn't move it while it is locked.
static uint64_t physical(const void* address) {
  const int map = checked(open("/proc/self/pagemap", O_RDONLY), "to open pagemap");
  uint64_t entry = 0;
  checked(
      (int)pread(map, &entry, sizeof(entry), (off_t)((uintptr_t)address / page * sizeof(entry))),
      "to read pagemap");
  close(map);
  return (entry & ((1ull << 55) - 1)) * page;
}

// Copies a block by the device, and waits for the interrupt of its end; whether that came.
static int copy(uint64_t from, uint64_t to, int out) {
  set_wide(dma_source, from);
  set_wide(dma_destination, to);
  set_wide(dma_count, block);
  set_wide(dma_command, out ? 0x7 : 0x5);  // start, direction, interrupt
  const int told = interrupts(10000) == 1 && get(interrupt_status) == 0x100;
  set(acknowledge, 0x100);
  return told;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  setvbuf(stdout, NULL, _IOLBF, 0);
  by_vfio = access("/dev/vfio/noiommu-0", F_OK) == 0;
  printf("driven by %s\n", by_vfio ? "vfio-pci" : "sysfs");
  if (by_vfio) {
    open_by_vfio(argv[1]);
  } else {
    open_by_sysfs(argv[1]);
  }
  look_at_config();

  printf("identification %08x\n", get(identification));
  set(liveness, 0x12345678);
  printf("liveness %08x\n", get(liveness));

  turn_msi_on();
  set(status, 0x80);  // interrupt when done
  set(factorial, 10);
  printf("factorial-interrupts %u\n", interrupts(10000));
  printf("factorial %u\n", get(factorial));
  set(acknowledge, get(interrupt_status));
  set(status, 0);

  unsigned count = 0;
  for (uint32_t i = 1; i <= 100; ++i) {
    set(raise_interrupt, i);
    count += interrupts(10000);
    if (get(interrupt_status) != i) printf("failed interrupt %u\n", i);
    set(acknowledge, i);
  }
  printf("interrupts %u of 100\n", count);
  if (by_vfio) {
    show_interrupt();
  } else if (sysconf(_SC_NPROCESSORS_ONLN) > 1) {  // another CPU's, while MSI is on
    aim_msi(1);
    set(raise_interrupt, 1);
    printf("interrupts-cpu1 %u\n", interrupts_of(1, 10000));
    set(acknowledge, 1);
    aim_msi(0);
  }

  uint8_t* memory = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED | MAP_POPULATE, -1, 0);
  checked(memory == MAP_FAILED ? -1 : 0, "to map memory");
  uint8_t* back = memory + page;
  for (size_t i = 0; i < block; ++i) memory[i] = (uint8_t)(i * 7 + 3);
  memset(back, 0, page);
  printf("dma-in %s\n", copy(physical(memory), buffer, 0) ? "done" : "no interrupt");
  printf("dma-out %s\n", copy(buffer, physical(back), 1) ? "done" : "no interrupt");
  printf("dma-bytes %s\n", memcmp(memory, back, block) == 0 ? "equal" : "differ");
  printf("dma-behind %s\n", back[block] == 0 ? "untouched" : "changed");

  turn_msi_off();
  if (!by_vfio) {
    set(raise_interrupt, 1);
    printf("interrupts-while-off %u\n", interrupts(200));
    set(acknowledge, 1);
  }
  turn_msi_on();
  set(raise_interrupt, 1);
  printf("interrupts-again %u\n", interrupts(10000));
  set(acknowledge, 1);
  turn_msi_off();
  return 0;
}
