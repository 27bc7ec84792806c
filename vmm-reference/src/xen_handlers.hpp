// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What answers a Xen guest's hypercalls, all but its timers': xen-hcall's handlers, put together.
// They don't depend on who keeps the timers, so they are compiled once, in xen_handlers.cpp.
#pragma once

#include <cstdint>
#include <optional>

#include "cpuid.hpp"
#include "machine.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_evtchn/channels.hpp"
#include "xen_hcall/console_op.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/event_channel_op.hpp"
#include "xen_hcall/grant_table_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/memory_op.hpp"
#include "xen_hcall/physdev_op.hpp"
#include "xen_hcall/sched_op.hpp"
#include "xen_hcall/shutdown.hpp"
#include "xen_hcall/vcpu_op.hpp"
#include "xen_hcall/version_op.hpp"
#include "xen_hcall/vm_assist_op.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {

class XenHandlers {
 public:
  XenHandlers(XenPlatform& platform, const Machine& machine);
  XenHandlers(const XenHandlers&) = delete;
  XenHandlers& operator=(const XenHandlers&) = delete;

  static constexpr bool serves(std::uint64_t number) noexcept { return Calls::serves(number); }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call);

  // At rest: what of a snapshot is theirs, but for when watchdogs bite.
  void save(XenSnapshot& snapshot);
  // Before the guest runs, and after the platform's part: it is told of every event channel.
  Result<void> restore(const XenSnapshot& snapshot);

 private:
  Result<void> soft_reset();

  XenPlatform& platform_;
  std::uint32_t vcpu_count_;
  xen_evtchn::Channels channels_{xen_abi::event_ports_64, vcpu_count_};
  xen_hcall::Shutdown<XenPlatform> shutdown_{platform_};

  xen_hcall::VersionOp<XenPlatform> version_{
      platform_, {.major = xen_version >> 16, .minor = xen_version & 0xffff}};
  xen_hcall::MemoryOp<XenPlatform> memory_;
  xen_hcall::VcpuOp<XenPlatform> vcpus_{platform_, vcpu_count_, shutdown_};
  xen_hcall::HvmOp<XenPlatform> hvm_{platform_, vcpu_count_};
  xen_hcall::EventChannelOp<XenPlatform> events_{platform_, channels_};
  xen_hcall::SchedOp<XenPlatform> sched_{platform_, channels_, shutdown_};
  xen_hcall::GrantTableOp<XenPlatform> grants_{platform_};
  xen_hcall::ConsoleOp<XenPlatform> console_{platform_};
  xen_hcall::PhysdevOp<XenPlatform> physdev_{platform_};
  xen_hcall::VmAssistOp<XenPlatform> vm_assist_{platform_};

  using Calls =
      xen_hcall::Dispatcher<decltype(version_), decltype(memory_), decltype(vcpus_), decltype(hvm_),
                            decltype(events_), decltype(sched_), decltype(grants_),
                            decltype(console_), decltype(physdev_), decltype(vm_assist_)>;
  Calls calls_{version_, memory_, vcpus_,   hvm_,     events_,
               sched_,   grants_, console_, physdev_, vm_assist_};
};

}  // namespace vmm_reference
