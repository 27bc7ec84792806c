// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Why KVM_RUN came back, as a variant of small structs that point into the vCPU's kvm_run page:
// they are valid until the next run(). A kind that isn't known yet is Other, never undefined
// behaviour. Payloads may get new members: name those you use.
//
//   match(exit, [](IoOut& out) { … }, [](XenHypercall& call) { … }, [](auto&) { … });
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <variant>

#include "kvm_ioctls/uapi.hpp"

namespace kvm_ioctls {

// --- What a guest does ---------------------------------------------------------------------------

// KVM_EXIT_IO, direction out: items of `size` bytes, one after the other in data.
struct IoOut {
  std::uint16_t port;
  std::uint8_t size;  // 1, 2 or 4
  std::span<const std::byte> data;
};

// KVM_EXIT_IO, direction in: fill data before the next run().
struct IoIn {
  std::uint16_t port;
  std::uint8_t size;  // 1, 2 or 4
  std::span<std::byte> data;
};

// KVM_EXIT_MMIO: 1 to 8 bytes at a guest physical address that no memslot backs.
struct MmioWrite {
  std::uint64_t address;
  std::span<const std::byte> data;
};
struct MmioRead {
  std::uint64_t address;
  std::span<std::byte> data;
};

// KVM_EXIT_XEN, a hypercall. A result that isn't set answers -ENOSYS: KVM leaves the last call's
// there. It reaches the guest's RAX with the next run(), if RIP is left as it is.
class XenHypercall {
 public:
  explicit XenHypercall(kvm_run& run) noexcept : hcall_(&run.xen.u.hcall) {
    hcall_->result = static_cast<std::uint64_t>(-std::int64_t{38});  // -ENOSYS
  }
  [[nodiscard]] std::uint64_t input() const noexcept { return hcall_->input; }  // RAX
  // rdi rsi rdx r10 r8 r9, or in 32-bit mode ebx ecx edx esi edi ebp.
  [[nodiscard]] std::span<const __u64, 6> params() const noexcept {
    return std::span<const __u64, 6>(hcall_->params);
  }
  [[nodiscard]] bool longmode() const noexcept { return hcall_->longmode != 0; }
  [[nodiscard]] std::uint8_t cpl() const noexcept { return static_cast<std::uint8_t>(hcall_->cpl); }
  void set_result(std::uint64_t rax) noexcept { hcall_->result = rax; }

 private:
  decltype(kvm_xen_exit{}.u.hcall) * hcall_;
};

// KVM_EXIT_HYPERCALL, after KVM_CAP_EXIT_HYPERCALL: KVM_HC_MAP_GPA_RANGE, 12, as things are. A
// result that isn't set answers -KVM_ENOSYS.
class Hypercall {
 public:
  explicit Hypercall(kvm_run& run) noexcept : call_(&run.hypercall) {
    call_->ret = static_cast<std::uint64_t>(-std::int64_t{1000});  // -KVM_ENOSYS
  }
  [[nodiscard]] std::uint64_t number() const noexcept { return call_->nr; }
  [[nodiscard]] std::span<const __u64, 6> args() const noexcept {
    return std::span<const __u64, 6>(call_->args);
  }
  // Bit 0 of the flags; older kernels call the word longmode.
  [[nodiscard]] bool longmode() const noexcept {
    return (call_->longmode & KVM_EXIT_HYPERCALL_LONG_MODE) != 0;
  }
  void set_result(std::uint64_t value) noexcept { call_->ret = value; }

 private:
  decltype(kvm_run{}.hypercall) * call_;
};

// KVM_EXIT_HYPERV of type HCALL. A result that isn't set answers HV_STATUS_INVALID_HYPERCALL_CODE.
class HypervHypercall {
 public:
  explicit HypervHypercall(kvm_run& run) noexcept : call_(&run.hyperv.u.hcall) {
    call_->result = 2;
  }
  [[nodiscard]] std::uint64_t input() const noexcept { return call_->input; }
  [[nodiscard]] std::span<const __u64, 2> params() const noexcept {
    return std::span<const __u64, 2>(call_->params);
  }
  void set_result(std::uint64_t value) noexcept { call_->result = value; }

