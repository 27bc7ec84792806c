// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A 16550A UART, a PC's COM1, as a guest's console. The line is infinitely fast: what the guest
// transmits is gone at once, and what it receives is there as soon as the host has given it.
//
//   struct Com1 {
//     void transmit(std::uint8_t byte) { ::putchar(byte); }
//     void set_interrupt(bool level) { vm.irq_line(4, level); }
//     void ready_for_input() { more_input.notify(); }
//   } com1;
//   vm_superio::Serial serial(com1);
//   serial.write(port - 0x3f8, value);          // the guest's OUT
//   size_t taken = serial.receive(typed);       // the rest: once more, when ready_for_input()
//
// Registers, bits and priorities are those of TI's PC16550D data sheet (SNLS378C), chapter 8.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm_base/result.hpp"

namespace vm_superio {

// What a UART is wired to. None of the three may call the Serial back.
template <class L>
concept SerialLine = requires(L& line, std::uint8_t byte, bool level) {
  { line.transmit(byte) } -> std::same_as<void>;
  // The interrupt line, high or low; called only when it changes. Low at first.
  { line.set_interrupt(level) } -> std::same_as<void>;
  // After receive() has refused some: the guest has read all there was.
  { line.ready_for_input() } -> std::same_as<void>;
};

// All that a Serial knows. Plain data of this program's own version, not of a file's.
struct SerialState {
  std::array<std::uint8_t, 16> input{};  // The oldest byte first.
  std::uint8_t input_size = 0;           // bytes of `input`
  std::uint8_t divisor_low = 12;         // 9600 baud; kept, of no effect
  std::uint8_t divisor_high = 0;
  std::uint8_t interrupt_enable = 0;
  std::uint8_t line_control = 3;  // 8 bits
  std::uint8_t modem_control = 0;
  std::uint8_t modem_delta = 0;  // MSR's lower half
  std::uint8_t scratch = 0;
  bool fifos = false;  // Else one byte of input.
  bool overrun = false;
  bool transmitter_empty_pending = false;
  bool input_refused = false;
  friend bool operator==(const SerialState&, const SerialState&) = default;
};

// For one thread at a time: hold a lock where vCPUs and an input thread share one.
template <SerialLine Line>
class Serial {
 public:
  static constexpr std::uint16_t port_count = 8;

  // `line` must outlive it.
  explicit Serial(Line& line) noexcept : line_(line) {}

  // The guest's IN and OUT of a byte; `offset` from the first port, of which the low 3 bits count.
  [[nodiscard]] std::uint8_t read(unsigned offset) {
    const std::uint8_t value = read_register(offset % port_count);
    update_interrupt();
    return value;
  }
  void write(unsigned offset, std::uint8_t value) {
    write_register(offset % port_count, value);
    update_interrupt();
  }

  // Takes as many bytes of input as there is room for, and says how many. After fewer than all,
  // ready_for_input() is called in time.
  [[nodiscard]] std::size_t receive(std::span<const std::uint8_t> bytes) {
    const std::size_t taken = std::min(bytes.size(), room());
    for (const std::uint8_t byte : bytes.first(taken)) push(byte);
    if (taken < bytes.size()) state_.input_refused = true;
    update_interrupt();
    return taken;
  }
  // What receive() would take. The guest can make it 0, for as long as it likes.
  [[nodiscard]] std::size_t room() const noexcept {
    return in_loopback() ? 0 : capacity() - std::min<std::size_t>(state_.input_size, capacity());
  }

  [[nodiscard]] const SerialState& state() const noexcept { return state_; }

  // EINVAL, and nothing is changed, for a state that no Serial can be in. Sets the interrupt line.
  [[nodiscard]] vmm_base::Result<void> restore(const SerialState& state) {
    const std::size_t most = state.fifos ? state.input.size() : 1;
    // Who was refused is told as soon as all is read: it would never be then.
    const bool is_forgotten =
        state.input_refused && state.input_size == 0 && (state.modem_control & mcr::loopback) == 0;
    if (state.input_size > most || is_forgotten || (state.interrupt_enable & ~ier::all) != 0 ||
        (state.modem_control & ~mcr::all) != 0 || (state.modem_delta & ~msr::delta) != 0) {
      return vmm_base::Error{"restore of a UART", EINVAL, state.input_size};
    }
    state_ = state;
    update_interrupt();
    return vmm_base::success();
  }

