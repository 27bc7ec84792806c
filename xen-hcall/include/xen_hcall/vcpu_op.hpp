// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_vcpu_op but for the timers, which are xen_timer::Handler's: starting and stopping
// vCPUs, where their shared areas lie, how long they have run, and NMIs. Each sub-op takes any
// vCPU.
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/shared_info.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"
#include "xen_hcall/shutdown.hpp"
#include "xen_hcall/vcpu_registers.hpp"

namespace xen_hcall {

// Only up runs. A vCPU that INIT and SIPI have started is up, one that waits for them
// uninitialised, unless VCPUOP_initialise has loaded its registers.
enum class VcpuPower : std::uint8_t { uninitialised, down, up };

// For any vCPU, on any vCPU's thread; each returns when it is done, and may wait for the target's.
// The errors of those that return a Result are told to the guest as -EINVAL.
// move_vcpu_info: from now on vcpu_info of `vcpu`, 64 bytes in one page, is at `gpa`. The VMM
// copies
//   the old one's contents there and raises all its selector bits, so that no event is lost.
// set_runstate_area, set_time_area: 48 bytes (44 in a 32-bit domain), or 32, that are kept up to
// date
//   from now on; nullopt: no more.
// translate: where `size` bytes of the calling vCPU's virtual addresses lie; nullopt unless they
// are
//   mapped, and in one piece.
// set_runstate_update_flag: whether runstate areas are marked while they are written.
// runstate, vcpu_power: as it is now.
// initialise_vcpu: loads the registers of one that is uninitialised, and leaves it down.
// power_up: it runs; power_down: it doesn't, any more, and keeps its registers. Both are also
// called
//   for one that is as wanted already, and power_down() for the caller's own.
// send_nmi: one NMI; a second before it is taken is the same.
template <class V>
concept VcpuVmm = GuestReader<V> && GuestWriter<V> && ShutdownVmm<V> &&
    requires(V& vmm, vmm_base::XenVcpuId vcpu, vmm_base::Gpa gpa, std::optional<vmm_base::Gpa> area,
             vmm_base::Gva gva, std::size_t size, bool enabled, const VcpuRegisters& registers) {
  { vmm.move_vcpu_info(vcpu, gpa) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.set_runstate_area(vcpu, area) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.set_time_area(vcpu, area) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.translate(vcpu, gva, size) } -> std::same_as<std::optional<vmm_base::Gpa>>;
  { vmm.runstate(vcpu) } -> std::same_as<vmm_base::Result<xen_abi::RunstateInfo>>;
  { vmm.set_runstate_update_flag(enabled) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.vcpu_power(vcpu) } -> std::same_as<vmm_base::Result<VcpuPower>>;
  { vmm.initialise_vcpu(vcpu, registers) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.power_up(vcpu) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.power_down(vcpu) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.send_nmi(vcpu) } -> std::same_as<vmm_base::Result<void>>;
};

template <VcpuVmm V>
class VcpuOp {
 public:
  VcpuOp(V& vmm, std::uint32_t vcpu_count, Shutdown<V>& shutdown)
      : vmm_(vmm), shutdown_(shutdown), registered_(vcpu_count), initialising_(vcpu_count) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::vcpu_op;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    // Before the sub-op is looked at.
    const Call made{
        vcpu, {static_cast<std::uint32_t>(call.params[1])}, call.params[2], call.long_mode};
    if (made.target.value >= registered_.size()) return xen_abi::Answer{xen_abi::Errno::noent};
    switch (static_cast<std::uint32_t>(call.params[0])) {
      case xen_abi::vcpuop::initialise:
        return initialise(made);
      case xen_abi::vcpuop::up:
        return up(made);
      case xen_abi::vcpuop::down:
        return down(made);
      case xen_abi::vcpuop::is_up:
        return is_up(made);
      case xen_abi::vcpuop::get_runstate_info:
        return get_runstate_info(made);
      case xen_abi::vcpuop::register_runstate_memory_area:
        return register_runstate_memory_area(made);
      case xen_abi::vcpuop::register_vcpu_info:
        return register_vcpu_info(made);
      case xen_abi::vcpuop::send_nmi:
        return made.gva != 0 ? xen_abi::Answer{xen_abi::Errno::inval}
                             : done(vmm_.send_nmi(made.target));
      case xen_abi::vcpuop::get_physid:  // of the hardware domain's pinned vCPUs
        return xen_abi::Answer{xen_abi::Errno::inval};
      case xen_abi::vcpuop::register_vcpu_time_memory_area:
        return register_vcpu_time_memory_area(made);
      case xen_abi::vcpuop::register_runstate_phys_area:
        return register_runstate_phys_area(made);
      case xen_abi::vcpuop::register_vcpu_time_phys_area:
        return register_vcpu_time_phys_area(made);
      default:
        return std::nullopt;
    }
  }

