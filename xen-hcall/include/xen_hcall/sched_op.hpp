// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_sched_op: how a vCPU gives way, and how a domain ends. KVM answers yield, and poll,
// by itself where it takes hypercalls; the others come here.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <variant>

#include "vmm_base/result.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/sched.hpp"
#include "xen_evtchn/channels.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"
#include "xen_hcall/shutdown.hpp"

namespace xen_hcall {

inline constexpr std::uint32_t watchdog_count = 2;

// yield: lets others run. On the thread of `vcpu`.
// block: from the next entry into the guest, this vCPU waits for an event; with its upcall mask
//   cleared, and not at all if one is due. On the thread of `vcpu`.
// poll: waits until one of `ports` is pending, or the vCPU's clock reads `timeout_ns`, unless that
//   is 0; may return early at any time. On the thread of `vcpu`.
// is_pending: whether shared_info says so of a port that is in range.
// set_watchdog: after so long, unless it is told otherwise, the domain ends with the reason
//   watchdog; nullopt: never. `index` is below watchdog_count.
template <class V>
concept SchedOpVmm = GuestReader<V> && ShutdownVmm<V> &&
    requires(V& vmm, XenVcpuId vcpu, std::span<const xen_abi::EventPort> ports,
             std::uint64_t timeout_ns, xen_abi::EventPort port, std::uint32_t index,
             std::optional<std::chrono::seconds> after) {
  vmm.yield(vcpu);
  { vmm.block(vcpu) } -> std::same_as<vmm_base::Result<void>>;
  vmm.poll(vcpu, ports, timeout_ns);
  { vmm.is_pending(port) } -> std::same_as<bool>;
  { vmm.set_watchdog(index, after) } -> std::same_as<vmm_base::Result<void>>;
};

// soft_reset: what the guest has set of Xen's is as at its start, and it goes on running, as kexec
//   wants it. On the thread of `vcpu`. To a VMM without it, a soft reset is an end as any other.
template <class V>
concept SoftResetVmm = requires(V& vmm, XenVcpuId vcpu) {
  { vmm.soft_reset(vcpu) } -> std::same_as<vmm_base::Result<void>>;
};

template <SchedOpVmm V>
class SchedOp {
 public:
  SchedOp(V& vmm, const xen_evtchn::Channels& channels, Shutdown<V>& shutdown) noexcept
      : vmm_(vmm), channels_(channels), shutdown_(shutdown) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::sched_op;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    const std::uint64_t gva = call.params[1];
    switch (static_cast<std::uint32_t>(call.params[0])) {
      case xen_abi::schedop::yield:
        vmm_.yield(vcpu);
        return ok();
      case xen_abi::schedop::block:
        return done(vmm_.block(vcpu));
      case xen_abi::schedop::shutdown:
        return shutdown(vcpu, gva);
      case xen_abi::schedop::shutdown_code:
        return shutdown_code(vcpu, gva);
      case xen_abi::schedop::poll:
        return call.long_mode ? poll<xen_abi::SchedPoll64>(vcpu, gva)
                              : poll<xen_abi::SchedPoll32>(vcpu, gva);
      case xen_abi::schedop::remote_shutdown:
        return remote_shutdown(vcpu, gva);
      case xen_abi::schedop::watchdog:
        return watchdog(vcpu, gva);
      case xen_abi::schedop::pin_override:  // the hardware domain's
        return xen_abi::Answer{xen_abi::Errno::perm};
      default:
        return std::nullopt;
    }
  }

  // Stops the watchdogs; for a VMM whose guest is reset. One that another vCPU is setting at this
  // moment is that call's. The first error.
  vmm_base::Result<void> reset() {
    vmm_base::Result<void> first = vmm_base::success();
    for (std::uint32_t index = 0; index < watchdog_count; ++index) {
      {
        const std::scoped_lock lock(mutex_);
        if (watchdogs_[index] != Watchdog::used) continue;
        watchdogs_[index] = Watchdog::changing;
      }
      auto stopped = vmm_.set_watchdog(index, std::nullopt);
      if (first) first = stopped;
      const std::scoped_lock lock(mutex_);
      watchdogs_[index] = stopped ? Watchdog::free : Watchdog::used;
    }
    return first;
  }

