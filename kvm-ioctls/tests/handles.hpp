// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A handle of each kind, over fds that are no KVM's.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <optional>

#include "kvm_ioctls/kvm.hpp"
#include "memfd.hpp"
#include "scripted_ioctl.hpp"

namespace kvm_ioctls {

inline constexpr std::size_t run_size = 3 * 4096;
inline constexpr vmm_base::KvmVcpuId the_vcpu{3};

struct Handles {
  Handles()
      : kvm([] {
          const ScriptedIoctl version([](int, unsigned long, void*) { return KVM_API_VERSION; });
          return Kvm::from_fd(new_memfd(run_size)).assume_value();
        }()),
        vm(new_memfd(run_size), run_size),
        vcpu(Vcpu::from_fd(new_memfd(run_size), run_size, the_vcpu).assume_value()),
        device(new_memfd(run_size)) {
    const ScriptedIoctl kernel([](int, unsigned long, void*) { return 4096; });
    const auto size = vm.xsave_size(vcpu);
    xsave_size.emplace(size.assume_value());
    EXPECT_TRUE(vm.set_user_memory_region(4, {0}, 0x40000, nullptr, KVM_MEM_LOG_DIRTY_PAGES));
  }

  Kvm kvm;
  Vm vm;
  Vcpu vcpu;
  Device device;
  vmm_base::UniqueFd eventfd = new_memfd(run_size);  // for what takes one
  std::optional<XsaveSize> xsave_size;               // 4096
};

}  // namespace kvm_ioctls
