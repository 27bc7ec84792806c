// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// How the test guests of tests/guests talk to vmm-reference: ports, and a report in guest memory.
// Freestanding: the guests include it, too.
//
// At entry, in 64-bit mode with the first 4 GiB mapped to themselves and interrupts off:
// RDI the vCPU's index, RSI the number of vCPUs, RDX the number of timers to arm on each; RCX, if
// not 0: arm for so many ms instead, each as soon as the last has come; R8, if not 0: of each four
// timers, wait for the last awake, and read the clock all the while.
#pragma once

#include <cstddef>
#include <cstdint>

namespace vmm_reference {

inline constexpr std::uint16_t port_text = 0x500;    // 1 byte: a character for the VMM's stderr
inline constexpr std::uint16_t port_report = 0x504;  // 4 bytes: where this vCPU's report lies
inline constexpr std::uint16_t port_done = 0x508;    // 4 bytes: this vCPU is done; 0 for well

inline constexpr std::uint32_t max_vcpus = 64;
inline constexpr std::uint32_t max_timers = 4096;
inline constexpr std::uint32_t report_magic = 0x4d495458;  // "XTIM"

inline constexpr std::uint32_t text_magic = 0x54584554;  // "TEXT"

// What another guest leaves: lines of its own, likewise.
struct TextReport {
  std::uint32_t magic;
  std::uint32_t length;  // of text, bytes
  char text[16384];
};

// What a vCPU of the timer guest saw, kept up to date while it runs.
struct TimerReport {
  std::uint32_t magic;
  std::uint32_t armed;        // set_singleshot_timer calls made
  std::uint32_t refused;      // of those, answered with anything but 0
  std::uint32_t fired;        // upcalls with the timer's port pending
  std::uint32_t unasked;      // of those, with no timer armed
  std::uint32_t xen_vcpu_id;  // as CPUID told it
  std::uint32_t early;        // of those fired, before their deadline by its own clock
  std::uint32_t back;         // readings of its own clock that were less than one before
  // Of the n-th timer: its own clock at the upcall less the deadline, ns; negative is early. Of the
  // last max_timers, where there are more.
  std::int64_t lateness_ns[max_timers];
};

}  // namespace vmm_reference
