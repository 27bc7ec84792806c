// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the hypercalls beyond memory, clock and timer ask.
#include <sched.h>

#include <cstdio>

#include "xen_evtchn/two_level.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {

namespace {

constexpr Gpa no_area{kvm_ioctls::xen_invalid_gpa};

kvm_segment kvm_segment_of(const xen_hcall::Segment& from) {
  kvm_segment to{};
  to.base = from.base;
  to.limit = from.limit;
  to.type = static_cast<std::uint8_t>(from.type());
  to.s = from.is_code_or_data();
  to.dpl = static_cast<std::uint8_t>(from.dpl());
  to.present = from.is_present();
  to.avl = from.is_available();
  to.l = from.is_64_bit();
  to.db = from.is_default_big();
  to.g = from.is_in_pages();
  to.unusable = from.attributes == 0;
  return to;
}

}  // namespace

// --- vCPUs ---

Result<void> XenPlatform::set_runstate_area(XenVcpuId id, std::optional<Gpa> area) {
  if (!host_.xen_exits) return vmm_base::success();
  auto set = work_(id, [&] {
    return vcpu(id).xen_vcpu_set_attr(kvm_ioctls::XenRunstateArea{area.value_or(no_area)});
  });
  // A kernel that keeps no runstates leaves the area as it is: Linux insists on a yes.
  if (!set && set.error().code == EOPNOTSUPP) return vmm_base::success();
  return set;
}

Result<void> XenPlatform::set_time_area(XenVcpuId id, std::optional<Gpa> area) {
  if (!host_.xen_exits) {
    if (!area) return vmm_base::success();
    return vmm_base::Error{"vcpu_time_info of its own", ENOTSUP, id.value};
  }
  return work_(id, [&] {
    return vcpu(id).xen_vcpu_set_attr(kvm_ioctls::XenVcpuTimeInfo{area.value_or(no_area)});
  });
}

Result<xen_abi::RunstateInfo> XenPlatform::runstate(XenVcpuId id) {
  kvm_ioctls::XenRunstateData data{};
  VMM_CHECK(work_(id, [&]() -> Result<void> {
    VMM_TRY(read, vcpu(id).xen_vcpu_get_attr<kvm_ioctls::XenRunstateData>());
    data = read;
    return vmm_base::success();
  }));
  return xen_abi::RunstateInfo{
      static_cast<std::int32_t>(data.state),
      0,
      data.state_entry_time,
      {data.time_running, data.time_runnable, data.time_blocked, data.time_offline}};
}

Result<void> XenPlatform::set_runstate_update_flag(bool enabled) {
  VMM_CHECK(vm_.xen_hvm_set_attr(kvm_ioctls::XenRunstateUpdateFlag{enabled}));
  marks_runstates_ = enabled;
  return vmm_base::success();
}

Result<xen_hcall::VcpuPower> XenPlatform::vcpu_power(XenVcpuId id) {
  kvm_mp_state state{};
  VMM_CHECK(work_(id, [&]() -> Result<void> {
    VMM_TRY(read, vcpu(id).get_mp_state());
    state = read;
    return vmm_base::success();
  }));
  switch (state.mp_state) {
    case KVM_MP_STATE_RUNNABLE:
    case KVM_MP_STATE_HALTED:
    case KVM_MP_STATE_SIPI_RECEIVED:
      return xen_hcall::VcpuPower::up;
    default:
      return state_[id.value].initialised ? xen_hcall::VcpuPower::down
                                          : xen_hcall::VcpuPower::uninitialised;
  }
}

Result<void> XenPlatform::initialise_vcpu(XenVcpuId id, const xen_hcall::VcpuRegisters& registers) {
  return work_(id, [&]() -> Result<void> {
    VMM_TRY(sregs, vcpu(id).get_sregs());
    sregs.cr0 = registers.cr0;
    sregs.cr3 = registers.cr3;
    sregs.cr4 = registers.cr4;
    sregs.efer = registers.efer;
    sregs.cs = kvm_segment_of(registers.cs);
    sregs.ds = kvm_segment_of(registers.ds);
    sregs.ss = kvm_segment_of(registers.ss);
    sregs.es = kvm_segment_of(registers.es);
    sregs.tr = kvm_segment_of(registers.tr);
    VMM_CHECK(vcpu(id).set_sregs(sregs));
    kvm_regs regs{};
    regs.rax = registers.rax;
    regs.rcx = registers.rcx;
    regs.rdx = registers.rdx;
    regs.rbx = registers.rbx;
    regs.rsp = registers.rsp;
    regs.rbp = registers.rbp;
    regs.rsi = registers.rsi;
    regs.rdi = registers.rdi;
    regs.rip = registers.rip;
    regs.rflags = registers.rflags;
    VMM_CHECK(vcpu(id).set_regs(regs));
    state_[id.value].initialised = true;
    return vmm_base::success();
  });
}

