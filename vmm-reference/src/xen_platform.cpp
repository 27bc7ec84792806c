// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_platform.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "vcpu_tsc.hpp"
#include "xen_evtchn/two_level.hpp"

namespace vmm_reference {

namespace {

// arch/x86/include/uapi/asm/kvm_para.h: bit 0 enables, the rest is the address.
constexpr std::uint32_t msr_kvm_system_time_new = 0x4b564d01;

// What kernels that don't have it say to an ioctl, of a VM or a vCPU, or to an attribute.
bool is_unknown_ioctl(int code) { return code == ENOTTY || code == EINVAL || code == ENXIO; }

}  // namespace

XenPlatform::XenPlatform(const Host& host, const kvm_ioctls::Vm& vm, IrqRoutes& routes,
                         vm_memory::GuestMemory& memory, std::span<kvm_ioctls::Vcpu> vcpus,
                         HostErrors& errors)
    : host_(host),
      vm_(vm),
      routes_(routes),
      memory_(memory),
      vcpus_(vcpus),
      errors_(errors),
      state_(vcpus.size()),
      observation_(vcpus.size()),
      grants_(vm, memory),
      sent_by_kernel_(xen_abi::event_ports_64) {}

// --- memory ---

template <class Copy>
bool XenPlatform::each_page(XenVcpuId id, Gva gva, std::size_t size, Copy&& copy) {
  for (std::size_t at = 0; at < size;) {
    const Gva here = gva + at;
    const std::size_t length =
        std::min<std::size_t>(size - at, vmm_base::page_size - here.value % vmm_base::page_size);
    auto gpa = vcpu(id).translate(here);
    // EFAULT: the guest has nothing there.
    if (!gpa && gpa.error().code != EFAULT) errors_.note(gpa.error());
    if (!gpa || !copy(gpa.value(), at, length)) return false;
    at += length;
  }
  return true;
}

bool XenPlatform::copy_from_guest(XenVcpuId id, Gva from, std::span<std::byte> to) {
  return each_page(id, from, to.size(), [&](Gpa gpa, std::size_t at, std::size_t length) {
    return memory_.read(gpa, to.subspan(at, length)).has_value();
  });
}

bool XenPlatform::copy_to_guest(XenVcpuId id, Gva to, std::span<const std::byte> from) {
  return each_page(id, to, from.size(), [&](Gpa gpa, std::size_t at, std::size_t length) {
    return memory_.write(gpa, from.subspan(at, length)).has_value();
  });
}

std::optional<Gpa> XenPlatform::translate(XenVcpuId id, Gva from, std::size_t size) {
  std::optional<Gpa> start;
  const bool together = each_page(id, from, size, [&](Gpa gpa, std::size_t at, std::size_t) {
    if (!start) start = gpa;
    return gpa == *start + at;
  });
  return together ? start : std::nullopt;
}

// --- shared pages ---

Result<void> XenPlatform::map_shared_info(std::uint64_t gfn) {
  const Gpa gpa{gfn << vmm_base::page_shift};
  std::byte* page = gfn >> 52 == 0 ? memory_.host(gpa, vmm_base::page_size) : nullptr;
  if (page == nullptr) return vmm_base::Error{"shared_info", EFAULT, gfn};
  if (host_.xen_exits) {
    // KVM samples it where the guest writes the hypercall MSR, which Linux does no longer since
    // XSA-466; Xen does at calls like this one, too.
    if (!long_mode_) return vmm_base::Error{"shared_info of a 32-bit domain", ENOTSUP, gfn};
    VMM_CHECK(vm_.xen_hvm_set_attr(kvm_ioctls::XenLongMode{true}));
  }
  // It becomes Xen's page: empty at first, and what it was when it moves.
  auto* next = reinterpret_cast<SharedInfo*>(page);
  const SharedInfo* old = shared_info_;
  if (old == nullptr) {
    std::memset(page, 0, vmm_base::page_size);
  } else if (old != next) {
    std::memcpy(page, old, vmm_base::page_size);
  }
  if (host_.xen_exits) {
    VMM_CHECK(vm_.xen_hvm_set_attr(kvm_ioctls::XenSharedInfo{gfn}));
  }
  shared_info_ = next;
  // Until a vCPU registers one of its own, its vcpu_info is there.
  const auto slots = static_cast<std::uint32_t>(std::min(state_.size(), next->vcpu_info.size()));
  for (std::uint32_t id = 0; id < slots; ++id) {
    const Gpa slot = gpa + id * sizeof(VcpuInfo);
    VMM_CHECK(work_(XenVcpuId{id}, [&]() -> Result<void> {
      PerVcpu& state = state_[id];
      if (state.registered) return vmm_base::success();
      return set_vcpu_info(XenVcpuId{id}, slot, &next->vcpu_info[id]);
    }));
  }
  return vmm_base::success();
}

Result<void> XenPlatform::set_vcpu_info(XenVcpuId id, Gpa gpa, VcpuInfo* info) {
  if (host_.xen_exits) {
    VMM_CHECK(vcpu(id).xen_vcpu_set_attr(kvm_ioctls::XenVcpuInfo{gpa}));
  } else {
    // KVM keeps the same structure up to date for its own guests.
    const Gpa time = gpa + xen_abi::vcpu_time_info_offset;
    VMM_CHECK(vcpu(id).set_msr(msr_kvm_system_time_new, info == nullptr ? 0 : time.value | 1));
  }
  state_[id.value].clock.set_page(info == nullptr ? nullptr : &info->time);
  state_[id.value].info = info;
  return vmm_base::success();
}

Result<void> XenPlatform::move_vcpu_info(XenVcpuId id, Gpa gpa) {
  return work_(id, [&]() -> Result<void> {
    PerVcpu& state = state_[id.value];
    auto* info = reinterpret_cast<VcpuInfo*>(memory_.host(gpa, sizeof(VcpuInfo)));
    // A 32-bit caller may ask for less than the atomic accesses to a 64-bit domain's need.
    if (info == nullptr || gpa.value % alignof(VcpuInfo) != 0) {
      return vmm_base::Error{"vcpu_info", EFAULT, gpa.value};
    }
    const VcpuInfo* old = state.info;
    // The guest may have placed it across the old one.
    if (old != nullptr) std::memmove(info, old, sizeof(*info));
    // What was raised in the old one, or not at all yet, is looked for in the new.
    info->pending_sel = ~std::uint64_t{0};
    info->upcall_pending = 1;
    VMM_CHECK(set_vcpu_info(id, gpa, info));
    state.registered = true;
    return inject_upcall(id);
  });
}

// --- a soft reset ---

Result<void> XenPlatform::reset_vcpu(XenVcpuId id) {
  return work_(id, [&]() -> Result<void> {
    Result<void> first = timer_reset_(id);
    const auto also = [&first](const Result<void>& next) {
      if (first) first = next;
    };
    also(set_vcpu_info(id, Gpa{kvm_ioctls::xen_invalid_gpa}, nullptr));
    state_[id.value].registered = false;
    also(set_upcall_vector(id, 0));
    also(set_runstate_area(id, std::nullopt));
    also(set_time_area(id, std::nullopt));
    return first;
  });
}

Result<void> XenPlatform::reset_domain() {
  Result<void> first = set_callback({});
  const auto also = [&first](const Result<void>& next) {
    if (first) first = next;
  };
  if (host_.xen_exits) also(vm_.xen_hvm_set_attr(kvm_ioctls::XenSharedInfo{}));
  shared_info_ = nullptr;
  if (marks_runstates_) also(set_runstate_update_flag(false));
  also(grants_.reset());
  return first;
}

// --- time ---

void XenPlatform::enter_hypercall(XenVcpuId id, bool long_mode) {
  long_mode_.store(long_mode, std::memory_order_relaxed);
  state_[id.value].clock.refresh([&]() -> std::optional<xen_clock::VcpuTsc> {
    auto tsc = vcpu_tsc(vm_, vcpu(id));
    if (tsc) return tsc.value();
    if (!is_unknown_ioctl(tsc.error().code)) errors_.note(tsc.error());  // before Linux 5.19
    return std::nullopt;
  });
}

GuestTime XenPlatform::guest_now(XenVcpuId id) {
  const auto [time, source] = state_[id.value].clock.now([&] {
    const auto clock = vm_.get_clock();
    if (!clock) errors_.note(clock.error());
    return xen_clock::guest_time(clock ? static_cast<std::int64_t>(clock.value().clock) : 0);
  });
  if (source != xen_clock::Source::pvclock) clock_fell_back_ = true;
  return time;
}

Result<void> XenPlatform::set_timer(XenVcpuId id, EventPort port,
                                    std::optional<GuestTime> deadline) {
  const auto expires = deadline ? deadline->time_since_epoch().count() : 0;
  return vcpu(id).xen_vcpu_set_attr(
      kvm_ioctls::XenTimer{.port = port.value, .expires_ns = static_cast<std::uint64_t>(expires)});
}

Result<std::optional<GuestTime>> XenPlatform::timer(XenVcpuId id) {
  VMM_TRY(timer, vcpu(id).xen_vcpu_get_attr<kvm_ioctls::XenTimer>());
  if (timer.expires_ns == 0) return std::optional<GuestTime>{};
  return std::optional(xen_clock::guest_time(static_cast<std::int64_t>(timer.expires_ns)));
}

// --- events ---

Result<void> XenPlatform::route_event(XenVcpuId id, EventPort port, int eventfd) {
  PerVcpu& state = state_[id.value];
  if (port == EventPort{}) {
    if (!state.irqfd) return vmm_base::success();
    // First, so that what it has been signalled still has its route.
    VMM_CHECK(state.irqfd->unregister());
    state.irqfd.reset();
    return routes_.clear(state.event_gsi);
  }
  if (state.event_gsi == 0) state.event_gsi = routes_.allocate();
  VMM_CHECK(routes_.set(state.event_gsi, EventRoute{port, vcpu(id).id()}));
  if (state.irqfd) return vmm_base::success();
  VMM_TRY(registered, vm_.register_irqfd(eventfd, state.event_gsi));
  state.irqfd.emplace(std::move(registered));
  return vmm_base::success();
}

void XenPlatform::end_event_routes() {
  for (PerVcpu& state : state_) {
    if (state.irqfd) errors_.note(state.irqfd->unregister());
  }
}

Result<void> XenPlatform::set_upcall_vector(XenVcpuId id, std::uint8_t vector) {
  return work_(id, [&]() -> Result<void> {
    if (host_.evtchn_send) {
      VMM_CHECK(vcpu(id).xen_vcpu_set_attr(kvm_ioctls::XenVcpuUpcallVector{vector}));
    }
    state_[id.value].upcall_vector = vector;
    const VcpuInfo* info = state_[id.value].info;
    if (info != nullptr && info->upcall_pending != 0) return inject_upcall(id);
    return vmm_base::success();
  });
}

Result<void> XenPlatform::virq_bound(XenVcpuId id, std::uint32_t virq, EventPort port) {
  if (virq != xen_abi::virq::timer) return vmm_base::success();
  return work_(id, [&] { return timer_bound_(id, port); });
}

void XenPlatform::clear_pending(EventPort port) {
  SharedInfo* shared = shared_info_;
  if (shared == nullptr || port.value >= xen_abi::event_ports_64) return;
  __atomic_fetch_and(&shared->evtchn_pending[port.value / 64],
                     ~(std::uint64_t{1} << (port.value % 64)), __ATOMIC_SEQ_CST);
}

Result<void> XenPlatform::raise_event(XenVcpuId id, EventPort port) {
  if (host_.evtchn_send) return vm_.xen_hvm_evtchn_send(port.value, vcpu(id).id());
  SharedInfo* shared = shared_info_;
  VcpuInfo* info = state_[id.value].info;
  if (shared == nullptr) return vmm_base::Error{"event before shared_info", ENXIO, port.value};
  if (info == nullptr) {
    // Pending in shared_info alone: registering vcpu_info makes the guest look at all of them. If
    // that has happened meanwhile, it may have looked already.
    VcpuInfo no_info{};
    (void)xen_evtchn::raise(*shared, no_info, port);
    info = state_[id.value].info;
    if (info == nullptr) return vmm_base::success();
    __atomic_fetch_or(&info->pending_sel, std::uint64_t{1} << (port.value / 64 % 64),
                      __ATOMIC_SEQ_CST);
    __atomic_store_n(&info->upcall_pending, std::uint8_t{1}, __ATOMIC_SEQ_CST);
    return inject_upcall(id);
  }
  switch (xen_evtchn::raise(*shared, *info, port)) {
    case xen_evtchn::Raised::upcall:
      return inject_upcall(id);
    case xen_evtchn::Raised::out_of_range:
      return vmm_base::Error{"event channel", EINVAL, port.value};
    default:
      // Pending already, maybe as its upcall failed.
      if (state_[id.value].upcall_missed) return inject_upcall(id);
      return vmm_base::success();
  }
}

Result<void> XenPlatform::inject_upcall(XenVcpuId id) {
  const std::uint8_t vector = state_[id.value].upcall_vector;
  if (vector == 0) return vmm_base::success();
  state_[id.value].upcall_missed = false;
  auto sent = vm_.signal_msi(msi_address(id), vector);
  if (sent) return vmm_base::success();
  state_[id.value].upcall_missed = true;
  return sent.error();
}

}  // namespace vmm_reference
