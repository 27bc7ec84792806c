// SPDX-License-Identifier: BSD-3-Clause
//
// The run loop of one vCPU.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <string>

#include "hypercall_port.hpp"
#include "kvm_ioctls/exit.hpp"
#include "kvm_ioctls/vcpu.hpp"
#include "xen_abi/cpuid.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {

// What the loop leaves behind.
struct VcpuState {
  std::atomic<std::uint64_t> punted = 0;
  std::uint64_t host_errors = 0;  // met while answering; a guest can cause them at will …
  std::string first_host_error;   // … so only the first is kept
  std::string fault;              // once the thread has ended
};

inline bool is_timer_call(const xen_abi::Hypercall& call) {
  if (call.number == xen_abi::hypercall::set_timer_op) return true;
  const auto command = static_cast<std::uint32_t>(call.params[0]);
  return call.number == xen_abi::hypercall::vcpu_op &&
         (command == xen_abi::vcpuop::set_singleshot_timer ||
          command == xen_abi::vcpuop::stop_singleshot_timer);
}

// Runs until `ports` or a fault ends it, or `interrupted(id)`, which is called when a signal has
// come, says not to go on. Ports has out(port, data), false to end, and in(port, data).
template <class Dispatcher, class Interrupted, class Ports>
void run_vcpu(kvm_ioctls::Vcpu& vcpu, XenVcpuId id, XenPlatform& platform, Dispatcher& dispatcher,
              std::optional<HypercallPort>& hypercall_port, const Interrupted& interrupted,
              Ports& ports, VcpuState& state) {
  const auto answer = [&](const xen_abi::Hypercall& call) {
    if (is_timer_call(call)) ++state.punted;
    platform.enter_hypercall(id, call.long_mode);
    const xen_abi::Answer given = dispatcher(id, call);
    if (!given.host && state.host_errors++ == 0) {
      state.first_host_error = given.host.error().message();
    }
    return given.guest.rax();
  };

  for (bool go_on = true; go_on;) {
    auto ran = vcpu.run();
    if (!ran) {
      state.fault = ran.error().message();
      return;
    }
    go_on = kvm_ioctls::match(
        ran.assume_value(),
        [&](kvm_ioctls::XenHypercall& call) {
          xen_abi::Hypercall decoded{call.input(), {}, call.longmode(), call.cpl()};
          std::copy(call.params().begin(), call.params().end(), decoded.params.begin());
          call.set_result(answer(decoded));
          return true;
        },
        [&](kvm_ioctls::IoOut& out) {
          if (hypercall_port && out.port == HypercallPort::port) {
            vcpu.sync_regs().edit_regs().rax = answer(HypercallPort::decode(vcpu));
            return true;
          }
          return ports.out(out.port, std::span<const std::byte>(out.data));
        },
        [&](kvm_ioctls::IoIn& in) {
          ports.in(in.port, in.data);
          return true;
        },
        // As on a PC, nobody is at home there.
        [&](kvm_ioctls::MmioRead& read) {
          std::fill(read.data.begin(), read.data.end(), std::byte{0xff});
          return true;
        },
        [&](kvm_ioctls::MmioWrite&) { return true; },
        [&](kvm_ioctls::MsrWrite& write) {
          if (hypercall_port && write.index() == xen_abi::cpuid::hypercall_msr &&
              HypercallPort::decode(vcpu).long_mode && hypercall_port->fill(write.value())) {
            write.accept();
          }
          return true;
        },
        [&](kvm_ioctls::MsrRead&) { return true; },  // #GP
        [&](kvm_ioctls::Interrupted&) { return interrupted(id); },
        [&](kvm_ioctls::Shutdown&) {
          state.fault = "the guest crashed (a triple fault)";
          return false;
        },
        [&](kvm_ioctls::FailEntry& entry) {
          state.fault = "the processor refused the guest's state, reason " +
                        std::to_string(entry.hardware_reason);
          return false;
        },
        [&](kvm_ioctls::InternalError& error) {
          state.fault = "KVM internal error, suberror " + std::to_string(error.suberror);
          return false;
        },
        [&](kvm_ioctls::Other& other) {
          state.fault = "an exit this VMM doesn't know: KVM_EXIT " + std::to_string(other.reason);
          return false;
        },
        [&](auto&) {
          state.fault = "an exit that a Xen guest has no reason for";
          return false;
        });
  }
}

}  // namespace vmm_reference
