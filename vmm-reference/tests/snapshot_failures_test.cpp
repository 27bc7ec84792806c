// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Guests over a KvmDouble that are saved, and gone on with, while each call that this takes fails
// in turn. A guest that can't be saved goes on, with its timers.
#include <gtest/gtest.h>

#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "failing_each.hpp"
#include "host.hpp"
#include "irq_routes.hpp"
#include "kvm_ioctls/double.hpp"
#include "machine.hpp"
#include "machine_state.hpp"
#include "scripted_calls.hpp"
#include "snapshot_sample.hpp"
#include "test_ports.hpp"
#include "xen_abi/hypercall_numbers.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_domain.hpp"

namespace vmm_reference {
namespace {

namespace guest = kvm_ioctls::guest;

constexpr std::uint64_t ram = 4 << 20;
constexpr std::uint32_t vcpus = 2;
const std::string good = "it went on";

struct Guest {
  const KvmDouble& kvm;
  TimerMode mode;
  Host host = std::get<Host>(Host::open(kvm.path()));
  Machine machine = create_machine(host, {.ram_size = ram,
                                          .vcpu_count = vcpus,
                                          .all_running = true,
                                          .xen_ids = keeps_timers_in_kernel(mode)})
                        .value();
  DomainRun run{vcpus};
  std::string said{};

  void ends() const {
    for (std::uint32_t id = 0; id < vcpus; ++id) kvm.vcpu(id).runs(guest::out(port_done, 0, 4));
  }
  // Until the guest has ended; all that there was to say.
  std::string result() {
    run.timeout = std::chrono::seconds(20);
    std::vector<TestPorts> ports(vcpus);
    std::vector<Devices*> devices;
    for (TestPorts& each : ports) devices.push_back(&each);
    IrqRoutes routes(machine.vm);
    XenPlatform platform(host, machine.vm, routes, machine.memory, machine.vcpus, run.errors);
    const auto in_time = run_xen_domain(host, machine, platform, mode, devices, run);
    if (!in_time) return said + in_time.error().message();
    if (!in_time.value()) said += "timed out; ";
    for (const VcpuState& state : run.states) said += state.fault + state.host_errors.message();
    said += run.errors.message();
    return said.empty() ? good : said;
  }
};

// It has a timer armed, and a vCPU that has put itself down; is saved, into `saved`; and saved
// again, to see what became of it.
std::string save(const KvmDouble& kvm, TimerMode mode, const FromNowOn& from_now_on,
                 FileBytes& saved) {
  script_timer_guest(kvm);
  kvm.vcpu(1).runs(
      guest::xen_hypercall(xen_abi::hypercall::vcpu_op, {xen_abi::vcpuop::down, 1, 0}));
  kvm.on<kvm_clock_data>(KVM_GET_CLOCK, [](kvm_clock_data& clock) {
    clock.clock = 1'000'000'000;
    return 0;
  });
  for (std::uint32_t id = 0; id < vcpus; ++id) kvm.vcpu(id).then_stays();
  Guest guest{kvm, mode};
  boost::asio::post(guest.run.loop, [&]() noexcept {
    for (std::uint32_t id = 0; id < vcpus; ++id) kvm.vcpu(id).await_stay();
    from_now_on();
    const auto done = guest.run.at_rest([&](Snapshot& snapshot) -> Result<void> {
      saved = bytes_of(snapshot);
      return vmm_base::success();
    });
    const failing::Unseen rest;
    if (!done) guest.said += done.error().message() + "; ";
    if (guest.run.loop.stopped()) return guest.ends();
    const auto again = guest.run.at_rest([&](Snapshot& snapshot) -> Result<void> {
      EXPECT_TRUE(snapshot.xen->vcpus[0].timers.deadline) << "lost; " << guest.said;
      EXPECT_EQ(snapshot.vcpus[1].mp_state.mp_state, KVM_MP_STATE_UNINITIALIZED) << guest.said;
      return vmm_base::success();
    });
    if (!again) guest.said += again.error().message() + "; ";
    guest.ends();
  });
  return guest.result();
}

std::string restore(const KvmDouble& kvm, TimerMode mode, const FromNowOn& from_now_on,
                    const FileBytes& saved) {
  Guest guest{kvm, mode};
  guest.ends();
  from_now_on();
  auto snapshot = read_snapshot(saved);
  if (!snapshot) return snapshot.error().message();
  guest.run.from = &snapshot.value();
  return guest.result();
}

struct SnapshotFailures : testing::TestWithParam<TimerMode> {
  FileBytes saved;

