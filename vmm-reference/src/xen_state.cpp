// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What Xen's side of a domain is, for a snapshot: the platform's part, and the handlers'.
#include <algorithm>
#include <cerrno>
#include <variant>

#include "snapshot.hpp"
#include "xen_abi/sched.hpp"
#include "xen_evtchn/two_level.hpp"
#include "xen_handlers.hpp"
#include "xen_platform.hpp"

namespace vmm_reference {

namespace {

static_assert(nowhere == kvm_ioctls::xen_invalid_gpa);

// The kernel keeps no runstates, or there is no area.
template <class T>
bool is_absent(const Result<T>& got) {
  return !got && (got.error().code == EOPNOTSUPP || got.error().code == ENOENT);
}

}  // namespace

// --- XenPlatform ---------------------------------------------------------------------------------

std::optional<Gpa> XenPlatform::gpa_of(const void* host) const {
  const auto* at = static_cast<const std::byte*>(host);
  for (const vm_memory::Region& region : memory_.regions()) {
    if (at >= region.host() && at < region.host() + region.size()) {
      return region.gpa() + static_cast<std::uint64_t>(at - region.host());
    }
  }
  return std::nullopt;
}

Result<void> XenPlatform::save(XenSnapshot& to) {
  if (const auto gpa = gpa_of(shared_info_)) to.shared_info = gpa->value >> vmm_base::page_shift;
  if (host_.xen_exits) {
    VMM_TRY(vector, vm_.xen_hvm_get_attr<kvm_ioctls::XenUpcallVector>());
    to.upcall_vector = vector.vector;
    const auto flag = vm_.xen_hvm_get_attr<kvm_ioctls::XenRunstateUpdateFlag>();
    if (!flag && !is_absent(flag)) return flag.error();
    to.runstate_update_flag = flag && flag.value().enabled;
  }
  grants_.save(to);
  to.vcpus.resize(state_.size());
  for (std::uint32_t id = 0; id < state_.size(); ++id) {
    VMM_CHECK(save_vcpu(XenVcpuId{id}, to.vcpus[id]));
  }
  return vmm_base::success();
}

Result<void> XenPlatform::save_vcpu(XenVcpuId id, XenVcpuSnapshot& to) {
  const PerVcpu& state = state_[id.value];
  to.upcall_vector = state.upcall_vector;
  to.registered = state.registered;
  to.initialised = state.initialised;
  if (const auto gpa = gpa_of(state.info)) to.vcpu_info = gpa->value;
  if (!host_.xen_exits) return vmm_base::success();

  VMM_TRY(time, vcpu(id).xen_vcpu_get_attr<kvm_ioctls::XenVcpuTimeInfo>());
  to.time_area = time.gpa.value;
  const auto area = vcpu(id).xen_vcpu_get_attr<kvm_ioctls::XenRunstateArea>();
  if (!area && !is_absent(area)) return area.error();
  if (area) to.runstate_area = area.value().gpa.value;
  const auto data = vcpu(id).xen_vcpu_get_attr<kvm_ioctls::XenRunstateData>();
  if (!data && !is_absent(data)) return data.error();
  if (data) {
    const kvm_ioctls::XenRunstateData& d = data.value();
    to.runstate = {d.state,         d.state_entry_time, d.time_running,
                   d.time_runnable, d.time_blocked,     d.time_offline};
    // KVM takes them only if they add up, which those that it gives needn't do: where its clock has
    // gone back a little, say. The difference is the state's that it is in.
    auto& run = *to.runstate;
    run[2 + run[0] % 4] += run[1] - (run[2] + run[3] + run[4] + run[5]);
  }
  return vmm_base::success();
}

Result<void> XenPlatform::restore(const XenSnapshot& from) {
  if (from.shared_info) {
    const std::uint64_t gfn = *from.shared_info;
    std::byte* page = gfn >> 52 == 0
                          ? memory_.host(Gpa{gfn << vmm_base::page_shift}, vmm_base::page_size)
                          : nullptr;
    if (page == nullptr) return vmm_base::Error{"shared_info of a snapshot", EFAULT, gfn};
    if (host_.xen_exits) {
      VMM_CHECK(vm_.xen_hvm_set_attr(kvm_ioctls::XenLongMode{true}));
      VMM_CHECK(vm_.xen_hvm_set_attr(kvm_ioctls::XenSharedInfo{gfn}));
    }
    shared_info_ = reinterpret_cast<SharedInfo*>(page);
  }
  if (host_.xen_exits) {
    VMM_CHECK(vm_.xen_hvm_set_attr(kvm_ioctls::XenUpcallVector{from.upcall_vector}));
    // Only where it is on: an older kernel doesn't know it.
    if (from.runstate_update_flag) {
      VMM_CHECK(set_runstate_update_flag(true));
    }
  }
  for (std::uint32_t id = 0; id < state_.size(); ++id) {
    VMM_CHECK(restore_vcpu(XenVcpuId{id}, from.vcpus[id]));
  }
  return grants_.restore(from);
}

Result<void> XenPlatform::restore_vcpu(XenVcpuId id, const XenVcpuSnapshot& from) {
  PerVcpu& state = state_[id.value];
  if (from.vcpu_info != nowhere) {
    const Gpa gpa{from.vcpu_info};
    auto* info = reinterpret_cast<VcpuInfo*>(memory_.host(gpa, sizeof(VcpuInfo)));
    if (info == nullptr || gpa.value % alignof(VcpuInfo) != 0) {
      return vmm_base::Error{"vcpu_info of a snapshot", EFAULT, gpa.value};
    }
    VMM_CHECK(set_vcpu_info(id, gpa, info));
  }
  state.registered = from.registered;
  state.initialised = from.initialised;
  state.upcall_vector = from.upcall_vector;
  if (host_.evtchn_send && from.upcall_vector != 0) {
    VMM_CHECK(vcpu(id).xen_vcpu_set_attr(kvm_ioctls::XenVcpuUpcallVector{from.upcall_vector}));
  }
  if (from.time_area != nowhere) {
    VMM_CHECK(set_time_area(id, Gpa{from.time_area}));
  }
  if (from.runstate && host_.xen_exits) {
    const auto& run = *from.runstate;
    const auto set = vcpu(id).xen_vcpu_set_attr(
        kvm_ioctls::XenRunstateData{run[0], run[1], run[2], run[3], run[4], run[5]});
    if (!set && !is_absent(set)) return set.error();
  }
  // Then KVM writes the runstate there.
  if (from.runstate_area != nowhere) {
    VMM_CHECK(set_runstate_area(id, Gpa{from.runstate_area}));
  }
  return vmm_base::success();
}

Result<void> XenPlatform::raise_pending(const XenSnapshot& from) {
  SharedInfo* shared = shared_info_;
  if (shared == nullptr) return vmm_base::success();
  for (std::uint32_t port = 0; port < from.channels.size(); ++port) {
    const xen_evtchn::Channel& channel = from.channels[port];
    const std::uint32_t word = port / 64;
    const std::uint64_t bit = std::uint64_t{1} << port % 64;
    if (channel.kind == xen_evtchn::Kind::closed || (shared->evtchn_pending[word] & bit) == 0 ||
        (shared->evtchn_mask[word] & bit) != 0) {
      continue;
    }
    VcpuInfo* info = state_[channel.vcpu.value].info;
    if (info == nullptr) continue;
    info->pending_sel |= std::uint64_t{1} << word;
    info->upcall_pending = 1;
  }
  // An upcall for nothing does no harm; one that was in the local APIC is the same one.
  for (std::uint32_t id = 0; id < state_.size(); ++id) {
    const VcpuInfo* info = state_[id].info;
    if (info != nullptr && info->upcall_pending != 0) {
      VMM_CHECK(inject_upcall(XenVcpuId{id}));
    }
  }
  return vmm_base::success();
}

// --- XenHandlers ---------------------------------------------------------------------------------

void XenHandlers::save(XenSnapshot& to) {
  to.pages = memory_.pages();
  to.channels = channels_.save();
  for (std::uint32_t index = 0; index < to.params.size(); ++index) {
    to.params[index] = hvm_.param(index);
  }
  if (const auto noted = shutdown_.noted()) to.end_reason = static_cast<std::uint32_t>(*noted);
}

Result<void> XenHandlers::restore(const XenSnapshot& from) {
  VMM_CHECK(memory_.set_pages(from.pages));
  for (std::uint32_t index = 0; index < from.params.size(); ++index) {
    hvm_.set_param(index, from.params[index]);
  }
  if (from.end_reason) shutdown_.note(static_cast<xen_abi::ShutdownReason>(*from.end_reason));
  std::array<bool, xen_hcall::watchdog_count> watchdogs{};
  for (std::size_t at = 0; at < watchdogs.size(); ++at)
    watchdogs[at] = from.watchdogs[at].has_value();
  sched_.set_watchdogs(watchdogs);
  for (std::uint32_t id = 0; id < vcpu_count_; ++id) {
    vcpus_.set_registered(XenVcpuId{id}, from.vcpus[id].registered);
  }
  return events_.restore(from.channels);
}

}  // namespace vmm_reference
