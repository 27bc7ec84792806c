// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The VMM's heart: the hypercall handlers put together round one timer back end, and the vCPUs run
// with them until the guest is done.
#pragma once

#include <span>

#include "devices.hpp"
#include "domain_run.hpp"
#include "host.hpp"
#include "machine.hpp"
#include "options.hpp"
#include "vmm_base/result.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {

// Runs the vCPUs with the timers' back end that goes with `mode`, `devices[id]` being those of
// each; false if the time was out.
[[nodiscard]] Result<bool> run_xen_domain(const Host& host, Machine& machine, XenPlatform& platform,
                                          TimerMode mode, std::span<Devices* const> devices,
                                          DomainRun& run);

}  // namespace vmm_reference
