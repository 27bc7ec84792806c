// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// How a domain ends: once, and for the reason that was noted first. Hypercalls end it, and so may
// the VMM: a watchdog that isn't fed, a guest that crashed.
#pragma once

#include <mutex>
#include <optional>

#include "xen_abi/sched.hpp"

namespace xen_hcall {

// shutdown: the domain has ended; called once, on any thread. `reason` may be any number of a
// guest's.
template <class V>
concept ShutdownVmm = requires(V& vmm, xen_abi::ShutdownReason reason) {
  vmm.shutdown(reason);
};

template <ShutdownVmm V>
class Shutdown {
 public:
  explicit Shutdown(V& vmm) noexcept : vmm_(vmm) {}

  // What it is to say whatever ends the domain later.
  void note(xen_abi::ShutdownReason reason) {
    const std::scoped_lock lock(mutex_);
    if (!reason_) reason_ = reason;
  }

  // What an end for `reason` would be told as now.
  [[nodiscard]] xen_abi::ShutdownReason reason_for(xen_abi::ShutdownReason reason) const {
    const std::scoped_lock lock(mutex_);
    return reason_.value_or(reason);
  }

  // A guest that is reset has noted nothing yet; one that has ended stays so.
  void reset() {
    const std::scoped_lock lock(mutex_);
    if (!has_ended_) reason_.reset();
  }

  // What was noted; note() restores it.
  [[nodiscard]] std::optional<xen_abi::ShutdownReason> noted() {
    const std::scoped_lock lock(mutex_);
    return reason_;
  }

  void operator()(xen_abi::ShutdownReason reason) {
    {
      const std::scoped_lock lock(mutex_);
      if (!reason_) reason_ = reason;
      if (has_ended_) return;
      has_ended_ = true;
      reason = *reason_;
    }
    vmm_.shutdown(reason);
  }

 private:
  V& vmm_;
  mutable std::mutex mutex_;
  std::optional<xen_abi::ShutdownReason> reason_{};
  bool has_ended_ = false;
};

}  // namespace xen_hcall
