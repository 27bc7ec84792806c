// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a guest of a KvmDouble does, step by step. Each is a function that fills the vCPU's kvm_run
// page as the kernel would, so that a test can also write its own:
//
//   kvm.vcpu(0).runs(guest::out(0x3f8, 'x'), guest::xen_hypercall(29, {2, 0}),
//                    [](kvm_run& run) { run.exit_reason = 99; return guest::exits; });
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "kvm_ioctls/uapi.hpp"

namespace kvm_ioctls::guest {

// What comes of a step: KVM_RUN returns; with an error, -errno; or it doesn't yet: the next step
// follows, at once or when a kick or a signal has interrupted KVM_RUN.
inline constexpr int exits = 0;
inline constexpr int goes_on = 1;
inline constexpr int stays_inside = 2;

// Finds the page's exit_reason KVM_EXIT_UNKNOWN and its union all 0. The page is the first of the
// vCPU's mapping. Called on the thread that calls KVM_RUN.
using Step = std::function<int(kvm_run&)>;

// Where the data of KVM_EXIT_IO is: one page, the second of the mapping.
inline constexpr std::size_t io_data_offset = 4096;
inline constexpr std::size_t io_data_size = 4096;
[[nodiscard]] inline std::byte* io_data(kvm_run& run) noexcept {
  return reinterpret_cast<std::byte*>(&run) + io_data_offset;
}

// --- anything ---

// An exit of any kind: its KVM_EXIT_*, and the first bytes of kvm_run's union, of 256.
[[nodiscard]] inline Step other(std::uint32_t reason, std::vector<std::byte> payload = {}) {
  return [reason, payload = std::move(payload)](kvm_run& run) {
    run.exit_reason = reason;
    if (!payload.empty()) {
      std::memcpy(run.padding, payload.data(), std::min(payload.size(), sizeof(run.padding)));
    }
    return exits;
  };
}
// The same with the payload as a structure.
template <class Payload>
[[nodiscard]] Step other_with(std::uint32_t reason, const Payload& payload) {
  const auto bytes = std::as_bytes(std::span(&payload, 1));
  return other(reason, {bytes.begin(), bytes.end()});
}
// KVM_RUN fails.
[[nodiscard]] inline Step fails(int error) {
  return [error](kvm_run&) { return -error; };
}
// No exit: calls what the test wants done meanwhile, to guest memory say.
[[nodiscard]] inline Step does(std::function<void()> what) {
  return [what = std::move(what)](kvm_run&) {
    what();
    return goes_on;
  };
}
// No exit until a kick or a signal interrupts KVM_RUN.
[[nodiscard]] inline Step stays() {
  return [](kvm_run&) { return stays_inside; };
}
// KVM_RUN is interrupted, as if by a signal: EINTR.
[[nodiscard]] inline Step interrupted() {
  return [](kvm_run& run) {
    run.exit_reason = KVM_EXIT_INTR;
    return -EINTR;
  };
}

// --- ports, memory, MSRs ---

namespace detail {

inline Step io(std::uint8_t direction, std::uint16_t port, std::uint8_t size,
               std::vector<std::byte> data) {
  return [=, data = std::move(data)](kvm_run& run) {
    run.exit_reason = KVM_EXIT_IO;
    run.io.direction = direction;
    run.io.size = size;
    run.io.port = port;
    const std::size_t length = std::min(data.size(), io_data_size);
    run.io.count = static_cast<std::uint32_t>(length / size);
    run.io.data_offset = io_data_offset;
    std::memcpy(io_data(run), data.data(), length);
    return exits;
  };
}
inline std::vector<std::byte> bytes_of(std::uint64_t value, std::size_t size) {
  std::vector<std::byte> bytes(size);
  std::memcpy(bytes.data(), &value, std::min(size, sizeof(value)));
  return bytes;
}

}  // namespace detail

// OUT of `size` bytes: 1, 2 or 4.
[[nodiscard]] inline Step out(std::uint16_t port, std::uint32_t value, std::uint8_t size = 1) {
  return detail::io(KVM_EXIT_IO_OUT, port, size, detail::bytes_of(value, size));
}
// REP OUTS of items of `size` bytes; a page at most.
[[nodiscard]] inline Step outs(std::uint16_t port, std::vector<std::byte> data,
                               std::uint8_t size = 1) {
  return detail::io(KVM_EXIT_IO_OUT, port, size, std::move(data));
}
// IN, or REP INS of `count` items, a page at most. What the guest reads, unless the VMM says: 0.
[[nodiscard]] inline Step in(std::uint16_t port, std::uint8_t size = 1, std::uint32_t count = 1) {
  return detail::io(KVM_EXIT_IO_IN, port, size, std::vector<std::byte>(std::size_t{size} * count));
}
// Of 1 to 8 bytes, where there is no memory.
[[nodiscard]] inline Step mmio_write(std::uint64_t gpa, std::uint64_t value,
                                     std::uint32_t size = 4) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_MMIO;
    run.mmio.phys_addr = gpa;
    run.mmio.len = size;
    run.mmio.is_write = 1;
    std::memcpy(run.mmio.data, &value, sizeof(run.mmio.data));
    return exits;
  };
}
[[nodiscard]] inline Step mmio_read(std::uint64_t gpa, std::uint32_t size = 4) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_MMIO;
    run.mmio.phys_addr = gpa;
    run.mmio.len = size;
    return exits;
  };
}
// `reason`: KVM_MSR_EXIT_REASON_*.
[[nodiscard]] inline Step rdmsr(std::uint32_t index,
                                std::uint32_t reason = KVM_MSR_EXIT_REASON_UNKNOWN) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_X86_RDMSR;
    run.msr.index = index;
    run.msr.reason = reason;
    return exits;
  };
}
[[nodiscard]] inline Step wrmsr(std::uint32_t index, std::uint64_t value,
                                std::uint32_t reason = KVM_MSR_EXIT_REASON_UNKNOWN) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_X86_WRMSR;
    run.msr.index = index;
    run.msr.data = value;
    run.msr.reason = reason;
    return exits;
  };
}

