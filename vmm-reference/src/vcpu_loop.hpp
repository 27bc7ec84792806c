// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The run loop of one vCPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "devices.hpp"
#include "exit_name.hpp"
#include "kvm_ioctls/exit.hpp"
#include "vmm_base/guest_address.hpp"

namespace vmm_reference {

// What the loop leaves behind.
struct VcpuState {
  std::atomic<std::uint64_t> punted = 0;
  std::uint64_t host_errors = 0;  // met while answering; a guest can cause them at will …
  std::string first_host_error;   // … so only the first is kept
  std::string fault;              // once the thread has ended
};

// Runs until `devices` or a fault ends it, or `interrupted()`, which is called when a signal has
// come, says not to go on.
//   calls: what the guest asks of its hypervisor. hypercall(exit, state); out(exit, state) and
//     write_msr(exit), true if that was for them.
template <class Vcpu, class Calls, class Interrupted>
void run_vcpu(Vcpu& vcpu, Calls&& calls, Devices& devices, const Interrupted& interrupted,
              VcpuState& state) {
  for (bool go_on = true; go_on;) {
    auto ran = vcpu.run();
    if (!ran) {
      state.fault = ran.error().message();
      return;
    }
    kvm_ioctls::Exit& exit = ran.assume_value();
    go_on = kvm_ioctls::match(
        exit,
        [&](kvm_ioctls::XenHypercall& call) {
          calls.hypercall(call, state);
          return true;
        },
        [&](kvm_ioctls::IoOut& out) {
          return calls.out(out, state) || devices.out(out.port, out.data);
        },
        [&](kvm_ioctls::IoIn& in) {
          devices.in(in.port, in.data);
          return true;
        },
        [&](kvm_ioctls::MmioRead& read) {
          devices.read_memory(vmm_base::Gpa{read.address}, read.data);
          return true;
        },
        [&](kvm_ioctls::MmioWrite& write) {
          devices.write_memory(vmm_base::Gpa{write.address}, write.data);
          return true;
        },
        [&](kvm_ioctls::MsrWrite& write) {
          if (calls.write_msr(write)) write.accept();
          return true;
        },
        [&](kvm_ioctls::MsrRead&) { return true; },  // #GP
        [&](kvm_ioctls::Interrupted&) { return interrupted(); },
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
          state.fault = "an exit that this guest has no reason for: ";
          state.fault += exit_name(exit);
          return false;
        });
  }
}

}  // namespace vmm_reference
