// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VMM that believes no handler: it checks whatever it is asked for, and may fail at any of it.
// And the guest's memory, which changes while it is being read.
#pragma once

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "must.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/sched.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_evtchn/channels.hpp"
#include "xen_hcall/grant_table_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/sched_op.hpp"
#include "xen_hcall/vcpu_op.hpp"

namespace xen_hcall {

using vmm_base::Error;
using vmm_base::Gpa;
using vmm_base::Gva;
using vmm_base::Result;
using xen_abi::EventPort;

inline constexpr std::uint32_t vcpu_count = 3;

// Four pages of guest virtual memory: two that are neighbours, the last below 4 GiB, and the very
// last. Nothing is mapped behind any of them but the first, nor at 0. And a MiB that is the first
// page over and over, for arrays without an end.
class GuestPages {
 public:
  static constexpr std::size_t page = vmm_base::page_size;
  static constexpr std::array<std::uint64_t, 4> addresses{0x10000, 0x11000, 0xffff'f000,
                                                          0xffff'ffff'ffff'f000};

  static constexpr std::uint64_t endless = 0x4000'0000;

  [[nodiscard]] bool contains(std::uint64_t gva, std::size_t size) const {
    for (std::size_t at = 0; at < size;) {
      const std::uint64_t here = gva + at;
      if (here < gva || find(here) == addresses.size()) return false;
      at += page - here % page;
    }
    return true;
  }
  // Calls piece(host bytes, how far in) for what is in each page; all in contains().
  template <class Piece>
  void each(std::uint64_t gva, std::size_t size, Piece&& piece) {
    for (std::size_t at = 0; at < size;) {
      const std::size_t length = std::min(size - at, page - (gva + at) % page);
      piece(std::span(bytes_).subspan(index(gva + at), length), at);
      at += length;
    }
  }
  // Of a byte in contains().
  [[nodiscard]] std::size_t index(std::uint64_t gva) const { return find(gva) * page + gva % page; }

  std::vector<std::uint8_t>& bytes() { return bytes_; }

 private:
  [[nodiscard]] static std::size_t find(std::uint64_t gva) {
    if (gva - endless < 1 << 20) return 0;
    const auto found = std::find(addresses.begin(), addresses.end(), gva / page * page);
    return static_cast<std::size_t>(found - addresses.begin());
  }
  std::vector<std::uint8_t> bytes_ = std::vector<std::uint8_t>(addresses.size() * page);
};

// The call that is being answered.
struct CurrentCall {
  XenVcpuId vcpu{};
  bool reads_once = false;          // no byte of its argument is to be read a second time
  std::uint64_t copies_left = 0;    // that a bounded time allows
  std::vector<std::size_t> read{};  // which bytes were, by GuestPages::index()
};

class HostileVmm {
 public:
  HostileVmm(FuzzedDataProvider& input, const xen_evtchn::Channels& channels) noexcept
      : input_(input), channels_(channels) {}

  GuestPages guest;
  CurrentCall call;

  // Of 4096 pages at most a call has two numbers and an errno each; a multicall has 1024 calls.
  static constexpr std::uint64_t most_copies = 3 * 4096 + 3;

  void begin(XenVcpuId vcpu, bool reads_once, bool is_multicall) {
    call.vcpu = vcpu;
    call.reads_once = reads_once;
    call.copies_left = is_multicall ? 1024 * most_copies : most_copies;
    call.read.clear();
  }
  void guest_writes(std::uint64_t gva, std::span<const std::uint8_t> bytes) {
    if (!guest.contains(gva, bytes.size())) return;
    guest.each(gva, bytes.size(), [&](std::span<std::uint8_t> piece, std::size_t at) {
      std::memcpy(piece.data(), bytes.data() + at, piece.size());
    });
  }

  // --- memory ---

