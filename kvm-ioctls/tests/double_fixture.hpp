// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the tests of the double share.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <utility>
#include <variant>

#include "kvm_ioctls/double.hpp"

namespace kvm_ioctls {

template <class T>
T must(vmm_base::Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message();
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return std::move(result).assume_value();
}

// A VM with a vCPU of id 0, all of them real but for the kernel.
struct Double : testing::Test {
  KvmDouble kvm;
  VcpuDouble guest0 = kvm.vcpu(0);
  Kvm system = must(kvm.open());
  Vm vm = must(system.create_vm());
  Vcpu vcpu = must(vm.create_vcpu({0}));

  // All tests run the vCPU here: run() inlined into each of them takes the compiler long.
  [[gnu::noinline]] vmm_base::Result<Exit> run() { return vcpu.run(); }
  template <class Kind>
  Kind run_to() {
    auto exit = must(run());
    if (!std::holds_alternative<Kind>(exit)) {
      ADD_FAILURE() << "exit " << vcpu.page().exit_reason << ", variant " << exit.index();
      std::abort();
    }
    return std::get<Kind>(exit);
  }
  // Goes back into KVM_RUN, which takes the answer to the last exit.
  Answer answered() {
    guest0.runs(guest::fails(EIO));
    EXPECT_EQ(run().error().code, EIO);
    return guest0.answers().back();
  }
};

}  // namespace kvm_ioctls
