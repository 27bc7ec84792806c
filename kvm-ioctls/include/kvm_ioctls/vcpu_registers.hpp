// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A vCPU's state: registers, CPUID, MSRs, FPU, local APIC, TSC, nested state. A part of Vcpu.
//
// All of these wait while the vCPU is in KVM_RUN. EBADF for a vCPU that was moved from. Where a
// comment says no other operand, the error's is the vCPU's id.
#pragma once

#include <cstdint>
#include <span>

#include "kvm_ioctls/fam.hpp"
#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"

namespace kvm_ioctls {

// Self has fd() and id().
template <class Self>
class VcpuRegisters {
  template <class T>
  using Result = vmm_base::Result<T>;

 public:
  // KVM_GET_REGS, KVM_SET_REGS [, 2.6]: the general registers, RIP and RFLAGS. Setting them drops
  // an exception that is pending, and confuses the completion of an exit: run() first.
  [[nodiscard]] Result<kvm_regs> get_regs() const noexcept {
    return KVM_IOCTLS_GET(kvm_regs, number(), KVM_GET_REGS, operand());
  }
  [[nodiscard]] Result<void> set_regs(const kvm_regs& regs) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_REGS, &regs, operand());
  }

  // KVM_GET_SREGS, KVM_SET_SREGS [, 2.6]: segments, control registers, EFER, APIC base, and one
  // interrupt that waits, where the APIC is in userspace. EINVAL for a state that can't be.
  [[nodiscard]] Result<kvm_sregs> get_sregs() const noexcept {
    return KVM_IOCTLS_GET(kvm_sregs, number(), KVM_GET_SREGS, operand());
  }
  [[nodiscard]] Result<void> set_sregs(const kvm_sregs& sregs) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_SREGS, &sregs, operand());
  }

  // KVM_GET_SREGS2, KVM_SET_SREGS2 [KVM_CAP_SREGS2, 5.14]: the same with the PDPTRs of PAE paging,
  // valid under KVM_SREGS2_FLAGS_PDPTRS_VALID, and without the interrupt.
  [[nodiscard]] Result<kvm_sregs2> get_sregs2() const noexcept {
    return KVM_IOCTLS_GET(kvm_sregs2, number(), KVM_GET_SREGS2, operand());
  }
  [[nodiscard]] Result<void> set_sregs2(const kvm_sregs2& sregs) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_SREGS2, &sregs, operand());
  }

  // KVM_GET_FPU, KVM_SET_FPU [, 2.6]: x87 and SSE, in the order of FXSAVE.
  [[nodiscard]] Result<kvm_fpu> get_fpu() const noexcept {
    return KVM_IOCTLS_GET(kvm_fpu, number(), KVM_GET_FPU, operand());
  }
  [[nodiscard]] Result<void> set_fpu(const kvm_fpu& fpu) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_FPU, &fpu, operand());
  }

  // KVM_GET_XSAVE, KVM_SET_XSAVE [KVM_CAP_XSAVE, 2.6]: XSAVE's area, of 4096 bytes; EINVAL on
  // a vCPU that has dynamic features, whose state is get_xsave2()'s. Setting may read `needed`
  // bytes: an area of fewer is "KVM_SET_XSAVE, bytes of the area", EINVAL, their number.
  [[nodiscard]] Result<Xsave> get_xsave() const {
    Xsave area;
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_GET_XSAVE, area.bytes().data(), operand()));
    return area;
  }
  [[nodiscard]] Result<void> set_xsave(const Xsave& area, XsaveSize needed) const noexcept {
    if (area.bytes().size() < needed.bytes()) {
      return vmm_base::Error{"KVM_SET_XSAVE, bytes of the area", EINVAL, area.bytes().size()};
    }
    return KVM_IOCTLS_SET(number(), KVM_SET_XSAVE, area.bytes().data(), operand());
  }

  // KVM_GET_XSAVE2 [KVM_CAP_XSAVE2, 5.17]: all of XSAVE's area; the kernel writes up to `size`.
  [[nodiscard]] Result<Xsave> get_xsave2(XsaveSize size) const {
    Xsave area(size);
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_GET_XSAVE2, area.bytes().data(), operand()));
    return area;
  }

  // KVM_GET_XCRS, KVM_SET_XCRS [KVM_CAP_XCRS, 2.6]: the extended control registers, XCR0. EINVAL
  // for bits that the processor hasn't.
  [[nodiscard]] Result<kvm_xcrs> get_xcrs() const noexcept {
    return KVM_IOCTLS_GET(kvm_xcrs, number(), KVM_GET_XCRS, operand());
  }
  [[nodiscard]] Result<void> set_xcrs(const kvm_xcrs& xcrs) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_XCRS, &xcrs, operand());
  }

  // KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS [KVM_CAP_DEBUGREGS, 2.6]: the guest's own DR0 to DR7.
  // EINVAL for bits that can't be.
  [[nodiscard]] Result<kvm_debugregs> get_debugregs() const noexcept {
    return KVM_IOCTLS_GET(kvm_debugregs, number(), KVM_GET_DEBUGREGS, operand());
  }
  [[nodiscard]] Result<void> set_debugregs(const kvm_debugregs& debugregs) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_DEBUGREGS, &debugregs, operand());
  }

  // KVM_GET_ONE_REG, KVM_SET_ONE_REG [KVM_CAP_ONE_REG, 6.18]: a register by its id; x86_msr_reg()
  // makes an MSR's. ENOENT or EINVAL, operand the id, for one that there isn't.
  [[nodiscard]] Result<std::uint64_t> get_one_reg(std::uint64_t id) const noexcept {
    std::uint64_t value = 0;
    const kvm_one_reg reg{id, reinterpret_cast<std::uintptr_t>(&value)};
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_GET_ONE_REG, &reg, id));
    return value;
  }
  [[nodiscard]] Result<void> set_one_reg(std::uint64_t id, std::uint64_t value) const noexcept {
    const kvm_one_reg reg{id, reinterpret_cast<std::uintptr_t>(&value)};
    return KVM_IOCTLS_SET(number(), KVM_SET_ONE_REG, &reg, id);
  }
  // KVM_GET_REG_LIST [KVM_CAP_ONE_REG, 6.18]: the ids that this vCPU has besides its MSRs.
  [[nodiscard]] Result<RegList> get_reg_list() const {
    return detail::grown<RegList>(8, [this](RegListHeader* list) {
      return KVM_IOCTLS_CALL(number(), KVM_GET_REG_LIST, list, operand());
    });
  }
  static constexpr std::uint64_t x86_msr_reg(std::uint32_t index) noexcept {
    return KVM_REG_X86 | KVM_REG_SIZE_U64 | std::uint64_t{KVM_X86_REG_TYPE_MSR} << 32 | index;
  }

  // KVM_GET_MSRS, KVM_SET_MSRS [, 2.6]: those that `msrs` names by index, up to 255. Returns how
  // many were done, in order: that stands at the first that KVM refused. E2BIG, operand their
  // number, for more.
  [[nodiscard]] Result<std::uint32_t> get_msrs(Msrs& msrs) const noexcept {
    VMM_TRY(done, KVM_IOCTLS_CALL(number(), KVM_GET_MSRS, msrs.get(), msrs.size()));
    return static_cast<std::uint32_t>(done);
  }
  [[nodiscard]] Result<std::uint32_t> set_msrs(const Msrs& msrs) const noexcept {
    VMM_TRY(done, KVM_IOCTLS_CALL(number(), KVM_SET_MSRS, msrs.get(), msrs.size()));
    return static_cast<std::uint32_t>(done);
  }
  // The same for one. EINVAL, operand its number, if KVM refused it.
  [[nodiscard]] Result<std::uint64_t> get_msr(std::uint32_t index) const noexcept {
    OneMsr msrs;
    msrs.entry.index = index;
    VMM_TRY(done, KVM_IOCTLS_CALL(number(), KVM_GET_MSRS, &msrs, index));
    if (done != 1) return vmm_base::Error{"KVM_GET_MSRS", EINVAL, index};
    return std::uint64_t{msrs.entry.data};
  }
  [[nodiscard]] Result<void> set_msr(std::uint32_t index, std::uint64_t value) const noexcept {
    OneMsr msrs;
    msrs.entry.index = index;
    msrs.entry.data = value;
    VMM_TRY(done, KVM_IOCTLS_CALL(number(), KVM_SET_MSRS, &msrs, index));
    if (done != 1) return vmm_base::Error{"KVM_SET_MSRS", EINVAL, index};
    return vmm_base::success();
  }

  // KVM_SET_CPUID2, KVM_GET_CPUID2 [KVM_CAP_EXT_CPUID, 2.6]: the leaves that the guest sees. To be
  // set before the first run(). E2BIG, operand their number, for more than 256.
  [[nodiscard]] Result<void> set_cpuid2(const Cpuid& leaves) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_CPUID2, leaves.get(), leaves.size());
  }
  [[nodiscard]] Result<void> set_cpuid2(std::span<const kvm_cpuid_entry2> leaves) const {
    return set_cpuid2(Cpuid(leaves));
  }
  [[nodiscard]] Result<Cpuid> get_cpuid2() const {
    return detail::grown<Cpuid>(64, [this](Cpuid2Header* leaves) {
      return KVM_IOCTLS_CALL(number(), KVM_GET_CPUID2, leaves, operand());
    });
  }
  // KVM_GET_SUPPORTED_HV_CPUID [KVM_CAP_HYPERV_CPUID, 5.0]: the Hyper-V leaves that this vCPU can
  // have; on a new kernel Kvm's own will do.
  [[nodiscard]] Result<Cpuid> get_supported_hv_cpuid() const {
    return detail::grown<Cpuid>(16, [this](Cpuid2Header* leaves) {
      return KVM_IOCTLS_CALL(number(), KVM_GET_SUPPORTED_HV_CPUID, leaves, operand());
    });
  }

  // KVM_GET_MP_STATE, KVM_SET_MP_STATE [KVM_CAP_MP_STATE, 2.6]: KVM_MP_STATE_*: running, halted,
  // waiting for INIT or SIPI. EINVAL for another, and without an in-kernel APIC, but for RUNNABLE.
  [[nodiscard]] Result<kvm_mp_state> get_mp_state() const noexcept {
    return KVM_IOCTLS_GET(kvm_mp_state, number(), KVM_GET_MP_STATE, operand());
  }
  [[nodiscard]] Result<void> set_mp_state(const kvm_mp_state& state) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_MP_STATE, &state, operand());
  }

  // KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS [KVM_CAP_VCPU_EVENTS, 2.6]: exceptions, interrupts,
  // NMIs and SMIs that are pending or being delivered. EINVAL for flags the kernel lacks.
  [[nodiscard]] Result<kvm_vcpu_events> get_vcpu_events() const noexcept {
    return KVM_IOCTLS_GET(kvm_vcpu_events, number(), KVM_GET_VCPU_EVENTS, operand());
  }
  [[nodiscard]] Result<void> set_vcpu_events(const kvm_vcpu_events& events) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_VCPU_EVENTS, &events, operand());
  }

  // KVM_GET_LAPIC, KVM_SET_LAPIC [KVM_CAP_IRQCHIP, 2.6]: the local APIC's register page, 1024
  // bytes. EINVAL without an in-kernel APIC.
  [[nodiscard]] Result<kvm_lapic_state> get_lapic() const noexcept {
    return KVM_IOCTLS_GET(kvm_lapic_state, number(), KVM_GET_LAPIC, operand());
  }
  [[nodiscard]] Result<void> set_lapic(const kvm_lapic_state& lapic) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_LAPIC, &lapic, operand());
  }

  // KVM_GET_NESTED_STATE, KVM_SET_NESTED_STATE [KVM_CAP_NESTED_STATE, 4.19; 5.8 on AMD]: a nested
  // hypervisor's VMCS or VMCB. `bytes` to have room for: check_extension(KVM_CAP_NESTED_STATE).
  // E2BIG, operand the bytes needed, if that is too little; EINVAL for a state that can't be.
  [[nodiscard]] Result<NestedState> get_nested_state(std::size_t bytes) const {
    NestedState state(bytes);
    auto called = KVM_IOCTLS_CALL(number(), KVM_GET_NESTED_STATE, state.get(), operand());
    if (!called && called.error().code == E2BIG) {
      return vmm_base::Error{"KVM_GET_NESTED_STATE", E2BIG, state.header().size};
    }
    VMM_CHECK(called);
    if (state.header().size > state.capacity()) {
      return vmm_base::Error{"KVM_GET_NESTED_STATE", E2BIG, state.header().size};
    }
    return state;
  }
  [[nodiscard]] Result<void> set_nested_state(const NestedState& state) const noexcept {
    if (state.get() != nullptr && state.header().size > state.capacity()) {
      return vmm_base::Error{"KVM_SET_NESTED_STATE", EINVAL, state.header().size};
    }
    return KVM_IOCTLS_SET(number(), KVM_SET_NESTED_STATE, state.get(), operand());
  }

  // KVM_TRANSLATE [, 2.6]: a guest virtual address by this vCPU's page tables as they are now.
  // EFAULT, operand the address, if it isn't mapped.
  [[nodiscard]] Result<vmm_base::Gpa> translate(vmm_base::Gva gva) const noexcept {
    kvm_translation translation{};
    translation.linear_address = gva.value;
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_TRANSLATE, &translation, gva.value));
    if (translation.valid == 0) return vmm_base::Error{"KVM_TRANSLATE", EFAULT, gva.value};
    return vmm_base::Gpa{translation.physical_address};
  }

  // KVM_GET_TSC_KHZ [KVM_CAP_GET_TSC_KHZ, 3.0]: the guest's TSC frequency, kHz.
  [[nodiscard]] Result<std::uint32_t> get_tsc_khz() const noexcept {
    VMM_TRY(khz, KVM_IOCTLS_CALL(number(), KVM_GET_TSC_KHZ, 0, operand()));
    return static_cast<std::uint32_t>(khz);
  }
  // KVM_SET_TSC_KHZ [KVM_CAP_TSC_CONTROL, 3.0]: the same, before the first run(). EINVAL, operand
  // the frequency, if the processor can't scale to it.
  [[nodiscard]] Result<void> set_tsc_khz(std::uint32_t khz) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_TSC_KHZ, std::size_t{khz}, khz);
  }

  // KVM_GET_DEVICE_ATTR(KVM_VCPU_TSC_OFFSET): guest TSC = scaled host TSC + this, in cycles, modulo
  // 2^64. Linux 5.16.
  [[nodiscard]] Result<std::uint64_t> get_tsc_offset() const noexcept {
    return self().template get_device_attr<std::uint64_t>(KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET);
  }
  [[nodiscard]] Result<void> set_tsc_offset(std::uint64_t offset) const noexcept {
    return self().set_device_attr(KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, offset);
  }

 private:
  struct OneMsr {
    MsrsHeader header{.nmsrs = 1, .pad = 0};
    kvm_msr_entry entry{};
  };
  [[nodiscard]] const Self& self() const noexcept { return static_cast<const Self&>(*this); }
  [[nodiscard]] int number() const noexcept { return self().fd(); }
  [[nodiscard]] std::uint64_t operand() const noexcept { return self().id().value; }
};

}  // namespace kvm_ioctls
