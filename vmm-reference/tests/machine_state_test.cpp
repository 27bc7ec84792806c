// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The order in which KVM is told a guest's state, as a KvmDouble sees it.
#include "machine_state.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <variant>
#include <vector>

#include "kvm_ioctls/double.hpp"
#include "snapshot_sample.hpp"

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

}  // namespace
}  // namespace vmm_reference
