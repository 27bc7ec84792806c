// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What is done to a vCPU: interrupts, machine checks, debugging, faulting memory in, and its Xen
// attributes. A part of Vcpu.
//
// All of these wait while the vCPU is in KVM_RUN. EBADF for a vCPU that was moved from. Where a
// comment says no other operand, the error's is the vCPU's id.
#pragma once

#include <csignal>
#include <cstdint>
#include <cstring>
#include <optional>

#include "kvm_ioctls/fam.hpp"
#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/stats.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "kvm_ioctls/xen_attr.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

// Self has fd() and id().
template <class Self>
class VcpuEvents {
  template <class T>
  using Result = vmm_base::Result<T>;

 public:
  // KVM_INTERRUPT [, 2.6]: a vector, delivered with the next run(): where the APIC is in userspace,
  // for when the guest takes interrupts, see request_interrupt_window(); with a split one, as from
  // a PIC, EEXIST if one waits already. ENXIO with an in-kernel PIC. EINVAL, operand the vector,
  // above 255.
  [[nodiscard]] Result<void> interrupt(std::uint32_t vector) const noexcept {
    const kvm_interrupt request{vector};
    return KVM_IOCTLS_SET(number(), KVM_INTERRUPT, &request, vector);
  }
  // KVM_NMI [KVM_CAP_USER_NMI, 2.6]: a non-maskable interrupt.
  [[nodiscard]] Result<void> nmi() const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_NMI, 0, operand());
  }
  // KVM_SMI [KVM_CAP_X86_SMM, 4.2]: a system management interrupt. ENOTTY or EINVAL where the
  // kernel is built without SMM.
  [[nodiscard]] Result<void> smi() const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SMI, 0, operand());
  }

  // KVM_TPR_ACCESS_REPORTING [KVM_CAP_VAPIC, 2.6]: whether an access to the task priority register
  // is the exit TprAccess; for an in-kernel APIC that the processor doesn't accelerate.
  [[nodiscard]] Result<void> tpr_access_reporting(bool enabled) const noexcept {
    kvm_tpr_access_ctl control{};
    control.enabled = enabled ? 1 : 0;
    return KVM_IOCTLS_SET(number(), KVM_TPR_ACCESS_REPORTING, &control, operand());
  }
  // KVM_SET_VAPIC_ADDR [KVM_CAP_VAPIC, 2.6]: 4 bytes at `gpa` mirror the APIC's task priority; 0
  // for nowhere. EINVAL without an in-kernel APIC, or, operand the address, where there is no
  // memory.
  [[nodiscard]] Result<void> set_vapic_addr(vmm_base::Gpa gpa) const noexcept {
    const kvm_vapic_addr address{gpa.value};
    return KVM_IOCTLS_SET(number(), KVM_SET_VAPIC_ADDR, &address, gpa.value);
  }

  // KVM_X86_SETUP_MCE [KVM_CAP_MCE, 2.6]: MCG_CAP: the number of banks in bits 7:0, and features of
  // Kvm::get_mce_cap_supported(). EINVAL, operand the value, for others.
  [[nodiscard]] Result<void> setup_mce(std::uint64_t mcg_cap) const noexcept {
    __u64 value = mcg_cap;
    return KVM_IOCTLS_SET(number(), KVM_X86_SETUP_MCE, &value, mcg_cap);
  }
  // KVM_X86_SET_MCE [KVM_CAP_MCE, 2.6]: a machine check in a bank. EINVAL, operand the bank, for
  // one that there isn't.
  [[nodiscard]] Result<void> set_mce(const kvm_x86_mce& mce) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_X86_SET_MCE, &mce, mce.bank);
  }

  // KVM_SET_GUEST_DEBUG [KVM_CAP_SET_GUEST_DEBUG, 2.6]: single steps, software and hardware
  // breakpoints (KVM_GUESTDBG_*) that are the exit Debug.
  [[nodiscard]] Result<void> set_guest_debug(const kvm_guest_debug& debug) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_GUEST_DEBUG, &debug, debug.control);
  }

  // KVM_SET_SIGNAL_MASK [, 2.6]: the signals blocked while in KVM_RUN, instead of the thread's own
  // mask; nullopt for that again.
  [[nodiscard]] Result<void> set_signal_mask(const std::optional<::sigset_t>& blocked) const {
    if (!blocked) {
      return KVM_IOCTLS_SET(number(), KVM_SET_SIGNAL_MASK, static_cast<SignalMaskHeader*>(nullptr),
                            operand());
    }
    SignalMask mask(8);  // the kernel's sigset_t, which libc's begins with
    std::memcpy(mask.data(), &*blocked, mask.size());
    return KVM_IOCTLS_SET(number(), KVM_SET_SIGNAL_MASK, mask.get(), operand());
  }

  // KVM_KVMCLOCK_CTRL [KVM_CAP_KVMCLOCK_CTRL, 3.5]: tells the guest, by its pvclock, that it was
  // paused, so that its watchdogs keep still. EINVAL if the guest uses no pvclock.
  [[nodiscard]] Result<void> kvmclock_ctrl() const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_KVMCLOCK_CTRL, 0, operand());
  }

  // KVM_ENABLE_CAP [KVM_CAP_ENABLE_CAP, 4.5; 5.17 for that capability]: a capability of the vCPU,
  // with its first argument. EINVAL, operand the capability, for one that there isn't.
  [[nodiscard]] Result<void> enable_cap(std::uint32_t capability,
                                        std::uint64_t argument = 0) const noexcept {
    kvm_enable_cap cap{};
    cap.cap = capability;
    cap.args[0] = argument;
    return KVM_IOCTLS_SET(number(), KVM_ENABLE_CAP, &cap, capability);
  }

  // KVM_PRE_FAULT_MEMORY [KVM_CAP_PRE_FAULT_MEMORY, 6.11]: maps guest memory before the guest asks
  // for it. Returns what is left to do, as a signal may end it early: {address, bytes}; EINTR if it
  // did at once. ENOENT, operand the address, where there is no memslot; EOPNOTSUPP without
  // two-dimensional paging; EINVAL for no whole pages, or none.
  struct Range {
    vmm_base::Gpa gpa;
    std::uint64_t size = 0;
  };
  [[nodiscard]] Result<Range> pre_fault_memory(vmm_base::Gpa gpa,
                                               std::uint64_t size) const noexcept {
    PreFaultMemory range{gpa.value, size, 0, {}};
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_PRE_FAULT_MEMORY, &range, gpa.value));
    return Range{vmm_base::Gpa{range.gpa}, range.size};
  }

  // KVM_GET_STATS_FD [KVM_CAP_BINARY_STATS_FD, 5.14]: this vCPU's counters.
  [[nodiscard]] Result<Stats> get_stats() const {
    VMM_TRY(stats, KVM_IOCTLS_CALL(number(), KVM_GET_STATS_FD, 0, operand()));
    return Stats::from_fd(vmm_base::UniqueFd(stats));
  }

  // KVM_MEMORY_ENCRYPT_OP [KVM_CAP_VM_TYPES, 6.16, needs TDX]: a subcommand for this vCPU of a TDX
  // guest, its structure by the caller. ENOTTY for any other.
  [[nodiscard]] Result<void> memory_encrypt_op(void* command) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_MEMORY_ENCRYPT_OP, command, operand());
  }

  // KVM_XEN_VCPU_SET_ATTR, KVM_XEN_VCPU_GET_ATTR [KVM_CAP_XEN_HVM, 5.12]: any of the vCPU
  // attributes of xen_attr.hpp. ENOENT if the kernel doesn't know the attribute, EINVAL without
  // KVM_XEN; the error's operand is its type.
  template <class Attr>
  [[nodiscard]] Result<void> xen_vcpu_set_attr(const Attr& value) const noexcept {
    kvm_xen_vcpu_attr attr{};
    attr.type = Attr::type;
    value.store(attr);
    return KVM_IOCTLS_SET(number(), KVM_XEN_VCPU_SET_ATTR, &attr, Attr::type);
  }
  template <class Attr>
  [[nodiscard]] Result<Attr> xen_vcpu_get_attr() const noexcept {
    kvm_xen_vcpu_attr attr{};
    attr.type = Attr::type;
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_XEN_VCPU_GET_ATTR, &attr, Attr::type));
    return Attr::load(attr);
  }

 private:
  [[nodiscard]] int number() const noexcept { return static_cast<const Self&>(*this).fd(); }
  [[nodiscard]] std::uint64_t operand() const noexcept {
    return static_cast<const Self&>(*this).id().value;
  }
};

}  // namespace kvm_ioctls
