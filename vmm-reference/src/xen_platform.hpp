// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The answers to what the components ask of their VMM: the guest's memory, its time, its events.
// One object a domain; vCPU threads and the timer thread call it at once.
#pragma once

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "grant_frames.hpp"
#include "host.hpp"
#include "host_errors.hpp"
#include "irq_routes.hpp"
#include "kvm_ioctls/registration.hpp"
#include "kvm_ioctls/vcpu.hpp"
#include "kvm_ioctls/vm.hpp"
#include "observation.hpp"
#include "snapshot.hpp"
#include "vm_memory/guest_memory.hpp"
#include "vmm_base/ids.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/sched.hpp"
#include "xen_abi/shared_info.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_clock/clock.hpp"
#include "xen_clock/vcpu_clock.hpp"
#include "xen_evtchn/channel.hpp"
#include "xen_hcall/grant_table_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/vcpu_op.hpp"
#include "xen_hcall/vcpu_registers.hpp"
#include "xen_timer/concepts.hpp"

namespace vmm_reference {

using vmm_base::Gpa;
using vmm_base::Gva;
using vmm_base::Result;
using vmm_base::XenVcpuId;
using xen_abi::EventPort;
using xen_clock::GuestTime;

class XenPlatform {
 public:
  // `vcpus` by Xen vCPU id; `errors` gets those that no call returns. All must outlive it.
  XenPlatform(const Host& host, const kvm_ioctls::Vm& vm, IrqRoutes& routes,
              vm_memory::GuestMemory& memory, std::span<kvm_ioctls::Vcpu> vcpus,
              HostErrors& errors);

  // --- on the thread of `vcpu` ---

  bool copy_from_guest(XenVcpuId vcpu, Gva from, std::span<std::byte> to);
  bool copy_to_guest(XenVcpuId vcpu, Gva to, std::span<const std::byte> from);
  std::optional<Gpa> translate(XenVcpuId vcpu, Gva from, std::size_t size);
  void yield(XenVcpuId vcpu);
  Result<void> block(XenVcpuId vcpu);
  void poll(XenVcpuId vcpu, std::span<const EventPort> ports, std::uint64_t timeout_ns);
  // What to do when VIRQ_TIMER of a vCPU gets a port, or 0.
  using TimerBound = std::function<Result<void>(XenVcpuId, EventPort)>;
  void on_timer_bound(TimerBound bound) { timer_bound_ = std::move(bound); }
  // What to do when a vCPU's timers are to be as at its start.
  using TimerReset = std::function<Result<void>(XenVcpuId)>;
  void on_timer_reset(TimerReset reset) { timer_reset_ = std::move(reset); }
  // Before a hypercall, from 64-bit code or not: the guest may have written its TSC since the last.
  void enter_hypercall(XenVcpuId vcpu, bool long_mode);
  // KVM's own timer of the vCPU.
  Result<void> set_timer(XenVcpuId vcpu, EventPort port, std::optional<GuestTime> deadline);
  Result<std::optional<GuestTime>> timer(XenVcpuId vcpu);
  // A signal of `eventfd`, always the same of a vCPU, raises `port`; nothing if that is 0.
  Result<void> route_event(XenVcpuId vcpu, EventPort port, int eventfd);

  // --- on any thread; what is about a vCPU is done on its thread ---

  // How that is done: KVM's ioctls of a vCPU wait while it runs.
  using Work = std::function<Result<void>(XenVcpuId, const std::function<Result<void>()>&)>;
  void on_work(Work work) { work_ = std::move(work); }

  Result<void> move_vcpu_info(XenVcpuId vcpu, Gpa gpa);
  Result<void> set_runstate_area(XenVcpuId vcpu, std::optional<Gpa> area);
  Result<void> set_time_area(XenVcpuId vcpu, std::optional<Gpa> area);
  Result<xen_abi::RunstateInfo> runstate(XenVcpuId vcpu);
  Result<xen_hcall::VcpuPower> vcpu_power(XenVcpuId vcpu);
  Result<void> initialise_vcpu(XenVcpuId vcpu, const xen_hcall::VcpuRegisters& registers);
  Result<void> power_up(XenVcpuId vcpu);
  Result<void> power_down(XenVcpuId vcpu);
  Result<void> send_nmi(XenVcpuId vcpu);
  Result<void> set_upcall_vector(XenVcpuId vcpu, std::uint8_t vector);
  Result<void> virq_bound(XenVcpuId vcpu, std::uint32_t virq, EventPort port);
  // What to do when the guest asks for a soft reset, as for kexec.
  using SoftReset = std::function<Result<void>()>;
  void on_soft_reset(SoftReset reset) { soft_reset_ = std::move(reset); }
  Result<void> soft_reset(XenVcpuId /*vcpu*/) { return soft_reset_(); }
  // A part of it: of the vCPU its timers, areas and upcall vector; of the domain shared_info, the
  // callback, the grant table.
  Result<void> reset_vcpu(XenVcpuId vcpu);
  Result<void> reset_domain();

  // --- on any thread ---

  // How the guest ended, said once.
  using Ended = std::function<void(xen_abi::ShutdownReason)>;
  void on_shutdown(Ended ended) { ended_ = std::move(ended); }
  void shutdown(xen_abi::ShutdownReason reason);
  // What to do to end the guest after so long, unless it is told otherwise.
  using Watchdog = std::function<void(std::uint32_t index, std::optional<std::chrono::seconds>)>;
  void on_watchdog(Watchdog watchdog) { watchdog_ = std::move(watchdog); }
  Result<void> set_watchdog(std::uint32_t index, std::optional<std::chrono::seconds> after);

