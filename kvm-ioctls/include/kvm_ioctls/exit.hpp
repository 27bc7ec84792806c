// SPDX-License-Identifier: BSD-3-Clause
//
// Why KVM_RUN came back, as a variant of small structs that point into the vCPU's kvm_run page:
// they are valid until the next run(). A kind that isn't known yet is Other, never undefined
// behaviour.
//
//   match(exit, [](IoOut& out) { … }, [](XenHypercall& call) { … }, [](auto&) { … });
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "kvm_ioctls/uapi.hpp"

namespace kvm_ioctls {

// KVM_EXIT_IO, direction out: `count` items of `size` bytes, one after the other in data.
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

// KVM_EXIT_X86_{RDMSR,WRMSR}, after KVM_CAP_X86_USER_SPACE_MSR. An access that isn't answered
// raises #GP in the guest.
class MsrRead {
 public:
  explicit MsrRead(kvm_run& run) noexcept : msr_(&run.msr) { msr_->error = 1; }
  [[nodiscard]] std::uint32_t index() const noexcept { return msr_->index; }
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
  [[nodiscard]] std::uint64_t value() const noexcept { return msr_->data; }
  void accept() noexcept { msr_->error = 0; }

 private:
  decltype(kvm_run{}.msr) * msr_;
};

struct Halted {};       // KVM_EXIT_HLT, only without an in-kernel APIC.
struct Shutdown {};     // KVM_EXIT_SHUTDOWN: a triple fault, as a rule.
struct Interrupted {};  // A signal or immediate_exit; run again or stop.

// KVM_EXIT_SYSTEM_EVENT
struct SystemEvent {
  std::uint32_t type;  // KVM_SYSTEM_EVENT_*
};
// KVM_EXIT_FAIL_ENTRY: the processor refused the guest's state.
struct FailEntry {
  std::uint64_t hardware_reason;
  std::uint32_t cpu;
};
// KVM_EXIT_INTERNAL_ERROR
struct InternalError {
  std::uint32_t suberror;
  std::span<const __u64> data;
};
// Any other: KVM_EXIT_*'s number, and the union's bytes as the kernel left them.
struct Other {
  std::uint32_t reason;
  std::span<const std::byte> raw;
};

using Exit = std::variant<XenHypercall, IoOut, IoIn, MmioRead, MmioWrite, MsrRead, MsrWrite, Halted,
                          Shutdown, Interrupted, SystemEvent, FailEntry, InternalError, Other>;

// Reads the exit out of a kvm_run mapping of `size` bytes.
inline Exit decode_exit(kvm_run& run, std::size_t size) noexcept {
  auto* base = reinterpret_cast<std::byte*>(&run);
  switch (run.exit_reason) {
    case KVM_EXIT_XEN:
      // Other types may come with newer kernels.
      if (run.xen.type == KVM_EXIT_XEN_HCALL) return XenHypercall(run);
      break;
    case KVM_EXIT_IO: {
      const std::size_t length = std::size_t{run.io.size} * run.io.count;
      // The kernel puts the data on its own page of the mapping.
      if (run.io.data_offset > size || length > size - run.io.data_offset) break;
      std::byte* data = base + run.io.data_offset;
      if (run.io.direction == KVM_EXIT_IO_OUT) {
        return IoOut{run.io.port, run.io.size, {data, length}};
      }
      return IoIn{run.io.port, run.io.size, {data, length}};
    }
    case KVM_EXIT_MMIO: {
      if (run.mmio.len > sizeof(run.mmio.data)) break;
      auto* data = reinterpret_cast<std::byte*>(run.mmio.data);
      if (run.mmio.is_write != 0) return MmioWrite{run.mmio.phys_addr, {data, run.mmio.len}};
      return MmioRead{run.mmio.phys_addr, {data, run.mmio.len}};
    }
    case KVM_EXIT_X86_RDMSR:
      return MsrRead(run);
    case KVM_EXIT_X86_WRMSR:
      return MsrWrite(run);
    case KVM_EXIT_HLT:
      return Halted{};
    case KVM_EXIT_SHUTDOWN:
      return Shutdown{};
    case KVM_EXIT_INTR:
      return Interrupted{};
    case KVM_EXIT_SYSTEM_EVENT:
      return SystemEvent{run.system_event.type};
    case KVM_EXIT_FAIL_ENTRY:
      return FailEntry{run.fail_entry.hardware_entry_failure_reason, run.fail_entry.cpu};
    case KVM_EXIT_INTERNAL_ERROR:
      if (run.internal.ndata > std::size(run.internal.data)) break;
      return InternalError{run.internal.suberror, {run.internal.data, run.internal.ndata}};
    default:
      break;
  }
  return Other{run.exit_reason, {reinterpret_cast<std::byte*>(run.padding), sizeof(run.padding)}};
}

// Calls the first of `cases` that takes the exit at hand. Every kind must be taken; [](auto&) takes
// the rest.
template <class... Cases>
decltype(auto) match(Exit& exit, Cases&&... cases) {
  struct Overloaded : std::remove_cvref_t<Cases>... {
    using std::remove_cvref_t<Cases>::operator()...;
  };
  return std::visit(Overloaded{std::forward<Cases>(cases)...}, exit);
}

}  // namespace kvm_ioctls
