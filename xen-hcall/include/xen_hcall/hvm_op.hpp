// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_hvm_op, what unprivileged HVM and PVH guests use of it: their parameters, and how
// events reach them.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <optional>

#include "vmm_base/result.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// How events reach a guest that has set no upcall vector for a vCPU: HVM_PARAM_CALLBACK_IRQ.
struct CallbackIrq {
  enum class Kind : std::uint8_t { none, gsi, pci_intx, vector };
  Kind kind = Kind::none;
  std::uint8_t number = 0;  // of the GSI or vector; of the PCI pin, 0 to 3
  std::uint8_t device = 0;  // of pci_intx, 0 to 31
  friend bool operator==(const CallbackIrq&, const CallbackIrq&) = default;

  // xen/arch/x86/hvm/irq.c, hvm_set_callback_via.
  static constexpr CallbackIrq decode(std::uint64_t value) noexcept {
    const auto low = static_cast<std::uint8_t>(value);
    switch (value >> xen_abi::callback_irq::type_shift) {
      case xen_abi::callback_irq::gsi:
        return low == 0 ? CallbackIrq{} : CallbackIrq{Kind::gsi, low, 0};
      case xen_abi::callback_irq::pci_intx:
        return {Kind::pci_intx, static_cast<std::uint8_t>(low & 3),
                static_cast<std::uint8_t>(value >> 11 & 31)};
      case xen_abi::callback_irq::vector:
        return {Kind::vector, low, 0};
      default:
        return {};
    }
  }
};

// set_upcall_vector: events reach this vCPU, whichever calls, as `vector` of its local APIC; at
// once
//   if there is one already.
// set_callback: so they reach those that have no vector of their own. GSI 1 is due a yes whatever
// the
//   VMM can do: Linux and FreeBSD say it for show when their vCPUs have vectors, and won't bear a
//   no.
// Both: an error is told to the guest as -EINVAL.
// is_ram: whether the guest has memory at this frame.
template <class V>
concept HvmOpVmm = GuestReader<V> && GuestWriter<V> &&
    requires(V& vmm, vmm_base::XenVcpuId vcpu, std::uint8_t vector, CallbackIrq callback,
             std::uint64_t gfn) {
  { vmm.set_upcall_vector(vcpu, vector) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.set_callback(callback) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.is_ram(gfn) } -> std::same_as<bool>;
};

template <HvmOpVmm V>
class HvmOp {
 public:
  HvmOp(V& vmm, std::uint32_t vcpu_count, xen_abi::DomainId self = 1) noexcept
      : vmm_(vmm), vcpu_count_(vcpu_count), self_(self) {}

  // For the VMM: what a parameter is, below xen_abi::hvm_param::count; all are 0 at first. One that
  // has nothing to tell for STORE_PFN or CONSOLE_PFN leaves it 0, and guests do without.
  void set_param(std::uint32_t index, std::uint64_t value) noexcept { params_[index] = value; }
  [[nodiscard]] std::uint64_t param(std::uint32_t index) const noexcept { return params_[index]; }

