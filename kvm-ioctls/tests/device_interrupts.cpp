// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VM's interrupts and registrations on a real kernel.
#include <chrono>
#include <thread>

#include "device.hpp"

namespace kvm_ioctls {
namespace {

struct Interrupts : Guest {
  // Whether the master PIC has seen an edge on a line, in the end: an irqfd's may take a moment.
  bool requested(unsigned line) {
    for (int i = 0; i != 2000; ++i) {
      if ((must(vm->get_irqchip(KVM_IRQCHIP_PIC_MASTER)).chip.pic.irr & 1u << line) != 0)
        return true;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return false;
  }
  void forget_requests() {
    auto chip = must(vm->get_irqchip(KVM_IRQCHIP_PIC_MASTER));
    chip.chip.pic.irr = 0;
    chip.chip.pic.last_irr = 0;
    must(vm->set_irqchip(chip));
  }
};

TEST_F(Interrupts, TheIrqchipHasStateAndLines) {
  EXPECT_EQ(vm->irq_line(5, true).error(), (vmm_base::Error{"KVM_IRQ_LINE", ENXIO, 5}));
  must(vm->create_irqchip());
  EXPECT_EQ(vm->create_irqchip().error().code, EEXIST);
  must(vm->irq_line(5, true));
  EXPECT_TRUE(requested(5));
  must(vm->irq_line(5, false));
  must(vm->irq_line_status(6, true));
  EXPECT_TRUE(requested(6));
  auto ioapic = must(vm->get_irqchip(KVM_IRQCHIP_IOAPIC));
  ioapic.chip.ioapic.id = 3;
  must(vm->set_irqchip(ioapic));
  EXPECT_EQ(must(vm->get_irqchip(KVM_IRQCHIP_IOAPIC)).chip.ioapic.id, 3u);
}

TEST_F(Interrupts, ThePitKeepsItsState) {
  must(vm->create_irqchip());
  must(vm->create_pit2(KVM_PIT_SPEAKER_DUMMY));
  auto state = must(vm->get_pit2());
  state.channels[2].count = 0x1234;
  must(vm->set_pit2(state));
  EXPECT_EQ(must(vm->get_pit2()).channels[2].count, 0x1234u);
  must(vm->reinject_control(false));
}

TEST_F(Interrupts, TheBootProcessorIsChosenBeforeTheFirst) {
  NEEDS(*vm, KVM_CAP_SET_BOOT_CPU_ID);
  must(vm->set_boot_cpu_id({1}));
  start();
  EXPECT_EQ(vm->set_boot_cpu_id({2}).error(), (vmm_base::Error{"KVM_SET_BOOT_CPU_ID", EBUSY, 2}));
}

TEST_F(Interrupts, AnMsiGoesToALocalApic) {
  must(vm->create_irqchip());
  start(0, true);
  auto lapic = must(vcpu->get_lapic());
  lapic.regs[0xf1] = 1;  // spurious vector register: enabled
  must(vcpu->set_lapic(lapic));
  EXPECT_TRUE(must(vm->signal_msi(0xfee00000, 0x41)));
  EXPECT_NE(must(vcpu->get_lapic()).regs[0x220] & 2, 0) << "bit 0x41 of the request register";
}

TEST_F(Interrupts, AnIrqfdEndsWithItsOwner) {
  must(vm->create_irqchip());
  IrqRouting routes(1);
  routes[0].gsi = 40;
  routes[0].type = KVM_IRQ_ROUTING_IRQCHIP;
  routes[0].u.irqchip = {KVM_IRQCHIP_PIC_MASTER, 5};
  must(vm->set_gsi_routing(routes));
  auto eventfd = new_eventfd();
  {
    const IrqFd irqfd = must(vm->register_irqfd(eventfd.get(), 40));
    EXPECT_EQ(vm->register_irqfd(eventfd.get(), 40).error(),
              (vmm_base::Error{"KVM_IRQFD", EBUSY, 40}));
    signal(eventfd.get());
    EXPECT_TRUE(requested(5));
    forget_requests();
  }
  signal(eventfd.get());
  EXPECT_EQ(taken(eventfd.get()), 1u) << "nobody else takes it any more";
  EXPECT_EQ(must(vm->get_irqchip(KVM_IRQCHIP_PIC_MASTER)).chip.pic.irr & 0x20, 0);
  // A registration needs neither the VM nor the eventfd that it was made of.
  auto last = must(vm->register_irqfd(eventfd.get(), 40));
  eventfd = vmm_base::UniqueFd();
  vm.reset();
  EXPECT_TRUE(last.unregister());
  EXPECT_TRUE(last.unregister()) << "once more does nothing";
}

TEST_F(Interrupts, AssigningToARegistrationUndoesWhatItWas) {
  must(vm->create_irqchip());
  const auto first = new_eventfd();
  const auto second = new_eventfd();
  IrqFd irqfd = must(vm->register_irqfd(first.get(), 5));
  irqfd = must(vm->register_irqfd(second.get(), 6));
  EXPECT_EQ(irqfd.gsi(), 6u);
  signal(first.get());
  EXPECT_EQ(taken(first.get()), 1u);
  signal(irqfd.eventfd());
  EXPECT_TRUE(requested(6));
}

TEST_F(Interrupts, ALevelTriggeredIrqfdTellsItsEnd) {
  must(vm->create_irqchip());
  const auto trigger = new_eventfd();
  const auto resample = new_eventfd();
  const IrqFd irqfd = must(vm->register_irqfd(trigger.get(), 9, resample.get()));
  EXPECT_EQ(irqfd.gsi(), 9u);
}

// mov $0x77,%al; out %al,$0x20; mov $0x78,%al; out %al,$0x20; hlt
TEST_F(Interrupts, AnIoeventfdTakesItsWriteUntilItEnds) {
  load({0xb0, 0x77, 0xe6, 0x20, 0xb0, 0x78, 0xe6, 0x20, 0xf4});
  start();
  const auto eventfd = new_eventfd();
  auto ioeventfd = must(vm->register_ioeventfd(
      {.address = 0x20, .pio = true, .size = 1, .datamatch = 0x77}, eventfd.get()));
  EXPECT_EQ(vm->register_ioeventfd({.address = 0x20, .pio = true, .size = 1, .datamatch = 0x77},
                                   eventfd.get())
                .error(),
            (vmm_base::Error{"KVM_IOEVENTFD", EEXIST, 0x20}));
  EXPECT_EQ(run_to<IoOut>().data[0], std::byte{0x78}) << "0x77 was no exit";
  EXPECT_EQ(taken(eventfd.get()), 1u);
  must(ioeventfd.unregister());
  restart();
  EXPECT_EQ(run_to<IoOut>().data[0], std::byte{0x77});
}

// mov %al,(0xf000); mov %al,(0xf001); hlt, where 0xf000 is no RAM.
TEST_F(Interrupts, CoalescedWritesAreInTheRingAndNoExits) {
  const int page = must(kvm->check_extension(KVM_CAP_COALESCED_MMIO));
  ASSERT_GT(page, 0);
  load({0xa2, 0x00, 0xf0, 0xa2, 0x01, 0xf0, 0xf4});
  must(vm->set_user_memory_region(0, {0}, 0xf000, ram));
  vcpu.emplace(must(vm->create_vcpu({0})));
  restart();
  auto regs = must(vcpu->get_regs());
  regs.rax = 0x42;
  must(vcpu->set_regs(regs));
  {
    const auto zone = must(vm->register_coalesced_mmio(0xf000, 0x1000));
    run_to<Halted>();
    std::vector<std::uint64_t> addresses;
    const auto ring = [&] { return vcpu->coalesced_mmio(page); };
    EXPECT_EQ(ring().drain([&](const CoalescedWrite& write) {
      addresses.push_back(write.address);
      EXPECT_FALSE(write.pio);
      EXPECT_EQ(write.data.size(), 1u);
      EXPECT_EQ(write.data[0], std::byte{0x42});
    }),
              2u);
    EXPECT_EQ(addresses, (std::vector<std::uint64_t>{0xf000, 0xf001}));
    EXPECT_EQ(ring().drain([](const CoalescedWrite&) {}), 0u);
  }
  restart();
  EXPECT_EQ(run_to<MmioWrite>().address, 0xf000u) << "an exit again";
  EXPECT_EQ(vcpu->coalesced_mmio(1000).drain([](const CoalescedWrite&) {}), 0u);
}

TEST_F(Interrupts, AHypervConnectionEndsWithItsOwner) {
  NEEDS(*vm, KVM_CAP_HYPERV_EVENTFD);
  const auto eventfd = new_eventfd();
  {
    const auto connection = must(vm->register_hyperv_eventfd(7, eventfd.get()));
    EXPECT_EQ(vm->register_hyperv_eventfd(7, eventfd.get()).error(),
              (vmm_base::Error{"KVM_HYPERV_EVENTFD", EEXIST, 7}));
  }
  EXPECT_TRUE(vm->register_hyperv_eventfd(7, eventfd.get()));
}

TEST_F(Interrupts, ADeviceHasAttributes) {
  auto created = vm->create_device(KVM_DEV_TYPE_VFIO);
  if (!created) {
    ASSERT_EQ(created.error(), (vmm_base::Error{"KVM_CREATE_DEVICE", ENODEV, KVM_DEV_TYPE_VFIO}));
    GTEST_SKIP() << "this kernel lacks CONFIG_KVM_VFIO";
  }
  const kvm_ioctls::Device device = std::move(created).assume_value();
  EXPECT_TRUE(must(device.has_device_attr(KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD)));
  EXPECT_FALSE(must(device.has_device_attr(77, 0)));
  EXPECT_EQ(device.get_device_attr<std::int32_t>(KVM_DEV_VFIO_FILE, 1).error().code, EPERM);
  EXPECT_EQ(device.set_device_attr(KVM_DEV_VFIO_FILE, KVM_DEV_VFIO_FILE_ADD, std::int32_t{-1})
                .error()
                .code,
            EBADF);
  // On x86 a VM has none.
  EXPECT_EQ(vm->has_device_attr(0, 0).error().code, ENOTTY);
}

}  // namespace
}  // namespace kvm_ioctls
