// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// All that a guest at rest is: what a snapshot holds, and nothing else does. In the order in which
// it is put back; who does that, by name.
//
//   of the VM       RAM, clock, TSCs, PICs and IOAPIC                         machine_state.cpp
//   of each vCPU    CPUID, registers, MSRs, FPU, local APIC, nested state     machine_state.cpp
//   of Xen's        shared_info, vcpu_info, areas, vectors, runstates, grant
//                   table; what the handlers of hypercalls know               xen_state.cpp
//                   event channels; timers and watchdogs                      xen_domain.hpp
//   of the devices  UART, RTC                                                 pc_ports.hpp
//
// Not in it, and why:
//   Xen's vCPU ids, GSI routes, what a send raises in KVM, sync_regs   follow from the rest and
//   from
//     --xen-timer, which may be another afterwards
//   KVM's own Xen timers   xen_timer::Handler::pause() has taken their deadlines over by then
//   event bits that KVM hasn't passed on yet   no ioctl tells; they are pending in shared_info, and
//     restore looks there
//   Hyper-V's MSRs   no guest has any, and Xen's hypercall MSR is one of the numbers: writing that
//     fills a page of the guest's
//   the i8042, the ACPI ports   have no state; the PIT: there is none
//   what was typed and not taken by the guest, what the terminal hasn't shown   the host's
//   devices of the host's (--vfio)   can't be saved: refused
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kvm_ioctls/uapi.hpp"
#include "options.hpp"
#include "vm_superio/rtc.hpp"
#include "vm_superio/serial.hpp"
#include "vmm_base/guest_address.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_evtchn/channel.hpp"
#include "xen_hcall/sched_op.hpp"
#include "xen_timer/state.hpp"

namespace vmm_reference {

// A region of RAM: the pages of it that aren't all zero. Views: of guest memory, or of a file.
struct RamSnapshot {
  struct Run {
    std::uint64_t offset = 0;  // into the region, bytes, page-aligned; ascending
    std::span<const std::byte> bytes{};
  };
  vmm_base::Gpa gpa{};
  std::uint64_t size = 0;  // bytes
  std::vector<Run> runs{};
};

struct VcpuSnapshot {
  kvm_regs regs{};
  kvm_sregs sregs{};
  kvm_debugregs debugregs{};
  kvm_xcrs xcrs{};
  kvm_vcpu_events events{};
  kvm_mp_state mp_state{};
  std::uint32_t tsc_khz = 0;
  std::uint64_t tsc = 0;  // at the moment of ClockSnapshot::guest
  kvm_lapic_state lapic{};
  std::vector<kvm_cpuid_entry2> cpuid{};
  std::vector<kvm_msr_entry> msrs{};
  std::vector<std::byte> xsave{};
  std::vector<std::byte> nested{};  // struct kvm_nested_state; empty where KVM has none
};

// One moment, on two clocks.
struct ClockSnapshot {
  std::uint64_t guest = 0;  // ns, the guest's system time
  std::uint64_t real = 0;   // ns since 1970, UTC, the host's
};

inline constexpr std::uint64_t nowhere = ~std::uint64_t{0};

struct XenVcpuSnapshot {
  // Guest physical addresses, or nowhere.
  std::uint64_t vcpu_info = nowhere;
  std::uint64_t time_area = nowhere;
  std::uint64_t runstate_area = nowhere;
  // state, state_entry_time, running, runnable, blocked, offline; none where KVM keeps no
  // runstates.
  std::optional<std::array<std::uint64_t, 6>> runstate{};
  std::uint8_t upcall_vector = 0;  // 0: the domain's
  bool registered = false;         // vcpu_info is at a place of the guest's choice
  bool initialised = false;        // by VCPUOP_initialise
  xen_timer::VcpuTimers timers{};
};

struct GrantFrameSnapshot {
  std::uint32_t index = 0;
  std::uint64_t gfn = 0;
  std::vector<std::byte> page{};  // where that isn't RAM
};

struct XenSnapshot {
  std::optional<std::uint64_t> shared_info{};  // the guest frame
  std::uint8_t upcall_vector = 0;              // the domain's
  bool runstate_update_flag = false;
  std::uint64_t pages = 0;                    // that the balloon has left
  std::optional<std::uint32_t> end_reason{};  // noted for whatever ends the domain
  // When each bites, ns from now; none: the guest hasn't that one.
  std::array<std::optional<std::int64_t>, xen_hcall::watchdog_count> watchdogs{};
  std::array<std::uint64_t, xen_abi::hvm_param::count> params{};
  std::uint32_t grant_frame_count = 1;
  std::vector<GrantFrameSnapshot> grant_frames{};  // those that have a place, ascending
  std::vector<xen_evtchn::Channel> channels{};     // by port, all of them
  std::vector<XenVcpuSnapshot> vcpus{};            // by Xen vCPU id
};

struct PortsSnapshot {
  vm_superio::SerialState serial{};
  vm_superio::RtcState rtc{};
};

struct Snapshot {
  Boot boot = Boot::pvh;
  TimerMode mode = TimerMode::kernel;  // until it was saved
  std::uint64_t ram_size = 0;          // bytes
  std::vector<VcpuSnapshot> vcpus{};   // by Xen vCPU id
  ClockSnapshot clock{};
  std::array<kvm_irqchip, 3> irqchips{};
  std::optional<XenSnapshot> xen{};      // but for Boot::native
  std::optional<PortsSnapshot> ports{};  // of a Linux guest
  std::vector<RamSnapshot> ram{};        // ascending
};

}  // namespace vmm_reference
