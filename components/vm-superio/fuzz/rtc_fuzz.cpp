// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Any sequence of port accesses and restored states, at any time: 114 bytes are RAM, the clock
// can't be set and tells the time in both forms, and what is saved goes on as it was.
#include <fuzzer/FuzzedDataProvider.h>

#include <array>
#include <cstdint>
#include <ctime>

#include "must.hpp"
#include "vm_superio/rtc.hpp"

namespace {

constexpr std::uint8_t status_b = 11;

bool is_clock(std::uint8_t index) {
  return index <= 9 ? index != 1 && index != 3 && index != 5 : index == 0x32;
}
bool is_status(std::uint8_t index) { return index >= 10 && index <= 13; }

// A field as its form has it.
bool reads(std::uint8_t value, int time, std::uint8_t form) {
  const int as_number = (form & 4) != 0 ? value : (value >> 4) * 10 + (value & 0xf);
  return as_number == time;
}

void run(FuzzedDataProvider& input) {
  std::time_t now = 0;
  const auto clock = [&now] { return now; };
  vm_superio::Rtc rtc(clock);
  std::array<std::uint8_t, 128> bytes = rtc.state().bytes;
  std::uint8_t index = 0;
  for (int steps = 0; steps < 200 && input.remaining_bytes() > 0; ++steps) {
    const unsigned offset = input.ConsumeIntegral<std::uint8_t>();
    switch (input.ConsumeIntegralInRange(0, 4)) {
      case 0: {
        const auto value = input.ConsumeIntegral<std::uint8_t>();
        rtc.write(offset, value);
        if (offset % 2 == 0) {
          index = value & 0x7f;
        } else {
          bytes[index] = value;
        }
        break;
      }
      case 1:
      case 2: {
        const std::uint8_t value = rtc.read(offset);
        if (offset % 2 == 0) {
          MUST(value == 0xff);
        } else if (!is_clock(index) && !is_status(index)) {
          MUST(value == bytes[index]);
        } else if (index == 10) {
          MUST((value & 0x80) == 0);
        } else if (index == 12 || index == 13) {
          MUST(value == (index == 12 ? 0 : 0x80));
        } else if (now >= 0 && now < std::time_t{200} * 365 * 86400) {
          if (index == 0) MUST(reads(value, static_cast<int>(now % 60), bytes[status_b]));
          if (index == 2) MUST(reads(value, static_cast<int>(now / 60 % 60), bytes[status_b]));
          if (index == 4 && (bytes[status_b] & 2) != 0) {
            MUST(reads(value, static_cast<int>(now / 3600 % 24), bytes[status_b]));
          }
        }
        break;
      }
      case 3:
        now = input.ConsumeBool() ? input.ConsumeIntegral<std::time_t>()
                                  : input.ConsumeIntegral<std::uint32_t>();
        break;
      default: {
        vm_superio::RtcState state = rtc.state();
        if (input.ConsumeBool()) {
          state.index = input.ConsumeIntegral<std::uint8_t>();
          for (int pokes = input.ConsumeIntegralInRange(0, 3); pokes > 0; --pokes) {
            state.bytes[input.ConsumeIntegral<std::uint8_t>() & 0x7f] =
                input.ConsumeIntegral<std::uint8_t>();
          }
        }
        rtc.restore(state);
        index = state.index & 0x7f;
        bytes = state.bytes;
      }
    }
    MUST(rtc.state().index == index && rtc.state().bytes == bytes);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  run(input);
  return 0;
}
