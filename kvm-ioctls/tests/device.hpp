// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the tests against a real /dev/kvm share: a VM with a page of real-mode code at 0x1000 and
// RAM around it.
#pragma once

#include <gtest/gtest.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <optional>
#include <vector>

#include "kvm_ioctls/kvm.hpp"

namespace kvm_ioctls {

// The value, or the end of the test program.
template <class T>
T must(vmm_base::Result<T> result) {
  if (!result) {
    ADD_FAILURE() << result.error().message();
    std::abort();
  }
  if constexpr (!std::is_void_v<T>) return std::move(result).assume_value();
}

// The test is skipped where this kernel lacks a capability.
#define NEEDS(handle, capability)                        \
  if ((handle).check_extension(capability).value() == 0) \
  GTEST_SKIP() << "this kernel lacks " #capability

struct KvmDevice : testing::Test {
  void SetUp() override {
    // The lab is there for its /dev/kvm.
    if (::access("/dev/kvm", R_OK | W_OK) != 0 && std::getenv("LAB") == nullptr) {
      GTEST_SKIP() << "no /dev/kvm here that may be opened: " << std::strerror(errno);
    }
    auto opened = Kvm::open();
    ASSERT_TRUE(opened) << opened.error().message();
    kvm.emplace(std::move(opened).assume_value());
  }
  std::optional<Kvm> kvm;
};

// Real-mode code at 0x1000, in 64 KiB of RAM from 0; an interrupt vector table of zeros.
struct Guest : KvmDevice {
  static constexpr std::size_t ram_size = 0x10000;
  static constexpr std::uint16_t entry = 0x1000;

  void SetUp() override {
    KvmDevice::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    ram = static_cast<std::uint8_t*>(
        ::mmap(nullptr, ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(ram, MAP_FAILED);
    vm.emplace(must(kvm->create_vm()));
  }
  void TearDown() override {
    vcpu.reset();
    vm.reset();
    if (ram != nullptr) ::munmap(ram, ram_size);
  }

  void load(std::initializer_list<std::uint8_t> code, std::size_t at = entry) {
    std::memcpy(ram + at, code.begin(), code.size());
  }
  // After what has to come before the first vCPU.
  Vcpu& start(std::uint32_t memory_flags = 0, bool cpuid = false) {
    must(vm->set_user_memory_region(0, {0}, ram_size, ram, memory_flags));
    vcpu.emplace(must(vm->create_vcpu({0})));
    if (cpuid) must(vcpu->set_cpuid2(must(kvm->get_supported_cpuid())));
    restart();
    return *vcpu;
  }
  void restart(std::uint16_t at = entry) {
    auto sregs = must(vcpu->get_sregs());
    for (kvm_segment* segment : {&sregs.cs, &sregs.ds, &sregs.es, &sregs.ss}) {
      segment->base = 0;
      segment->selector = 0;
    }
    must(vcpu->set_sregs(sregs));
    kvm_regs regs{};
    regs.rip = at;
    regs.rsp = 0x8000;
    regs.rflags = 2;
    must(vcpu->set_regs(regs));
  }
  template <class Kind>
  Kind run_to() {
    auto exit = must(vcpu->run());
    if (!std::holds_alternative<Kind>(exit)) {
      ADD_FAILURE() << "exit " << vcpu->page().exit_reason << ", variant " << exit.index();
      std::abort();
    }
    return std::get<Kind>(exit);
  }

  std::uint8_t* ram = nullptr;
  std::optional<Vm> vm;
  std::optional<Vcpu> vcpu;
};

inline vmm_base::UniqueFd new_eventfd() {
  return vmm_base::UniqueFd(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}
// How often it was signalled since the last time.
inline std::uint64_t taken(int eventfd) {
  std::uint64_t count = 0;
  return ::read(eventfd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}
inline void signal(int eventfd) {
  const std::uint64_t one = 1;
  EXPECT_EQ(::write(eventfd, &one, sizeof(one)), ssize_t{sizeof(one)});
}

// Registers of the kind, made comparable.
template <class T>
std::vector<std::uint8_t> bytes_of(const T& value) {
  std::vector<std::uint8_t> bytes(sizeof(value));
  std::memcpy(bytes.data(), &value, sizeof(value));
  return bytes;
}

}  // namespace kvm_ioctls
