// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "cpuid.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "xen_abi/cpuid.hpp"

namespace vmm_reference {
namespace {

const kvm_cpuid_entry2* find(const std::vector<kvm_cpuid_entry2>& leaves, std::uint32_t function) {
  const auto at = std::find_if(leaves.begin(), leaves.end(),
                               [&](const auto& leaf) { return leaf.function == function; });
  return at == leaves.end() ? nullptr : &*at;
}

TEST(Cpuid, XenTakesTheHypervisorsPlaceAndTellsTheVcpuItsIds) {
  kvm_cpuid_entry2 basic{};
  basic.function = 1;
  kvm_cpuid_entry2 topology{};
  topology.function = 0xb;
  kvm_cpuid_entry2 kvm{};
  kvm.function = 0x40000001;
  kvm.eax = 0xdead;
  const auto leaves = xen_guest_cpuid(std::vector{basic, topology, kvm}, {6}, {3});

  EXPECT_EQ(find(leaves, 1)->ebx >> 24, 6u);
  EXPECT_EQ(find(leaves, 0xb)->edx, 6u);
  EXPECT_EQ(find(leaves, 0x40000000)->ebx, xen_abi::cpuid::signature_ebx);
  EXPECT_EQ(find(leaves, 0x40000000)->eax, 0x40000004u);
  EXPECT_EQ(find(leaves, 0x40000001)->eax, xen_version);
  EXPECT_EQ(find(leaves, 0x40000002)->ebx, xen_abi::cpuid::hypercall_msr);
  EXPECT_EQ(find(leaves, 0x40000004)->ebx, 3u);
  EXPECT_EQ(std::count_if(leaves.begin(), leaves.end(),
                          [](const auto& leaf) { return leaf.function == 0x40000001; }),
            1);
}

}  // namespace
}  // namespace vmm_reference