// --- hypercalls ---

namespace detail {

template <class To>
void copy_some(const std::vector<std::uint64_t>& from, To& to) {
  std::copy_n(from.begin(), std::min(from.size(), std::size(to)), std::begin(to));
}

}  // namespace detail

// `input` is RAX; up to 6 parameters, the rest 0.
[[nodiscard]] inline Step xen_hypercall(std::uint64_t input,
                                        const std::vector<std::uint64_t>& params = {},
                                        bool longmode = true, std::uint32_t cpl = 0) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_XEN;
    run.xen.type = KVM_EXIT_XEN_HCALL;
    auto& call = run.xen.u.hcall;
    call.input = input;
    call.longmode = longmode ? 1 : 0;
    call.cpl = cpl;
    detail::copy_some(params, call.params);
    return exits;
  };
}
// KVM's own, up to 6 arguments: KVM_HC_MAP_GPA_RANGE is 12.
[[nodiscard]] inline Step hypercall(std::uint64_t number,
                                    const std::vector<std::uint64_t>& args = {},
                                    bool longmode = true) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_HYPERCALL;
    run.hypercall.nr = number;
    detail::copy_some(args, run.hypercall.args);
    run.hypercall.longmode = longmode ? KVM_EXIT_HYPERCALL_LONG_MODE : 0;
    return exits;
  };
}
[[nodiscard]] inline Step hyperv_hypercall(std::uint64_t input,
                                           const std::vector<std::uint64_t>& params = {}) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_HYPERV;
    run.hyperv.type = KVM_EXIT_HYPERV_HCALL;
    run.hyperv.u.hcall.input = input;
    detail::copy_some(params, run.hyperv.u.hcall.params);
    return exits;
  };
}
[[nodiscard]] inline Step hyperv_synic(std::uint32_t msr, std::uint64_t control,
                                       std::uint64_t event_page, std::uint64_t message_page) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_HYPERV;
    run.hyperv.type = KVM_EXIT_HYPERV_SYNIC;
    auto& synic = run.hyperv.u.synic;
    synic.msr = msr;
    synic.control = control;
    synic.evt_page = event_page;
    synic.msg_page = message_page;
    return exits;
  };
}
[[nodiscard]] inline Step hyperv_syndbg(std::uint32_t msr, std::uint64_t control,
                                        std::uint64_t send_page = 0, std::uint64_t recv_page = 0,
                                        std::uint64_t pending_page = 0) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_HYPERV;
    run.hyperv.type = KVM_EXIT_HYPERV_SYNDBG;
    auto& debug = run.hyperv.u.syndbg;
    debug.msr = msr;
    debug.control = control;
    debug.send_page = send_page;
    debug.recv_page = recv_page;
    debug.pending_page = pending_page;
    return exits;
  };
}
// A TDVMCALL by its number; `data` as its subfunction has it, up to 5.
[[nodiscard]] inline Step tdx(std::uint64_t number, const std::vector<std::uint64_t>& data = {},
                              std::uint64_t flags = 0) {
  TdxPayload payload{};
  payload.flags = flags;
  payload.nr = number;
  std::copy_n(data.begin(), std::min<std::size_t>(data.size(), 5), payload.data + 1);
  return other_with(KVM_EXIT_TDX, payload);
}
[[nodiscard]] inline Step snp_req_certs(std::uint64_t gpa, std::uint64_t pages) {
  return other_with(KVM_EXIT_SNP_REQ_CERTS, SnpReqCertsPayload{gpa, pages, 0});
}

