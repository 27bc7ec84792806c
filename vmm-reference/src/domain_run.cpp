// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "domain_run.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <utility>

namespace vmm_reference {

bool run_vcpus(VcpuThreads& threads, DomainRun& run, const VcpuThreads::Body& body) {
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
  run.at_rest = nullptr;
  return !timed_out;
}

}  // namespace vmm_reference
