// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What one vCPU's Xen clock reads now, for whoever serves its timers: by the guest's own pvclock,
// as KVM's timer does it (arch/x86/kvm/xen.c, kvm_xen_start_timer), so that a deadline is never
// served before the guest's clock reads it. The vCPU's thread refreshes it, any thread reads it; no
// locks.
//
//   clock.refresh([&] { return ask_kvm(vcpu); });           // before a hypercall is answered
//   auto [now, source] = clock.now([&] { return vm_clock(); });  // KVM_GET_CLOCK
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>

#include "xen_abi/shared_info.hpp"
#include "xen_clock/clock.hpp"
#include "xen_clock/pvclock.hpp"
#include "xen_clock/seqlock.hpp"

namespace xen_clock {

enum class Source : std::uint8_t {
  pvclock,   // the guest's own: exact
  vm_clock,  // KVM_GET_CLOCK: drifts from the guest's by up to 1 kHz of its TSC, if that is scaled
  host_clock,  // HostClock since the last refresh, less what NTP slews: KVM itself is wrong (now())
};

struct Reading {
  GuestTime time;
  Source source;
};

// How KVM makes a vCPU's clock from the host's TSC.
struct VcpuTsc {
  TscMap map;
  std::uint32_t host_khz;  // KVM_GET_TSC_KHZ of a VM that it wasn't set for
  bool master_clock;       // KVM_GET_CLOCK says KVM_CLOCK_TSC_STABLE
};

// Whether a pvclock's rate is the one KVM gives a vCPU with this TSC, to 1 ppm. The guest can write
// another one to its page; and the map is not what KVM has if it emulates a faster TSC in software.
constexpr bool keeps_rate(const xen_abi::VcpuTimeInfo& info, const VcpuTsc& tsc) noexcept {
  // KVM rounds to kHz, too.
  const std::uint64_t second = tsc.map.scale(tsc.host_khz) * 1000;
  const std::uint64_t ns = scale_tsc(second, info.tsc_to_system_mul, info.tsc_shift);
  return ns >= 999'999'000 && ns <= 1'000'001'000;
}

struct ThisHost {
  static std::uint64_t tsc() noexcept { return host_tsc(); }
  static HostTime now() noexcept { return HostClock::now(); }
  static Duration suspended() noexcept { return HostClock::suspended(); }
};

// Host is ThisHost, or a test's.
template <class Host>
class BasicVcpuClock {
 public:
  // Where KVM keeps the guest's pvclock from now on: a vcpu_time_info in guest memory, 8-byte
  // aligned, mapped as long as this lives. Until then KVM_GET_CLOCK is the clock. Any thread.
  void set_page(const void* time_info) noexcept { page_ = time_info; }

  // On the vCPU's thread, outside KVM_RUN, before a deadline is taken from the guest: KVM may have
  // rewritten the page, and the guest its TSC. `ask()`, an std::optional<VcpuTsc>, is called only
  // if it has; nullopt leaves KVM_GET_CLOCK the clock.
  template <class Ask>
  void refresh(Ask&& ask) {
    const auto info = read_page();
    if (!info || same_clock(*info, seen_)) return;
    seen_ = *info;
    Line line{};
    const std::optional<VcpuTsc> tsc = ask();
    if (tsc && tsc->master_clock && keeps_rate(*info, *tsc)) {
      line.known = true;
      line.info = *info;
      line.map = tsc->map;
      // Guest first: what passes in between is never ahead of the guest.
      line.guest = pvclock_time(*info, tsc->map.guest_tsc(Host::tsc()));
      line.host = Host::now();
      line.suspended = Host::suspended();
    }
    line_.store(line);
  }

  // On the vCPU's thread, outside KVM_RUN: after KVM_SET_CLOCK the page is wrong until the vCPU has
  // run. Until the refresh() after that, KVM_GET_CLOCK is the clock.
  void forget() noexcept {
    seen_ = {};
    line_.store(Line{});
  }

  // On any thread. `vm_clock()`, a GuestTime, is called where the page is not to be trusted: it is
  // not what it was at the last refresh(), KVM has no master clock, or there is none yet.
  //
  // If the host was suspended since, and its TSC began anew, KVM corrects its clocks when a vCPU
  // enters the guest, and till then even KVM_GET_CLOCK is wrong by hours, either way. So from a
  // resume to the next refresh(), each must agree with HostClock.
  template <class VmClock>
  [[nodiscard]] Reading now(VmClock&& vm_clock) const {
    const Line line = line_.load().value_or(Line{});
    if (!line.known) return {vm_clock(), Source::vm_clock};
    const auto info = read_page();
    const bool current = info && same_clock(*info, line.info);
    const GuestTime by_page = pvclock_time(line.info, line.map.guest_tsc(Host::tsc()));

    const Duration suspended = Host::suspended() - line.suspended;
    constexpr Duration between_readings = std::chrono::milliseconds(100);
    if (suspended < between_readings && suspended > -between_readings) {
      return current ? Reading{by_page, Source::pvclock} : Reading{vm_clock(), Source::vm_clock};
    }
    const Duration passed = Host::now() - line.host;
    const GuestTime expected = saturating_add(line.guest, passed);
    // HostClock takes a suspension from the real-time clock, in seconds. A TSC that began anew is
    // wrong by more than the suspension.
    const Duration rounded = std::chrono::seconds(2) + suspended / 2;
    const auto agrees = [&](GuestTime time) {
      const Duration apart = std::max(time_left(time, expected), time_left(expected, time));
      return apart <= rounded + passed / 1024;
    };
    if (current && agrees(by_page)) return {by_page, Source::pvclock};
    if (const GuestTime time = vm_clock(); agrees(time)) return {time, Source::vm_clock};
    return {saturating_add(line.guest, passed - slew_margin(passed)), Source::host_clock};
  }

 private:
  // The guest's clock as a function of the host's TSC. It stays true when the guest writes its TSC:
  // KVM then moves offset and page together.
  struct Line {
    xen_abi::VcpuTimeInfo info;
    TscMap map;
    GuestTime guest;  // at the last refresh(), as are:
    HostTime host;
    Duration suspended;
    bool known;
  };

  [[nodiscard]] std::optional<xen_abi::VcpuTimeInfo> read_page() const noexcept {
    const void* page = page_;
    if (page == nullptr) return std::nullopt;
    return read_pvclock(page);
  }

  // The version and flags aside: KVM counts up the one when nothing has changed, and the guest
  // clears pvclock_guest_stopped.
  static bool same_clock(const xen_abi::VcpuTimeInfo& a, const xen_abi::VcpuTimeInfo& b) noexcept {
    return a.tsc_timestamp == b.tsc_timestamp && a.system_time == b.system_time &&
           a.tsc_to_system_mul == b.tsc_to_system_mul && a.tsc_shift == b.tsc_shift;
  }

  std::atomic<const void*> page_ = nullptr;
  xen_abi::VcpuTimeInfo seen_{};  // the vCPU's thread's
  Seqlock<Line> line_;
};

using VcpuClock = BasicVcpuClock<ThisHost>;

}  // namespace xen_clock