  void SetUp() override {
    if (!can_be_had(GetParam())) GTEST_SKIP() << "no io_uring here";
    const KvmDouble kvm;
    ASSERT_EQ(save(
                  kvm, GetParam(), [] {}, saved),
              good);
    ASSERT_FALSE(saved.empty());
  }
  // As `of` takes it.
  auto saving() {
    return [](const KvmDouble& kvm, const FromNowOn& from_now_on) {
      FileBytes into;
      return save(kvm, GetParam(), from_now_on, into);
    };
  }
  auto restoring() {
    return [this](const KvmDouble& kvm, const FromNowOn& from_now_on) {
      return restore(kvm, GetParam(), from_now_on, saved);
    };
  }
};

TEST_P(SnapshotFailures, TheGuestGoesOnFromIt) {
  const KvmDouble kvm;
  EXPECT_EQ(restore(
                kvm, GetParam(), [] {}, saved),
            good);
  EXPECT_EQ(kvm.leaks(), Names{});
}
// It would run on behind the call by which it had put itself down.
TEST_P(SnapshotFailures, AVcpuThatStayedUpDoesNotRun) {
  const KvmDouble kvm;
  const auto from_now_on = [&kvm] {
    kvm.on<kvm_mp_state>(KVM_SET_MP_STATE, [](const kvm_mp_state& state) {
      return state.mp_state == KVM_MP_STATE_UNINITIALIZED ? -EIO : KvmDouble::as_usual;
    });
  };
  FileBytes into;
  const std::string said = save(kvm, GetParam(), from_now_on, into);
  EXPECT_TRUE(said.ends_with("KVM_SET_MP_STATE(0x1): Input/output error")) << said;
  EXPECT_EQ(kvm.vcpu(1).steps_left(), 1u) << "it ran";
}
TEST_P(SnapshotFailures, OfSaving) { fail_each(saving()); }
TEST_P(SnapshotFailures, OfRestoring) { fail_each(restoring()); }

INSTANTIATE_TEST_SUITE_P(Mode, SnapshotFailures,
                         testing::Values(TimerMode::userspace, TimerMode::irqfd,
                                         TimerMode::spinning, TimerMode::delegated,
                                         TimerMode::kernel),
                         [](const auto& of) { return std::string(to_string(of.param)); });

// --- A guest of KVM's own ------------------------------------------------------------------------

std::string with_machine(const KvmDouble& kvm, const FromNowOn& from_now_on,
                         const std::function<Result<void>(const Host&, Machine&)>& use) {
  const Host host = std::get<Host>(Host::open(kvm.path()));
  Machine machine =
      create_machine(host, {.ram_size = ram, .vcpu_count = vcpus, .xen = false}).value();
  from_now_on();
  const auto used = use(host, machine);
  return used ? good : used.error().message();
}

std::string save_native(const KvmDouble& kvm, const FromNowOn& from_now_on) {
  return with_machine(kvm, from_now_on, [](const Host& host, Machine& machine) {
    Snapshot snapshot;
    return with_kvm_guest_at_rest(host, machine, snapshot,
                                  [](Snapshot&) { return Result<void>(vmm_base::success()); });
  });
}
std::string restore_native(const KvmDouble& kvm, const FromNowOn& from_now_on) {
  return with_machine(kvm, from_now_on, [](const Host& host, Machine& machine) {
    Snapshot snapshot;
    for (std::uint64_t id = 0; id < vcpus; ++id) {
      snapshot.vcpus.push_back(sample_vcpu(id));
      snapshot.vcpus.back().lapic.regs[0x390] = 1;  // its timer counts
    }
    return restore_kvm_guest(host, machine, snapshot, std::chrono::nanoseconds(0));
  });
}

TEST(NativeSnapshotFailures, OfSaving) { fail_each(save_native); }
TEST(NativeSnapshotFailures, OfRestoring) { fail_each(restore_native); }

// --- System calls and allocations ---------------------------------------------------------------

#ifndef FAILING_CALLS_NONE

TEST_P(SnapshotFailures, OfSavingsCalls) {
  fail_each_other(saving(), failing::Of::calls, good, {}, 2);
}

TEST_P(SnapshotFailures, OfSavingsAllocations) {
  fail_each_other(saving(), failing::Of::allocations, good);
}

TEST_P(SnapshotFailures, OfRestoringsCalls) {
  fail_each_other(restoring(), failing::Of::calls, good, asio);
}

TEST_P(SnapshotFailures, OfRestoringsAllocations) {
  fail_each_other(restoring(), failing::Of::allocations, good);
}

TEST(NativeSnapshotFailures, OfSavingsAllocations) {
  fail_each_other(save_native, failing::Of::allocations, good);
}

TEST(NativeSnapshotFailures, OfRestoringsAllocations) {
  fail_each_other(restore_native, failing::Of::allocations, good);
}

#endif

}  // namespace
}  // namespace vmm_reference
