// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Any sequence of port accesses, input, saves and restores of any state. What the guest has been
// sent it reads, in order, but for what it clears; the line is high exactly while an interrupt is
// pending and connected; no refusal is forgotten, and none is made up.
#include <fuzzer/FuzzedDataProvider.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "must.hpp"
#include "vm_superio/serial.hpp"

namespace vm_superio {
namespace {

struct Line {
  void transmit(std::uint8_t byte) { sent.push_back(byte); }
  void set_interrupt(bool level) {
    MUST(level != interrupt);  // called only when it changes
    interrupt = level;
  }
  void ready_for_input() { ++ready; }

  std::vector<std::uint8_t> sent;
  bool interrupt = false;
  int ready = 0;
};

enum Register : unsigned { rbr, ier, iir, lcr, mcr, lsr, msr, scr };

class Sequence {
 public:
  explicit Sequence(FuzzedDataProvider& input) : input_(input) {}

  void step() {
    const int ready = line_.ready;
    const bool refused = serial_.state().input_refused;
    switch (input_.ConsumeIntegralInRange(0, 7)) {
      case 0:
      case 1:
      case 2:
        read(input_.ConsumeIntegral<std::uint8_t>());
        break;
      case 3:
      case 4:
      case 5:
        write(input_.ConsumeIntegral<std::uint8_t>(), input_.ConsumeIntegral<std::uint8_t>());
        break;
      case 6:
        receive();
        break;
      default:
        return restore();
    }
    check();
    // One who was refused is told, once, as soon as there is room and all has been read.
    const bool is_told = line_.ready != ready;
    MUST(line_.ready - ready <= 1);
    if (is_told) MUST(refused && expected_.empty() && serial_.room() != 0);
    if (serial_.state().input_refused) MUST(serial_.room() == 0 || !expected_.empty());
  }

 private:
  [[nodiscard]] bool dlab() const { return (serial_.state().line_control & 0x80) != 0; }
  [[nodiscard]] bool loopback() const { return (serial_.state().modem_control & 0x10) != 0; }

  void read(unsigned offset) {
    const bool is_data = offset % 8 == rbr && !dlab();
    const std::uint8_t value = serial_.read(offset);
    if (!is_data) return;
    MUST(value == (expected_.empty() ? 0 : expected_.front()));
    if (!expected_.empty()) expected_.pop_front();
  }
  void write(unsigned offset, std::uint8_t value) {
    const bool is_data = offset % 8 == rbr && !dlab();
    const std::size_t sent = line_.sent.size();
    const bool had_fifos = serial_.state().fifos;
    const std::size_t capacity = had_fifos ? 16 : 1;
    serial_.write(offset, value);
    if (is_data && loopback()) {
      MUST(line_.sent.size() == sent);
      if (expected_.size() < capacity) expected_.push_back(value);
    } else if (is_data) {
      MUST(line_.sent.size() == sent + 1 && line_.sent.back() == value);
    } else {
      MUST(line_.sent.size() == sent);
    }
    const bool fifos = (value & 1) != 0;
    if (offset % 8 == iir && (fifos != had_fifos || (fifos && (value & 2) != 0))) expected_.clear();
    if (offset % 8 == scr) MUST(serial_.read(scr) == value);
  }
  void receive() {
    auto bytes =
        input_.ConsumeBytes<std::uint8_t>(input_.ConsumeIntegralInRange<std::size_t>(0, 24));
    const std::size_t room = serial_.room();
    const std::size_t taken = serial_.receive(bytes);
    MUST(taken == std::min(room, bytes.size()));
    MUST(!loopback() || taken == 0);
    for (std::size_t at = 0; at < taken; ++at) expected_.push_back(bytes[at]);
    if (taken < bytes.size()) MUST(serial_.state().input_refused);
  }
  void restore() {
    SerialState state;
    const auto bytes = input_.ConsumeBytes<std::uint8_t>(state.input.size());
    std::copy(bytes.begin(), bytes.end(), state.input.begin());
    state.input_size = input_.ConsumeIntegral<std::uint8_t>();
    for (std::uint8_t* field :
         {&state.divisor_low, &state.divisor_high, &state.interrupt_enable, &state.line_control,
          &state.modem_control, &state.modem_delta, &state.scratch}) {
      *field = input_.ConsumeIntegral<std::uint8_t>();
    }
    state.fifos = input_.ConsumeBool();
    state.overrun = input_.ConsumeBool();
    state.transmitter_empty_pending = input_.ConsumeBool();
    state.input_refused = input_.ConsumeBool();
    const SerialState before = serial_.state();
    if (!serial_.restore(state)) {
      MUST(serial_.state() == before);
      return;
    }
    MUST(serial_.state() == state);
    expected_.assign(state.input.begin(), state.input.begin() + state.input_size);
    check();
  }

  // By the data sheet's table of priorities.
  static std::uint8_t expected_interrupt(const SerialState& state) {
    const auto enabled = [&](std::uint8_t bit) { return (state.interrupt_enable & bit) != 0; };
    if (enabled(4) && state.overrun) return 6;
    if (enabled(1) && state.input_size != 0) return 4;
    if (enabled(2) && state.transmitter_empty_pending) return 2;
    if (enabled(8) && state.modem_delta != 0) return 0;
    return 1;
  }

  void check() {
    const SerialState& state = serial_.state();
    MUST(state.input_size == expected_.size() && state.input_size <= state.input.size());
    MUST(std::equal(expected_.begin(), expected_.end(), state.input.begin()));
    MUST(serial_.room() <= 16);
    // A copy, as reading IIR acknowledges.
    Line copied_line;
    Serial<Line> copy(copied_line);
    MUST(copy.restore(state).has_value());
    MUST(copied_line.interrupt == line_.interrupt);
    const bool connected = (copy.read(mcr) & 0x18) == 0x08;
    const std::uint8_t id = copy.read(iir);
    MUST(line_.interrupt == (connected && (id & 1) == 0));
    MUST((id & 0xf) == expected_interrupt(state));
    MUST((id & 0xc0) == (state.fifos ? 0xc0 : 0));
    MUST(((copy.read(lsr) & 1) != 0) == !expected_.empty());
  }

  FuzzedDataProvider& input_;
  Line line_;
  Serial<Line> serial_{line_};
  std::deque<std::uint8_t> expected_;  // what the guest has still to read
};

}  // namespace
}  // namespace vm_superio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  vm_superio::Sequence sequence(input);
  for (int steps = 0; steps < 200 && input.remaining_bytes() > 0; ++steps) sequence.step();
  return 0;
}
