// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vmm_template/doorbell.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace {

struct DoubleVmm {
  std::vector<std::uint64_t> times{};
  int error = 0;
  vmm_base::Result<void> rang(std::uint64_t now) {
    times.push_back(now);
    if (error != 0) return vmm_base::Error{"rang", error, now};
    return vmm_base::success();
  }
};

TEST(Doorbell, AnyValueRingsOnce) {
  DoubleVmm vmm;
  vmm_template::Doorbell doorbell(vmm);
  for (const std::uint64_t value : {std::uint64_t{0}, std::uint64_t{1}, ~std::uint64_t{0}}) {
    EXPECT_TRUE(doorbell.write(value));
  }
  EXPECT_EQ(vmm.times, (std::vector<std::uint64_t>{1, 2, 3}));
  EXPECT_EQ(doorbell.rung(), 3u);
}

TEST(Doorbell, AnErrorLeavesTheCount) {
  DoubleVmm vmm{.error = EIO};
  vmm_template::Doorbell doorbell(vmm);
  const auto result = doorbell.write(1);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error(), (vmm_base::Error{"rang", EIO, 1}));
  EXPECT_EQ(doorbell.rung(), 0u);
}

}  // namespace
