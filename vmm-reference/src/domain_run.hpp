// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// One run of a guest's vCPUs, each on its thread, while the caller's thread waits for everything
// else: the user, watchdogs, the time being out.
#pragma once

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstddef>
#include <utility>
#include <vector>

#include "vcpu_loop.hpp"
#include "vcpu_threads.hpp"

namespace vmm_reference {

struct DomainRun {
  explicit DomainRun(std::size_t vcpus) : states(vcpus) {}
  boost::asio::io_context loop;         // stop() ends the run, from any thread
  std::chrono::nanoseconds timeout{0};  // 0: none
  std::vector<VcpuState> states;        // by Xen vCPU id, for when it is over
  std::chrono::nanoseconds spun{0};     // for timers, by then
};

// Calls body(id, vcpu) on each vCPU's thread until each has returned, one has a fault, the loop is
// stopped, or the time is out; false if that was it.
template <class Body>
bool run_vcpus(VcpuThreads& threads, DomainRun& run, Body&& body) {
  const auto busy = boost::asio::make_work_guard(run.loop);
  bool timed_out = false;
  boost::asio::steady_timer timeout(run.loop);
  if (run.timeout.count() != 0) {
    timeout.expires_after(run.timeout);
    timeout.async_wait([&](boost::system::error_code cancelled) {
      if (cancelled) return;
      timed_out = true;
      run.loop.stop();
    });
  }
  threads.start(
      [&](XenVcpuId id, VcpuRunner& vcpu) {
        body(id, vcpu);
        if (!run.states[id.value].fault.empty()) run.loop.stop();
      },
      [&] { run.loop.stop(); });
  run.loop.run();
  threads.stop();
  return !timed_out;
}

}  // namespace vmm_reference
