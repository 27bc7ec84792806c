// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_event_channel_op: event_channel_op(u32 cmd, GVA arg), from
// xen/include/public/event_channel.h. The arguments have one layout for both widths.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmm_base/ids.hpp"
#include "xen_abi/domain.hpp"

namespace xen_abi {

// An event channel's number in its domain; 0 is none.
using EventPort = vmm_base::Id<struct EventPortKind>;

// 2-level event channels a domain has: 64 words of 64 bits, or 32 of 32.
inline constexpr std::uint32_t event_ports_64 = 4096;
inline constexpr std::uint32_t event_ports_32 = 1024;

namespace virq {
inline constexpr std::uint32_t timer = 0;
inline constexpr std::uint32_t debug = 1;
inline constexpr std::uint32_t xenoprof = 7;
inline constexpr std::uint32_t argo = 11;
inline constexpr std::uint32_t xenpmu = 13;
inline constexpr std::uint32_t count = 24;
}  // namespace virq

namespace evtchnop {
inline constexpr std::uint32_t bind_interdomain = 0;
inline constexpr std::uint32_t bind_virq = 1;
inline constexpr std::uint32_t bind_pirq = 2;
inline constexpr std::uint32_t close = 3;
inline constexpr std::uint32_t send = 4;
inline constexpr std::uint32_t status = 5;
inline constexpr std::uint32_t alloc_unbound = 6;
inline constexpr std::uint32_t bind_ipi = 7;
inline constexpr std::uint32_t bind_vcpu = 8;
inline constexpr std::uint32_t unmask = 9;
inline constexpr std::uint32_t reset = 10;
inline constexpr std::uint32_t init_control = 11;
inline constexpr std::uint32_t expand_array = 12;
inline constexpr std::uint32_t set_priority = 13;
}  // namespace evtchnop

struct EvtchnAllocUnbound {
  DomainId dom;
  DomainId remote_dom;
  std::uint32_t port;  // Out.
};
static_assert(sizeof(EvtchnAllocUnbound) == 8);

struct EvtchnBindInterdomain {
  DomainId remote_dom;
  std::uint32_t remote_port;
  std::uint32_t local_port;  // Out.
};
static_assert(sizeof(EvtchnBindInterdomain) == 12);

struct EvtchnBindVirq {
  std::uint32_t virq;
  std::uint32_t vcpu;
  std::uint32_t port;  // Out.
};
static_assert(sizeof(EvtchnBindVirq) == 12);

struct EvtchnBindPirq {
  std::uint32_t pirq;
  std::uint32_t flags;
  std::uint32_t port;  // Out.
};
static_assert(sizeof(EvtchnBindPirq) == 12);

struct EvtchnBindIpi {
  std::uint32_t vcpu;
  std::uint32_t port;  // Out.
};
static_assert(sizeof(EvtchnBindIpi) == 8);

struct EvtchnClose {
  std::uint32_t port;
};
static_assert(sizeof(EvtchnClose) == 4);

struct EvtchnSend {
  std::uint32_t port;
};
static_assert(sizeof(EvtchnSend) == 4);

namespace evtchn_status {
inline constexpr std::uint32_t closed = 0;
inline constexpr std::uint32_t unbound = 1;
inline constexpr std::uint32_t interdomain = 2;
inline constexpr std::uint32_t pirq = 3;
inline constexpr std::uint32_t virq = 4;
inline constexpr std::uint32_t ipi = 5;
}  // namespace evtchn_status

// All but dom and port is out.
struct EvtchnStatus {
  DomainId dom;
  std::uint32_t port;
  std::uint32_t status;  // evtchn_status
  std::uint32_t vcpu;
  union {
    DomainId remote_dom;  // unbound, interdomain
    std::uint32_t virq;   // virq
  };
  std::uint32_t remote_port;  // interdomain
};
static_assert(sizeof(EvtchnStatus) == 24);

struct EvtchnBindVcpu {
  std::uint32_t port;
  std::uint32_t vcpu;
};
static_assert(sizeof(EvtchnBindVcpu) == 8);

struct EvtchnUnmask {
  std::uint32_t port;
};
static_assert(sizeof(EvtchnUnmask) == 4);

struct EvtchnReset {
  DomainId dom;
};
static_assert(sizeof(EvtchnReset) == 2);

struct EvtchnSetPriority {
  std::uint32_t port;
  std::uint32_t priority;
};
static_assert(sizeof(EvtchnSetPriority) == 8);

}  // namespace xen_abi
