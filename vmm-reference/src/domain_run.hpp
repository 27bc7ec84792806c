// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// One run of a guest's vCPUs, each on its thread, while the caller's thread waits for everything
// else: the user, watchdogs, the time being out.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <vector>

#include "host_errors.hpp"
#include "vcpu_loop.hpp"
#include "vcpu_threads.hpp"

namespace vmm_reference {

struct DomainRun {
  explicit DomainRun(std::size_t vcpus) : states(vcpus) {}
  boost::asio::io_context loop;         // stop() ends the run, from any thread
  std::chrono::nanoseconds timeout{0};  // 0: none
  // For when it is over:
  std::vector<VcpuState> states;     // by Xen vCPU id
  HostErrors errors;                 // of no vCPU's hypercall
  std::chrono::nanoseconds spun{0};  // for timers
};

// Calls body(id, vcpu) on each vCPU's thread until each has returned, one has a fault, the loop is
// stopped, or the time is out; false if that was it.
bool run_vcpus(VcpuThreads& threads, DomainRun& run, const VcpuThreads::Body& body);

}  // namespace vmm_reference