  // What a guest may set is 0 again; for a VMM whose guest is reset. What the VMM had put there, it
  // has to set anew.
  void reset() noexcept {
    for (std::uint32_t index = 0; index < xen_abi::hvm_param::count; ++index) {
      if (access(index) == Access::read_write) params_[index] = 0;
    }
  }

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::hvm_op;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    const std::uint64_t gva = call.params[1];
    switch (call.params[0]) {
      case xen_abi::hvmop::set_param:
        return set_param(vcpu, gva);
      case xen_abi::hvmop::get_param:
        return get_param(vcpu, gva);
      case xen_abi::hvmop::pagetable_dying:
        return pagetable_dying(vcpu, gva);
      case xen_abi::hvmop::get_mem_type:
        return get_mem_type(vcpu, gva);
      case xen_abi::hvmop::set_evtchn_upcall_vector:
        return set_evtchn_upcall_vector(vcpu, gva);
      default:
        return std::nullopt;
    }
  }

 private:
  // Who may do what with a parameter: xen/arch/x86/hvm/hvm.c, hvm_allow_{set,get}_param.
  enum class Access { none, read, read_write, deprecated };
  static Access access(std::uint32_t index) noexcept {
    namespace param = xen_abi::hvm_param;
    switch (index) {
      case param::callback_irq:
      case param::vm86_tss:
      case param::vm86_tss_sized:
      case param::acpi_ioports_location:
      case param::vm_generation_id_addr:
      case param::store_evtchn:
      case param::console_evtchn:
      case param::x87_fip_width:
        return Access::read_write;
      case param::store_pfn:
      case param::console_pfn:
      case param::altp2m:
        return Access::read;
      case param::pae_enabled:
      case param::dm_domain:
      case param::nested_hvm:
      case param::bufioreq_evtchn:
      case param::memory_event_msr:
        return Access::deprecated;
      default:
        return index >= param::memory_event_cr0 && index <= param::memory_event_single_step
                   ? Access::deprecated
                   : Access::none;
    }
  }

  xen_abi::Answer set_param(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::HvmParam>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (argument->index >= xen_abi::hvm_param::count) return {xen_abi::Errno::inval};
    if (!is_self(argument->domid)) return {xen_abi::Errno::srch};
    if (argument->index == xen_abi::hvm_param::altp2m) return {xen_abi::Errno::exist};
    switch (access(argument->index)) {
      case Access::deprecated:
        return {xen_abi::Errno::inval};
      case Access::read:
      case Access::none:
        return {xen_abi::Errno::perm};
      case Access::read_write:
        break;
    }
    return set(argument->index, argument->value);
  }

  xen_abi::Answer set(std::uint32_t index, std::uint64_t value) {
    switch (index) {
      case xen_abi::hvm_param::callback_irq: {
        auto set = vmm_.set_callback(CallbackIrq::decode(value));
        if (!set) return {xen_abi::Errno::inval, set};
        break;
      }
      case xen_abi::hvm_param::x87_fip_width:
        if (value != 0 && value != 4 && value != 8) return {xen_abi::Errno::inval};
        break;
      case xen_abi::hvm_param::vm86_tss:  // of 128 bytes
        if (value >> 32 != 0) return {xen_abi::Errno::inval};
        params_[xen_abi::hvm_param::vm86_tss_sized] =
            value == 0 ? 0 : value | std::uint64_t{128} << 32;
        return ok();
      case xen_abi::hvm_param::vm86_tss_sized: {
        // From a bare TSS to one with both bitmaps; what is beyond is cut.
        constexpr std::uint64_t least = 104;
        constexpr std::uint64_t most = least + 0x100 / 8 + 0x10000 / 8 + 1;
        const std::uint64_t size = value >> 32;
        if (size < least) return {xen_abi::Errno::inval};
        value = (value & 0xffffffff) | std::min(size, most) << 32;
        break;
      }
      default:
        break;
    }
    params_[index] = value;
    return ok();
  }

  xen_abi::Answer get_param(XenVcpuId vcpu, std::uint64_t gva) {
    auto argument = read_guest<xen_abi::HvmParam>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (argument->index >= xen_abi::hvm_param::count) return {xen_abi::Errno::inval};
    if (!is_self(argument->domid)) return {xen_abi::Errno::srch};
    switch (access(argument->index)) {
      case Access::deprecated:
        return {xen_abi::Errno::inval};
      case Access::none:
        return {xen_abi::Errno::perm};
      case Access::read:
      case Access::read_write:
        break;
    }
    argument->value = argument->index == xen_abi::hvm_param::vm86_tss
                          ? params_[xen_abi::hvm_param::vm86_tss_sized] & 0xffffffff
                          : params_[argument->index].load();
    return put(vcpu, gva, *argument);
  }

  // Events of any vCPU come as `vector` from now on.
  xen_abi::Answer set_evtchn_upcall_vector(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::EvtchnUpcallVector>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (argument->vector < 0x10) return {xen_abi::Errno::inval};
    if (argument->vcpu >= vcpu_count_) return {xen_abi::Errno::noent};
    return done(vmm_.set_upcall_vector(XenVcpuId{argument->vcpu}, argument->vector));
  }

  // Of use to shadow page tables alone, which KVM keeps by itself: -EINVAL, as where Xen has none.
  xen_abi::Answer pagetable_dying(XenVcpuId vcpu, std::uint64_t gva) {
    const auto argument = read_guest<xen_abi::HvmPagetableDying>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    return {is_self(argument->domid) ? xen_abi::Errno::inval : xen_abi::Errno::srch};
  }

  xen_abi::Answer get_mem_type(XenVcpuId vcpu, std::uint64_t gva) {
    auto argument = read_guest<xen_abi::HvmGetMemType>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (!is_self(argument->domid)) return {xen_abi::Errno::srch};
    argument->mem_type =
        vmm_.is_ram(argument->pfn) ? xen_abi::hvmmem_ram_rw : xen_abi::hvmmem_mmio_dm;
    return put(vcpu, gva, *argument);
  }

  template <class T>
  xen_abi::Answer put(XenVcpuId vcpu, std::uint64_t gva, const T& value) {
    return write_guest(vmm_, vcpu, gva, value) ? ok() : xen_abi::Answer{xen_abi::Errno::fault};
  }
  [[nodiscard]] bool is_self(xen_abi::DomainId domain) const noexcept {
    return xen_abi::is_self(domain, self_);
  }

  V& vmm_;
  std::uint32_t vcpu_count_;
  xen_abi::DomainId self_;
  std::array<std::atomic<std::uint64_t>, xen_abi::hvm_param::count> params_{};
};

}  // namespace xen_hcall
