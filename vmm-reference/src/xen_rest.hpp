// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A Xen guest at rest: all of its state out of KVM and the handlers, and back, in the order that
// both need.
#pragma once

#include <chrono>
#include <functional>

#include "host.hpp"
#include "machine.hpp"
#include "snapshot.hpp"
#include "vmm_base/result.hpp"
#include "watchdogs.hpp"
#include "xen_handlers.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {

// While no vCPU runs.
class XenRest {
 public:
  // What a xen_timer::Handler does, of whichever back end.
  struct Timers {
    std::function<Result<void>()> pause;
    std::function<Result<xen_timer::VcpuTimers>(XenVcpuId)> save;
    std::function<Result<void>(XenVcpuId, const xen_timer::VcpuTimers&)> restore;
    std::function<Result<void>()> resume;
  };
  XenRest(const Host& host, Machine& machine, XenPlatform& platform, XenHandlers& handlers,
          Watchdogs& watchdogs, Timers timers)
      : host_(host),
        machine_(machine),
        platform_(platform),
        handlers_(handlers),
        watchdogs_(watchdogs),
        timers_(std::move(timers)) {}

  // Fills `snapshot` in, calls use(), and puts the clocks back to where they were: for the guest no
  // time has passed. Whatever fails, it can go on; the first error.
  Result<void> with(Snapshot& snapshot, const std::function<Result<void>(Snapshot&)>& use);
  // Into a domain that hasn't run; the clocks go on from here.
  Result<void> restore(const Snapshot& snapshot, std::chrono::nanoseconds later);

 private:
  Result<void> save(Snapshot& snapshot);
  Result<void> save_xen(XenSnapshot& xen);

  const Host& host_;
  Machine& machine_;
  XenPlatform& platform_;
  XenHandlers& handlers_;
  Watchdogs& watchdogs_;
  Timers timers_;
};

}  // namespace vmm_reference
