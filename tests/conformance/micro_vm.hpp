// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VM whose vCPUs make one hypercall each time they are asked to, in 64-bit mode or in real mode
// (a 32-bit caller to Xen), and nothing else.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <vector>

#include "kvm_ioctls/kvm.hpp"
#include "long_mode.hpp"
#include "vm_memory/guest_memory.hpp"
#include "xen_abi/cpuid.hpp"

namespace conformance {

using kvm_ioctls::Exit;
using vmm_base::Gpa;
using vmm_base::KvmVcpuId;

// The value, or the end of the test.
template <class T>
T must(vmm_base::Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message();
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return std::move(result).assume_value();
}

struct Call {
  std::uint64_t number;
  std::uint64_t args[3];
};

// What became of a hypercall.
struct Outcome {
  bool punted = false;      // it came to us
  std::int64_t result = 0;  // else what the kernel answered
};

class MicroVm {
 public:
  static constexpr Gpa code{0x8000};
  static constexpr Gpa argument{0x9000};  // a page for arguments
  static constexpr Gpa shared_info{0xa000};
  static constexpr Gpa vcpu_info{0xb000};  // 64 bytes a vCPU
  static constexpr std::uint16_t done_port = 0x80;

  explicit MicroVm(std::uint32_t vcpu_count)
      : kvm(must(kvm_ioctls::Kvm::open())),
        memory(must(vm_memory::GuestMemory::create({{Gpa{0}, 1 << 20}}))),
        vm(must(kvm.create_vm())) {
    must(vm.create_irqchip());
    must(vm.xen_hvm_config(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
                           xen_abi::cpuid::hypercall_msr));
    const auto& region = memory.regions()[0];
    must(vm.set_user_memory_region(0, region.gpa(), region.size(), region.host()));
    must(vmm_reference::write_page_tables(memory));
    // vmmcall (KVM takes it for vmcall on Intel, too); out %al,$done_port; and to the end.
    const std::uint8_t program[] = {0x0f, 0x01, 0xd9, 0xe6, done_port, 0xf4};
    must(memory.write(code, std::as_bytes(std::span(program))));
    must(vm.xen_hvm_set_attr(kvm_ioctls::XenLongMode{true}));
    must(vm.xen_hvm_set_attr(kvm_ioctls::XenSharedInfo{shared_info.value >> vmm_base::page_shift}));
    const auto cpuid = must(kvm.get_supported_cpuid());
    for (std::uint32_t i = 0; i < vcpu_count; ++i) {
      vcpus.push_back(must(vm.create_vcpu(KvmVcpuId{i})));
      must(vcpus[i].set_cpuid2(cpuid));
      must(vcpus[i].set_mp_state({KVM_MP_STATE_RUNNABLE}));
      must(vcpus[i].xen_vcpu_set_attr(kvm_ioctls::XenVcpuInfo{vcpu_info + 64 * i}));
      original_.push_back(must(vcpus[i].get_sregs()));
    }
  }

  Outcome call(std::uint32_t index, bool long_mode, const Call& call) {
    kvm_ioctls::Vcpu& vcpu = vcpus[index];
    kvm_regs regs{};
    regs.rip = code.value;
    regs.rax = call.number;
    if (long_mode) {
      regs.rdi = call.args[0];
      regs.rsi = call.args[1];
      regs.rdx = call.args[2];
      must(vmm_reference::enter_long_mode(vcpu, regs));
    } else {
      regs.rbx = call.args[0];
      regs.rcx = call.args[1];
      regs.rdx = call.args[2];
      regs.rflags = 2;
      kvm_sregs sregs = original_[index];
      sregs.cs.base = 0;
      sregs.cs.selector = 0;
      must(vcpu.set_sregs(sregs));
      must(vcpu.set_regs(regs));
    }
    Outcome outcome;
    for (;;) {
      Exit exit = must(vcpu.run());
      if (auto* hypercall = std::get_if<kvm_ioctls::XenHypercall>(&exit)) {
        EXPECT_EQ(hypercall->input(), call.number);
        EXPECT_EQ(hypercall->longmode(), long_mode);
        EXPECT_EQ(hypercall->cpl(), 0);
        for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(hypercall->params()[i], call.args[i]);
        outcome.punted = true;
        hypercall->set_result(0x5a5a);
      } else if (auto* out = std::get_if<kvm_ioctls::IoOut>(&exit)) {
        EXPECT_EQ(out->port, done_port);
        const kvm_regs after = must(vcpu.get_regs());
        outcome.result =
            long_mode ? static_cast<std::int64_t>(after.rax) : static_cast<std::int32_t>(after.rax);
        if (outcome.punted) {
          EXPECT_EQ(outcome.result, 0x5a5a) << "the result must reach RAX";
        }
        return outcome;
      } else {
        ADD_FAILURE() << "exit variant " << exit.index();
        std::abort();
      }
    }
  }

  kvm_ioctls::Kvm kvm;
  vm_memory::GuestMemory memory;
  kvm_ioctls::Vm vm;
  std::vector<kvm_ioctls::Vcpu> vcpus;

 private:
  std::vector<kvm_sregs> original_;
};

}  // namespace conformance