  bool copy_from_guest(XenVcpuId vcpu, Gva from, std::span<std::byte> to) {
    copied(vcpu);
    if (!guest.contains(from.value, to.size())) return false;
    guest.each(from.value, to.size(), [&](std::span<std::uint8_t> piece, std::size_t at) {
      std::memcpy(to.data() + at, piece.data(), piece.size());
    });
    if (call.reads_once) {
      for (std::size_t at = 0; at < to.size(); ++at) {
        const std::size_t index = guest.index(from.value + at);
        MUST(std::find(call.read.begin(), call.read.end(), index) == call.read.end());
        call.read.push_back(index);
      }
    }
    another_vcpu_writes(from.value, to.size());
    return true;
  }
  bool copy_to_guest(XenVcpuId vcpu, Gva to, std::span<const std::byte> from) {
    copied(vcpu);
    if (!guest.contains(to.value, from.size())) return false;
    guest.each(to.value, from.size(), [&](std::span<std::uint8_t> piece, std::size_t at) {
      std::memcpy(piece.data(), from.data() + at, piece.size());
    });
    return true;
  }
  // A page by itself is where it seems to be, and no two are neighbours.
  std::optional<Gpa> translate(XenVcpuId vcpu, Gva from, std::size_t size) {
    MUST(vcpu == call.vcpu && size != 0 && size <= 64);
    if (!guest.contains(from.value, size)) return std::nullopt;
    if (from.value % GuestPages::page + size > GuestPages::page) return std::nullopt;
    return Gpa{from.value & 0xffff'ffff};
  }

  Result<void> map_shared_info(std::uint64_t gfn) {
    MUST(gfn != ~std::uint64_t{0});
    return may_fail();
  }
  Result<void> map_grant_frame(std::uint32_t index, std::uint64_t gfn) {
    MUST(gfn != ~std::uint64_t{0});
    if (index >= frames_.size()) return Error{"grant frame", EINVAL, index};
    frames_[index] = gfn;
    grants_.frames = std::max(grants_.frames, index + 1);
    return may_fail();
  }
  GrantTableSize grant_table_size() { return grants_; }
  bool grow_grant_table(std::uint32_t frames) {
    MUST(frames > grants_.frames && frames <= grants_.max_frames);
    if (!may_fail()) return false;
    grants_.frames = frames;
    return true;
  }
  std::optional<std::uint64_t> grant_frame(std::uint32_t index) {
    MUST(index < grants_.frames);
    return frames_[index];
  }
  bool is_ram(std::uint64_t gfn) { return gfn < 0x100; }
  bool populate_page(std::uint64_t gfn) { return is_ram(gfn); }
  bool remove_page(std::uint64_t gfn) { return is_ram(gfn); }

  // --- vCPUs ---

  Result<void> move_vcpu_info(XenVcpuId vcpu, Gpa gpa) {
    known(vcpu);
    in_one_page(gpa, 64);
    MUST(!has_moved_info_[vcpu.value]);
    auto moved = may_fail();
    has_moved_info_[vcpu.value] = moved.has_value();
    return moved;
  }
  Result<void> set_runstate_area(XenVcpuId vcpu, std::optional<Gpa> area) {
    known(vcpu);
    if (area) in_one_page(*area, 44);
    return may_fail();
  }
  Result<void> set_time_area(XenVcpuId vcpu, std::optional<Gpa> area) {
    known(vcpu);
    if (area) in_one_page(*area, 32);
    return may_fail();
  }
  Result<xen_abi::RunstateInfo> runstate(XenVcpuId vcpu) {
    known(vcpu);
    if (auto ok = may_fail(); !ok) return ok.error();
    xen_abi::RunstateInfo info;  // as one leaves it that doesn't know of padding
    info.state = 2;
    info.state_entry_time = 100;
    std::fill(std::begin(info.time), std::end(info.time), 25);
    return info;
  }
  Result<void> set_runstate_update_flag(bool) { return may_fail(); }
  Result<VcpuPower> vcpu_power(XenVcpuId vcpu) {
    known(vcpu);
    if (auto ok = may_fail(); !ok) return ok.error();
    return power_[vcpu.value];
  }
  Result<void> initialise_vcpu(XenVcpuId vcpu, const VcpuRegisters& registers) {
    known(vcpu);
    MUST(power_[vcpu.value] == VcpuPower::uninitialised);
    MUST((registers.rflags & 2) != 0);
    auto done = may_fail();
    if (done) power_[vcpu.value] = VcpuPower::down;
    return done;
  }
  Result<void> power_up(XenVcpuId vcpu) {
    known(vcpu);
    MUST(power_[vcpu.value] != VcpuPower::uninitialised);
    power_[vcpu.value] = VcpuPower::up;
    return may_fail();
  }
  Result<void> power_down(XenVcpuId vcpu) {
    known(vcpu);
    power_[vcpu.value] = VcpuPower::down;
    return may_fail();
  }
  Result<void> send_nmi(XenVcpuId vcpu) {
    known(vcpu);
    return may_fail();
  }
  Result<void> set_upcall_vector(XenVcpuId vcpu, std::uint8_t vector) {
    known(vcpu);
    MUST(vector >= 0x10);
    return may_fail();
  }
  Result<void> set_callback(CallbackIrq callback) {
    MUST(callback.device < 32);
    return may_fail();
  }

  // --- events: none for a port that isn't open, nor to another vCPU than its own ---

  Result<void> virq_bound(XenVcpuId vcpu, std::uint32_t virq, EventPort port) {
    known(vcpu);
    MUST(virq < xen_abi::virq::count);
    if (port != EventPort{}) {
      const auto is = channel(port);
      MUST(is.kind == xen_evtchn::Kind::virq && is.virq == virq && is.vcpu == vcpu);
    }
    return may_fail();
  }
  Result<void> send_routed(EventPort port, std::optional<xen_evtchn::Target> target) {
    MUST(port != EventPort{} && port.value < channels_.port_count());
    if (target) is_open(target->vcpu, target->port);
    return may_fail();
  }
  Result<void> raise_event(XenVcpuId vcpu, EventPort port) {
    is_open(vcpu, port);
    return may_fail();
  }
  Result<void> unmask_event(XenVcpuId vcpu, EventPort port) {
    is_open(vcpu, port);
    return may_fail();
  }
  void clear_pending(EventPort port) { MUST(channel(port).kind == xen_evtchn::Kind::closed); }
  bool is_pending(EventPort port) {
    MUST(channel(port).kind != xen_evtchn::Kind::closed);
    return port.value % 3 == 0;
  }

  // --- scheduling, and the rest ---

  void yield(XenVcpuId vcpu) { MUST(vcpu == call.vcpu); }
  Result<void> block(XenVcpuId vcpu) {
    MUST(vcpu == call.vcpu);
    return may_fail();
  }
  void poll(XenVcpuId vcpu, std::span<const EventPort> ports, std::uint64_t) {
    MUST(vcpu == call.vcpu && ports.size() <= 128);
    for (const EventPort port : ports) MUST(channel(port).kind != xen_evtchn::Kind::closed);
  }
  void shutdown(xen_abi::ShutdownReason) {
    MUST(!has_shut_down_);
    has_shut_down_ = true;
  }
  Result<void> set_watchdog(std::uint32_t index, std::optional<std::chrono::seconds> after) {
    MUST(index < watchdog_count);
    MUST(!after || (after->count() >= 0 && after->count() <= 0xffff'ffff));
    return may_fail();
  }
  void console_write(std::span<const std::byte> text) { MUST(text.size() <= 256); }
  std::size_t console_read(std::span<std::byte> to) {
    const std::size_t length = std::min<std::size_t>(to.size(), 5);
    std::memcpy(to.data(), "typed", length);
    return length;
  }

 private:
  Result<void> may_fail() {
    if (input_.ConsumeIntegral<std::uint8_t>() < 0xf0) return vmm_base::success();
    return Error{"hostile", EIO, 0};
  }
  void copied(XenVcpuId vcpu) {
    MUST(vcpu == call.vcpu);
    MUST(call.copies_left-- != 0);
  }
  // Between the check and the use, if there are two looks at it.
  void another_vcpu_writes(std::uint64_t gva, std::size_t size) {
    if (size == 0 || input_.ConsumeIntegral<std::uint8_t>() < 0xe0) return;
    const std::uint64_t at = gva + input_.ConsumeIntegral<std::uint8_t>() % size;
    const auto value = input_.ConsumeIntegral<std::uint8_t>();
    guest_writes(at, std::span(&value, 1));
  }
  static void known(XenVcpuId vcpu) { MUST(vcpu.value < vcpu_count); }
  static void in_one_page(Gpa gpa, std::size_t size) {
    MUST(gpa.value % GuestPages::page + size <= GuestPages::page);
  }
  [[nodiscard]] xen_evtchn::Channel channel(EventPort port) const {
    MUST(port != EventPort{} && port.value < channels_.port_count());
    return std::get<xen_evtchn::Channel>(channels_.status(port));
  }
  void is_open(XenVcpuId vcpu, EventPort port) const {
    const auto is = channel(port);
    MUST(is.kind != xen_evtchn::Kind::closed && is.vcpu == vcpu);
  }

  FuzzedDataProvider& input_;
  const xen_evtchn::Channels& channels_;
  GrantTableSize grants_{1, 4};
  std::array<std::optional<std::uint64_t>, 4> frames_{};
  std::array<VcpuPower, vcpu_count> power_{VcpuPower::up};
  std::array<bool, vcpu_count> has_moved_info_{};
  bool has_shut_down_ = false;
};

}  // namespace xen_hcall
