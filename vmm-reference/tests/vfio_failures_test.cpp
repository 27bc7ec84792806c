// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A guest that drives a device of the host's, each of whose calls fails in turn, KVM's, VFIO's and
// others. The guest must never have memory mapped that the device doesn't decode.
#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include <cerrno>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <type_traits>
#include <variant>

#include "failing_each.hpp"
#include "fake_device.hpp"
#include "host.hpp"
#include "irq_routes.hpp"
#include "kvm_ioctls/double.hpp"
#include "machine.hpp"
#include "pci_root.hpp"
#include "vfio_function.hpp"

namespace {
vmm_reference::FakeDevice* device = nullptr;
std::size_t vfio_call = 0, vfio_fails = 0;
}  // namespace

// With --wrap=ioctl: VFIO's are the device's; the double's own calls aren't to fail.
extern "C" int __real_ioctl(int fd, unsigned long request, ...);
extern "C" int __wrap_ioctl(int fd, unsigned long request, ...) {
  const failing::Unseen unseen;
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (_IOC_TYPE(request) != VFIO_TYPE) return __real_ioctl(fd, request, argument);
  if (++vfio_call != vfio_fails) return device->ioctl(request, argument);
  errno = EIO;
  return -1;
}

namespace vmm_reference {
namespace {

using vmm_base::Gpa;
using vmm_base::page_size;

const std::string good = "it went on";
constexpr Gpa window = pci_window.memory;
constexpr Gpa elsewhere = window + 16 * bar0_size;

std::string drive(const KvmDouble& kvm, const FromNowOn& from_now_on) {
  FakeDevice fake;
  device = &fake;
  vfio_call = 0;
  const Host host = std::get<Host>(Host::open(kvm.path()));
  Machine machine = create_machine(host, {.ram_size = 1 << 20, .xen = false}).value();
  IrqRoutes routes(machine.vm);
  HostErrors errors;
  from_now_on();
  auto created = VfioFunction::create(fake.opened(), machine.vm, routes, 100, errors);
  if (!created) return created.error().message();
  VfioFunction& function = created.value();
  Gpa next = window;
  if (!function.place_bars(next, window + pci_window.memory_size)) return "no room";

  const auto write = [&]<class T>(std::size_t at, T value) {
    function.write_config(at, std::as_bytes(std::span(&value, 1)));
    const failing::Unseen looking;
    if ((fake.in_file<std::uint16_t>(config_at + PCI_COMMAND) & PCI_COMMAND_MEMORY) != 0) return;
    for (const Gpa gpa : {window, elsewhere}) {
      EXPECT_EQ(kvm.memory(gpa.value, page_size), nullptr) << "and the device is off";
    }
  };
  const auto command = [&](std::uint16_t bits) { write(PCI_COMMAND, bits); };
  const auto flags = [&](std::uint16_t bits) { write(msi + PCI_MSI_FLAGS, bits); };
  const auto mask = [&](std::uint32_t bits) { write(msi + PCI_MSI_MASK_64, bits); };
  for (const Gpa bar0 : {window, elsewhere}) {
    write(PCI_BASE_ADDRESS_0, static_cast<std::uint32_t>(bar0.value));
    command(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
    write(msi + PCI_MSI_ADDRESS_LO, std::uint32_t{0xfee01000});
    flags(PCI_MSI_FLAGS_ENABLE | 1 << 4);
    mask(2);
    write(msi + PCI_MSI_ADDRESS_LO, std::uint32_t{0xfee02000});
    mask(0);
    flags(0);
    command(0);
    command(0);  // as a driver would that reads it back
  }
  const std::string said = errors.message();
  return said.empty() ? good : said;
}

TEST(VfioFailures, OfKvm) { fail_each(drive); }
TEST(VfioFailures, OfVfio) {
  const Resources before = after_one(drive);
  const std::size_t calls = vfio_call;
  EXPECT_GT(calls, 10u);
  for (vfio_fails = 1; vfio_fails <= calls; ++vfio_fails) {
    {
      const KvmDouble kvm;
      const std::string said = drive(kvm, [] {});
      EXPECT_NE(said.find("VFIO_DEVICE_"), std::string::npos) << vfio_fails << ": " << said;
      EXPECT_NE(said.find("Input/output error"), std::string::npos) << said;
      EXPECT_EQ(kvm.leaks(), Names{});
    }
    ASSERT_EQ(Resources::now(), before) << "call " << vfio_fails;
  }
  vfio_fails = 0;
  std::printf("%zu of VFIO's ioctls failed in turn\n", calls);
}

// --- System calls and allocations ---------------------------------------------------------------

#ifndef FAILING_CALLS_NONE

TEST(VfioFailures, OfSystemCalls) { fail_each_other(drive, failing::Of::calls, good); }

TEST(VfioFailures, OfAllocations) { fail_each_other(drive, failing::Of::allocations, good); }

#endif

}  // namespace
}  // namespace vmm_reference
