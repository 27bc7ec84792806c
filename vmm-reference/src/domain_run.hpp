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
#include <new>
#include <utility>
#include <vector>

#include "sandbox.hpp"
#include "vcpu_loop.hpp"
#include "vcpu_threads.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

using vmm_base::Result;

struct DomainRun {
  explicit DomainRun(std::size_t vcpus) : states(vcpus) {}
  boost::asio::io_context loop;         // stop() ends the run, from any thread
  std::chrono::nanoseconds timeout{0};  // 0: none
  bool is_last = false;           // of this process, so that it needs nothing more than to end
  std::vector<VcpuState> states;  // by Xen vCPU id, for when it is over
};

// Calls body(id, vcpu) on each vCPU's thread until each has returned, one has a fault, the loop is
// stopped, or the time is out; false if that was it. Error: a thread couldn't be started.
template <class Body>
Result<bool> run_vcpus(VcpuThreads& threads, DomainRun& run, Body&& body) {
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
  // `body` is gone once this returns, however it does.
  struct Ended {
    VcpuThreads& threads;
    ~Ended() { threads.stop(); }
  } const ended{threads};
  VMM_CHECK(threads.start(
      [&](XenVcpuId id, VcpuRunner& vcpu) {
        sandbox::confine(sandbox::vcpu);
        try {
          body(id, vcpu);
        } catch (const std::bad_alloc&) {
          run.states[id.value].fault = "out of memory";
        }
        if (!run.states[id.value].fault.empty()) run.loop.stop();
      },
      [&] { run.loop.stop(); }));
  if (run.is_last) sandbox::confine(sandbox::loop);
  run.loop.run();
  return !timed_out;
}

}  // namespace vmm_reference
