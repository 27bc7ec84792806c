// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A serial port, whatever its guest does.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cstdint>
#include <deque>
#include <numeric>
#include <tuple>
#include <vector>

#include "serial_line.hpp"
#include "vm_superio/serial.hpp"

namespace vm_superio {
namespace {

using Bytes = std::vector<std::uint8_t>;

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
