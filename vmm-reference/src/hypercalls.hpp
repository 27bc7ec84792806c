// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What run_vcpu() does with a guest's hypercalls.
#pragma once

#include <algorithm>

#include "hypercall_port.hpp"
#include "kvm_ioctls/exit.hpp"
#include "kvm_ioctls/vcpu.hpp"
#include "vcpu_loop.hpp"
#include "xen_abi/cpuid.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {

inline bool is_timer_call(const xen_abi::Hypercall& call) {
  if (call.number == xen_abi::hypercall::set_timer_op) return true;
  const auto command = static_cast<std::uint32_t>(call.params[0]);
  return call.number == xen_abi::hypercall::vcpu_op &&
         (command == xen_abi::vcpuop::set_singleshot_timer ||
          command == xen_abi::vcpuop::stop_singleshot_timer);
}

// One vCPU of a Xen guest.
template <class Dispatcher>
class XenCalls {
 public:
  // `port`: how the calls come where KVM has no exit for them; else null.
  XenCalls(kvm_ioctls::Vcpu& vcpu, XenVcpuId id, XenPlatform& platform, Dispatcher& dispatcher,
           HypercallPort* port) noexcept
      : vcpu_(vcpu), id_(id), platform_(platform), dispatcher_(dispatcher), port_(port) {}

  void hypercall(kvm_ioctls::XenHypercall& exit, VcpuState& state) {
    xen_abi::Hypercall call{exit.input(), {}, exit.longmode(), exit.cpl()};
    std::copy(exit.params().begin(), exit.params().end(), call.params.begin());
    exit.set_result(answer(call, state));
  }
  bool out(kvm_ioctls::IoOut& exit, VcpuState& state) {
    if (port_ == nullptr || exit.port != HypercallPort::port) return false;
    vcpu_.sync_regs().edit_regs().rax = answer(HypercallPort::decode(vcpu_), state);
    return true;
  }
  bool write_msr(kvm_ioctls::MsrWrite& exit) {
    return port_ != nullptr && exit.index() == xen_abi::cpuid::hypercall_msr &&
           HypercallPort::decode(vcpu_).long_mode && port_->fill(exit.value());
  }

 private:
  std::uint64_t answer(const xen_abi::Hypercall& call, VcpuState& state) {
    const auto observed = platform_.observation()[id_.value].hypercall(id_, call);
    if (is_timer_call(call)) ++state.punted;
    platform_.enter_hypercall(id_, call.long_mode);
    const xen_abi::Answer given = dispatcher_(id_, call);
    state.host_errors.note(given.host);
    return given.guest.rax();
  }

  kvm_ioctls::Vcpu& vcpu_;
  XenVcpuId id_;
  XenPlatform& platform_;
  Dispatcher& dispatcher_;
  HypercallPort* port_;
};

// A guest of KVM's own, whose hypercalls KVM answers.
struct NoCalls {
  void hypercall(kvm_ioctls::XenHypercall&, VcpuState&) {}
  bool out(kvm_ioctls::IoOut&, VcpuState&) { return false; }
  bool write_msr(kvm_ioctls::MsrWrite&) { return false; }
};

}  // namespace vmm_reference
