// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vm_superio/serial.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <ctime>
#include <deque>
#include <numeric>
#include <string>
#include <vector>

#include "vm_superio/i8042.hpp"
#include "vm_superio/rtc.hpp"

namespace vm_superio {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr std::uint16_t rbr = 0, thr = 0, ier = 1, iir = 2, fcr = 2, lcr = 3, mcr = 4, lsr = 5,
                        msr = 6, scr = 7;

struct Line {
  void transmit(std::uint8_t byte) { output.push_back(static_cast<char>(byte)); }
  void set_interrupt(bool level) {
    EXPECT_NE(level, interrupt) << "called without a change";
    interrupt = level;
    ++changes;
  }
  void ready_for_input() { ++ready; }

  std::string output;
  bool interrupt = false;
  int changes = 0;
  int ready = 0;
};
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

// --- The README's example, word for word ---

struct Com1 {
  void transmit(std::uint8_t byte) { console.push_back(static_cast<char>(byte)); }
  void set_interrupt(bool level) { irq4 = level; }
  void ready_for_input() { want_input = true; }

  std::string console;
  bool irq4 = false;
  bool want_input = true;
};

// An OUT or IN of the guest's; whether it goes on.
template <class Rtc>
bool handle_port(Serial<Com1>& com1, Rtc& rtc, std::uint16_t port, bool is_write,
                 std::uint8_t& value) {
  const auto device = [&](auto& it, unsigned first) {
    if (is_write) {
      it.write(port - first, value);
    } else {
      value = it.read(port - first);
    }
    return true;
  };
  if (port >= 0x3f8 && port < 0x400) return device(com1, 0x3f8);
  if (port == 0x70 || port == 0x71) return device(rtc, 0x70);
  if (is_write) return !i8042_resets(port, value);
  const bool keyboard = port == i8042_data_port || port == i8042_command_port;
  value = keyboard ? i8042_read(port) : 0xff;  // Nobody answers.
  return true;
}

TEST(Readme, ExampleServesPorts) {
  Com1 line;
  Serial<Com1> com1(line);
  Rtc rtc([] { return std::time_t{0}; });
  const auto out = [&](std::uint16_t port, std::uint8_t value) {
    return handle_port(com1, rtc, port, true, value);
  };
  const auto in = [&](std::uint16_t port) {
    std::uint8_t value = 0;
    EXPECT_TRUE(handle_port(com1, rtc, port, false, value));
    return value;
  };
  EXPECT_TRUE(out(0x3f8, 'x'));
  EXPECT_EQ(line.console, "x");
  EXPECT_EQ(in(0x3fd), 0x60);
  EXPECT_TRUE(out(0x70, 9));
  EXPECT_EQ(in(0x71), 0x70);
  EXPECT_EQ(in(0x64), 0);
  EXPECT_EQ(in(0x80), 0xff);
  EXPECT_TRUE(out(0x64, 0xd1));
  EXPECT_FALSE(out(0x64, 0xfe));
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

// --- Whatever the guest does ---

struct Step {
  enum Kind { in, out, typed } kind;
  std::uint16_t offset;
  std::uint8_t value;  // typed: how many bytes
};

rc::Gen<std::vector<Step>> steps() {
  return rc::gen::container<std::vector<Step>>(rc::gen::map(
      rc::gen::tuple(rc::gen::element(Step::in, Step::out, Step::out, Step::typed),
                     rc::gen::inRange<std::uint16_t>(0, 8), rc::gen::arbitrary<std::uint8_t>()),
      [](const auto& t) {
        return Step{std::get<0>(t), std::get<1>(t), std::get<2>(t)};
      }));
}

int take(Serial<Line>& serial, const Step& step) {
  switch (step.kind) {
    case Step::in:
      return serial.read(step.offset);
    case Step::out:
      serial.write(step.offset, step.value);
      return 0;
    case Step::typed:
      break;
  }
  Bytes bytes(step.value % 40);
  std::iota(bytes.begin(), bytes.end(), step.value);
  const std::size_t room = serial.room();
  const std::size_t taken = serial.receive(bytes);
  RC_ASSERT(taken == std::min(room, bytes.size()));
  return static_cast<int>(taken);
}

RC_GTEST_PROP(AnyGuest, SeesTheLineHighExactlyWhileAnInterruptIsPending, ()) {
  Line line;
  Serial<Line> serial(line);
  for (const Step& step : *steps()) {
    take(serial, step);
    // A copy, as reading IIR acknowledges.
    Line copied_line;
    Serial<Line> copy(copied_line);
    RC_ASSERT(copy.restore(serial.state()).has_value());
    const bool connected = (copy.read(mcr) & 0x18) == 0x08;
    RC_ASSERT(line.interrupt == (connected && (copy.read(iir) & 1) == 0));
    RC_ASSERT(serial.room() <= 16);
  }
}

RC_GTEST_PROP(AnyGuest, ReadsAllThatWasTypedInOrder, ()) {
  Line line;
  Serial<Line> serial(line);
  std::deque<std::uint8_t> typed;
  serial.write(fcr, 1);
  std::uint8_t next = 0;
  for (const Step& step : *steps()) {
    if (step.kind == Step::typed) {
      Bytes bytes(step.value % 40);
      for (auto& byte : bytes) byte = next++;
      const auto taken = serial.receive(bytes);
      next = static_cast<std::uint8_t>(next - (bytes.size() - taken));
      typed.insert(typed.end(), bytes.begin(), bytes.begin() + static_cast<long>(taken));
    } else if (step.kind == Step::in && step.offset == rbr) {
      const std::uint8_t expected = typed.empty() ? 0 : typed.front();
      if (!typed.empty()) typed.pop_front();
      RC_ASSERT(serial.read(rbr) == expected);
    } else if (step.kind == Step::in) {
      (void)serial.read(step.offset);
    } else if (step.offset == ier || step.offset == scr) {
      serial.write(step.offset, step.value);
    }
    RC_ASSERT(((serial.read(lsr) & 1) != 0) == !typed.empty());
  }
}

RC_GTEST_PROP(AnyGuest, DoesntNoticeASaveAndRestore, ()) {
  Line line, restored_line;
  Serial<Line> serial(line);
  for (const Step& step : *steps()) take(serial, step);
  Serial<Line> restored(restored_line);
  RC_ASSERT(restored.restore(serial.state()).has_value());
  const auto output = line.output.size();
  const auto ready = line.ready;
  for (const Step& step : *steps()) {
    RC_ASSERT(take(serial, step) == take(restored, step));
    RC_ASSERT(line.interrupt == restored_line.interrupt);
  }
  RC_ASSERT(line.output.substr(output) == restored_line.output);
  RC_ASSERT(line.ready - ready == restored_line.ready);
  RC_ASSERT(serial.state() == restored.state());
}

RC_GTEST_PROP(AnyGuest, IsAskedForMoreAfterARefusalOnceItHasReadAll, ()) {
  Line line;
  Serial<Line> serial(line);
  for (const Step& step : *steps()) take(serial, step);
  serial.write(lcr, 0);
  serial.write(mcr, 0);
  const int before = line.ready;
  const bool refused = serial.state().input_refused;
  while ((serial.read(lsr) & 1) != 0) (void)serial.read(rbr);
  RC_ASSERT(line.ready == before + (refused ? 1 : 0));
}

}  // namespace
}  // namespace vm_superio