 private:
  decltype(kvm_hyperv_exit{}.u.hcall) * call_;
};
// KVM_EXIT_HYPERV of type SYNIC: the guest wrote one of its MSRs; pages are guest physical
// addresses with the enabling bit 0.
struct HypervSynic {
  std::uint32_t msr;
  std::uint64_t control;
  std::uint64_t event_page;
  std::uint64_t message_page;
};
// KVM_EXIT_HYPERV of type SYNDBG.
class HypervSyndbg {
 public:
  explicit HypervSyndbg(kvm_run& run) noexcept : debug_(&run.hyperv.u.syndbg) {}
  [[nodiscard]] std::uint32_t msr() const noexcept { return debug_->msr; }
  [[nodiscard]] std::uint64_t control() const noexcept { return debug_->control; }
  [[nodiscard]] std::uint64_t send_page() const noexcept { return debug_->send_page; }
  [[nodiscard]] std::uint64_t recv_page() const noexcept { return debug_->recv_page; }
  [[nodiscard]] std::uint64_t pending_page() const noexcept { return debug_->pending_page; }
  void set_status(std::uint64_t value) noexcept { debug_->status = value; }

 private:
  decltype(kvm_hyperv_exit{}.u.syndbg) * debug_;
};

// KVM_EXIT_X86_{RDMSR,WRMSR}, after KVM_CAP_X86_USER_SPACE_MSR. An access that isn't answered
// raises #GP in the guest.
class MsrRead {
 public:
  explicit MsrRead(kvm_run& run) noexcept : msr_(&run.msr) { msr_->error = 1; }
  [[nodiscard]] std::uint32_t index() const noexcept { return msr_->index; }
  [[nodiscard]] std::uint32_t reason() const noexcept { return msr_->reason; }  // KVM_MSR_EXIT_*
  void set_result(std::uint64_t value) noexcept {
    msr_->data = value;
    msr_->error = 0;
  }

 private:
  decltype(kvm_run{}.msr) * msr_;
};
class MsrWrite {
 public:
  explicit MsrWrite(kvm_run& run) noexcept : msr_(&run.msr) { msr_->error = 1; }
  [[nodiscard]] std::uint32_t index() const noexcept { return msr_->index; }
  [[nodiscard]] std::uint32_t reason() const noexcept { return msr_->reason; }  // KVM_MSR_EXIT_*
  [[nodiscard]] std::uint64_t value() const noexcept { return msr_->data; }
  void accept() noexcept { msr_->error = 0; }

