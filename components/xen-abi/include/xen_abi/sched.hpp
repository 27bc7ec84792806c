// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_sched_op: sched_op(int cmd, GVA arg), from xen/include/public/sched.h. Only poll
// differs in the two widths.
#pragma once

#include <cstdint>

#include "xen_abi/domain.hpp"

namespace xen_abi {

namespace schedop {
inline constexpr std::uint32_t yield = 0;
inline constexpr std::uint32_t block = 1;
inline constexpr std::uint32_t shutdown = 2;
inline constexpr std::uint32_t poll = 3;
inline constexpr std::uint32_t remote_shutdown = 4;
inline constexpr std::uint32_t shutdown_code = 5;
inline constexpr std::uint32_t watchdog = 6;
inline constexpr std::uint32_t pin_override = 7;
}  // namespace schedop

// Why a domain ends: 8 bits, of which a guest may pass any.
enum class ShutdownReason : std::uint8_t {
  poweroff = 0,
  reboot = 1,
  suspend = 2,
  crash = 3,
  watchdog = 4,
  soft_reset = 5,
};

struct SchedShutdown {
  std::uint32_t reason;  // ShutdownReason in the low 8 bits.
};
static_assert(sizeof(SchedShutdown) == 4);

struct SchedRemoteShutdown {
  DomainId domain_id;
  std::uint32_t reason;
};
static_assert(sizeof(SchedRemoteShutdown) == 8);

struct SchedWatchdog {
  std::uint32_t id;
  std::uint32_t timeout;  // s
};
static_assert(sizeof(SchedWatchdog) == 8);

struct SchedPoll64 {
  std::uint64_t ports;  // GVA of nr_ports uint32_t.
  std::uint32_t nr_ports;
  std::uint64_t timeout;  // Guest system time, ns; 0 for none.
};
static_assert(sizeof(SchedPoll64) == 24);

struct SchedPoll32 {
  std::uint32_t ports;
  std::uint32_t nr_ports;
  std::uint64_t timeout;
};
static_assert(sizeof(SchedPoll32) == 16);

}  // namespace xen_abi
