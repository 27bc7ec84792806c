// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What snapshot_format.hpp's sections hold: without holes, so that no byte of ours gets there by
// chance.
#pragma once

#include <zlib.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <type_traits>
#include <vector>

#include "snapshot.hpp"
#include "snapshot_format.hpp"

namespace vmm_reference::snapshot_wire {

using Bytes = std::span<const std::byte>;

template <class T>
concept Wire = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

struct Head {
  std::array<char, 8> magic = {'V', 'M', 'M', 'S', 'N', 'A', 'P', '\n'};
  std::uint32_t version = snapshot_version;
  std::uint32_t crc = 0;
};
struct SectionHead {
  std::array<char, 4> name{};
  std::uint32_t index = 0;
  std::uint64_t size = 0;
  std::uint32_t zero = 0;
  std::uint32_t crc = 0;
};
struct SectionEnd {
  std::uint32_t crc = 0;
  std::uint32_t zero = 0;
};
struct Conf {
  std::uint32_t boot, mode, vcpus, has_ports;
  std::uint64_t ram_size;
};
struct Cpu {
  kvm_regs regs;
  kvm_sregs sregs;
  kvm_debugregs debugregs;
  kvm_xcrs xcrs;
  kvm_vcpu_events events;
  kvm_mp_state mp_state;
  std::uint32_t tsc_khz;
  std::uint64_t tsc;
};
struct Xen {
  std::uint64_t shared_info;
  std::uint64_t pages;
  std::array<std::int64_t, xen_hcall::watchdog_count> watchdogs;  // -1: none
  std::uint32_t end_reason, has_end_reason;
  std::uint32_t upcall_vector, runstate_update_flag;
  std::array<std::uint64_t, xen_abi::hvm_param::count> params;
};
struct XenCpu {
  std::uint64_t vcpu_info, time_area, runstate_area;
  std::array<std::uint64_t, 6> runstate;
  std::uint32_t has_runstate, upcall_vector, registered, initialised;
};
struct Port {
  std::uint32_t port, kind, vcpu, remote_dom, remote_port, virq;
};
struct Grants {
  std::uint32_t frames, count;
};
struct Grant {
  std::uint32_t index, has_page;
  std::uint64_t gfn;
};
struct Uart {
  std::array<std::uint8_t, 16> input;
  std::uint8_t input_size, divisor_low, divisor_high, interrupt_enable, line_control, modem_control,
      modem_delta, scratch, fifos, overrun, transmitter_empty_pending, input_refused;
};
struct Cmos {
  std::array<std::uint8_t, 128> bytes;
  std::uint8_t index;
};
struct Ram {
  std::uint64_t gpa, size, runs;
};
struct RamRun {
  std::uint64_t offset, size;
};

// Numbers of enumerators are on the wire.
static_assert(static_cast<int>(Boot::pvh) == 0 && static_cast<int>(Boot::native) == 2);
static_assert(static_cast<int>(TimerMode::kernel) == 0 &&
              static_cast<int>(TimerMode::moving) == 4 &&
              static_cast<int>(TimerMode::spinning) == 5);
static_assert(std::size(timer_modes) == 6);

template <Wire T>
inline Bytes bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <Wire T>
inline Bytes bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

inline std::uint32_t crc_of(Bytes bytes, std::uint32_t before = 0) {
  if (bytes.empty()) return before;  // null would have zlib begin anew
  return static_cast<std::uint32_t>(
      ::crc32_z(before, reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size()));
}
// Of all of a head but its last word, which is that.
template <class H>
std::uint32_t head_crc(const H& head) {
  return crc_of(bytes_of(head).first(sizeof(H) - sizeof(std::uint32_t)));
}

}  // namespace vmm_reference::snapshot_wire
