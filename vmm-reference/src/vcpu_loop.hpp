// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The run loop of one vCPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

#include "devices.hpp"
#include "exit_name.hpp"
#include "host_errors.hpp"
#include "kvm_ioctls/exit.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

// What the loop leaves behind.
struct VcpuState {
  std::atomic<std::uint64_t> punted = 0;
  HostErrors host_errors{};  // met while answering
  std::string fault{};       // once the thread has ended
};

// Runs until `devices` or a fault ends it, or `interrupted()`, which is called when a signal has
// come, says not to go on.
//   calls: what the guest asks of its hypervisor. hypercall(exit, state); out(exit, state) and
//     write_msr(exit), true if that was for them.
template <class Vcpu, class Calls, class Interrupted>
void run_vcpu(Vcpu& vcpu, Calls&& calls, Devices& devices, const Interrupted& interrupted,
              VcpuState& state) {
  const auto ends_with = [&](std::string fault) {
    state.fault = std::move(fault);
    return false;
  };
  for (bool go_on = true; go_on;) {
    const vmm_base::Result<bool> ran = vcpu.run(
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
        [&](kvm_ioctls::Shutdown&) { return ends_with("the guest crashed (a triple fault)"); },
        [&](kvm_ioctls::FailEntry& entry) {
          return ends_with("the processor refused the guest's state, reason " +
                           std::to_string(entry.hardware_reason));
        },
        [&](kvm_ioctls::InternalError& error) {
          return ends_with("KVM internal error, suberror " + std::to_string(error.suberror));
        },
        [&](kvm_ioctls::Other& other) {
          return ends_with("an exit this VMM doesn't know: KVM_EXIT " +
                           std::to_string(other.reason));
        },
        [&](auto& exit) {
          return ends_with(std::string("an exit that this guest has no reason for: ") +
                           exit_name(exit));
        });
    go_on = ran ? ran.assume_value() : ends_with(ran.error().message());
  }
}

}  // namespace vmm_reference
