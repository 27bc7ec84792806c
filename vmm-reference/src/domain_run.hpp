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
#include "machine.hpp"
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
  bool is_last = false;  // of this process, so that it needs nothing more than to end
  // For when it is over:
  std::vector<VcpuState> states;     // by Xen vCPU id
  HostErrors errors;                 // of no vCPU's hypercall
  std::chrono::nanoseconds spun{0};  // for timers
};

// Calls body(id, vcpu) on each vCPU's thread until each has returned, one has a fault, the loop is
// stopped, or the time is out; false if that was it. Error: a thread couldn't be started.
Result<bool> run_vcpus(VcpuThreads& threads, DomainRun& run, const VcpuThreads::Body& body);

// `save` with the vCPUs at rest. Whatever it fails with, they go on; where one mustn't, the run
// ends.
Result<void> with_vcpus_at_rest(VcpuThreads& threads, DomainRun& run, const Machine& machine,
                                Snapshot snapshot, const SnapshotUse& save);

}  // namespace vmm_reference
