// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The order in which KVM is told a guest's state, as a KvmDouble sees it.
#include "machine_state.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <optional>
#include <variant>
#include <vector>

#include "kvm_ioctls/double.hpp"
#include "snapshot_sample.hpp"
#include "xen_clock/pvclock.hpp"

namespace vmm_reference {
namespace {

constexpr std::uint32_t msr_tsc_deadline = 0x6e0;

// struct kvm_msr_list and kvm_msrs with one entry.
struct OneMsrIndex {
  std::uint32_t count, index;
};
struct OneMsr {
  std::uint32_t count, pad, index, reserved;
  std::uint64_t data;
};

struct MachineState : testing::Test {
  kvm_ioctls::KvmDouble kvm;
  Host host = std::get<Host>(Host::open(kvm.path()));
  Machine machine =
      create_machine(host, {.ram_size = sample_ram, .vcpu_count = 2, .xen = false}).value();
  Snapshot snapshot = two_vcpus();

  static Snapshot two_vcpus() {
    Snapshot snapshot;
    for (std::uint64_t id = 0; id < 2; ++id) {
      snapshot.vcpus.push_back(sample_vcpu(id));
      snapshot.vcpus.back().nested.clear();
    }
    return snapshot;
  }
  // Where among all calls each of `request` is for which `is_it` holds.
  template <class IsIt>
  [[nodiscard]] std::vector<std::size_t> places(unsigned long request, IsIt is_it) const {
    std::vector<std::size_t> found;
    const auto calls = kvm.calls();
    for (std::size_t at = 0; at < calls.size(); ++at) {
      if (calls[at].request == request && is_it(calls[at])) found.push_back(at);
    }
    return found;
  }
  [[nodiscard]] std::vector<std::size_t> places(unsigned long request) const {
    return places(request, [](const kvm_ioctls::Call&) { return true; });
  }
  [[nodiscard]] std::vector<std::size_t> deadlines() const {
    return places(KVM_SET_MSRS, [](const kvm_ioctls::Call& call) {
      const auto msrs = call.entries<kvm_msr_entry>();
      return std::any_of(msrs.begin(), msrs.end(),
                         [](const auto& msr) { return msr.index == msr_tsc_deadline; });
    });
  }
};

// KVM arms the local APIC's timer by what the TSC is when it is told the deadline: a new VM's is
// near 0, so that the timer would be late by as long as the guest has run.
TEST_F(MachineState, ADeadlineByTscIsSetOnceTheTscIs) {
  for (VcpuSnapshot& vcpu : snapshot.vcpus) vcpu.msrs.push_back({msr_tsc_deadline, 0, 200'000'000});
  ASSERT_TRUE(restore_kvm_guest(host, machine, snapshot, std::chrono::nanoseconds(0)));
  const auto armed = deadlines();
  ASSERT_EQ(armed.size(), 2u);
  EXPECT_GT(armed.front(), places(KVM_SET_DEVICE_ATTR).back());
  EXPECT_GT(armed.front(), places(KVM_SET_CLOCK).back());
  EXPECT_GT(armed.front(), places(KVM_SET_LAPIC).back());
}

TEST_F(MachineState, NoDeadlineIsSetWhereNoneWas) {
  for (VcpuSnapshot& vcpu : snapshot.vcpus) vcpu.msrs.push_back({msr_tsc_deadline, 0, 0});
  ASSERT_TRUE(restore_kvm_guest(host, machine, snapshot, std::chrono::nanoseconds(0)));
  EXPECT_TRUE(deadlines().empty());
}

// The TSC is put back to where it was, for the time that saving took hasn't passed for the guest.
TEST_F(MachineState, AfterASaveADeadlineIsArmedAnew) {
  kvm.on<OneMsrIndex>(KVM_GET_MSR_INDEX_LIST, [](OneMsrIndex& list) {
    list = {1, msr_tsc_deadline};
    return 0;
  });
  kvm.on<OneMsr>(KVM_GET_MSRS, [](OneMsr& msr) {
    msr.data = msr.index == msr_tsc_deadline ? 200'000'000 : 0;
    return 1;
  });
  std::size_t before = 0;
  Snapshot saved;
  ASSERT_TRUE(with_kvm_guest_at_rest(host, machine, saved, [&](Snapshot&) {
    before = deadlines().size();
    return vmm_base::Result<void>(vmm_base::success());
  }));
  EXPECT_EQ(before, 0u);
  const auto armed = deadlines();
  ASSERT_EQ(armed.size(), 2u);
  EXPECT_GT(armed.front(), places(KVM_SET_DEVICE_ATTR).back());
}

// Neither clock goes back for the guest, nor skips more than it is to, but for the time that it
// takes to say so.
TEST_F(MachineState, ClocksGoOnFromWhereTheyWere) {
  const std::uint32_t khz = machine.vm.get_tsc_khz().value();
  for (VcpuSnapshot& vcpu : snapshot.vcpus) vcpu.tsc_khz = khz;  // not scaled
  for (const std::chrono::nanoseconds later : {std::chrono::hours(0), std::chrono::hours(1)}) {
    std::vector<std::uint64_t> offsets;
    kvm.on(KVM_SET_DEVICE_ATTR, [&](const kvm_ioctls::Call& call) {
      const auto attr = call.argument<kvm_device_attr>();
      if (attr.attr == KVM_VCPU_TSC_OFFSET) {
        offsets.push_back(*reinterpret_cast<const std::uint64_t*>(attr.addr));
      }
      return kvm_ioctls::KvmDouble::as_usual;
    });
    snapshot.clock.guest = 5'000'000'000;
    const std::uint64_t begun = xen_clock::host_tsc();
    ASSERT_TRUE(restore_kvm_guest(host, machine, snapshot, later));
    const std::uint64_t ended = xen_clock::host_tsc();
    const auto skipped = static_cast<std::uint64_t>(later.count());
    const std::uint64_t clock = kvm.calls(KVM_SET_CLOCK).back().argument<kvm_clock_data>().clock;
    EXPECT_GE(clock, snapshot.clock.guest + skipped);
    EXPECT_LE(clock, snapshot.clock.guest + skipped + 10'000'000'000);
    ASSERT_EQ(offsets.size(), snapshot.vcpus.size());
    for (std::size_t id = 0; id < offsets.size(); ++id) {
      const VcpuSnapshot& from = snapshot.vcpus[id];
      const std::uint64_t tsc = from.tsc + skipped / 1'000'000 * khz;
      EXPECT_GE(offsets[id] + ended, tsc) << id;
      EXPECT_LE(offsets[id] + begun, tsc) << id;
    }
  }
}

// --- without a TSC deadline ---

constexpr std::uint32_t one_shot = 0xec;  // the mode, and a vector
constexpr std::uint32_t periodic = 0xec | 1u << 17;
constexpr std::uint32_t by_tsc = 0xec | 1u << 18;
constexpr std::uint32_t by_16 = 3;
constexpr std::uint32_t by_1 = 0xb;

kvm_lapic_state apic(std::uint32_t timer, std::uint32_t count, std::uint32_t divider = by_16) {
  constexpr std::uint32_t initial_count = 1'000'000;
  kvm_lapic_state state{};
  std::memcpy(state.regs + 0x320, &timer, sizeof(timer));
  std::memcpy(state.regs + 0x380, &initial_count, sizeof(initial_count));
  std::memcpy(state.regs + 0x390, &count, sizeof(count));
  std::memcpy(state.regs + 0x3e0, &divider, sizeof(divider));
  return state;
}
std::uint32_t count_of(const kvm_lapic_state& state) {
  std::uint32_t count = 0;
  std::memcpy(&count, state.regs + 0x390, sizeof(count));
  return count;
}

struct ApicCount : MachineState {
  // What was counted down from once the clocks were back; nothing, where it wasn't begun anew.
  [[nodiscard]] std::optional<std::uint32_t> begun_anew() const {
    const std::size_t at = places(KVM_SET_LAPIC).back();
    if (at < places(KVM_SET_CLOCK).back()) return std::nullopt;
    return count_of(kvm.calls()[at].argument<kvm_lapic_state>());
  }
  std::optional<std::uint32_t> restored(const kvm_lapic_state& state,
                                        std::chrono::nanoseconds later = {}) {
    for (VcpuSnapshot& vcpu : snapshot.vcpus) vcpu.lapic = state;
    EXPECT_TRUE(restore_kvm_guest(host, machine, snapshot, later));
    return begun_anew();
  }
};

TEST_F(ApicCount, GoesOnWithTheClocks) {
  EXPECT_EQ(restored(apic(one_shot, 600'000)), 600'000u);
  EXPECT_EQ(restored(apic(periodic, 600'000)), 600'000u);
}
TEST_F(ApicCount, SkipsWhatTheGuestsClockSkips) {
  using std::chrono::microseconds;
  EXPECT_EQ(restored(apic(one_shot, 600'000), microseconds(1'600)), 500'000u);
  EXPECT_EQ(restored(apic(one_shot, 600'000, by_1), microseconds(100)), 500'000u);
  EXPECT_EQ(restored(apic(one_shot, 600'000, 0), microseconds(200)), 500'000u);
  EXPECT_EQ(restored(apic(one_shot, 600'000, 8), microseconds(3'200)), 500'000u);
}
TEST_F(ApicCount, WhatHasPassedMeanwhileFiresAtOnce) {
  EXPECT_EQ(restored(apic(one_shot, 600'000), std::chrono::hours(24)), 1u);
  EXPECT_EQ(restored(apic(periodic, 600'000), std::chrono::hours(24)), 1u);
}
TEST_F(ApicCount, WhatHasFiredDoesNotFireAgain) {
  EXPECT_EQ(restored(apic(one_shot, 0)), std::nullopt);
}
TEST_F(ApicCount, IsNoneWhereTheTscIsTheDeadline) {
  EXPECT_EQ(restored(apic(by_tsc, 600'000)), std::nullopt);
}

// It has run on by the host's time while the guest was saved; an interrupt that came is kept.
TEST_F(ApicCount, AfterASaveItIsAsItWas) {
  kvm_lapic_state now = apic(one_shot, 600'000);
  kvm.on<kvm_lapic_state>(KVM_GET_LAPIC, [&now](kvm_lapic_state& to) {
    to = now;
    return 0;
  });
  Snapshot saved;
  ASSERT_TRUE(with_kvm_guest_at_rest(host, machine, saved, [&](Snapshot&) {
    now = apic(one_shot, 200'000);
    now.regs[0x200] = 1;
    return vmm_base::Result<void>(vmm_base::success());
  }));
  EXPECT_EQ(begun_anew(), 600'000u);
  EXPECT_EQ(kvm.calls(KVM_SET_LAPIC).back().argument<kvm_lapic_state>().regs[0x200], 1);
}

}  // namespace
}  // namespace vmm_reference
