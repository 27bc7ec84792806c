// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "domain_run.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <new>
#include <utility>

#include "machine_state.hpp"
#include "sandbox.hpp"

namespace vmm_reference {

Result<bool> run_vcpus(VcpuThreads& threads, DomainRun& run, const VcpuThreads::Body& body) {
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
  // `body` may be gone once this returns, however it does.
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
  run.at_rest = nullptr;
  return !timed_out;
}

Result<void> with_vcpus_at_rest(VcpuThreads& threads, DomainRun& run, const Machine& machine,
                                Snapshot snapshot, const SnapshotUse& save) {
  threads.pause();
  const Result<void> done = save(snapshot);
  const Result<void> can_go_on = done ? done : put_down_again(machine, snapshot);
  if (can_go_on) {
    threads.resume();
  } else {
    run.states[can_go_on.error().operand].fault = can_go_on.error().message();
    run.loop.stop();
  }
  return done;
}

}  // namespace vmm_reference
