// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a guest finds at the ports of the small PC.
#include "pc_ports.hpp"

#include <gtest/gtest.h>

#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "kvm_ioctls/double.hpp"
#include "machine.hpp"

namespace vmm_reference {
namespace {

struct PcPortsTest : testing::Test {
  kvm_ioctls::KvmDouble kvm;
  Host host = std::get<Host>(Host::open(kvm.path()));
  Machine machine =
      create_machine(host, {.ram_size = 2 << 20, .vcpu_count = 1, .all_running = true}).value();
  boost::asio::io_context loop;
  Console console{loop, [] {}};
  HostErrors errors;
  std::vector<Ending> endings;
  PcPorts ports{machine.vm, console, errors, [this](Ending how) { endings.push_back(how); }};

  std::uint8_t in(std::uint16_t port) {
    std::byte value{0x55};
    ports.in(port, {&value, 1});
    return std::to_integer<std::uint8_t>(value);
  }
  void out(std::uint16_t port, std::uint8_t value) {
    const std::byte byte{value};
    EXPECT_TRUE(ports.out(port, {&byte, 1}));
  }
};

TEST_F(PcPortsTest, NothingIsAllOnesButAPitThatNobodyShouldWaitFor) {
  EXPECT_EQ(in(0x64 + 0x100), 0xff);
  EXPECT_EQ(in(0x40), 0xff);
  EXPECT_NE(in(pit_counter), 0xff);
  out(0x80, 1);
  EXPECT_TRUE(endings.empty());
  std::vector<std::byte> wide(4);
  ports.in(0x300, wide);
  EXPECT_EQ(wide, std::vector<std::byte>(4, std::byte{0xff}));
}

TEST_F(PcPortsTest, EachWayToEndIsToldOnce) {
  EXPECT_EQ(in(linux_loader::sleep_status_port), 0);
  out(linux_loader::sleep_control_port, 0x34);  // S5, and SLP_EN
  ASSERT_EQ(endings, std::vector{Ending::poweroff});
  EXPECT_EQ(in(vm_superio::i8042_command_port)&2, 0);  // its input buffer is empty
  out(vm_superio::i8042_command_port, 0xfe);
  EXPECT_EQ(endings, (std::vector{Ending::poweroff, Ending::reboot}));
}

// The UART's scratch register, and an interrupt that its line can be had for.
TEST_F(PcPortsTest, TheSerialPortTakesWhatIsTypedAndInterrupts) {
  out(linux_loader::com1_port + 7, 0xa5);
  EXPECT_EQ(in(linux_loader::com1_port + 7), 0xa5);
  out(linux_loader::com1_port + 4, 8);  // MCR: OUT2, by which a PC's UART has its interrupt
  out(linux_loader::com1_port + 1, 1);  // IER: received data
  const std::uint8_t typed[] = {'h', 'i'};
  EXPECT_EQ(ports.type(typed), 1u);  // without FIFOs
  const auto lines = kvm.calls(KVM_IRQ_LINE);
  ASSERT_FALSE(lines.empty());
  EXPECT_EQ(lines.back().argument<kvm_irq_level>().irq, linux_loader::com1_gsi);
  EXPECT_EQ(lines.back().argument<kvm_irq_level>().level, 1u);
  EXPECT_EQ(in(linux_loader::com1_port), 'h');
  EXPECT_EQ(kvm.calls(KVM_IRQ_LINE).back().argument<kvm_irq_level>().level, 0u);
}

TEST_F(PcPortsTest, AnInterruptThatCannotBeSetIsToldWhenTheGuestIsDone) {
  kvm.fail(KVM_IRQ_LINE, EIO);
  out(linux_loader::com1_port + 4, 8);
  out(linux_loader::com1_port + 1, 1);
  const std::uint8_t typed[] = {'x'};
  EXPECT_EQ(ports.type(typed), 1u);
  EXPECT_NE(errors.message().find("KVM_IRQ_LINE"), std::string::npos) << errors.message();
}

TEST_F(PcPortsTest, WhatWasSavedIsRestored) {
  out(linux_loader::com1_port + 7, 0x3c);
  out(0x70, 0x0b);
  const PortsSnapshot saved = ports.save();
  out(linux_loader::com1_port + 7, 0);
  const std::uint8_t status = in(0x71);
  out(0x70, 0);
  ASSERT_TRUE(ports.restore(saved));
  EXPECT_EQ(in(linux_loader::com1_port + 7), 0x3c);
  EXPECT_EQ(in(0x71), status);  // of register B, which was chosen
}

}  // namespace
}  // namespace vmm_reference
