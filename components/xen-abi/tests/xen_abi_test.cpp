// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <gtest/gtest.h>

#include <type_traits>

#include "xen_abi/hypercall.hpp"

namespace xen_abi {
namespace {

static_assert(!std::is_convertible_v<std::int64_t, GuestResult>, "a bare number isn't an answer");
static_assert(!std::is_convertible_v<GuestResult, vmm_base::Error>);

TEST(GuestResult, ErrnoIsNegativeAndSignExtendedTo64Bits) {
  EXPECT_EQ(GuestResult(Errno::nosys).rax(), 0xffffffffffffffdaull);
  EXPECT_EQ(GuestResult(Errno::perm).rax(), 0xffffffffffffffffull);
}

TEST(GuestResult, OkCarriesAValue) {
  EXPECT_EQ(GuestResult::ok().rax(), 0u);
  EXPECT_EQ(GuestResult::ok(0x40011).rax(), 0x40011u);
}

TEST(Answer, HasNoHostErrorUnlessGivenOne) { EXPECT_TRUE(Answer{Errno::inval}.host); }

}  // namespace
}  // namespace xen_abi
