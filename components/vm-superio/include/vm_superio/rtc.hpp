// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A PC's real-time clock and its 114 bytes of RAM, the CMOS, at ports 0x70 and 0x71. It tells the
// time, in UTC. It raises no interrupts, and the guest can't set it.
//
//   vm_superio::Rtc rtc([] { return ::time(nullptr); });
//   rtc.write(port - 0x70, value);  value = rtc.read(port - 0x70);
//
// Registers are those of the Motorola MC146818A, century as ACPI's and QEMU's, at 0x32.
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <ctime>
#include <type_traits>
#include <utility>

namespace vm_superio {

struct RtcState {
  std::uint8_t index = 0;                 // The register that port 0x71 is, 0 to 127.
  std::array<std::uint8_t, 128> bytes{};  // As written; the clock's own registers are of no effect.
  friend bool operator==(const RtcState&, const RtcState&) = default;
};

// `Now` answers with seconds since 1970, UTC. For one thread at a time.
template <class Now>
requires std::invocable<Now&> && std::convertible_to<std::invoke_result_t<Now&>, std::time_t>
class Rtc {
 public:
  static constexpr std::uint16_t first_port = 0x70;
  static constexpr std::uint16_t port_count = 2;

  explicit Rtc(Now now) : now_(std::move(now)) {
    state_.bytes[status_a] = 0x26;  // 32 kHz, 1024 Hz
    state_.bytes[status_b] = hours_24;
  }

  // The guest's IN and OUT of a byte; `offset` 0 is the index, 1 the register that it selects.
  [[nodiscard]] std::uint8_t read(unsigned offset) {
    return offset % port_count == 0 ? 0xff : read_register();
  }
  void write(unsigned offset, std::uint8_t value) {
    // The index's highest bit masks NMIs, which is not for us.
    if (offset % port_count == 0) {
      state_.index = value & 0x7f;
    } else {
      state_.bytes[state_.index] = value;
    }
  }

  [[nodiscard]] const RtcState& state() const noexcept { return state_; }
  // Any state will do.
  void restore(const RtcState& state) noexcept {
    state_ = state;
    state_.index &= 0x7f;
  }

 private:
  enum Register : std::uint8_t {
    seconds = 0,
    minutes = 2,
    hours = 4,
    weekday = 6,
    day = 7,
    month = 8,
    year = 9,
    status_a = 10,
    status_b = 11,
    status_c = 12,
    status_d = 13,
    century = 0x32,
  };
  static constexpr std::uint8_t update_in_progress = 0x80;  // of A
  static constexpr std::uint8_t hours_24 = 2;               // of B
  static constexpr std::uint8_t binary = 4;                 // of B; else BCD
  static constexpr std::uint8_t valid = 0x80;               // of D: the battery is well
  static constexpr std::uint8_t pm = 0x80;

  std::uint8_t read_register() {
    switch (state_.index) {
      case status_a:
        // An update takes no time: it is never seen in progress.
        return state_.bytes[status_a] & static_cast<std::uint8_t>(~update_in_progress);
      case status_c:
        return 0;
      case status_d:
        return valid;
      case seconds:
      case minutes:
      case hours:
      case weekday:
      case day:
      case month:
      case year:
      case century:
        return time_register();
      default:
        return state_.bytes[state_.index];
    }
  }

  std::uint8_t time_register() {
    const std::time_t now = now_();
    std::tm utc{};
    ::gmtime_r(&now, &utc);
    switch (state_.index) {
      case seconds:
        return encoded(utc.tm_sec);
      case minutes:
        return encoded(utc.tm_min);
      case hours:
        if ((state_.bytes[status_b] & hours_24) != 0) return encoded(utc.tm_hour);
        return static_cast<std::uint8_t>(encoded((utc.tm_hour + 11) % 12 + 1) |
                                         (utc.tm_hour >= 12 ? pm : 0));
      case weekday:
        return encoded(utc.tm_wday + 1);
      case day:
        return encoded(utc.tm_mday);
      case month:
        return encoded(utc.tm_mon + 1);
      case year:
        return encoded(utc.tm_year % 100);
      default:
        return encoded(utc.tm_year / 100 + 19);
    }
  }

  [[nodiscard]] std::uint8_t encoded(int value) const noexcept {
    const bool as_is = (state_.bytes[status_b] & binary) != 0;
    return static_cast<std::uint8_t>(as_is ? value : value / 10 << 4 | value % 10);
  }

  Now now_;
  RtcState state_;
};

}  // namespace vm_superio
