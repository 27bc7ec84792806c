// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VMM that does nothing but note what it is asked, and a guest with two pages of memory.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/sched.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_evtchn/channel.hpp"
#include "xen_hcall/grant_table_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/vcpu_op.hpp"

namespace xen_hcall {

using vmm_base::Error;
using vmm_base::Gpa;
using vmm_base::Gva;
using vmm_base::Result;
using vmm_base::success;
using xen_abi::Answer;
using xen_abi::Errno;
using xen_abi::EventPort;
using xen_abi::GuestResult;
using xen_abi::Hypercall;

// Where the guest's memory starts, its size, and an address that is nowhere.
inline constexpr std::uint64_t base = 0x10000;
inline constexpr std::uint64_t memory_size = 0x2000;
inline constexpr std::uint64_t unmapped = 0x5000;

struct DoubleVmm {
  std::vector<std::byte> memory = std::vector<std::byte>(memory_size);
  std::optional<std::uint64_t> read_only_from{};  // writes beyond fail
  int failure = 0;                                // errno of every Result

  std::vector<std::string> said{};  // the calls, one a line
  std::set<std::uint32_t> pending{};
  std::map<std::uint32_t, std::uint64_t> grant_frames{};
  GrantTableSize grants{1, 4};
  xen_abi::RunstateInfo runstate_info{2, 0xbad, 100, {1, 2, 3, 94}};
  std::map<std::uint32_t, VcpuPower> power{{0, VcpuPower::up}};
  std::string typed{};
  std::string shown{};

  template <class... Numbers>
  Result<void> note(const char* what, Numbers... numbers) {
    std::string line = what;
    ((line += ' ' + std::to_string(numbers)), ...);
    said.push_back(line);
    if (failure != 0) return Error{"double", failure, 0};
    return success();
  }

  std::byte* at(Gva gva, std::size_t size) {
    if (gva.value < base || gva.value - base + size > memory.size()) return nullptr;
    return memory.data() + (gva.value - base);
  }
  bool copy_from_guest(XenVcpuId, Gva from, std::span<std::byte> to) {
    const std::byte* host = at(from, to.size());
    if (host != nullptr) std::memcpy(to.data(), host, to.size());
    return host != nullptr;
  }
  bool copy_to_guest(XenVcpuId, Gva to, std::span<const std::byte> from) {
    std::byte* host = at(to, from.size());
    if (host == nullptr || (read_only_from && to.value + from.size() > *read_only_from)) {
      return false;
    }
    std::memcpy(host, from.data(), from.size());
    return true;
  }
  // Virtual addresses are physical ones.
  std::optional<Gpa> translate(XenVcpuId, Gva from, std::size_t size) {
    if (at(from, size) == nullptr) return std::nullopt;
    return Gpa{from.value};
  }

  Result<void> map_shared_info(std::uint64_t gfn) { return note("shared_info", gfn); }
  Result<void> map_grant_frame(std::uint32_t index, std::uint64_t gfn) {
    if (index >= grants.max_frames) return Error{"grant frame", EINVAL, index};
    grant_frames[index] = gfn;
    return note("grant_frame", index, gfn);
  }
  GrantTableSize grant_table_size() { return grants; }
  bool grow_grant_table(std::uint32_t frames) {
    if (failure != 0) return false;
    grants.frames = frames;
    return true;
  }
  std::optional<std::uint64_t> grant_frame(std::uint32_t index) {
    const auto found = grant_frames.find(index);
    if (found == grant_frames.end()) return std::nullopt;
    return found->second;
  }
  bool is_ram(std::uint64_t gfn) { return gfn < 100; }
  bool populate_page(std::uint64_t gfn) {
    (void)note("populate", gfn);
    return is_ram(gfn);
  }
  bool remove_page(std::uint64_t gfn) {
    (void)note("remove", gfn);
    return is_ram(gfn);
  }

