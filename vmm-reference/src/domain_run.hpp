// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// One run of a guest's vCPUs, each on its thread, while the caller's thread waits for everything
// else: the user, watchdogs, the time being out.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <vector>

#include "host_errors.hpp"
#include "snapshot.hpp"
#include "vcpu_loop.hpp"
#include "vcpu_threads.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

using vmm_base::Result;

// What is done with a snapshot while its guest stands still; the RAM is a view.
using SnapshotUse = std::function<Result<void>(Snapshot&)>;

struct DomainRun {
  explicit DomainRun(std::size_t vcpus) : states(vcpus) {}
  boost::asio::io_context loop;         // stop() ends the run, from any thread
  std::chrono::nanoseconds timeout{0};  // 0: none
  // A guest that goes on from here, so much later by its clock than it was saved; null: it begins.
  const Snapshot* from = nullptr;
  std::chrono::nanoseconds later{0};
  // While the vCPUs run, on the loop's thread: lets the guest and its clock stand still for the
  // time of a call, and go on from there. What the guest is like is filled in but for the devices.
  std::function<Result<void>(const SnapshotUse&)> at_rest{};
  // For when it is over:
  std::vector<VcpuState> states;     // by Xen vCPU id
  HostErrors errors;                 // of no vCPU's hypercall
  std::chrono::nanoseconds spun{0};  // for timers
};

// Calls body(id, vcpu) on each vCPU's thread until each has returned, one has a fault, the loop is
// stopped, or the time is out; false if that was it.
bool run_vcpus(VcpuThreads& threads, DomainRun& run, const VcpuThreads::Body& body);

}  // namespace vmm_reference
