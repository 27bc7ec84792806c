// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Interrupts, and what is registered for as long as a handle of it lives.
#include <gtest/gtest.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "handles.hpp"
#include "kvm_ioctls/kvm.hpp"
#include "scripted_ioctl.hpp"

namespace kvm_ioctls {
namespace {

// What the registrations undo, and how often.
TEST(Handles, RegistrationsAreUndoneOnceAndNeverThoseMovedFrom) {
  Handles handles;
  std::vector<unsigned long> undone;
  const ScriptedIoctl kernel([&](int, unsigned long request, void* argument) {
    if (request == KVM_IRQFD) {
      const auto& irqfd = *static_cast<const kvm_irqfd*>(argument);
      if ((irqfd.flags & KVM_IRQFD_FLAG_DEASSIGN) != 0) undone.push_back(irqfd.gsi);
    } else if (request == KVM_IOEVENTFD) {
      const auto& event = *static_cast<const kvm_ioeventfd*>(argument);
      if ((event.flags & KVM_IOEVENTFD_FLAG_DEASSIGN) != 0) {
        EXPECT_EQ(event.flags, __u32{KVM_IOEVENTFD_FLAG_DEASSIGN | KVM_IOEVENTFD_FLAG_DATAMATCH});
        EXPECT_EQ(event.datamatch, 0u);
        undone.push_back(event.addr);
      }
    } else if (request == KVM_UNREGISTER_COALESCED_MMIO) {
      undone.push_back(static_cast<const kvm_coalesced_mmio_zone*>(argument)->addr);
    } else if (request == KVM_HYPERV_EVENTFD) {
      const auto& event = *static_cast<const kvm_hyperv_eventfd*>(argument);
      if (event.flags == KVM_HYPERV_EVENTFD_DEASSIGN) undone.push_back(event.conn_id);
    }
    return 0;
  });
  const int eventfd = handles.eventfd.get();
  {
    auto irqfd = handles.vm.register_irqfd(eventfd, 1).assume_value();
    auto moved = std::move(irqfd);
    EXPECT_NE(moved.eventfd(), eventfd) << "it is to have a duplicate";
    auto event =
        handles.vm.register_ioeventfd({.address = 2, .datamatch = 0}, eventfd).assume_value();
    auto zone = handles.vm.register_coalesced_mmio(3, 8).assume_value();
    auto connection = handles.vm.register_hyperv_eventfd(4, eventfd).assume_value();
    EXPECT_TRUE(zone.unregister());
    EXPECT_TRUE(zone.unregister());
    EXPECT_EQ(undone, std::vector<unsigned long>{3});
    EXPECT_TRUE(irqfd.unregister());  // NOLINT(bugprone-use-after-move)
    connection = handles.vm.register_hyperv_eventfd(5, eventfd).assume_value();
    EXPECT_EQ(undone, (std::vector<unsigned long>{3, 4}));
    EXPECT_TRUE(connection.unregister());
    EXPECT_TRUE(connection.unregister());
    EXPECT_EQ(undone, (std::vector<unsigned long>{3, 4, 5}));
  }
  EXPECT_EQ(undone, (std::vector<unsigned long>{3, 4, 5, 2, 1}));
}

TEST(Handles, AnInterruptIsAskedForAsItWasGiven) {
  Handles handles;
  kvm_irq_level line{};
  kvm_irqfd irqfd{};
  const ScriptedIoctl kernel([&](int, unsigned long request, void* argument) {
    if (request == KVM_IRQ_LINE || request == KVM_IRQ_LINE_STATUS) {
      line = *static_cast<const kvm_irq_level*>(argument);
    } else if ((static_cast<const kvm_irqfd*>(argument)->flags & KVM_IRQFD_FLAG_DEASSIGN) == 0) {
      irqfd = *static_cast<const kvm_irqfd*>(argument);
    }
    return 0;
  });
  for (const bool level : {true, false}) {
    EXPECT_TRUE(handles.vm.irq_line(5, level));
    EXPECT_EQ(std::pair(line.irq, line.level), std::pair(5u, level ? 1u : 0u));
    EXPECT_TRUE(handles.vm.irq_line_status(6, level));
    EXPECT_EQ(std::pair(line.irq, line.level), std::pair(6u, level ? 1u : 0u));
  }
  const int eventfd = handles.eventfd.get();
  EXPECT_TRUE(handles.vm.register_irqfd(eventfd, 9));
  EXPECT_EQ(irqfd.gsi, 9u);
  EXPECT_EQ(irqfd.flags, 0u);
  EXPECT_TRUE(handles.vm.register_irqfd(eventfd, 10, eventfd));
  EXPECT_EQ(irqfd.gsi, 10u);
  EXPECT_EQ(irqfd.flags, __u32{KVM_IRQFD_FLAG_RESAMPLE});
  EXPECT_EQ(irqfd.resamplefd, static_cast<unsigned>(eventfd));
}

TEST(Handles, AFailureToUndoIsToldAndNotRepeated) {
  Handles handles;
  int undone = 0;
  const ScriptedIoctl kernel([&](int, unsigned long, void* argument) {
    if (static_cast<const kvm_irqfd*>(argument)->flags != KVM_IRQFD_FLAG_DEASSIGN) return 0;
    ++undone;
    errno = EIO;
    return -1;
  });
  auto irqfd = handles.vm.register_irqfd(handles.eventfd.get(), 6).assume_value();
  EXPECT_EQ(irqfd.unregister().error(), (vmm_base::Error{"KVM_IRQFD", EIO, 6}));
  EXPECT_TRUE(irqfd.unregister());
  EXPECT_EQ(undone, 1);
}

TEST(Handles, NoFdIsAnErrorOfItsOwn) {
  Handles handles;
  EXPECT_EQ(handles.vm.register_irqfd(-1, 5).error(),
            (vmm_base::Error{"fcntl(F_DUPFD_CLOEXEC)", EBADF, 0xffffffff}));
}

TEST(Request, OfATypeIsCalledByIt) {
  constexpr Request<kvm_irq_level> irq_line{"KVM_IRQ_LINE", KVM_IRQ_LINE};
  kvm_irq_level line{};
  line.irq = 5;
  {
    const ScriptedIoctl kernel([](int fd, unsigned long request, void* argument) {
      EXPECT_EQ(fd, 77);
      EXPECT_EQ(request, KVM_IRQ_LINE);
      return static_cast<int>(static_cast<const kvm_irq_level*>(argument)->irq);
    });
    EXPECT_EQ(call(77, irq_line, line).value(), 5);
    EXPECT_EQ(call(77, irq_line, std::as_const(line)).value(), 5);
  }
  EXPECT_EQ(call(-1, irq_line, line, 9).error(), (vmm_base::Error{"KVM_IRQ_LINE", EBADF, 9}));
}

}  // namespace
}  // namespace kvm_ioctls
