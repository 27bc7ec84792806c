// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Interrupts of real devices: MSI, INTx, MSI-X.
#include "edu_fixture.hpp"

namespace vfio_ioctls {
namespace {

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

}  // namespace
}  // namespace vfio_ioctls
