// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vcpu_threads.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>
#include <vector>

#include "kvm_ioctls/double.hpp"

namespace vmm_reference {
namespace {

// Guests that stay inside KVM_RUN until they are kicked.
struct Threads : testing::Test {
  static constexpr std::uint32_t count = 3;
  kvm_ioctls::KvmDouble kvm;
  kvm_ioctls::Vm vm = std::move(kvm.open().value().create_vm().value());
  std::vector<kvm_ioctls::Vcpu> vcpus = create();
  VcpuThreads threads{vcpus, kvm_ioctls::KickSignal::install().value()};

  std::vector<kvm_ioctls::Vcpu> create() {
    std::vector<kvm_ioctls::Vcpu> created;
    for (std::uint32_t id = 0; id < count; ++id) {
      kvm.vcpu(id).then_stays();
      created.push_back(std::move(vm.create_vcpu({id}).value()));
    }
    return created;
  }
  void run(XenVcpuId id, VcpuRunner& vcpu) {
    do {
      EXPECT_TRUE(vcpu.run());
    } while (threads.serve(id));
  }
  void start() {
    threads.start([this](XenVcpuId id, VcpuRunner& vcpu) { run(id, vcpu); }, [] {});
  }
  bool is_inside(std::uint32_t id) {
    const auto runs = kvm.calls(KVM_RUN);
    return std::any_of(runs.begin(), runs.end(), [&](const kvm_ioctls::Call& call) {
      return call.id == id && call.result == kvm_ioctls::Call::under_way;
    });
  }
};

TEST_F(Threads, WorkIsDoneOutsideKvmRunOnTheVcpusOwnThread) {
  start();
  for (std::uint32_t id = 0; id < count; ++id) {
    const auto thread = threads.run_on(XenVcpuId{id}, [&] {
      EXPECT_FALSE(is_inside(id));
      return std::this_thread::get_id();
    });
    EXPECT_NE(thread, std::this_thread::get_id());
    EXPECT_EQ(threads.run_on(XenVcpuId{id}, [] { return std::this_thread::get_id(); }), thread);
  }
}

TEST_F(Threads, WhilePausedNoneIsInKvmRunAndWorkIsDoneAsEver) {
  start();
  for (int round = 0; round < 20; ++round) {
    threads.pause();
    for (std::uint32_t id = 0; id < count; ++id) {
      EXPECT_FALSE(is_inside(id));
      EXPECT_TRUE(threads.run_on(XenVcpuId{id}, [] { return true; }));
      EXPECT_FALSE(is_inside(id));
    }
    threads.resume();
    threads.run_on(XenVcpuId{1}, [] { return 0; });
  }
  threads.pause();
  threads.stop();  // ends those that are paused, too
}

// A vCPU that waits for another's thread, which is paused already.
TEST_F(Threads, OneThatAsksAPausedOneGetsItsAnswerAndIsPausedThen) {
  std::atomic<int> answered = 0;
  threads.start(
      [&](XenVcpuId id, VcpuRunner& vcpu) {
        do {
          EXPECT_TRUE(vcpu.run());
          if (id.value == 0 && answered == 0) {
            std::this_thread::sleep_for(std::chrono::milliseconds(50));
            answered = threads.run_on(XenVcpuId{1}, [] { return 1; });
          }
        } while (threads.serve(id));
      },
      [] {});
  threads.pause();
  EXPECT_EQ(answered, 1);
  for (std::uint32_t id = 0; id < count; ++id) EXPECT_FALSE(is_inside(id));
  threads.resume();
}

TEST_F(Threads, WithoutAThreadWorkIsDoneHere) {
  const auto here = [] { return std::this_thread::get_id(); };
  EXPECT_EQ(threads.run_on(XenVcpuId{1}, here), std::this_thread::get_id());
  start();
  threads.stop();
  EXPECT_EQ(threads.run_on(XenVcpuId{1}, here), std::this_thread::get_id());
}

TEST_F(Threads, OnItsOwnThreadWorkIsDoneAtOnce) {
  start();
  EXPECT_EQ(
      threads.run_on(XenVcpuId{1}, [&] { return threads.run_on(XenVcpuId{1}, [] { return 7; }); }),
      7);
}

TEST_F(Threads, VcpusThatAskEachOtherAllTheTimeDontHang) {
  constexpr int rounds = 2000;
  std::atomic<int> done = 0;
  std::atomic<std::uint32_t> asking = count;
  threads.start(
      [&](XenVcpuId id, VcpuRunner& vcpu) {
        for (int i = 0; i < rounds; ++i) {
          done += threads.run_on(XenVcpuId{(id.value + 1) % count}, [] { return 1; });
        }
        --asking;
        run(id, vcpu);
      },
      [] {});
  while (asking != 0) std::this_thread::yield();
  EXPECT_EQ(done, rounds * static_cast<int>(count));
}

TEST_F(Threads, NoKickIsLost) {
  start();
  for (int i = 0; i < 20'000; ++i) {
    EXPECT_EQ(threads.run_on(XenVcpuId{0}, [i] { return i; }), i);
  }
}

TEST_F(Threads, TheLastOneToEndSaysSo) {
  std::atomic<int> said = 0;
  std::atomic<std::uint32_t> ended = 0;
  threads.start([&](XenVcpuId, VcpuRunner&) { ++ended; },
                [&] {
                  EXPECT_EQ(ended, count);
                  ++said;
                });
  threads.stop();
  EXPECT_EQ(said, 1);
}

}  // namespace
}  // namespace vmm_reference
