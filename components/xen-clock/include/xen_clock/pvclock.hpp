// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The guest's own clock, read from outside: pvclock parameters that KVM keeps in vcpu_info, and the
// way from the host's TSC to the guest's. Pure functions, and a reader of the shared page.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <optional>

#include "xen_abi/shared_info.hpp"
#include "xen_clock/clock.hpp"

namespace xen_clock {

__extension__ using Uint128 = unsigned __int128;

// From the host's TSC to the guest's: guest = (host * ratio >> fraction_bits) + offset, modulo
// 2^64.
struct TscMap {
  std::uint64_t offset = 0;        // Cycles: KVM_VCPU_TSC_OFFSET.
  std::uint64_t ratio = 1;         // Guest frequency / host frequency, fixed point.
  std::uint8_t fraction_bits = 0;  // 48 on Intel, 32 on AMD; 0 if not scaled.

  [[nodiscard]] constexpr std::uint64_t scale(std::uint64_t host_cycles) const noexcept {
    return static_cast<std::uint64_t>(static_cast<Uint128>(host_cycles) * ratio >> fraction_bits);
  }
  [[nodiscard]] constexpr std::uint64_t guest_tsc(std::uint64_t host_tsc) const noexcept {
    return scale(host_tsc) + offset;
  }
};

// Fraction bits of a processor's TSC multiplier: VMX's and SVM's.
inline constexpr std::uint8_t vmx_tsc_fraction_bits = 48;
inline constexpr std::uint8_t svm_tsc_fraction_bits = 32;

// The map of a vCPU to which KVM gave `guest_khz`, with the ratio that KVM reckons; not scaled
// where KVM doesn't, which is up to its module parameter tsc_tolerance_ppm. arch/x86/kvm/x86.c,
// kvm_set_tsc_khz().
constexpr TscMap tsc_map(std::uint32_t guest_khz, std::uint32_t host_khz,
                         std::uint8_t fraction_bits, std::uint64_t offset,
                         std::uint32_t tolerance_ppm = 250) noexcept {
  constexpr std::uint64_t million = 1'000'000;
  const std::uint64_t host = host_khz;
  const std::uint64_t low = host * (million - std::min<std::uint64_t>(tolerance_ppm, million));
  const std::uint64_t high = host * (million + tolerance_ppm);
  if (guest_khz >= low / million && guest_khz <= high / million) return {.offset = offset};
  if (host_khz == 0) return {.offset = offset};
  const Uint128 ratio = (static_cast<Uint128>(guest_khz) << fraction_bits) / host_khz;
  return {
      .offset = offset, .ratio = static_cast<std::uint64_t>(ratio), .fraction_bits = fraction_bits};
}

// The host's TSC, read after every load before it in the program.
inline std::uint64_t host_tsc() noexcept {
  __builtin_ia32_lfence();
  return __builtin_ia32_rdtsc();
}

// TSC cycles in ns by a pvclock's multiplier (a 0.32 fraction) and shift, rounded down as every
// guest does. Xen's scale_delta().
constexpr std::uint64_t scale_tsc(std::uint64_t cycles, std::uint32_t mul, int shift) noexcept {
  // Legal shifts are within a word; a hostile page's must not be undefined behaviour.
  if (shift <= -64 || shift >= 64) return 0;
  cycles = shift < 0 ? cycles >> -shift : cycles << shift;
  return static_cast<std::uint64_t>(static_cast<Uint128>(cycles) * mul >> 32);
}

// What a guest with these parameters reads when its TSC is `guest_tsc`.
constexpr GuestTime pvclock_time(const xen_abi::VcpuTimeInfo& info,
                                 std::uint64_t guest_tsc) noexcept {
  const auto elapsed =
      scale_tsc(guest_tsc - info.tsc_timestamp, info.tsc_to_system_mul, info.tsc_shift);
  return guest_time(static_cast<std::int64_t>(info.system_time + elapsed));
}

// A consistent copy of a vcpu_time_info in guest memory, 8-byte aligned; nullopt if it was never
// filled, or is being written all the time: the page is the guest's to scribble on.
inline std::optional<xen_abi::VcpuTimeInfo> read_pvclock(const void* page) noexcept {
  const auto* words = static_cast<const std::uint64_t*>(page);
  for (int attempt = 0; attempt < 16; ++attempt) {
    std::uint64_t copy[sizeof(xen_abi::VcpuTimeInfo) / 8];
    for (std::size_t i = 0; i < std::size(copy); ++i) {
      copy[i] = __atomic_load_n(&words[i], __ATOMIC_ACQUIRE);
    }
    const auto again = static_cast<std::uint32_t>(__atomic_load_n(&words[0], __ATOMIC_ACQUIRE));
    xen_abi::VcpuTimeInfo info;
    std::memcpy(&info, copy, sizeof(info));
    if (info.version != again || (info.version & 1) != 0) continue;
    if (info.version == 0 || info.tsc_to_system_mul == 0) return std::nullopt;
    return info;
  }
  return std::nullopt;
}

}  // namespace xen_clock
