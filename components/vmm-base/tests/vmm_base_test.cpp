// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <fcntl.h>
#include <gtest/gtest.h>

#include <type_traits>

#include "vmm_base/guest_address.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_base {
namespace {

static_assert(std::is_trivially_copyable_v<Error>);
static_assert(!std::is_convertible_v<XenVcpuId, KvmVcpuId>);
static_assert(!std::is_convertible_v<KvmVcpuId, VcpuIndex>);
static_assert(!std::is_convertible_v<Gva, Gpa>);
static_assert(!std::is_constructible_v<Result<int>, const char*>);

Result<int> half(int n) {
  if (n % 2 != 0) return Error{"half", EINVAL, static_cast<std::uint64_t>(n)};
  return n / 2;
}

Result<void> check_half(int n) {
  VMM_CHECK(half(n));
  return success();
}

Result<int> quarter(int n) {
  VMM_TRY(once, half(n));
  VMM_TRY(twice, half(once));
  VMM_CHECK(check_half(n));
  return twice;
}

TEST(Result, TryPassesTheValueOnAndReturnsTheError) {
  EXPECT_EQ(quarter(8).value(), 2);
  EXPECT_EQ(quarter(6).error(), (Error{"half", EINVAL, 3}));
}

TEST(Error, MessageNamesOperationOperandAndReason) {
  EXPECT_EQ((Error{"KVM_CREATE_VCPU", EEXIST, 0x1f}.message()),
            "KVM_CREATE_VCPU(0x1f): File exists");
  EXPECT_EQ((Error{"open", ENOENT, 0}.message()), "open(0x0): No such file or directory");
  EXPECT_EQ((Error{"x", 99999, 0}.message()), "x(0x0): errno 99999");
}

bool is_open(int fd) { return ::fcntl(fd, F_GETFD) != -1; }

TEST(UniqueFd, ClosesOnceAndMoves) {
  const int raw = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  ASSERT_GE(raw, 0);
  {
    UniqueFd a(raw);
    UniqueFd b(std::move(a));
    EXPECT_EQ(b.get(), raw);
    EXPECT_FALSE(a);  // NOLINT(bugprone-use-after-move): what a moved-from one is, is the point
    a = std::move(b);
    EXPECT_TRUE(is_open(raw));
  }
  EXPECT_FALSE(is_open(raw));
}

TEST(UniqueFd, GivenAnotherItClosesTheOneItHad) {
  const int first = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  const int second = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  UniqueFd a(first);
  UniqueFd b(second);
  a = std::move(b);
  EXPECT_EQ(a.get(), second);
  EXPECT_FALSE(b);  // NOLINT(bugprone-use-after-move): what a moved-from one is, is the point
  EXPECT_FALSE(is_open(first));
  EXPECT_TRUE(is_open(second));
  UniqueFd& itself = a;
  a = std::move(itself);
  EXPECT_TRUE(is_open(second));
}

TEST(UniqueFd, ReleaseGivesUpOwnership) {
  const int raw = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
  int released = -1;
  {
    UniqueFd fd(raw);
    released = fd.release();
  }
  EXPECT_EQ(released, raw);
  EXPECT_TRUE(is_open(raw));
  ::close(raw);
}

TEST(Ids, CompareByValue) {
  EXPECT_EQ(XenVcpuId{3}, XenVcpuId{3});
  EXPECT_LT(XenVcpuId{2}, XenVcpuId{3});
  EXPECT_EQ((Gpa{0x1000} + 0x10), Gpa{0x1010});
  EXPECT_EQ((Gva{0x1000} + 0x10), Gva{0x1010});
}

}  // namespace
}  // namespace vmm_base
