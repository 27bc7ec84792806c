// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vm_superio/serial.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "serial_line.hpp"

namespace vm_superio {
namespace {

using Bytes = std::vector<std::uint8_t>;

static_assert(SerialLine<Line>);
struct NoInput {
  void transmit(std::uint8_t);
  void set_interrupt(bool);
};
static_assert(!SerialLine<NoInput>);

class SerialTest : public ::testing::Test {
 protected:
  // As Linux has it while a console is open.
  void open(std::uint8_t interrupts) {
    serial_.write(fcr, 1);
    serial_.write(mcr, 0x0b);  // OUT2 RTS DTR
    serial_.write(ier, interrupts);
  }
  std::size_t type(const std::string& text) {
    return serial_.receive(
        std::span(reinterpret_cast<const std::uint8_t*>(text.data()), text.size()));
  }
  std::string read_all() {
    std::string text;
    while ((serial_.read(lsr) & 1) != 0) text += static_cast<char>(serial_.read(rbr));
    return text;
  }

  Line line_;
  Serial<Line> serial_{line_};
};

TEST_F(SerialTest, StartsAsAfterReset) {
  EXPECT_EQ(serial_.read(ier), 0);
  EXPECT_EQ(serial_.read(iir), 1);
  EXPECT_EQ(serial_.read(mcr), 0);
  EXPECT_EQ(serial_.read(lsr), 0x60);
  EXPECT_EQ(serial_.read(msr), 0xb0);
  EXPECT_EQ(serial_.read(rbr), 0);
  EXPECT_EQ(line_.changes, 0);
}

TEST_F(SerialTest, TransmitsAtOnceAndIsAlwaysReadyForMore) {
  for (const char c : std::string("hello\n\xff\0", 8)) {
    serial_.write(thr, static_cast<std::uint8_t>(c));
    EXPECT_EQ(serial_.read(lsr), 0x60);
  }
  EXPECT_EQ(line_.output, std::string("hello\n\xff\0", 8));
}

TEST_F(SerialTest, KeepsTheDivisorApartFromTheData) {
  serial_.write(lcr, 0x83);
  serial_.write(0, 0x34);
  serial_.write(1, 0x12);
  EXPECT_EQ(serial_.read(0), 0x34);
  EXPECT_EQ(serial_.read(1), 0x12);
  serial_.write(lcr, 0x03);
  EXPECT_EQ(serial_.read(0), 0);
  EXPECT_EQ(serial_.read(1), 0);
  EXPECT_EQ(line_.output, "");
}

TEST_F(SerialTest, HoldsWhatIsWrittenToTheOtherRegisters) {
  serial_.write(scr, 0xa5);
  EXPECT_EQ(serial_.read(scr), 0xa5);
  serial_.write(ier, 0xff);
  EXPECT_EQ(serial_.read(ier), 0x0f);
  serial_.write(mcr, 0xef);
  EXPECT_EQ(serial_.read(mcr), 0x0f);
  serial_.write(lsr, 0xff);
  EXPECT_EQ(serial_.read(lsr), 0x60);
}

// --- Input ---

TEST_F(SerialTest, HandsOverInputInOrder) {
  open(0);
  EXPECT_EQ(type("abc"), 3u);
  EXPECT_EQ(serial_.read(lsr), 0x61);
  EXPECT_EQ(read_all(), "abc");
  EXPECT_EQ(serial_.read(lsr), 0x60);
}

TEST_F(SerialTest, HasRoomForSixteenBytesOrWithoutFifosForOne) {
  EXPECT_EQ(serial_.room(), 1u);
  EXPECT_EQ(type("ab"), 1u);
  EXPECT_EQ(read_all(), "a");
  serial_.write(fcr, 1);
  EXPECT_EQ(serial_.room(), 16u);
  EXPECT_EQ(type("0123456789abcdefgh"), 16u);
  EXPECT_EQ(serial_.room(), 0u);
  EXPECT_EQ(type("x"), 0u);
  EXPECT_EQ(read_all(), "0123456789abcdef");
}

TEST_F(SerialTest, AsksForMoreOnceItIsEmptyAndOnlyAfterARefusal) {
  open(0);
  EXPECT_EQ(type("0123456789abcdef"), 16u);
  read_all();
  EXPECT_EQ(line_.ready, 0);

  EXPECT_EQ(type("0123456789abcdefg"), 16u);
  for (int i = 0; i < 15; ++i) {
    EXPECT_EQ(serial_.read(rbr), "0123456789abcdef"[i]);
    EXPECT_EQ(line_.ready, 0);
  }
  EXPECT_EQ(serial_.read(rbr), 'f');
  EXPECT_EQ(line_.ready, 1);
  EXPECT_EQ(serial_.read(rbr), 0);
  EXPECT_EQ(line_.ready, 1);
}

TEST_F(SerialTest, AsksForMoreWhenTheGuestClearsTheFifoOrLeavesLoopback) {
  open(0);
  EXPECT_EQ(type("0123456789abcdefg"), 16u);
  serial_.write(fcr, 3);
  EXPECT_EQ(serial_.read(lsr), 0x60);
  EXPECT_EQ(line_.ready, 1);

  serial_.write(mcr, 0x10);
  EXPECT_EQ(type("x"), 0u);
  EXPECT_EQ(line_.ready, 1);
  serial_.write(mcr, 0);
  EXPECT_EQ(line_.ready, 2);
}

TEST_F(SerialTest, SwitchingTheFifosEmptiesThem) {
  open(0);
  EXPECT_EQ(type("abc"), 3u);
  serial_.write(fcr, 1);
  EXPECT_EQ(serial_.room(), 13u);
  serial_.write(fcr, 2);  // Without bit 0 the others are of no effect; it switches them off.
  EXPECT_EQ(serial_.read(lsr), 0x60);
  EXPECT_EQ(serial_.read(iir), 1);
  EXPECT_EQ(type("d"), 1u);
  serial_.write(fcr, 2);
  EXPECT_EQ(read_all(), "d");
}

// --- Interrupts ---

TEST_F(SerialTest, InputInterruptsUntilItIsRead) {
  open(1);
  EXPECT_FALSE(line_.interrupt);
  EXPECT_EQ(type("ab"), 2u);
  EXPECT_TRUE(line_.interrupt);
  EXPECT_EQ(serial_.read(iir), 0xc4);
  EXPECT_TRUE(line_.interrupt);
  EXPECT_EQ(serial_.read(rbr), 'a');
  EXPECT_TRUE(line_.interrupt);
  EXPECT_EQ(serial_.read(rbr), 'b');
  EXPECT_FALSE(line_.interrupt);
  EXPECT_EQ(serial_.read(iir), 0xc1);
}

TEST_F(SerialTest, InputThatWaitedInterruptsWhenEnabled) {
  open(0);
  EXPECT_EQ(type("a"), 1u);
  EXPECT_FALSE(line_.interrupt);
  serial_.write(ier, 1);
  EXPECT_TRUE(line_.interrupt);
  serial_.write(ier, 0);
  EXPECT_FALSE(line_.interrupt);
}

TEST_F(SerialTest, AnEmptyTransmitterInterruptsOnceEnabledAndAfterEachAcknowledgedByte) {
  open(2);
  EXPECT_TRUE(line_.interrupt);
  EXPECT_EQ(serial_.read(iir), 0xc2);
  EXPECT_FALSE(line_.interrupt);
  EXPECT_EQ(serial_.read(iir), 0xc1);
  serial_.write(thr, 'a');
  EXPECT_TRUE(line_.interrupt);
  serial_.write(thr, 'b');  // Still unacknowledged: one interrupt for both.
  EXPECT_EQ(serial_.read(iir), 0xc2);
  EXPECT_FALSE(line_.interrupt);
  EXPECT_EQ(line_.changes, 4);
}

// As Linux's serial8250_THRE_test: each enabling raises it anew.
TEST_F(SerialTest, EnablingTheTransmittersInterruptRaisesItAgain) {
  open(0);
  for (int i = 0; i < 3; ++i) {
    serial_.write(ier, 2);
    EXPECT_EQ(serial_.read(iir), 0xc2);
    serial_.write(ier, 0);
  }
}

TEST_F(SerialTest, InterruptsHaveAnOrder) {
  serial_.write(mcr, 0x10);
  serial_.write(mcr, 0x13);  // DTR and RTS loop back into DSR and CTS: their change is pending.
  serial_.write(thr, 'a');
  serial_.write(thr, 'b');  // No FIFOs, so this is one too many.
  serial_.write(ier, 0xf);
  EXPECT_FALSE(line_.interrupt);  // Loopback: the line is cut.
  EXPECT_EQ(serial_.read(iir), 6);
  EXPECT_EQ(serial_.read(lsr), 0x63);
  EXPECT_EQ(serial_.read(iir), 4);
  EXPECT_EQ(serial_.read(rbr), 'a');
  EXPECT_EQ(serial_.read(iir), 2);
  EXPECT_EQ(serial_.read(iir), 0);
  EXPECT_EQ(serial_.read(msr) & 0xf, 0xb);  // DCD was there before loopback.
  EXPECT_EQ(serial_.read(iir), 1);
}

TEST_F(SerialTest, Out2ConnectsTheInterrupt) {
  open(1);
  serial_.write(mcr, 3);
  EXPECT_EQ(type("a"), 1u);
  EXPECT_FALSE(line_.interrupt);
  EXPECT_EQ(serial_.read(iir), 0xc4);
  serial_.write(mcr, 0xb);
  EXPECT_TRUE(line_.interrupt);
  serial_.write(mcr, 0x1b);
  EXPECT_FALSE(line_.interrupt);
}

// --- Loopback ---

TEST_F(SerialTest, LoopbackWiresOutputsToInputs) {
  for (std::uint8_t outputs = 0; outputs < 16; ++outputs) {
    serial_.write(mcr, static_cast<std::uint8_t>(0x10 | outputs));
    const int expected = (outputs & 2 ? 0x10 : 0) | (outputs & 1 ? 0x20 : 0) |
                         (outputs & 4 ? 0x40 : 0) | (outputs & 8 ? 0x80 : 0);
    EXPECT_EQ(serial_.read(msr) & 0xf0, expected);
  }
}

TEST_F(SerialTest, ModemStatusTellsChangesOnce) {
  serial_.write(mcr, 0x10);
  EXPECT_EQ(serial_.read(msr), 0x0b);  // DCD, DSR and CTS are gone
  EXPECT_EQ(serial_.read(msr), 0x00);
  serial_.write(mcr, 0x14);
  EXPECT_EQ(serial_.read(msr), 0x40);  // A ring that starts isn't told,
  serial_.write(mcr, 0x16);
  EXPECT_EQ(serial_.read(msr), 0x51);  // nor one that goes on,
  serial_.write(mcr, 0x12);
  EXPECT_EQ(serial_.read(msr), 0x14);  // one that ends is.
}

TEST_F(SerialTest, LoopbackKeepsBytesInside) {
  serial_.write(fcr, 1);
  serial_.write(mcr, 0x10);
  EXPECT_EQ(serial_.room(), 0u);
  EXPECT_EQ(type("x"), 0u);
  for (int i = 0; i < 20; ++i) serial_.write(thr, static_cast<std::uint8_t>('a' + i));
  EXPECT_EQ(serial_.read(lsr), 0x63);
  EXPECT_EQ(serial_.read(lsr), 0x61);
  EXPECT_EQ(read_all(), "abcdefghijklmnop");
  EXPECT_EQ(line_.output, "");
}

// --- What Linux asks to find out what this is (drivers/tty/serial/8250/8250_port.c) ---

TEST_F(SerialTest, LinuxFindsA16550A) {
  serial_.write(ier, 0);
  EXPECT_EQ(serial_.read(ier) & 0xf, 0);
  serial_.write(ier, 0xf);
  EXPECT_EQ(serial_.read(ier) & 0xf, 0xf);
  serial_.write(ier, 0);

  serial_.write(mcr, 0x1a);  // loopback, OUT2, RTS
  EXPECT_EQ(serial_.read(msr) & 0xf0, 0x90);
  serial_.write(mcr, 0);

  serial_.write(lcr, 0xbf);
  serial_.write(2, 0);  // a later chip's EFR
  serial_.write(lcr, 0);
  serial_.write(fcr, 1);
  EXPECT_EQ(serial_.read(iir) & 0xc0, 0xc0);

  for (const std::uint8_t mode : Bytes{0x80, 0xbf}) {  // no EFR
    serial_.write(lcr, mode);
    EXPECT_NE(serial_.read(2), 0);
  }
  serial_.write(lcr, 0xe0);  // no National Semiconductor banks: MCR's bit doesn't show
  EXPECT_EQ(serial_.read(2) & 0x10, 0);
  serial_.write(lcr, 0);
  serial_.write(mcr, 0x10);
  serial_.write(lcr, 0xe0);
  EXPECT_EQ(serial_.read(2) & 0x10, 0);
  serial_.write(lcr, 0);
  serial_.write(mcr, 0);

  for (const std::uint8_t mode : Bytes{0x00, 0x80}) {  // not a 16750 with its 64 bytes
    serial_.write(lcr, mode);
    serial_.write(fcr, 0x21);
    EXPECT_EQ(serial_.read(iir) & 0xe0, 0xc0);
  }
  serial_.write(lcr, 0);
  serial_.write(ier, 0x40);  // not an XScale
  EXPECT_EQ(serial_.read(ier), 0);

  serial_.write(fcr, 7);  // size_fifo: 16 bytes
  serial_.write(mcr, 0x10);
  for (int i = 0; i < 256; ++i) serial_.write(thr, static_cast<std::uint8_t>(i));
  EXPECT_EQ(read_all().size(), 16u);
}

// --- Save and restore ---

TEST_F(SerialTest, GoesOnWhereItWasSaved) {
  open(3);
  EXPECT_EQ(type("0123456789abcdefgh"), 16u);
  EXPECT_EQ(serial_.read(rbr), '0');
  Line other_line;
  Serial<Line> other(other_line);
  ASSERT_TRUE(other.restore(serial_.state()));
  EXPECT_TRUE(other_line.interrupt);
  EXPECT_EQ(other.state(), serial_.state());
  for (int i = 0; i < 15; ++i) (void)other.read(rbr);
  EXPECT_EQ(other_line.ready, 1);
  EXPECT_EQ(other.read(iir), 0xc2);
  EXPECT_FALSE(other_line.interrupt);
}

TEST_F(SerialTest, RefusesStatesThatCannotBe) {
  open(1);
  const SerialState before = serial_.state();
  const auto expect_refused = [&](const SerialState& state) {
    const auto restored = serial_.restore(state);
    ASSERT_FALSE(restored);
    EXPECT_EQ(restored.error().code, EINVAL);
    EXPECT_EQ(serial_.state(), before);
  };
  SerialState state;
  state.fifos = true;
  state.input_size = 17;
  expect_refused(state);
  state = {};
  state.input_size = 2;  // without FIFOs
  expect_refused(state);
  state = {};
  state.input_refused = true;  // by nothing that is there to be read
  expect_refused(state);
  state = {};
  state.interrupt_enable = 0x10;
  expect_refused(state);
  state = {};
  state.modem_control = 0x20;
  expect_refused(state);
  state = {};
  state.modem_delta = 0x10;
  expect_refused(state);
}

}  // namespace
}  // namespace vm_superio
