// SPDX-License-Identifier: BSD-3-Clause
//
// The answers to what the components ask of their VMM: the guest's memory, its time, its events.
// One object a domain; vCPU threads and the timer thread call it at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "host.hpp"
#include "kvm_ioctls/vcpu.hpp"
#include "kvm_ioctls/vm.hpp"
#include "vm_memory/guest_memory.hpp"
#include "vmm_base/ids.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/shared_info.hpp"
#include "xen_clock/clock.hpp"
#include "xen_clock/pvclock.hpp"

namespace vmm_reference {

using vmm_base::Gpa;
using vmm_base::Gva;
using vmm_base::Result;
using vmm_base::XenVcpuId;
using xen_abi::EventPort;
using xen_clock::GuestTime;

class XenPlatform {
 public:
  // `vcpus` by Xen vCPU id. All must outlive it.
  XenPlatform(const Host& host, const kvm_ioctls::Vm& vm, vm_memory::GuestMemory& memory,
              std::span<kvm_ioctls::Vcpu> vcpus);

  // --- on the thread of `vcpu` ---

  bool copy_from_guest(XenVcpuId vcpu, Gva from, std::span<std::byte> to);
  bool copy_to_guest(XenVcpuId vcpu, Gva to, std::span<const std::byte> from);
  Result<void> move_vcpu_info(XenVcpuId vcpu, Gpa gpa);
  Result<void> set_upcall_vector(XenVcpuId vcpu, std::uint8_t vector);
  // What to do when VIRQ_TIMER of a vCPU gets a port, or 0.
  using TimerBound = std::function<Result<void>(XenVcpuId, EventPort)>;
  void on_timer_bound(TimerBound bound) { timer_bound_ = std::move(bound); }
  Result<void> virq_bound(XenVcpuId vcpu, std::uint32_t virq, EventPort port);
  // Before a hypercall: the guest may have written its TSC since the last.
  void refresh_clock(XenVcpuId vcpu);
  // KVM's own timer of the vCPU.
  Result<void> set_timer(XenVcpuId vcpu, EventPort port, std::optional<GuestTime> deadline);
  Result<std::optional<GuestTime>> timer(XenVcpuId vcpu);

  // --- on any thread ---

  Result<void> map_shared_info(std::uint64_t gfn);
  void clear_pending(EventPort port);
  GuestTime guest_now(XenVcpuId vcpu);
  Result<void> raise_event(XenVcpuId vcpu, EventPort port);
  // Whether guest_now() came from the guest's own pvclock each time it was asked.
  [[nodiscard]] bool clock_was_exact() const noexcept { return !clock_fell_back_; }

 private:
  using VcpuInfo = xen_abi::VcpuInfo<std::uint64_t>;
  using SharedInfo = xen_abi::SharedInfo<std::uint64_t>;

  struct PerVcpu {
    std::atomic<VcpuInfo*> info = nullptr;  // in guest memory
    std::atomic<std::uint8_t> upcall_vector = 0;
    std::atomic<std::uint64_t> tsc_offset = 0;
    // Of info->time when tsc_offset was read; 0 for never. A change says that it may be stale.
    std::atomic<std::uint32_t> clock_version = 0;
  };

  template <class Copy>
  bool each_page(XenVcpuId vcpu, Gva gva, std::size_t size, Copy&& copy);
  Result<void> inject_upcall(XenVcpuId vcpu);
  kvm_ioctls::Vcpu& vcpu(XenVcpuId id) noexcept { return vcpus_[id.value]; }

  const Host& host_;
  const kvm_ioctls::Vm& vm_;
  vm_memory::GuestMemory& memory_;
  std::span<kvm_ioctls::Vcpu> vcpus_;
  std::vector<PerVcpu> state_;  // by Xen vCPU id
  std::atomic<SharedInfo*> shared_info_ = nullptr;
  std::atomic<bool> clock_fell_back_ = false;
  TimerBound timer_bound_;
};

}  // namespace vmm_reference
