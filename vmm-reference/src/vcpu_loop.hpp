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
#include "vmm_reference/guest_protocol.hpp"
#include "xen_abi/cpuid.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {

// What the loop leaves behind; the report's place is set as soon as the guest tells it.
struct VcpuState {
  std::atomic<std::uint32_t> report_gpa = 0;
  std::atomic<std::uint64_t> punted = 0;
  std::uint64_t host_errors = 0;   // met while answering; a guest can cause them at will …
  std::string first_host_error;    // … so only the first is kept
  std::uint32_t text_left = 4096;  // characters of port_text still shown
  std::string fault;               // once the thread has ended
};

inline std::uint32_t value_of(const kvm_ioctls::IoOut& out) {
  std::uint32_t value = 0;
  std::memcpy(&value, out.data.data(), std::min(out.data.size(), sizeof(value)));
  return value;
}

inline bool is_timer_call(const xen_abi::Hypercall& call) {
  if (call.number == xen_abi::hypercall::set_timer_op) return true;
  const auto command = static_cast<std::uint32_t>(call.params[0]);
  return call.number == xen_abi::hypercall::vcpu_op &&
         (command == xen_abi::vcpuop::set_singleshot_timer ||
          command == xen_abi::vcpuop::stop_singleshot_timer);
}

// A character from the guest, for the user's terminal.
inline void show_text(std::uint32_t character, VcpuState& state) {
  const bool printable = (character >= ' ' && character < 0x7f) || character == '\n';
  if (state.text_left == 0 || !printable) return;
  --state.text_left;
  std::fputc(static_cast<int>(character), stderr);
}

// Runs until the guest says it is done, something fails, or `stop` is set and the vCPU interrupted.
template <class Dispatcher>
void run_vcpu(kvm_ioctls::Vcpu& vcpu, XenVcpuId id, XenPlatform& platform, Dispatcher& dispatcher,
              std::optional<HypercallPort>& hypercall_port, const std::atomic<bool>& stop,
              VcpuState& state) {
  const auto answer = [&](const xen_abi::Hypercall& call) {
    if (is_timer_call(call)) ++state.punted;
    platform.refresh_clock(id);
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
          switch (out.port) {
            case HypercallPort::port:
              // With KVM_EXIT_XEN it is a port like any other.
              if (hypercall_port) vcpu.set_synced_rax(answer(HypercallPort::decode(vcpu)));
              return true;
            case port_text:
              show_text(value_of(out), state);
              return true;
            case port_report:
              state.report_gpa = value_of(out);
              return true;
            case port_done:
              if (value_of(out) != 0) state.fault = "the guest gave up";
              return false;
            default:
              return true;  // as on a PC, nobody is at home there
          }
        },
        [&](kvm_ioctls::IoIn& in) {
          std::fill(in.data.begin(), in.data.end(), std::byte{0xff});
          return true;
        },
        [&](kvm_ioctls::MsrWrite& write) {
          if (hypercall_port && write.index() == xen_abi::cpuid::hypercall_msr &&
              HypercallPort::decode(vcpu).long_mode && hypercall_port->fill(write.value())) {
            write.accept();
          }
          return true;
        },
        [&](kvm_ioctls::MsrRead&) { return true; },  // #GP
        [&](kvm_ioctls::Interrupted&) { return !stop.load(); },
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
