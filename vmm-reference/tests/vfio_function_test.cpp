// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A device of the host's on the guest's bus: a FakeDevice, and a KvmDouble.
#include "vfio_function.hpp"

#include <gtest/gtest.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>

#include <array>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "fake_device.hpp"
#include "kvm_ioctls/double.hpp"
#include "machine.hpp"
#include "pci_root.hpp"

namespace {
std::function<int(unsigned long request, void* argument)> vfio;
}

// With --wrap=ioctl: all that isn't VFIO's is the double's.
extern "C" int __real_ioctl(int fd, unsigned long request, ...);
extern "C" int __wrap_ioctl(int fd, unsigned long request, ...) {
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  if (_IOC_TYPE(request) != VFIO_TYPE) return __real_ioctl(fd, request, argument);
  return vfio(request, argument);
}

namespace vmm_reference {
namespace {

using kvm_ioctls::KvmDouble;
using vmm_base::Error;
using vmm_base::Gpa;
using vmm_base::page_size;

constexpr std::uint32_t first_slot = 100;
constexpr Gpa window = pci_window.memory;

class Function : public testing::Test {
 protected:
  void SetUp() override {
    vfio = [this](unsigned long request, void* argument) {
      return device.ioctl(request, argument);
    };
  }
  void TearDown() override { vfio = nullptr; }

  void begin() {
    auto made = create();
    ASSERT_TRUE(made) << made.error().message();
    function.emplace(std::move(made).value());
  }
  vmm_base::Result<VfioFunction> create() {
    return VfioFunction::create(device.opened(), machine.vm, routes, first_slot, errors);
  }

  template <class T>
  void write(std::size_t at, std::type_identity_t<T> value) {
    function->write_config(at, std::as_bytes(std::span(&value, 1)));
  }
  template <class T>
  T read(std::size_t at) {
    T value{};
    function->read_config(at, std::as_writable_bytes(std::span(&value, 1)));
    return value;
  }
  // Where the guest's accesses go without an exit.
  [[nodiscard]] std::byte* mapped(Gpa gpa) const { return kvm.memory(gpa.value, page_size); }
  void place() {
    Gpa next = window;
    ASSERT_TRUE(function->place_bars(next, window + pci_window.memory_size));
  }
  void turn_msi_on(std::uint16_t vectors_log2) {
    write<std::uint32_t>(msi + PCI_MSI_ADDRESS_LO, 0xfee01000);
    write<std::uint16_t>(msi + PCI_MSI_DATA_64, 0x40);
    write<std::uint16_t>(msi + PCI_MSI_FLAGS,
                         static_cast<std::uint16_t>(PCI_MSI_FLAGS_ENABLE | vectors_log2 << 4));
  }
  [[nodiscard]] std::vector<kvm_irqfd> irqfds() const {
    std::vector<kvm_irqfd> all;
    for (const auto& call : kvm.calls(KVM_IRQFD)) all.push_back(call.argument<kvm_irqfd>());
    return all;
  }
  // What a GSI does by the table that KVM has now.
  [[nodiscard]] std::optional<kvm_irq_routing_msi> route(std::uint32_t gsi) const {
    for (const auto& entry :
         kvm.calls(KVM_SET_GSI_ROUTING).back().entries<kvm_irq_routing_entry>()) {
      if (entry.gsi == gsi && entry.type == KVM_IRQ_ROUTING_MSI) return entry.u.msi;
    }
    return std::nullopt;
  }

  KvmDouble kvm;
  Host host = std::get<Host>(Host::open(kvm.path()));
  Machine machine = create_machine(host, {.ram_size = 1 << 20, .xen = false}).value();
  IrqRoutes routes{machine.vm};
  HostErrors errors;
  FakeDevice device;
  std::optional<VfioFunction> function;
};

TEST_F(Function, BeginsAsAfterAReset) {
  begin();
  EXPECT_EQ(device.in_file<std::uint16_t>(config_at + PCI_COMMAND), 0);
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_0), 0u);
  EXPECT_EQ(errors.message(), "");
}

