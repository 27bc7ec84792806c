// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The attributes of KVM_XEN_HVM_{GET,SET}_ATTR and KVM_XEN_VCPU_{GET,SET}_ATTR, one type each, so
// that a call names what it sets and can't put it into the wrong member of the kernel's union:
//
//   VMM_CHECK(vm.xen_hvm_set_attr(XenSharedInfo{.gfn = 0x123}));
//   VMM_TRY(id, vcpu.xen_vcpu_get_attr<XenVcpuIdAttr>());
//
// Units and rules are those of Documentation/virt/kvm/api.rst, sections 4.126 to 4.131.
#pragma once

#include <cstdint>
#include <optional>

#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/ids.hpp"

namespace kvm_ioctls {

// KVM's "no such guest frame" and "no such address": deactivates an area.
inline constexpr std::uint64_t xen_invalid_gpa = ~std::uint64_t{0};

// --- VM attributes ------------------------------------------------------------------------------

// The domain's mode: the layout of shared_info, vcpu_info and runstate. The guest's write to the
// hypercall MSR sets it, too.
struct XenLongMode {
  bool enabled = false;
  static constexpr std::uint16_t type = KVM_XEN_ATTR_TYPE_LONG_MODE;
  void store(kvm_xen_hvm_attr& attr) const { attr.u.long_mode = enabled ? 1 : 0; }
  static XenLongMode load(const kvm_xen_hvm_attr& attr) { return {attr.u.long_mode != 0}; }
};

// The guest frame that holds shared_info; xen_invalid_gpa for none.
struct XenSharedInfo {
  std::uint64_t gfn = xen_invalid_gpa;
  static constexpr std::uint16_t type = KVM_XEN_ATTR_TYPE_SHARED_INFO;
  void store(kvm_xen_hvm_attr& attr) const { attr.u.shared_info.gfn = gfn; }
  static XenSharedInfo load(const kvm_xen_hvm_attr& attr) { return {attr.u.shared_info.gfn}; }
};

// The same by host address, page-aligned; null for none. Linux 6.9.
struct XenSharedInfoHva {
  void* page = nullptr;
  static constexpr std::uint16_t type = KVM_XEN_ATTR_TYPE_SHARED_INFO_HVA;
  void store(kvm_xen_hvm_attr& attr) const {
    attr.u.shared_info.gfn = reinterpret_cast<std::uintptr_t>(page);
  }
  static XenSharedInfoHva load(const kvm_xen_hvm_attr& attr) {
    return {reinterpret_cast<void*>(attr.u.shared_info.gfn)};  // NOLINT(performance-no-int-to-ptr)
  }
};

// The domain-wide upcall vector (HVM_PARAM_CALLBACK_IRQ of type vector): 0x10 to 0xff, or 0.
struct XenUpcallVector {
  std::uint8_t vector = 0;
  static constexpr std::uint16_t type = KVM_XEN_ATTR_TYPE_UPCALL_VECTOR;
  void store(kvm_xen_hvm_attr& attr) const { attr.u.vector = vector; }
  static XenUpcallVector load(const kvm_xen_hvm_attr& attr) { return {attr.u.vector}; }
};

// What the kernel does by itself when the guest sends on `send_port`. Can only be set. EEXIST if
// the port is taken.
struct XenEvtchn {
  std::uint32_t send_port = 0;
  std::uint32_t kind = 0;   // EVTCHNSTAT_ipi (5; port equals send_port) or _interdomain (2).
  std::uint32_t flags = 0;  // 0, or KVM_XEN_EVTCHN_DEASSIGN, _UPDATE, _RESET.
  std::uint32_t port = 0;   // Raised on `vcpu`; 0 to signal `eventfd` instead.
  vmm_base::KvmVcpuId vcpu{};
  std::int32_t eventfd = -1;  // Not owned; the kernel takes its own reference.
  static constexpr std::uint16_t type = KVM_XEN_ATTR_TYPE_EVTCHN;
  void store(kvm_xen_hvm_attr& attr) const {
    attr.u.evtchn.send_port = send_port;
    attr.u.evtchn.type = kind;
    attr.u.evtchn.flags = flags;
    if (port != 0) {
      attr.u.evtchn.deliver.port.port = port;
      attr.u.evtchn.deliver.port.vcpu = vcpu.value;
      attr.u.evtchn.deliver.port.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL;
    } else {
      attr.u.evtchn.deliver.eventfd.fd = eventfd;
    }
  }
};

// What XENVER_version answers, major << 16 | minor; 0 sends it to the VMM.
struct XenVersion {
  std::uint32_t version = 0;
  static constexpr std::uint16_t type = KVM_XEN_ATTR_TYPE_XEN_VERSION;
  void store(kvm_xen_hvm_attr& attr) const { attr.u.xen_version = version; }
  static XenVersion load(const kvm_xen_hvm_attr& attr) { return {attr.u.xen_version}; }
};

// Whether runstate areas are updated under XEN_RUNSTATE_UPDATE. Linux 6.3.
struct XenRunstateUpdateFlag {
  bool enabled = false;
  static constexpr std::uint16_t type = KVM_XEN_ATTR_TYPE_RUNSTATE_UPDATE_FLAG;
  // Newer headers call the byte runstate_update_flag; it shares its place with long_mode.
  void store(kvm_xen_hvm_attr& attr) const { attr.u.long_mode = enabled ? 1 : 0; }
  static XenRunstateUpdateFlag load(const kvm_xen_hvm_attr& attr) {
    return {attr.u.long_mode != 0};
  }
};

// --- vCPU attributes; each ioctl waits while the vCPU is in KVM_RUN ---

// Where an area of this vCPU lies; xen_invalid_gpa for nowhere.
template <std::uint16_t Type>
struct XenVcpuArea {
  vmm_base::Gpa gpa{xen_invalid_gpa};
  static constexpr std::uint16_t type = Type;
  void store(kvm_xen_vcpu_attr& attr) const { attr.u.gpa = gpa.value; }
  static XenVcpuArea load(const kvm_xen_vcpu_attr& attr) { return {vmm_base::Gpa{attr.u.gpa}}; }
};
using XenVcpuInfo = XenVcpuArea<KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO>;           // 64 bytes
using XenVcpuTimeInfo = XenVcpuArea<KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO>;  // 32 bytes
using XenRunstateArea = XenVcpuArea<KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR>;   // 44 or 48 bytes

// vcpu_info by host address; null for none. Linux 6.9.
struct XenVcpuInfoHva {
  void* info = nullptr;
  static constexpr std::uint16_t type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO_HVA;
  void store(kvm_xen_vcpu_attr& attr) const { attr.u.gpa = reinterpret_cast<std::uintptr_t>(info); }
  static XenVcpuInfoHva load(const kvm_xen_vcpu_attr& attr) {
    return {reinterpret_cast<void*>(attr.u.gpa)};  // NOLINT(performance-no-int-to-ptr)
  }
};

// The state entered now: 0 running, 1 runnable, 2 blocked, 3 offline.
struct XenRunstateCurrent {
  std::uint64_t state = 0;
  static constexpr std::uint16_t type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_CURRENT;
  void store(kvm_xen_vcpu_attr& attr) const { attr.u.runstate.state = state; }
  static XenRunstateCurrent load(const kvm_xen_vcpu_attr& attr) { return {attr.u.runstate.state}; }
};

// All of a runstate, ns; state_entry_time must be the sum of the four.
template <std::uint16_t Type>
struct XenRunstate {
  std::uint64_t state = 0;
  std::uint64_t state_entry_time = 0;
  std::uint64_t time_running = 0;
  std::uint64_t time_runnable = 0;
  std::uint64_t time_blocked = 0;
  std::uint64_t time_offline = 0;
  static constexpr std::uint16_t type = Type;
  void store(kvm_xen_vcpu_attr& attr) const {
    auto& to = attr.u.runstate;
    to.state = state;
    to.state_entry_time = state_entry_time;
    to.time_running = time_running;
    to.time_runnable = time_runnable;
    to.time_blocked = time_blocked;
    to.time_offline = time_offline;
  }
  static XenRunstate load(const kvm_xen_vcpu_attr& attr) {
    const auto& from = attr.u.runstate;
    return {from.state,         from.state_entry_time, from.time_running,
            from.time_runnable, from.time_blocked,     from.time_offline};
  }
};
using XenRunstateData = XenRunstate<KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA>;
// Adds to each; state ~0 leaves the state as it is. Can only be set.
using XenRunstateAdjust = XenRunstate<KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADJUST>;

// What the kernel keeps for "no Xen vCPU id yet" since Linux 7.3. It can be read, never set.
inline constexpr std::uint32_t xen_vcpu_id_invalid = 0xffffffff;
// The most vCPUs, and so the end of the ids, that any x86 kernel can be configured for.
inline constexpr std::uint32_t max_vcpus = 4096;
static_assert(xen_vcpu_id_invalid >= max_vcpus, "the invalid Xen vCPU id must not be a legal one");

// The Xen vCPU id; nullopt while it is unset, which only a kernel of 7.3 or later says. Setting an
// id is final: nullopt is refused with EINVAL, as the kernel does.
struct XenVcpuIdAttr {
  std::optional<vmm_base::XenVcpuId> id{};
  static constexpr std::uint16_t type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID;
  void store(kvm_xen_vcpu_attr& attr) const {
    attr.u.vcpu_id = id ? id->value : xen_vcpu_id_invalid;
  }
  static XenVcpuIdAttr load(const kvm_xen_vcpu_attr& attr) {
    if (attr.u.vcpu_id == xen_vcpu_id_invalid) return {};
    return {vmm_base::XenVcpuId{attr.u.vcpu_id}};
  }
};

// The kernel's own timer of this vCPU: the port it raises, 0 for off, and the deadline, ns of guest
// system time, 0 for not armed. Setting it stops a running timer first.
struct XenTimer {
  std::uint32_t port = 0;
  std::uint64_t expires_ns = 0;
  static constexpr std::uint16_t type = KVM_XEN_VCPU_ATTR_TYPE_TIMER;
  void store(kvm_xen_vcpu_attr& attr) const {
    attr.u.timer.port = port;
    attr.u.timer.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL;
    attr.u.timer.expires_ns = expires_ns;
  }
  static XenTimer load(const kvm_xen_vcpu_attr& attr) {
    return {attr.u.timer.port, attr.u.timer.expires_ns};
  }
};

// This vCPU's own upcall vector, through its local APIC: 0x10 to 0xff, or 0.
struct XenVcpuUpcallVector {
  std::uint8_t vector = 0;
  static constexpr std::uint16_t type = KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR;
  void store(kvm_xen_vcpu_attr& attr) const { attr.u.vector = vector; }
  static XenVcpuUpcallVector load(const kvm_xen_vcpu_attr& attr) { return {attr.u.vector}; }
};

}  // namespace kvm_ioctls