Result<void> XenPlatform::power_up(XenVcpuId id) {
  return work_(id, [&] { return vcpu(id).set_mp_state({KVM_MP_STATE_RUNNABLE}); });
}

// KVM lets a vCPU in this state wait inside KVM_RUN.
Result<void> XenPlatform::power_down(XenVcpuId id) {
  state_[id.value].initialised = true;
  return work_(id, [&] { return vcpu(id).set_mp_state({KVM_MP_STATE_UNINITIALIZED}); });
}

Result<void> XenPlatform::send_nmi(XenVcpuId id) {
  constexpr std::uint32_t delivery_nmi = 4 << 8;
  VMM_CHECK(vm_.signal_msi(msi_address(id), delivery_nmi));
  return vmm_base::success();
}

void XenPlatform::yield(XenVcpuId /*id*/) { ::sched_yield(); }

Result<void> XenPlatform::block(XenVcpuId id) {
  return vcpu(id).set_mp_state({KVM_MP_STATE_HALTED});
}

void XenPlatform::poll(XenVcpuId id, std::span<const EventPort> /*ports*/,
                       std::uint64_t /*timeout_ns*/) {
  yield(id);  // the guest looks for itself, and polls again; KVM_XEN answers better by itself
}

// --- the domain ---

void XenPlatform::shutdown(xen_abi::ShutdownReason reason) { ended_(reason); }

Result<void> XenPlatform::set_watchdog(std::uint32_t index,
                                       std::optional<std::chrono::seconds> after) {
  if (!watchdog_) return vmm_base::Error{"watchdog", ENOTSUP, index};
  watchdog_(index, after);
  return vmm_base::success();
}

bool XenPlatform::is_ram(std::uint64_t gfn) {
  return gfn >> 52 == 0 &&
         memory_.host(Gpa{gfn << vmm_base::page_shift}, vmm_base::page_size) != nullptr;
}

void XenPlatform::console_write(std::span<const std::byte> text) {
  for (const std::byte character : text) {
    const int value = std::to_integer<int>(character);
    if ((value >= ' ' && value < 0x7f) || value == '\n') std::fputc(value, stderr);
  }
}

// --- events ---

Result<void> XenPlatform::set_callback(xen_hcall::CallbackIrq callback) {
  const bool as_vector = callback.kind == xen_hcall::CallbackIrq::Kind::vector;
  // KVM injects the vector for as long as an upcall is pending; nobody else can.
  if (as_vector && !host_.xen_exits) {
    return vmm_base::Error{"HVM_PARAM_CALLBACK_IRQ", ENOTSUP, callback.number};
  }
  // There is no pin to raise, but a yes is due: Linux says "GSI 1" for show, once its vCPUs have
  // vectors of their own, and gives those up if that fails.
  if (!host_.xen_exits) return vmm_base::success();
  const std::uint8_t vector = as_vector ? callback.number : std::uint8_t{0};
  return vm_.xen_hvm_set_attr(kvm_ioctls::XenUpcallVector{vector});
}

Result<void> XenPlatform::send_routed(EventPort port, std::optional<xen_evtchn::Target> target) {
  if (!host_.evtchn_send) return vmm_base::success();
  EventPort& known = sent_by_kernel_[port.value];
  const EventPort to = target ? target->port : EventPort{};
  kvm_ioctls::XenEvtchn route{.send_port = port.value};
  if (known != EventPort{} && known != to) {
    route.flags = KVM_XEN_EVTCHN_DEASSIGN;
    known = {};
    VMM_CHECK(vm_.xen_hvm_set_attr(route));
  }
  if (!target) return vmm_base::success();
  route.flags = known == to ? KVM_XEN_EVTCHN_UPDATE : 0;
  route.kind = to == port ? xen_abi::evtchn_status::ipi : xen_abi::evtchn_status::interdomain;
  route.port = to.value;
  route.vcpu = vcpu(target->vcpu).id();
  VMM_CHECK(vm_.xen_hvm_set_attr(route));
  known = to;
  return vmm_base::success();
}

Result<void> XenPlatform::unmask_event(XenVcpuId id, EventPort port) {
  SharedInfo* shared = shared_info_;
  if (shared == nullptr || !xen_evtchn::unmask(*shared, port)) return vmm_base::success();
  return raise_event(id, port);
}

bool XenPlatform::is_pending(EventPort port) {
  const SharedInfo* shared = shared_info_;
  if (shared == nullptr || port.value >= xen_abi::event_ports_64) return false;
  const std::uint64_t word =
      __atomic_load_n(&shared->evtchn_pending[port.value / 64], __ATOMIC_SEQ_CST);
  return (word >> port.value % 64 & 1) != 0;
}

}  // namespace vmm_reference