TEST_F(Function, BarsArePlacedASizeOrAPageApart) {
  begin();
  Gpa next = window + 1;
  ASSERT_TRUE(function->place_bars(next, window + pci_window.memory_size));
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_0), window.value + bar0_size);
  EXPECT_EQ(read<std::uint32_t>(PCI_BASE_ADDRESS_2), window.value + 2 * bar0_size);
  EXPECT_EQ(next, window + (2 * bar0_size + page_size));
  Gpa again = window;
  EXPECT_EQ(function->place_bars(again, window + bar0_size).error(),
            (Error{"room for a PCI BAR", ENOSPC, page_size}));
}

TEST_F(Function, WhatCanBeMappedIsAMemslotWhileTheDeviceDecodesIt) {
  begin();
  place();
  EXPECT_EQ(mapped(window), nullptr);
  write<std::uint16_t>(PCI_COMMAND, PCI_COMMAND_MEMORY);
  EXPECT_EQ(device.in_file<std::uint16_t>(config_at + PCI_COMMAND), PCI_COMMAND_MEMORY);
  ASSERT_NE(mapped(window), nullptr);
  *mapped(window + page_size) = std::byte{0x5a};
  EXPECT_EQ(device.in_file<std::byte>(bar0_at + page_size), std::byte{0x5a});
  write<std::uint16_t>(PCI_COMMAND, 0);
  EXPECT_EQ(mapped(window), nullptr);
}

TEST_F(Function, ABarThatMovesTakesItsMemslotAlong) {
  begin();
  place();
  write<std::uint16_t>(PCI_COMMAND, PCI_COMMAND_MEMORY);
  const Gpa there = window + 16 * bar0_size;
  write<std::uint32_t>(PCI_BASE_ADDRESS_0, static_cast<std::uint32_t>(there.value));
  EXPECT_EQ(mapped(window), nullptr);
  EXPECT_NE(mapped(there), nullptr);
  // Onto the guest's RAM, or where the processor has something.
  write<std::uint32_t>(PCI_BASE_ADDRESS_0, 0x80000);
  EXPECT_EQ(mapped(there), nullptr);
  write<std::uint32_t>(PCI_BASE_ADDRESS_0, 0xfee00000);
  EXPECT_EQ(mapped(Gpa{0xfee00000}), nullptr);
  EXPECT_EQ(errors.message(), "");
}

// What the guest reaches, the device has to decode: else it ends us both.
TEST_F(Function, TheMemslotGoesBeforeTheDeviceIsTold) {
  begin();
  place();
  write<std::uint16_t>(PCI_COMMAND, PCI_COMMAND_MEMORY);
  std::optional<std::uint16_t> command;
  kvm.on(KVM_SET_USER_MEMORY_REGION, [&](const kvm_ioctls::Call&) {
    command = device.in_file<std::uint16_t>(config_at + PCI_COMMAND);
    return KvmDouble::as_usual;
  });
  write<std::uint16_t>(PCI_COMMAND, 0);
  EXPECT_EQ(command, PCI_COMMAND_MEMORY);
  write<std::uint16_t>(PCI_COMMAND, PCI_COMMAND_MEMORY);
  EXPECT_EQ(command, PCI_COMMAND_MEMORY);
}