 private:
  decltype(kvm_run{}.msr) * msr_;
};

struct Halted {};    // KVM_EXIT_HLT, only without an in-kernel APIC.
struct Shutdown {};  // KVM_EXIT_SHUTDOWN: a triple fault, as a rule.
// KVM_EXIT_DEBUG, after Vcpu::set_guest_debug().
struct Debug {
  std::uint32_t exception;  // 1: #DB, 3: #BP
  std::uint64_t pc;         // linear, bytes
  std::uint64_t dr6;
  std::uint64_t dr7;
};
// KVM_EXIT_TPR_ACCESS, after Vcpu::tpr_access_reporting().
struct TprAccess {
  std::uint64_t rip;
  bool is_write;
};
// KVM_EXIT_SET_TPR: the guest lowered CR8 where the APIC is in userspace; see kvm_run.cr8.
struct SetTpr {};
// KVM_EXIT_IOAPIC_EOI, after KVM_CAP_SPLIT_IRQCHIP: a level-triggered vector was ended.
struct IoapicEoi {
  std::uint8_t vector;
};
// KVM_EXIT_X86_BUS_LOCK, after KVM_CAP_X86_BUS_LOCK_EXIT.
struct BusLock {};
// KVM_EXIT_NOTIFY, after KVM_CAP_X86_NOTIFY_VMEXIT: no event window for too long.
struct Notify {
  std::uint32_t flags;  // KVM_NOTIFY_CONTEXT_INVALID
};
// KVM_EXIT_AP_RESET_HOLD: an SEV-ES guest's vCPU waits for INIT-SIPI-SIPI.
struct ApResetHold {};

// KVM_EXIT_MEMORY_FAULT: no page could be had for guest physical [address, address + size). KVM_RUN
// itself failed with EFAULT or EHWPOISON, which is `error`.
struct MemoryFault {
  std::uint64_t flags;  // KVM_MEMORY_EXIT_FLAG_PRIVATE
  std::uint64_t address;
  std::uint64_t size;  // bytes
  int error;
};

// KVM_EXIT_TDX: a TDVMCALL. A result that isn't set answers TDVMCALL_INVALID_OPERAND.
class Tdx {
 public:
  explicit Tdx(kvm_run& run) noexcept : tdx_(reinterpret_cast<TdxPayload*>(run.padding)) {
    tdx_->data[0] = std::uint64_t{1} << 63;
  }
  [[nodiscard]] std::uint64_t flags() const noexcept { return tdx_->flags; }
  [[nodiscard]] std::uint64_t number() const noexcept { return tdx_->nr; }
  // What the subfunction carries: for GetQuote (0x10002) the GPA and the size in bytes.
  [[nodiscard]] std::span<__u64, 5> data() noexcept {
    return std::span<__u64, 5>(tdx_->data + 1, 5);
  }
  void set_result(std::uint64_t value) noexcept { tdx_->data[0] = value; }

 private:
  TdxPayload* tdx_;  // the union's first member, as aligned as it
};
// KVM_EXIT_SNP_REQ_CERTS: the guest wants the certificates at `address`, in `pages` pages. What
// isn't answered is EIO to it.
class SnpReqCerts {
 public:
  explicit SnpReqCerts(kvm_run& run) noexcept
      : certs_(reinterpret_cast<SnpReqCertsPayload*>(run.padding)) {
    certs_->ret = 5;  // EIO
  }
  [[nodiscard]] std::uint64_t address() const noexcept { return certs_->gpa; }
  [[nodiscard]] std::uint64_t pages() const noexcept { return certs_->npages; }
  // 0; ENOSPC with the pages that are needed; EAGAIN; EIO.
  void set_result(std::uint64_t error, std::uint64_t pages_needed = 0) noexcept {
    certs_->ret = error;
    if (pages_needed != 0) certs_->npages = pages_needed;
  }