  // Each vcpu_info may be registered again; for a VMM whose guest is reset, and which has taken
  // away the vCPUs' areas.
  void reset() noexcept {
    for (std::atomic<bool>& registered : registered_) registered = false;
  }

  // At rest, for who saves a domain and restores it: whether vcpu_info has been registered, which
  // is once in a vCPU's life.
  [[nodiscard]] bool is_registered(XenVcpuId vcpu) const { return registered_[vcpu.value]; }
  void set_registered(XenVcpuId vcpu, bool registered) { registered_[vcpu.value] = registered; }

 private:
  struct Call {
    XenVcpuId caller;
    XenVcpuId target;
    std::uint64_t gva;
    bool long_mode;
    [[nodiscard]] std::uint32_t word() const { return long_mode ? 8 : 4; }
    [[nodiscard]] std::size_t runstate_size() const {
      return long_mode ? sizeof(xen_abi::RunstateInfo) : sizeof(xen_abi::RunstateInfo32);
    }
  };

  // --- the areas ---

  // Once in a vCPU's life. -EFAULT, -EINVAL, -EBUSY, -ENXIO: xen/common/domain.c.
  xen_abi::Answer register_vcpu_info(const Call& call) {
    const auto argument = read_guest<xen_abi::RegisterVcpuInfo>(vmm_, call.caller, call.gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (argument->offset >= vmm_base::page_size || argument->mfn >> (64 - vmm_base::page_shift)) {
      return {xen_abi::Errno::inval};
    }
    const vmm_base::Gpa gpa{(argument->mfn << vmm_base::page_shift) + argument->offset};
    std::atomic<bool>& registered = registered_[call.target.value];
    if (registered.exchange(true)) return {xen_abi::Errno::busy};
    const xen_abi::Answer answer = in_one_page(gpa, xen_abi::vcpu_info_size, call.word())
                                       ? done(vmm_.move_vcpu_info(call.target, gpa))
                                       : xen_abi::Answer{xen_abi::Errno::nxio};
    if (answer.guest != ok().guest) registered = false;
    return answer;
  }

  xen_abi::Answer register_runstate_memory_area(const Call& call) {
    std::optional<vmm_base::Gpa> area;
    if (!memory_area(call, call.runstate_size(), area)) return {xen_abi::Errno::fault};
    return done(vmm_.set_runstate_area(call.target, area));
  }
  xen_abi::Answer register_vcpu_time_memory_area(const Call& call) {
    std::optional<vmm_base::Gpa> area;
    if (!memory_area(call, sizeof(xen_abi::VcpuTimeInfo), area)) return {xen_abi::Errno::fault};
    return done(vmm_.set_time_area(call.target, area));
  }

  // Looked up once, now: Xen walks the page tables whenever it writes there, and finds out later
  // about an address that isn't mapped. Address 0 takes the area away.
  bool memory_area(const Call& call, std::size_t size, std::optional<vmm_base::Gpa>& area) {
    std::optional<std::uint64_t> gva;
    if (call.long_mode) {
      gva = read_guest<std::uint64_t>(vmm_, call.caller, call.gva);
    } else {
      gva = read_guest<std::uint32_t>(vmm_, call.caller, call.gva);
    }
    if (!gva) return false;
    if (*gva == 0) return true;
    area = vmm_.translate(call.caller, vmm_base::Gva{*gva}, size);
    return area.has_value();
  }

  xen_abi::Answer register_runstate_phys_area(const Call& call) {
    const auto argument = read_guest<xen_abi::RegisterArea>(vmm_, call.caller, call.gva);
    if (!argument) return {xen_abi::Errno::fault};
    const auto area = phys_area(*argument);
    if (area && !in_one_page(*area, call.runstate_size(), call.word())) {
      return {xen_abi::Errno::nxio};
    }
    // Xen marks these while it writes them, vm_assist or not.
    if (area) {
      if (auto set = vmm_.set_runstate_update_flag(true); !set) return done(set);
    }
    return done(vmm_.set_runstate_area(call.target, area));
  }
  xen_abi::Answer register_vcpu_time_phys_area(const Call& call) {
    const auto argument = read_guest<xen_abi::RegisterArea>(vmm_, call.caller, call.gva);
    if (!argument) return {xen_abi::Errno::fault};
    const auto area = phys_area(*argument);
    if (area && !in_one_page(*area, sizeof(xen_abi::VcpuTimeInfo), call.word())) {
      return {xen_abi::Errno::nxio};
    }
    return done(vmm_.set_time_area(call.target, area));
  }
  static std::optional<vmm_base::Gpa> phys_area(const xen_abi::RegisterArea& argument) {
    if (argument.address == xen_abi::no_phys_area) return std::nullopt;
    return vmm_base::Gpa{argument.address};
  }

  // xen/common/domain.c, map_guest_area.
  static bool in_one_page(vmm_base::Gpa gpa, std::size_t size, std::uint32_t alignment) {
    return gpa.value % vmm_base::page_size + size <= vmm_base::page_size &&
           gpa.value % alignment == 0;
  }

  // --- starting and stopping ---

  xen_abi::Answer initialise(const Call& call) {
    const auto argument = read_guest<xen_abi::VcpuHvmContext>(vmm_, call.caller, call.gva);
    if (!argument) return {xen_abi::Errno::fault};
    std::atomic<bool>& initialising = initialising_[call.target.value];
    if (initialising.exchange(true)) return {xen_abi::Errno::exist};  // another vCPU is at it
    const xen_abi::Answer answer = initialise(call.target, *argument);
    initialising = false;
    return answer;
  }
  xen_abi::Answer initialise(XenVcpuId target, const xen_abi::VcpuHvmContext& context) {
    const auto power = vmm_.vcpu_power(target);
    if (!power) return {xen_abi::Errno::inval, power.error()};
    if (power.value() != VcpuPower::uninitialised) return {xen_abi::Errno::exist};
    const auto registers = initial_registers(context);
    if (!registers) return {xen_abi::Errno::inval};
    return done(vmm_.initialise_vcpu(target, *registers));
  }

  xen_abi::Answer up(const Call& call) {
    const auto power = vmm_.vcpu_power(call.target);
    if (!power) return {xen_abi::Errno::inval, power.error()};
    if (power.value() == VcpuPower::uninitialised) return {xen_abi::Errno::inval};
    return done(vmm_.power_up(call.target));
  }

  // The last one that was up takes the domain along.
  xen_abi::Answer down(const Call& call) {
    for (std::uint32_t other = 0; other < registered_.size(); ++other) {
      if (other == call.target.value) continue;
      const auto power = vmm_.vcpu_power({other});
      if (!power) return {xen_abi::Errno::inval, power.error()};
      if (power.value() == VcpuPower::up) return done(vmm_.power_down(call.target));
    }
    shutdown_(xen_abi::ShutdownReason::poweroff);
    return ok();
  }

  xen_abi::Answer is_up(const Call& call) {
    const auto power = vmm_.vcpu_power(call.target);
    if (!power) return {xen_abi::Errno::inval, power.error()};
    return ok(power.value() == VcpuPower::up ? 1 : 0);
  }

  // --- its state ---

  xen_abi::Answer get_runstate_info(const Call& call) {
    const auto read = vmm_.runstate(call.target);
    if (!read) return {xen_abi::Errno::inval, read.error()};
    xen_abi::RunstateInfo info = read.value();
    info.pad0 = 0;
    if (call.long_mode) return put(call, info);
    const auto& time = info.time;
    return put(call, xen_abi::RunstateInfo32{
                         info.state, info.state_entry_time, {time[0], time[1], time[2], time[3]}});
  }

  template <class T>
  xen_abi::Answer put(const Call& call, const T& value) {
    if (!write_guest(vmm_, call.caller, call.gva, value)) return {xen_abi::Errno::fault};
    return ok();
  }

  V& vmm_;
  Shutdown<V>& shutdown_;
  // By Xen vCPU id:
  std::vector<std::atomic<bool>> registered_;    // its vcpu_info
  std::vector<std::atomic<bool>> initialising_;  // at this moment
};

}  // namespace xen_hcall
