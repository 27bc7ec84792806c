// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A vCPU's timers at rest: what Handler::save() tells and Handler::restore() takes, and its bytes.
#pragma once

#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>

#include "xen_timer/concepts.hpp"
#include "xen_timer/deadline.hpp"

namespace xen_timer {

struct VcpuTimers {
  EventPort port{};                     // of VIRQ_TIMER; 0: unbound
  std::optional<GuestTime> deadline{};  // of the single shot, ns of guest time
  Duration period{};                    // of the periodic timer, ns; 0: stopped
  GuestTime last_tick{};                // of it, even while stopped; ns of guest time
  // KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID, which the VMM fills and obeys; nothing here looks at it. None:
  // nobody has set it, which since Linux 7.3 is a state of its own, and restored by not setting it.
  std::optional<XenVcpuId> kvm_xen_id{};

  friend bool operator==(const VcpuTimers&, const VcpuTimers&) = default;
};

// EINVAL, operand the offending value, for what no guest can have brought about.
inline Result<void> check(const VcpuTimers& timers) noexcept {
  if (timers.port.value >= xen_abi::event_ports_64) {
    return vmm_base::Error{"timer state: port", EINVAL, timers.port.value};
  }
  const auto bad = [](const char* what, Duration ns) {
    return vmm_base::Error{what, EINVAL, static_cast<std::uint64_t>(ns.count())};
  };
  if (timers.deadline && *timers.deadline < GuestTime{}) {
    return bad("timer state: deadline", timers.deadline->time_since_epoch());
  }
  if (timers.period != Duration{} &&
      !is_period(static_cast<std::uint64_t>(timers.period.count()))) {
    return bad("timer state: period", timers.period);
  }
  if (timers.last_tick < GuestTime{}) {
    return bad("timer state: last tick", timers.last_tick.time_since_epoch());
  }
  return vmm_base::success();
}

// The encoding, 40 bytes, little-endian: u32 magic "XTMR", u16 version, u16 size of all; u32 port,
// u32 kvm_xen_id; i64 deadline (-1: none), i64 period, i64 last_tick. A later version has another
// number, and reads this one.
inline constexpr std::size_t encoded_size = 40;

namespace detail {
static_assert(std::endian::native == std::endian::little);
inline constexpr std::uint32_t unset_xen_id = 0xffff'ffff;  // the kernel's word for it, too
struct Encoding {
  std::uint32_t magic = 0x524d5458;
  std::uint16_t version = 1;
  std::uint16_t size = encoded_size;
  std::uint32_t port = 0;
  std::uint32_t kvm_xen_id = unset_xen_id;
  std::int64_t deadline = -1;
  std::int64_t period = 0;
  std::int64_t last_tick = 0;
};
static_assert(sizeof(Encoding) == encoded_size);
}  // namespace detail

inline std::array<std::byte, encoded_size> encode(const VcpuTimers& timers) noexcept {
  detail::Encoding e;
  e.port = timers.port.value;
  if (timers.kvm_xen_id) e.kvm_xen_id = timers.kvm_xen_id->value;
  if (timers.deadline) e.deadline = timers.deadline->time_since_epoch().count();
  e.period = timers.period.count();
  e.last_tick = timers.last_tick.time_since_epoch().count();
  return std::bit_cast<std::array<std::byte, encoded_size>>(e);
}

// EINVAL for what isn't an encoding, ENOTSUP for one of a later version (operand the version), and
// those of check(). What follows the encoding in `bytes` isn't looked at.
inline Result<VcpuTimers> decode(std::span<const std::byte> bytes) noexcept {
  detail::Encoding e;
  const detail::Encoding known;
  if (bytes.size() < sizeof(e)) {
    return vmm_base::Error{"timer state: size", EINVAL, bytes.size()};
  }
  std::memcpy(&e, bytes.data(), sizeof(e));
  if (e.magic != known.magic) return vmm_base::Error{"timer state: magic", EINVAL, e.magic};
  if (e.version > known.version) return vmm_base::Error{"timer state: version", ENOTSUP, e.version};
  if (e.version == 0) return vmm_base::Error{"timer state: version", EINVAL, e.version};
  if (e.size != known.size) return vmm_base::Error{"timer state: size", EINVAL, e.size};
  VcpuTimers timers{.port = EventPort{e.port},
                    .period = Duration(e.period),
                    .last_tick = xen_clock::guest_time(e.last_tick)};
  if (e.kvm_xen_id != detail::unset_xen_id) timers.kvm_xen_id = XenVcpuId{e.kvm_xen_id};
  if (e.deadline != -1) timers.deadline = xen_clock::guest_time(e.deadline);
  VMM_CHECK(check(timers));
  return timers;
}

}  // namespace xen_timer