  Result<void> set_callback(xen_hcall::CallbackIrq callback);
  Result<void> set_runstate_update_flag(bool enabled);
  Result<void> send_routed(EventPort port, std::optional<xen_evtchn::Target> target);
  Result<void> unmask_event(XenVcpuId vcpu, EventPort port);
  bool is_pending(EventPort port);
  bool is_ram(std::uint64_t gfn);
  // No balloon: what is RAM stays.
  bool populate_page(std::uint64_t gfn) { return is_ram(gfn); }
  bool remove_page(std::uint64_t gfn) { return is_ram(gfn); }
  Result<void> map_grant_frame(std::uint32_t index, std::uint64_t gfn) {
    return grants_.map(index, gfn);
  }
  xen_hcall::GrantTableSize grant_table_size() { return grants_.size(); }
  bool grow_grant_table(std::uint32_t frames) { return grants_.grow(frames); }
  std::optional<std::uint64_t> grant_frame(std::uint32_t index) { return grants_.frame(index); }
  void console_write(std::span<const std::byte> text);
  std::size_t console_read(std::span<std::byte> /*to*/) { return 0; }
  Result<void> map_shared_info(std::uint64_t gfn);
  void clear_pending(EventPort port);
  GuestTime guest_now(XenVcpuId vcpu);
  Result<void> raise_event(XenVcpuId vcpu, EventPort port);
  // Undoes route_event(), once the vCPUs have ended.
  void end_event_routes();

  // --- for whoever watches ---

  Observation& observation() noexcept { return observation_; }
  // What xen-timer tells.
  void timer_armed(XenVcpuId vcpu, GuestTime deadline, GuestTime now) {
    observation_[vcpu.value].armed(vcpu, deadline, now);
  }
  void timer_cancelled(XenVcpuId vcpu) { observation_[vcpu.value].cancelled(); }
  void timer_expired(XenVcpuId vcpu, const xen_timer::Due& due) {
    observation_[vcpu.value].expired(vcpu, due);
  }
  void timer_fired(XenVcpuId vcpu, const xen_timer::Due& due) {
    observation_[vcpu.value].raised(vcpu, due);
  }

  // --- at rest: while no vCPU runs ---

  // What of a snapshot is ours.
  Result<void> save(XenSnapshot& snapshot);
  // In a machine that has been restored. EFAULT, operand the address, for a place that isn't RAM.
  Result<void> restore(const XenSnapshot& snapshot);
  // Once all is restored, lets each vCPU look at the events that are pending: KVM may have had some
  // that it hadn't passed on.
  Result<void> raise_pending(const XenSnapshot& snapshot);
  // The guest's clock has been set.
  void forget_clocks() {
    for (PerVcpu& vcpu : state_) vcpu.clock.forget();
  }

  // Whether guest_now() came from the guest's own pvclock each time it was asked.
  [[nodiscard]] bool clock_was_exact() const noexcept { return !clock_fell_back_; }

 private:
  using VcpuInfo = xen_abi::VcpuInfo<std::uint64_t>;
  using SharedInfo = xen_abi::SharedInfo<std::uint64_t>;

  struct PerVcpu {
    std::atomic<VcpuInfo*> info = nullptr;  // in guest memory
    bool registered = false;                // at a place of the guest's choice
    std::atomic<std::uint8_t> upcall_vector = 0;
    std::atomic<bool> upcall_missed = false;   // the last couldn't be injected
    std::atomic<bool> initialised = false;     // and down, if it doesn't run
    std::optional<kvm_ioctls::IrqFd> irqfd{};  // of route_event(), on the vCPU's thread
    std::uint32_t event_gsi = 0;               // its GSI, once it has had one
    xen_clock::VcpuClock clock;
  };

  template <class Copy>
  bool each_page(XenVcpuId vcpu, Gva gva, std::size_t size, Copy&& copy);
  Result<void> set_vcpu_info(XenVcpuId vcpu, Gpa gpa, VcpuInfo* info);
  Result<void> save_vcpu(XenVcpuId vcpu, XenVcpuSnapshot& to);
  Result<void> restore_vcpu(XenVcpuId vcpu, const XenVcpuSnapshot& from);
  [[nodiscard]] std::optional<Gpa> gpa_of(const void* host) const;
  Result<void> inject_upcall(XenVcpuId vcpu);
  kvm_ioctls::Vcpu& vcpu(XenVcpuId id) noexcept { return vcpus_[id.value]; }
  // To one APIC id: Intel SDM, volume 3, section 11.11.
  std::uint64_t msi_address(XenVcpuId id) {
    return 0xfee00000 | std::uint64_t{vcpu(id).id().value} << 12;
  }

  const Host& host_;
  const kvm_ioctls::Vm& vm_;
  IrqRoutes& routes_;
  vm_memory::GuestMemory& memory_;
  std::span<kvm_ioctls::Vcpu> vcpus_;
  HostErrors& errors_;
  std::vector<PerVcpu> state_;  // by Xen vCPU id
  Observation observation_;
  std::atomic<SharedInfo*> shared_info_ = nullptr;
  std::atomic<bool> long_mode_ = false;  // the last caller's
  std::atomic<bool> clock_fell_back_ = false;
  std::atomic<bool> marks_runstates_ = false;
  TimerBound timer_bound_;
  TimerReset timer_reset_ = [](XenVcpuId) { return vmm_base::success(); };
  SoftReset soft_reset_ = []() -> Result<void> {
    return vmm_base::Error{"soft reset", ENOTSUP, 0};
  };
  Work work_ = [](XenVcpuId, const std::function<Result<void>()>& work) { return work(); };
  Ended ended_ = [](xen_abi::ShutdownReason) {};
  Watchdog watchdog_;
  GrantFrames grants_;
  std::vector<EventPort> sent_by_kernel_;  // what a send on this port raises there; 0: comes to us
};

}  // namespace vmm_reference