  // At rest, for who restores a domain: which watchdogs the guest has. When they bite is the VMM's
  // to keep, and by that it knows.
  void set_watchdogs(const std::array<bool, watchdog_count>& used) {
    const std::scoped_lock lock(mutex_);
    for (std::uint32_t at = 0; at < watchdog_count; ++at) {
      watchdogs_[at] = used[at] ? Watchdog::used : Watchdog::free;
    }
  }

 private:
  xen_abi::Answer shutdown(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::SchedShutdown>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    const auto reason = static_cast<xen_abi::ShutdownReason>(argument->reason);
    if constexpr (SoftResetVmm<V>) {
      if (shutdown_.reason_for(reason) == xen_abi::ShutdownReason::soft_reset) {
        return done(vmm_.soft_reset(vcpu));
      }
    }
    shutdown_(reason);
    return ok();
  }

  // What a later shutdown is to say.
  xen_abi::Answer shutdown_code(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::SchedShutdown>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    shutdown_.note(static_cast<xen_abi::ShutdownReason>(argument->reason));
    return ok();
  }

  // There is no other domain, and one's own isn't to be named here.
  xen_abi::Answer remote_shutdown(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::SchedRemoteShutdown>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    return {argument->domain_id == channels_.self() ? xen_abi::Errno::perm : xen_abi::Errno::srch};
  }

  template <class Poll>
  xen_abi::Answer poll(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<Poll>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    std::array<xen_abi::EventPort, 128> ports;  // Xen's limit, too
    if (argument->nr_ports > ports.size()) return {xen_abi::Errno::inval};
    for (std::uint32_t at = 0; at < argument->nr_ports; ++at) {
      const std::uint64_t place = argument->ports + std::uint64_t{at} * sizeof(std::uint32_t);
      const auto port = read_guest<std::uint32_t>(vmm_, vcpu, place);
      if (!port) return {xen_abi::Errno::fault};
      ports[at] = {*port};
      const auto found = channels_.status(ports[at]);
      const auto* channel = std::get_if<xen_evtchn::Channel>(&found);
      if (channel == nullptr || channel->kind == xen_evtchn::Kind::closed) {
        return {xen_abi::Errno::inval};
      }
      if (vmm_.is_pending(ports[at])) return ok();
    }
    vmm_.poll(vcpu, std::span(ports).first(argument->nr_ports), argument->timeout);
    return ok();
  }

  // id 0 asks for a new one; its id comes back. timeout 0 gives it back. -EBUSY where another vCPU
  // is about the same one.
  xen_abi::Answer watchdog(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::SchedWatchdog>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (argument->id > watchdog_count) return {xen_abi::Errno::inval};
    const std::chrono::seconds timeout(argument->timeout);
    if (argument->id == 0) return new_watchdog(timeout);

    const std::uint32_t index = argument->id - 1;
    {
      const std::scoped_lock lock(mutex_);
      if (watchdogs_[index] == Watchdog::free) return {xen_abi::Errno::inval};
      if (watchdogs_[index] == Watchdog::changing) return {xen_abi::Errno::busy};
      watchdogs_[index] = Watchdog::changing;
    }
    const bool stop = argument->timeout == 0;
    auto set = vmm_.set_watchdog(index, stop ? std::nullopt : std::optional(timeout));
    const std::scoped_lock lock(mutex_);
    watchdogs_[index] = set && stop ? Watchdog::free : Watchdog::used;
    return done(set);
  }

  xen_abi::Answer new_watchdog(std::chrono::seconds timeout) {
    std::uint32_t index = 0;
    {
      const std::scoped_lock lock(mutex_);
      while (index < watchdog_count && watchdogs_[index] != Watchdog::free) ++index;
      if (index == watchdog_count) return {xen_abi::Errno::nospc};
      watchdogs_[index] = Watchdog::changing;
    }
    auto set = vmm_.set_watchdog(index, timeout);
    const std::scoped_lock lock(mutex_);
    watchdogs_[index] = set ? Watchdog::used : Watchdog::free;
    return set ? ok(index + 1) : xen_abi::Answer{xen_abi::Errno::inval, set};
  }

  enum class Watchdog : std::uint8_t { free, changing, used };

  V& vmm_;
  const xen_evtchn::Channels& channels_;
  Shutdown<V>& shutdown_;
  std::mutex mutex_;  // of watchdogs_; not held across a call to the VMM
  std::array<Watchdog, watchdog_count> watchdogs_{};
};

}  // namespace xen_hcall