 private:
  // Registers by offset; 0 and 1 are the divisor while DLAB is set.
  enum Register : std::uint8_t {
    data,
    interrupt_enable,
    interrupt_id,  // Read; FIFO control when written.
    line_control,
    modem_control,
    line_status,
    modem_status,
    scratch,
  };
  struct ier {
    static constexpr std::uint8_t received_data = 1;
    static constexpr std::uint8_t transmitter_empty = 2;
    static constexpr std::uint8_t line_status = 4;
    static constexpr std::uint8_t modem_status = 8;
    static constexpr std::uint8_t all = 0xf;
  };
  struct iir {
    static constexpr std::uint8_t none = 1;
    static constexpr std::uint8_t modem_status = 0;
    static constexpr std::uint8_t transmitter_empty = 2;
    static constexpr std::uint8_t received_data = 4;
    static constexpr std::uint8_t line_status = 6;
    static constexpr std::uint8_t fifos = 0xc0;
  };
  struct fcr {
    static constexpr std::uint8_t enable = 1;
    static constexpr std::uint8_t clear_input = 2;
  };
  struct lcr {
    static constexpr std::uint8_t divisor_access = 0x80;
  };
  struct mcr {
    static constexpr std::uint8_t dtr = 1;
    static constexpr std::uint8_t rts = 2;
    static constexpr std::uint8_t out1 = 4;
    static constexpr std::uint8_t out2 = 8;
    static constexpr std::uint8_t loopback = 0x10;
    static constexpr std::uint8_t all = 0x1f;
  };
  struct lsr {
    static constexpr std::uint8_t data_ready = 1;
    static constexpr std::uint8_t overrun = 2;
    static constexpr std::uint8_t transmitter_empty = 0x60;  // THR and shift register
  };
  struct msr {
    static constexpr std::uint8_t delta = 0xf;
    static constexpr std::uint8_t ring_ended = 4;
    static constexpr std::uint8_t cts = 0x10;
    static constexpr std::uint8_t dsr = 0x20;
    static constexpr std::uint8_t ring = 0x40;
    static constexpr std::uint8_t dcd = 0x80;
  };

  [[nodiscard]] bool in_loopback() const noexcept {
    return (state_.modem_control & mcr::loopback) != 0;
  }
  [[nodiscard]] bool divisor_access() const noexcept {
    return (state_.line_control & lcr::divisor_access) != 0;
  }
  [[nodiscard]] std::size_t capacity() const noexcept {
    return state_.fifos ? state_.input.size() : 1;
  }

  std::uint8_t read_register(unsigned offset) {
    switch (offset) {
      case data:
        return divisor_access() ? state_.divisor_low : pop();
      case interrupt_enable:
        return divisor_access() ? state_.divisor_high : state_.interrupt_enable;
      case interrupt_id: {
        const std::uint8_t id = pending_interrupt();
        if (id == iir::transmitter_empty) state_.transmitter_empty_pending = false;
        return static_cast<std::uint8_t>(id | (state_.fifos ? iir::fifos : 0));
      }
      case line_control:
        return state_.line_control;
      case modem_control:
        return state_.modem_control;
      case line_status: {
        const unsigned status = lsr::transmitter_empty | (state_.overrun ? lsr::overrun : 0) |
                                (state_.input_size != 0 ? lsr::data_ready : 0);
        state_.overrun = false;
        return static_cast<std::uint8_t>(status);
      }
      case modem_status: {
        const unsigned status = modem_inputs() | state_.modem_delta;
        state_.modem_delta = 0;
        return static_cast<std::uint8_t>(status);
      }
      default:
        return state_.scratch;
    }
  }