 private:
  SnpReqCertsPayload* certs_;  // the union's first member, as aligned as it
};

// --- What KVM or the VMM does --------------------------------------------------------------------

struct Interrupted {};  // A signal, a kick or immediate_exit; run again or stop.
// KVM_EXIT_IRQ_WINDOW_OPEN: the guest takes interrupts now; asked for by
// Vcpu::request_interrupt_window().
struct IrqWindowOpen {};
// KVM_EXIT_DIRTY_RING_FULL: harvest the DirtyRing, then Vm::reset_dirty_rings().
struct DirtyRingFull {};
// KVM_EXIT_SYSTEM_EVENT
struct SystemEvent {
  std::uint32_t type;           // KVM_SYSTEM_EVENT_*
  std::span<const __u64> data;  // at most 16; what it means is the type's
};
// KVM_EXIT_FAIL_ENTRY: the processor refused the guest's state.
struct FailEntry {
  std::uint64_t hardware_reason;
  std::uint32_t cpu;
};
// KVM_EXIT_INTERNAL_ERROR
struct InternalError {
  std::uint32_t suberror;       // KVM_INTERNAL_ERROR_*
  std::span<const __u64> data;  // at most 16
};
// KVM_EXIT_UNKNOWN: the processor's reason is one that KVM doesn't know.
struct Unknown {
  std::uint64_t hardware_reason;
};
// KVM_EXIT_EXCEPTION; no kernel since 2.6.30 has it.
struct Exception {
  std::uint32_t vector;
  std::uint32_t error_code;
};
struct NmiExit {};   // KVM_EXIT_NMI; no x86 kernel has it.
struct Watchdog {};  // KVM_EXIT_WATCHDOG; no x86 kernel has it.

// The rest: exits of other architectures, which a kernel for x86 can't return. The kind is typed;
// the payload is the union's bytes.
template <std::uint32_t Reason>
struct ForeignExit {
  static constexpr std::uint32_t reason = Reason;
  std::span<const std::byte> raw;
};
using S390Sieic = ForeignExit<KVM_EXIT_S390_SIEIC>;
using S390Reset = ForeignExit<KVM_EXIT_S390_RESET>;
using Dcr = ForeignExit<KVM_EXIT_DCR>;
using Osi = ForeignExit<KVM_EXIT_OSI>;
using PaprHcall = ForeignExit<KVM_EXIT_PAPR_HCALL>;
using S390Ucontrol = ForeignExit<KVM_EXIT_S390_UCONTROL>;
using S390Tsch = ForeignExit<KVM_EXIT_S390_TSCH>;
using Epr = ForeignExit<KVM_EXIT_EPR>;
using S390Stsi = ForeignExit<KVM_EXIT_S390_STSI>;
using ArmNisv = ForeignExit<KVM_EXIT_ARM_NISV>;
using RiscvSbi = ForeignExit<KVM_EXIT_RISCV_SBI>;
using RiscvCsr = ForeignExit<KVM_EXIT_RISCV_CSR>;
using LoongarchIocsr = ForeignExit<KVM_EXIT_LOONGARCH_IOCSR>;
using ArmSea = ForeignExit<KVM_EXIT_ARM_SEA>;
using ArmLdst64b = ForeignExit<KVM_EXIT_ARM_LDST64B>;

// Any other: KVM_EXIT_*'s number, and the union's bytes as the kernel left them. Also a known
// number whose payload can't be, as it points out of the page.
struct Other {
  std::uint32_t reason;
  std::span<std::byte> raw;  // 256
};

using Exit =
    std::variant<XenHypercall, IoOut, IoIn, MmioRead, MmioWrite, MsrRead, MsrWrite, Halted,
                 Shutdown, Interrupted, SystemEvent, FailEntry, InternalError, Other, Hypercall,
                 HypervHypercall, HypervSynic, HypervSyndbg, Debug, TprAccess, SetTpr, IoapicEoi,
                 BusLock, Notify, ApResetHold, MemoryFault, Tdx, SnpReqCerts, IrqWindowOpen,
                 DirtyRingFull, Unknown, Exception, NmiExit, Watchdog, S390Sieic, S390Reset, Dcr,
                 Osi, PaprHcall, S390Ucontrol, S390Tsch, Epr, S390Stsi, ArmNisv, RiscvSbi, RiscvCsr,
                 LoongarchIocsr, ArmSea, ArmLdst64b>;

namespace detail {

// Calls visit(kind) for what `run` says, with the kind's own struct.
template <class Kind, class Visit>
[[gnu::always_inline]] inline decltype(auto) visited(Kind kind, Visit& visit) {
  return visit(kind);
}
template <class Visit>
[[gnu::always_inline]] inline decltype(auto) visit_other(kvm_run& run, Visit& visit) {
  return visited(
      Other{run.exit_reason, {reinterpret_cast<std::byte*>(run.padding), sizeof(run.padding)}},
      visit);
}

template <class Visit>
[[gnu::always_inline]] inline decltype(auto) visit_hyperv(kvm_run& run, Visit& visit) {
  switch (run.hyperv.type) {
    case KVM_EXIT_HYPERV_SYNIC: {
      const auto& synic = run.hyperv.u.synic;
      return visited(HypervSynic{synic.msr, synic.control, synic.evt_page, synic.msg_page}, visit);
    }
    case KVM_EXIT_HYPERV_HCALL:
      return visited(HypervHypercall(run), visit);
    case KVM_EXIT_HYPERV_SYNDBG:
      return visited(HypervSyndbg(run), visit);
    default:
      return visit_other(run, visit);
  }
}

template <class Foreign, class Visit>
[[gnu::always_inline]] inline decltype(auto) visit_foreign(kvm_run& run, Visit& visit) {
  return visited(Foreign{{reinterpret_cast<const std::byte*>(run.padding), sizeof(run.padding)}},
                 visit);
}

template <class... Cases>
struct Overloaded : Cases... {
  using Cases::operator()...;
};

}  // namespace detail

// Calls visit(kind) with the exit that is in a kvm_run mapping of `size` bytes: a switch over its
// number, and nothing between that and the kind's case.
template <class Visit>
[[gnu::always_inline]] inline decltype(auto) visit_exit(kvm_run& run, const std::size_t& size,
                                                        Visit&& visit) {
  switch (run.exit_reason) {
    case KVM_EXIT_XEN:
      // Other types may come with newer kernels.
      if (run.xen.type == KVM_EXIT_XEN_HCALL) return detail::visited(XenHypercall(run), visit);
      break;
    case KVM_EXIT_IO: {
      const std::size_t length = std::size_t{run.io.size} * run.io.count;
      // The kernel puts the data on its own page of the mapping.
      if (run.io.data_offset > size || length > size - run.io.data_offset) break;
      auto* page = reinterpret_cast<std::byte*>(&run);
      if (run.io.direction != KVM_EXIT_IO_OUT) {
        return detail::visited(IoIn{run.io.port, run.io.size, {page + run.io.data_offset, length}},
                               visit);
      }
      return detail::visited(IoOut{run.io.port, run.io.size, {page + run.io.data_offset, length}},
                             visit);
    }
    case KVM_EXIT_MMIO: {
      if (run.mmio.len > sizeof(run.mmio.data)) break;
      auto* data = reinterpret_cast<std::byte*>(run.mmio.data);
      if (run.mmio.is_write != 0) {
        return detail::visited(MmioWrite{run.mmio.phys_addr, {data, run.mmio.len}}, visit);
      }
      return detail::visited(MmioRead{run.mmio.phys_addr, {data, run.mmio.len}}, visit);
    }
    case KVM_EXIT_X86_RDMSR:
      return detail::visited(MsrRead(run), visit);
    case KVM_EXIT_X86_WRMSR:
      return detail::visited(MsrWrite(run), visit);
    case KVM_EXIT_HLT:
      return detail::visited(Halted{}, visit);
    case KVM_EXIT_INTR:
      return detail::visited(Interrupted{}, visit);
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return detail::visited(IrqWindowOpen{}, visit);
    case KVM_EXIT_UNKNOWN:
      return detail::visited(Unknown{run.hw.hardware_exit_reason}, visit);
    case KVM_EXIT_EXCEPTION:
      return detail::visited(Exception{run.ex.exception, run.ex.error_code}, visit);
    case KVM_EXIT_HYPERCALL:
      return detail::visited(Hypercall(run), visit);
    case KVM_EXIT_DEBUG: {
      const auto& debug = run.debug.arch;
      return detail::visited(Debug{debug.exception, debug.pc, debug.dr6, debug.dr7}, visit);
    }
    case KVM_EXIT_SHUTDOWN:
      return detail::visited(Shutdown{}, visit);
    case KVM_EXIT_FAIL_ENTRY:
      return detail::visited(
          FailEntry{run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu}, visit);
    case KVM_EXIT_SET_TPR:
      return detail::visited(SetTpr{}, visit);
    case KVM_EXIT_TPR_ACCESS:
      return detail::visited(TprAccess{run.tpr_access.rip, run.tpr_access.is_write != 0}, visit);
    case KVM_EXIT_NMI:
      return detail::visited(NmiExit{}, visit);
    case KVM_EXIT_INTERNAL_ERROR:
      if (run.internal.ndata > std::size(run.internal.data)) return detail::visit_other(run, visit);
      return detail::visited(
          InternalError{run.internal.suberror, {run.internal.data, run.internal.ndata}}, visit);
    case KVM_EXIT_WATCHDOG:
      return detail::visited(Watchdog{}, visit);
    case KVM_EXIT_SYSTEM_EVENT:
      if (run.system_event.ndata > std::size(run.system_event.data)) {
        return detail::visit_other(run, visit);
      }
      return detail::visited(
          SystemEvent{run.system_event.type, {run.system_event.data, run.system_event.ndata}},
          visit);
    case KVM_EXIT_IOAPIC_EOI:
      return detail::visited(IoapicEoi{run.eoi.vector}, visit);
    case KVM_EXIT_HYPERV:
      return detail::visit_hyperv(run, visit);
    case KVM_EXIT_DIRTY_RING_FULL:
      return detail::visited(DirtyRingFull{}, visit);
    case KVM_EXIT_AP_RESET_HOLD:
      return detail::visited(ApResetHold{}, visit);
    case KVM_EXIT_X86_BUS_LOCK:
      return detail::visited(BusLock{}, visit);
    case KVM_EXIT_NOTIFY:
      return detail::visited(Notify{run.notify.flags}, visit);
    case KVM_EXIT_MEMORY_FAULT: {
      const auto& fault = *reinterpret_cast<const MemoryFaultPayload*>(run.padding);
      return detail::visited(MemoryFault{fault.flags, fault.gpa, fault.size, 0}, visit);
    }
    case KVM_EXIT_TDX:
      return detail::visited(Tdx(run), visit);
    case KVM_EXIT_SNP_REQ_CERTS:
      return detail::visited(SnpReqCerts(run), visit);
    // Those of other architectures.
    case KVM_EXIT_S390_SIEIC:
      return detail::visit_foreign<S390Sieic>(run, visit);
    case KVM_EXIT_S390_RESET:
      return detail::visit_foreign<S390Reset>(run, visit);
    case KVM_EXIT_DCR:
      return detail::visit_foreign<Dcr>(run, visit);
    case KVM_EXIT_OSI:
      return detail::visit_foreign<Osi>(run, visit);
    case KVM_EXIT_PAPR_HCALL:
      return detail::visit_foreign<PaprHcall>(run, visit);
    case KVM_EXIT_S390_UCONTROL:
      return detail::visit_foreign<S390Ucontrol>(run, visit);
    case KVM_EXIT_S390_TSCH:
      return detail::visit_foreign<S390Tsch>(run, visit);
    case KVM_EXIT_EPR:
      return detail::visit_foreign<Epr>(run, visit);
    case KVM_EXIT_S390_STSI:
      return detail::visit_foreign<S390Stsi>(run, visit);
    case KVM_EXIT_ARM_NISV:
      return detail::visit_foreign<ArmNisv>(run, visit);
    case KVM_EXIT_RISCV_SBI:
      return detail::visit_foreign<RiscvSbi>(run, visit);
    case KVM_EXIT_RISCV_CSR:
      return detail::visit_foreign<RiscvCsr>(run, visit);
    case KVM_EXIT_LOONGARCH_IOCSR:
      return detail::visit_foreign<LoongarchIocsr>(run, visit);
    case KVM_EXIT_ARM_SEA:
      return detail::visit_foreign<ArmSea>(run, visit);
    case KVM_EXIT_ARM_LDST64B:
      return detail::visit_foreign<ArmLdst64b>(run, visit);
    default:
      break;
  }
  return detail::visit_other(run, visit);
}

// The same as a value.
inline Exit decode_exit(kvm_run& run, std::size_t size) noexcept {
  return visit_exit(run, size, [](auto& kind) noexcept -> Exit { return kind; });
}

// Calls the first of `cases` that takes the exit at hand. Every kind must be taken; [](auto&) takes
// the rest.
template <class... Cases>
decltype(auto) match(Exit& exit, Cases&&... cases) {
  return std::visit(
      detail::Overloaded<std::remove_cvref_t<Cases>...>{std::forward<Cases>(cases)...}, exit);
}

}  // namespace kvm_ioctls