// --- the rest, in the order of kvm_ioctls' Exit ---

// HLT, where the APIC is in userspace.
[[nodiscard]] inline Step halt() { return other(KVM_EXIT_HLT); }
[[nodiscard]] inline Step shutdown() { return other(KVM_EXIT_SHUTDOWN); }
[[nodiscard]] inline Step debug(std::uint32_t exception, std::uint64_t pc, std::uint64_t dr6 = 0,
                                std::uint64_t dr7 = 0) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_DEBUG;
    auto& arch = run.debug.arch;
    arch.exception = exception;
    arch.pc = pc;
    arch.dr6 = dr6;
    arch.dr7 = dr7;
    return exits;
  };
}
[[nodiscard]] inline Step tpr_access(std::uint64_t rip, bool is_write) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_TPR_ACCESS;
    run.tpr_access.rip = rip;
    run.tpr_access.is_write = is_write ? 1 : 0;
    return exits;
  };
}
[[nodiscard]] inline Step set_tpr(std::uint8_t cr8) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_SET_TPR;
    run.cr8 = cr8;
    return exits;
  };
}
[[nodiscard]] inline Step ioapic_eoi(std::uint8_t vector) {
  return other_with(KVM_EXIT_IOAPIC_EOI, vector);
}
[[nodiscard]] inline Step bus_lock() { return other(KVM_EXIT_X86_BUS_LOCK); }
[[nodiscard]] inline Step notify(std::uint32_t flags = 0) {
  return other_with(KVM_EXIT_NOTIFY, flags);
}
[[nodiscard]] inline Step ap_reset_hold() { return other(KVM_EXIT_AP_RESET_HOLD); }
// KVM_RUN fails with EFAULT or EHWPOISON, and says where.
[[nodiscard]] inline Step memory_fault(std::uint64_t gpa, std::uint64_t size,
                                       std::uint64_t flags = 0, int error = EFAULT) {
  return [=, fault = other_with(KVM_EXIT_MEMORY_FAULT, MemoryFaultPayload{flags, gpa, size})](
             kvm_run& run) {
    (void)fault(run);
    return -error;
  };
}
[[nodiscard]] inline Step irq_window_open() { return other(KVM_EXIT_IRQ_WINDOW_OPEN); }
// See VcpuDouble::dirties() for the ring.
[[nodiscard]] inline Step dirty_ring_full() { return other(KVM_EXIT_DIRTY_RING_FULL); }
// KVM_SYSTEM_EVENT_*, up to 16 words.
[[nodiscard]] inline Step system_event(std::uint32_t type,
                                       const std::vector<std::uint64_t>& data = {}) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_SYSTEM_EVENT;
    run.system_event.type = type;
    run.system_event.ndata =
        static_cast<std::uint32_t>(std::min(data.size(), std::size(run.system_event.data)));
    detail::copy_some(data, run.system_event.data);
    return exits;
  };
}
[[nodiscard]] inline Step fail_entry(std::uint64_t hardware_reason, std::uint32_t cpu = 0) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_FAIL_ENTRY;
    run.fail_entry.hardware_entry_failure_reason = hardware_reason;
    run.fail_entry.cpu = cpu;
    return exits;
  };
}
// KVM_INTERNAL_ERROR_*, up to 16 words.
[[nodiscard]] inline Step internal_error(std::uint32_t suberror,
                                         const std::vector<std::uint64_t>& data = {}) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
    run.internal.suberror = suberror;
    run.internal.ndata =
        static_cast<std::uint32_t>(std::min(data.size(), std::size(run.internal.data)));
    detail::copy_some(data, run.internal.data);
    return exits;
  };
}
[[nodiscard]] inline Step unknown(std::uint64_t hardware_reason) {
  return other_with(KVM_EXIT_UNKNOWN, hardware_reason);
}
[[nodiscard]] inline Step exception(std::uint32_t vector, std::uint32_t error_code = 0) {
  return [=](kvm_run& run) {
    run.exit_reason = KVM_EXIT_EXCEPTION;
    run.ex.exception = vector;
    run.ex.error_code = error_code;
    return exits;
  };
}
[[nodiscard]] inline Step nmi() { return other(KVM_EXIT_NMI); }
[[nodiscard]] inline Step watchdog() { return other(KVM_EXIT_WATCHDOG); }

}  // namespace kvm_ioctls::guest
