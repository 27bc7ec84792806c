// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The README's run loop, its unit test of a VMM, and a VMM for that.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>

#include "kvm_ioctls/double.hpp"

using namespace kvm_ioctls;

namespace {

vmm_base::Result<void> run_to_the_end(Vcpu& vcpu) {
  for (bool running = true; running;) {
    VMM_CHECK(vcpu.run([](XenHypercall& call) { call.set_result(0); },
                       [](IoOut& out) { std::fwrite(out.data.data(), 1, out.data.size(), stdout); },
                       [](IoIn& in) { std::fill(in.data.begin(), in.data.end(), std::byte{0xff}); },
                       [](Interrupted&) {},  // a signal: run again
                       [&](auto&) { running = false; }));
  }
  return vmm_base::success();
}

TEST(RunLoop, AnswersUntilTheGuestHalts) {
  KvmDouble kvm;
  kvm.vcpu(0).runs(guest::xen_hypercall(17), guest::out(0x80, '\n'), guest::in(0x60),
                   guest::interrupted(), guest::halt());
  const Vm vm = std::move(kvm.open().value().create_vm().value());
  Vcpu vcpu = std::move(vm.create_vcpu({0}).value());
  EXPECT_TRUE(run_to_the_end(vcpu));
  EXPECT_EQ(kvm.vcpu(0).steps_left(), 0u);
  EXPECT_EQ(kvm.vcpu(0).answers().at(0).value, 0u);
  EXPECT_EQ(kvm.vcpu(0).answers().at(2).value, 0xffu);
}

vmm_base::Result<void> run_for(Vcpu& vcpu, std::chrono::milliseconds time) {
  VMM_TRY(signal, KickSignal::install());  // once a process
  const Kicker kicker = vcpu.kicker(signal);
  std::atomic<bool> stop = false;
  const std::jthread thread([&] {
    Runner runner(vcpu, signal);  // where the vCPU runs, as long as it does
    for (bool running = true; running && !stop;) {
      running = runner.run([](Interrupted&) {}, [&](auto&) { stop = true; }).has_value();
    }
  });
  std::this_thread::sleep_for(time);
  stop = true;
  kicker.kick();  // this run(), or the next one, answers Interrupted
  return vmm_base::success();
}

TEST(RunLoop, EndsAVcpuThatStaysInTheGuest) {
  KvmDouble kvm;
  kvm.vcpu(0).then_stays();
  const Vm vm = std::move(kvm.open().value().create_vm().value());
  Vcpu vcpu = std::move(vm.create_vcpu({0}).value());
  EXPECT_TRUE(run_for(vcpu, std::chrono::milliseconds(1)));
}

class MyVmm {
 public:
  static vmm_base::Result<MyVmm> create(const std::string& device) {
    VMM_TRY(kvm, Kvm::open(device.c_str()));
    VMM_TRY(vm, kvm.create_vm());
    VMM_CHECK(vm.set_tss_addr(vmm_base::Gpa{0xfffbd000}));
    VMM_TRY(vcpu, vm.create_vcpu({0}));
    return MyVmm(std::move(vm), std::move(vcpu));
  }
  void press(std::uint8_t key) { key_ = key; }
  // Whether the guest halted.
  vmm_base::Result<bool> run() {
    for (std::optional<bool> ended;;) {
      VMM_TRY(exit, vcpu_.run());
      match(
          exit,
          [&](IoIn& in) { in.data[0] = std::byte{in.port == 0x60 ? key_ : std::uint8_t{0xff}}; },
          [&](Halted&) { ended = true; }, [](Interrupted&) {}, [&](auto&) { ended = false; });
      if (ended) return *ended;
    }
  }

 private:
  MyVmm(Vm vm, Vcpu vcpu) : vm_(std::move(vm)), vcpu_(std::move(vcpu)) {}
  Vm vm_;
  Vcpu vcpu_;
  std::uint8_t key_ = 0;
};

TEST(MyVmm, GivesTheGuestItsKeyAndEndsWhenItHalts) {
  KvmDouble kvm;
  kvm.vcpu(0).runs(guest::in(0x60), guest::halt());

  auto vmm = MyVmm::create(kvm.path());
  vmm.value().press(0x1c);
  EXPECT_TRUE(vmm.value().run().value());

  EXPECT_EQ(kvm.vcpu(0).answers().at(0).value, 0x1cu);  // what the guest's IN got
}

TEST(MyVmm, SaysWhichIoctlFailedAndLeavesNothingOpen) {
  for (std::size_t n = 1;; ++n) {
    KvmDouble kvm;
    kvm.fail_call(n, EIO);
    auto vmm = MyVmm::create(kvm.path());
    if (vmm) break;  // it makes no n calls
    EXPECT_STREQ(vmm.error().operation, kvm.calls().at(n - 1).name);
    EXPECT_EQ(kvm.leaks(), std::vector<std::string>{});
  }
}

}  // namespace