TEST_F(Function, WhatCantBeMappedIsReadAndWrittenAtEachExit) {
  begin();
  place();
  const Gpa bar2 = window + bar0_size;
  std::array<std::byte, 4> bytes{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  EXPECT_FALSE(function->write_memory(bar2, bytes)) << "it isn't decoded yet";
  write<std::uint16_t>(PCI_COMMAND, PCI_COMMAND_MEMORY);
  EXPECT_EQ(mapped(bar2), nullptr);
  ASSERT_TRUE(function->write_memory(bar2 + 8, bytes));
  EXPECT_EQ(device.in_file<std::uint32_t>(bar2_at + 8), 0x04030201u);
  bytes = {};
  ASSERT_TRUE(function->read_memory(bar2 + 8, bytes));
  EXPECT_EQ(bytes[3], std::byte{4});
  EXPECT_TRUE(function->read_memory(bar2 + (bar2_size - 4), bytes));
  EXPECT_FALSE(function->read_memory(bar2 + (bar2_size - 2), bytes)) << "beyond its end";
  EXPECT_FALSE(function->read_memory(window + 16 * bar0_size, bytes));
}

TEST_F(Function, WhatIsOursIsKeptFromTheDevice) {
  begin();
  write<std::uint32_t>(PCI_BASE_ADDRESS_0, 0xc0100000);
  EXPECT_EQ(device.in_file<std::uint32_t>(config_at + PCI_BASE_ADDRESS_0), 0xfea00000u);
  write<std::uint32_t>(0x40, 0x12345678);
  EXPECT_EQ(device.in_file<std::uint32_t>(config_at + 0x40), 0x12345678u);
  EXPECT_EQ(read<std::uint32_t>(0x40), 0x12345678u);
}

TEST_F(Function, AnMsiIsAnIrqfdWhoseRouteIsTheGuests) {
  begin();
  turn_msi_on(1);
  ASSERT_EQ(device.eventfds.size(), 2u);
  ASSERT_EQ(irqfds().size(), 2u);
  for (std::uint32_t n = 0; n < 2; ++n) {
    // A duplicate, so that what the device signals is there.
    ASSERT_EQ(::eventfd_write(device.eventfds[n], n + 1), 0);
    eventfd_t signalled = 0;
    ASSERT_EQ(::eventfd_read(static_cast<int>(irqfds()[n].fd), &signalled), 0);
    EXPECT_EQ(signalled, n + 1);
    const auto message = route(irqfds()[n].gsi);
    ASSERT_TRUE(message) << n;
    EXPECT_EQ(message->address_lo, 0xfee01000u);
    EXPECT_EQ(message->data, 0x40 + n);
  }
  // To another vCPU: the route alone changes.
  write<std::uint32_t>(msi + PCI_MSI_ADDRESS_LO, 0xfee02000);
  EXPECT_EQ(irqfds().size(), 2u);
  EXPECT_EQ(route(irqfds()[1].gsi)->address_lo, 0xfee02000u);

  write<std::uint16_t>(msi + PCI_MSI_FLAGS, 0);
  EXPECT_TRUE(device.eventfds.empty());
  ASSERT_EQ(irqfds().size(), 4u);
  EXPECT_EQ(irqfds()[3].flags, std::uint32_t{KVM_IRQFD_FLAG_DEASSIGN});
  EXPECT_FALSE(route(irqfds()[0].gsi));
  // And on again, by the same GSIs.
  turn_msi_on(0);
  EXPECT_EQ(device.eventfds.size(), 1u);
  EXPECT_EQ(irqfds()[4].gsi, irqfds()[0].gsi);
  EXPECT_EQ(errors.message(), "");
}

TEST_F(Function, AMaskedMsiWaitsInItsEventfd) {
  begin();
  turn_msi_on(1);
  write<std::uint32_t>(msi + PCI_MSI_MASK_64, 2);
  ASSERT_EQ(irqfds().size(), 3u);
  EXPECT_EQ(irqfds()[2].flags, std::uint32_t{KVM_IRQFD_FLAG_DEASSIGN});
  EXPECT_EQ(irqfds()[2].gsi, irqfds()[1].gsi);
  EXPECT_EQ(device.eventfds.size(), 2u) << "the device goes on";
  write<std::uint32_t>(msi + PCI_MSI_MASK_64, 0);
  ASSERT_EQ(irqfds().size(), 4u);
  EXPECT_EQ(irqfds()[3].flags, 0u);
  EXPECT_EQ(irqfds()[3].gsi, irqfds()[1].gsi);
}

TEST_F(Function, WhatTheHostRefusesIsToldInTheEnd) {
  begin();
  device.irqs_fail = true;
  turn_msi_on(0);
  EXPECT_NE(errors.message().find("VFIO_DEVICE_SET_IRQS"), std::string::npos) << errors.message();
  EXPECT_TRUE(irqfds().empty());
}

TEST_F(Function, ABarThatKvmRefusesIsntThere) {
  begin();
  place();
  kvm.fail(KVM_SET_USER_MEMORY_REGION, ENOSPC);
  write<std::uint16_t>(PCI_COMMAND, PCI_COMMAND_MEMORY);
  EXPECT_NE(errors.message().find("No space left"), std::string::npos) << errors.message();
  EXPECT_EQ(mapped(window), nullptr);
  // Its registers are read at each exit then.
  std::array<std::byte, 4> bytes{};
  EXPECT_FALSE(function->read_memory(window, bytes));
}

}  // namespace
}  // namespace vmm_reference
