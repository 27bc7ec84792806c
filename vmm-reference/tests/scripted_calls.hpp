// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Xen hypercalls of a guest that a KvmDouble plays.
#pragma once

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "kvm_ioctls/double.hpp"

namespace vmm_reference {

inline constexpr std::uint64_t arguments = 0x200000;

template <class T>
void poke(const kvm_ioctls::KvmDouble& kvm, std::uint64_t gpa, const T& value) {
  std::byte* memory = kvm.memory(gpa, sizeof(value));
  if (memory != nullptr) std::memcpy(memory, &value, sizeof(value));
}
// A hypercall whose last parameter is the address of `argument`.
template <class T>
void calls(const kvm_ioctls::KvmDouble& kvm, std::uint64_t number,
           std::vector<std::uint64_t> params, const T& argument) {
  params.push_back(arguments);
  kvm.vcpu(0).runs(kvm_ioctls::guest::does([&kvm, argument] { poke(kvm, arguments, argument); }),
                   kvm_ioctls::guest::xen_hypercall(number, params));
}

struct AddToPhysmap {
  std::uint16_t domid = 0x7ff0;
  std::uint16_t size = 0;
  std::uint32_t space = 0;  // shared_info
  std::uint64_t index = 0;
  std::uint64_t gpfn = 0x300;
};
struct RegisterVcpuInfo {
  std::uint64_t mfn = 0x301;
  std::uint32_t offset = 0;
  std::uint32_t reserved = 0;
};
struct BindVirq {
  std::uint32_t virq = 0;  // VIRQ_TIMER
  std::uint32_t vcpu = 0;
  std::uint32_t port = 0;
};
struct SetSingleshot {
  std::uint64_t deadline = std::uint64_t{1} << 62;
  std::uint32_t flags = 0;
  std::uint32_t padding = 0;
};

// shared_info, vCPU 0's vcpu_info, and an event channel for its timer.
inline void script_set_up(const kvm_ioctls::KvmDouble& kvm) {
  calls(kvm, 12, {7}, AddToPhysmap{});
  calls(kvm, 24, {10, 0}, RegisterVcpuInfo{});
  calls(kvm, 32, {1}, BindVirq{});
}
// And the timer is armed, for long after the test.
inline void script_timer_guest(const kvm_ioctls::KvmDouble& kvm) {
  script_set_up(kvm);
  calls(kvm, 24, {8, 0}, SetSingleshot{});
}

}  // namespace vmm_reference