  void write_register(unsigned offset, std::uint8_t value) {
    switch (offset) {
      case data:
        if (divisor_access()) {
          state_.divisor_low = value;
        } else {
          send(value);
        }
        break;
      case interrupt_enable:
        if (divisor_access()) {
          state_.divisor_high = value;
        } else {
          enable_interrupts(value & ier::all);
        }
        break;
      case interrupt_id:
        control_fifos(value);
        break;
      case line_control:
        state_.line_control = value;
        break;
      case modem_control:
        control_modem(value & mcr::all);
        break;
      case scratch:
        state_.scratch = value;
        break;
      default:  // The status registers are read-only.
        break;
    }
  }

  void send(std::uint8_t byte) {
    if (in_loopback()) {
      if (state_.input_size < capacity()) {
        push(byte);
      } else {
        state_.overrun = true;
      }
    } else {
      line_.transmit(byte);
    }
    state_.transmitter_empty_pending = true;
  }

  // Linux counts on it that enabling the interrupt raises it while the transmitter is empty.
  void enable_interrupts(std::uint8_t enable) {
    if ((enable & ~state_.interrupt_enable & ier::transmitter_empty) != 0) {
      state_.transmitter_empty_pending = true;
    }
    state_.interrupt_enable = enable;
  }

  // Bytes count as received one by one, so there is no trigger level. The other bits count only
  // together with the one that enables.
  void control_fifos(std::uint8_t value) {
    const bool enable = (value & fcr::enable) != 0;
    if (enable != state_.fifos || (enable && (value & fcr::clear_input) != 0)) {
      state_.input_size = 0;
    }
    state_.fifos = enable;
    tell_of_room();
  }

  void control_modem(std::uint8_t value) {
    const std::uint8_t before = modem_inputs();
    state_.modem_control = value;
    const std::uint8_t after = modem_inputs();
    const unsigned changed = (before ^ after) & (msr::cts | msr::dsr | msr::dcd);
    const unsigned ring_ended = (before & ~after & msr::ring) != 0 ? msr::ring_ended : 0;
    state_.modem_delta = static_cast<std::uint8_t>(state_.modem_delta | changed >> 4 | ring_ended);
    tell_of_room();
  }

  // In loopback the outputs are the inputs; else there is somebody at the other end.
  [[nodiscard]] std::uint8_t modem_inputs() const noexcept {
    if (!in_loopback()) return msr::cts | msr::dsr | msr::dcd;
    const auto wired = [&](std::uint8_t output, std::uint8_t input) {
      return (state_.modem_control & output) != 0 ? input : 0;
    };
    return static_cast<std::uint8_t>(wired(mcr::rts, msr::cts) | wired(mcr::dtr, msr::dsr) |
                                     wired(mcr::out1, msr::ring) | wired(mcr::out2, msr::dcd));
  }

  // There is room.
  void push(std::uint8_t byte) noexcept { state_.input[state_.input_size++] = byte; }

  std::uint8_t pop() {
    if (state_.input_size == 0) return 0;
    const std::uint8_t byte = state_.input[0];
    std::copy(state_.input.begin() + 1, state_.input.begin() + state_.input_size,
              state_.input.begin());
    --state_.input_size;
    tell_of_room();
    return byte;
  }

  void tell_of_room() {
    if (!state_.input_refused || state_.input_size != 0 || room() == 0) return;
    state_.input_refused = false;
    line_.ready_for_input();
  }

  // The interrupt of the highest priority.
  [[nodiscard]] std::uint8_t pending_interrupt() const noexcept {
    const auto enabled = [&](std::uint8_t bit) { return (state_.interrupt_enable & bit) != 0; };
    if (enabled(ier::line_status) && state_.overrun) return iir::line_status;
    if (enabled(ier::received_data) && state_.input_size != 0) return iir::received_data;
    if (enabled(ier::transmitter_empty) && state_.transmitter_empty_pending) {
      return iir::transmitter_empty;
    }
    if (enabled(ier::modem_status) && state_.modem_delta != 0) return iir::modem_status;
    return iir::none;
  }

  // On a PC, OUT2 connects the line; in loopback that output is off.
  void update_interrupt() {
    const bool connected = (state_.modem_control & mcr::out2) != 0 && !in_loopback();
    const bool level = connected && pending_interrupt() != iir::none;
    if (level == level_) return;
    level_ = level;
    line_.set_interrupt(level);
  }

  Line& line_;
  SerialState state_;
  bool level_ = false;
};

}  // namespace vm_superio