  Result<void> move_vcpu_info(XenVcpuId vcpu, Gpa gpa) {
    return note("vcpu_info", vcpu.value, gpa.value);
  }
  Result<void> set_runstate_area(XenVcpuId vcpu, std::optional<Gpa> area) {
    return area ? note("runstate", vcpu.value, area->value) : note("runstate off", vcpu.value);
  }
  Result<void> set_time_area(XenVcpuId vcpu, std::optional<Gpa> area) {
    return area ? note("time", vcpu.value, area->value) : note("time off", vcpu.value);
  }
  Result<xen_abi::RunstateInfo> runstate(XenVcpuId) {
    if (failure != 0) return Error{"double", failure, 0};
    return runstate_info;
  }
  Result<VcpuPower> vcpu_power(XenVcpuId vcpu) {
    if (failure != 0) return Error{"double", failure, 0};
    return power[vcpu.value];
  }
  Result<void> initialise_vcpu(XenVcpuId vcpu, const VcpuRegisters& registers) {
    power[vcpu.value] = VcpuPower::down;
    return note("initialise", vcpu.value, registers.rip);
  }
  Result<void> power_up(XenVcpuId vcpu) {
    power[vcpu.value] = VcpuPower::up;
    return note("up", vcpu.value);
  }
  Result<void> power_down(XenVcpuId vcpu) {
    power[vcpu.value] = VcpuPower::down;
    return note("down", vcpu.value);
  }
  Result<void> send_nmi(XenVcpuId vcpu) { return note("nmi", vcpu.value); }

  Result<void> set_upcall_vector(XenVcpuId vcpu, std::uint8_t vector) {
    return note("vector", vcpu.value, vector);
  }
  Result<void> set_callback(CallbackIrq callback) {
    return note("callback", static_cast<int>(callback.kind), callback.number, callback.device);
  }

  Result<void> virq_bound(XenVcpuId vcpu, std::uint32_t virq, EventPort port) {
    return note("virq", vcpu.value, virq, port.value);
  }
  Result<void> send_routed(EventPort port, std::optional<xen_evtchn::Target> target) {
    return target ? note("route", port.value, target->port.value, target->vcpu.value)
                  : note("unroute", port.value);
  }
  Result<void> raise_event(XenVcpuId vcpu, EventPort port) {
    return note("raise", vcpu.value, port.value);
  }
  Result<void> unmask_event(XenVcpuId vcpu, EventPort port) {
    return note("unmask", vcpu.value, port.value);
  }
  void clear_pending(EventPort port) { (void)note("clear", port.value); }
  bool is_pending(EventPort port) { return pending.contains(port.value); }

  void yield(XenVcpuId vcpu) { (void)note("yield", vcpu.value); }
  Result<void> block(XenVcpuId vcpu) { return note("block", vcpu.value); }
  void poll(XenVcpuId vcpu, std::span<const EventPort> ports, std::uint64_t timeout_ns) {
    (void)note("poll", vcpu.value, ports.size(), timeout_ns);
  }
  void shutdown(xen_abi::ShutdownReason reason) {
    (void)note("shutdown", static_cast<int>(reason));
  }
  Result<void> soft_reset(XenVcpuId vcpu) { return note("soft reset", vcpu.value); }
  Result<void> set_watchdog(std::uint32_t index, std::optional<std::chrono::seconds> after) {
    return after ? note("watchdog", index, after->count()) : note("watchdog off", index);
  }
  Result<void> set_runstate_update_flag(bool enabled) { return note("update flag", enabled); }

  void console_write(std::span<const std::byte> text) {
    shown.append(reinterpret_cast<const char*>(text.data()), text.size());
  }
  std::size_t console_read(std::span<std::byte> to) {
    const std::size_t length = std::min(to.size(), typed.size());
    std::memcpy(to.data(), typed.data(), length);
    typed.erase(0, length);
    return length;
  }
};

using Lines = std::vector<std::string>;

// What a handler's tests need: the VMM, its guest's memory, and one call.
struct Fixture : testing::Test {
  DoubleVmm vmm;

  template <class T>
  void put(const T& value, std::uint64_t at = base) {
    std::memcpy(vmm.memory.data() + (at - base), &value, sizeof(value));
  }
  template <class T>
  T get(std::uint64_t at = base) {
    T value;
    std::memcpy(&value, vmm.memory.data() + (at - base), sizeof(value));
    return value;
  }
  // What has been said since the last time.
  Lines said() { return std::exchange(vmm.said, {}); }

  // nullopt, "not mine", counts as ENOSYS, which the dispatcher makes of it.
  template <class Op>
  static GuestResult ask(Op& op, const Hypercall& call, XenVcpuId vcpu = {0}) {
    const std::optional<Answer> answer = op.handle(vcpu, call);
    return answer ? answer->guest : GuestResult(Errno::nosys);
  }
};

}  // namespace xen_hcall
