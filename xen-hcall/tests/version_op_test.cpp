// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_hcall/version_op.hpp"

#include "double_vmm.hpp"

namespace xen_hcall {
namespace {

namespace op = xen_abi::xenver;

struct Version : Fixture {
  XenVersion told{.extraversion = ".0-longer-than-sixteen",
                  .compiler = "cc",
                  .compile_by = "me",
                  .compile_domain = "here",
                  .compile_date = "today",
                  .changeset = "abc",
                  .build_id = {std::byte{1}, std::byte{2}, std::byte{3}},
                  .guest_handle = {std::byte{0xaa}, std::byte{0xbb}}};
  VersionOp<DoubleVmm> version{vmm, told};

  GuestResult call(std::uint32_t sub, std::uint64_t gva = base, bool long_mode = true) {
    return ask(version, Hypercall{17, {sub, gva}, long_mode, 0});
  }
  std::string text(std::uint64_t at = base) {
    return reinterpret_cast<const char*>(vmm.memory.data() + (at - base));
  }
};

TEST_F(Version, VersionAndPagesizeNeedNoArgument) {
  EXPECT_EQ(call(op::version, unmapped), GuestResult::ok(4 << 16 | 18));
  EXPECT_EQ(call(op::pagesize, 0), GuestResult::ok(4096));
  EXPECT_EQ(call(op::pagesize, base), GuestResult(Errno::inval));
}

TEST_F(Version, TextsAreCutToTheirPlacesAndPaddedWithZeroes) {
  std::fill(vmm.memory.begin(), vmm.memory.end(), std::byte{0xee});
  EXPECT_EQ(call(op::extraversion), GuestResult::ok());
  EXPECT_EQ(text(), ".0-longer-than-");
  EXPECT_EQ(get<std::uint8_t>(base + 16), 0xee);
  EXPECT_EQ(call(op::changeset), GuestResult::ok());
  EXPECT_EQ(text(), "abc");
  EXPECT_EQ(get<std::uint8_t>(base + 63), 0);
  EXPECT_EQ(get<std::uint8_t>(base + 64), 0xee);
  EXPECT_EQ(call(op::capabilities), GuestResult::ok());
  EXPECT_EQ(text(), told.capabilities);
  EXPECT_EQ(get<std::uint8_t>(base + 1023), 0);
  EXPECT_EQ(get<std::uint8_t>(base + 1024), 0xee);
  EXPECT_EQ(call(op::compile_info), GuestResult::ok());
  EXPECT_EQ(text(), "cc");
  EXPECT_EQ(text(base + 64), "me");
  EXPECT_EQ(text(base + 80), "here");
  EXPECT_EQ(text(base + 112), "today");
}

TEST_F(Version, TheCommandLineIsDeniedUnlessGiven) {
  EXPECT_EQ(call(op::commandline), GuestResult::ok());
  EXPECT_EQ(text(), "<denied>");
  EXPECT_EQ(call(op::commandline2), GuestResult(Errno::perm));
  told.commandline = "noreboot";
  VersionOp<DoubleVmm> open{vmm, told};
  EXPECT_EQ(ask(open, Hypercall{17, {op::commandline, base}}), GuestResult::ok());
  EXPECT_EQ(text(), "noreboot");
  put(std::uint32_t{100});
  EXPECT_EQ(ask(open, Hypercall{17, {op::commandline2, base}}), GuestResult::ok(8));
  EXPECT_EQ(text(base + 4).substr(0, 8), "noreboot");
}

TEST_F(Version, TextsOfAnyLengthTellItAndNeedRoom) {
  EXPECT_EQ(call(op::extraversion2, 0), GuestResult::ok(22));
  EXPECT_EQ(call(op::extraversion2, unmapped), GuestResult(Errno::fault));
  put(std::uint32_t{21});
  EXPECT_EQ(call(op::extraversion2), GuestResult(Errno::nobufs));
  put(std::uint32_t{22});
  EXPECT_EQ(call(op::extraversion2), GuestResult::ok(22));
  EXPECT_EQ(text(base + 4).substr(0, 22), told.extraversion);
  vmm.read_only_from = base;
  EXPECT_EQ(call(op::extraversion2), GuestResult(Errno::fault));
  EXPECT_EQ(call(op::capabilities2, 0),
            GuestResult::ok(static_cast<std::int64_t>(told.capabilities.size())));
  EXPECT_EQ(call(op::changeset2, 0), GuestResult::ok(3));
}

TEST_F(Version, BuildIdIsThereOrEnodata) {
  EXPECT_EQ(call(op::build_id, 0), GuestResult::ok(3));
  put(std::uint32_t{3});
  EXPECT_EQ(call(op::build_id), GuestResult::ok(3));
  EXPECT_EQ(get<std::uint8_t>(base + 6), 3);
  VersionOp<DoubleVmm> none{vmm, {}};
  EXPECT_EQ(ask(none, Hypercall{17, {op::build_id, 0}}), GuestResult(Errno::nodata));
}

TEST_F(Version, FeaturesOfSubmap0) {
  EXPECT_EQ(call(op::get_features, unmapped), GuestResult(Errno::fault));
  put(xen_abi::FeatureInfo{1, 0});
  EXPECT_EQ(call(op::get_features), GuestResult(Errno::inval));
  put(xen_abi::FeatureInfo{0, 0});
  EXPECT_EQ(call(op::get_features), GuestResult::ok());
  const auto features = get<xen_abi::FeatureInfo>().submap;
  EXPECT_NE(features & xen_abi::feature::hvm_callback_vector, 0u);
  EXPECT_NE(features & xen_abi::feature::hvm_safe_pvclock, 0u);
  EXPECT_NE(features & xen_abi::feature::auto_translated_physmap, 0u);
  EXPECT_EQ(features & xen_abi::feature::hvm_pirqs, 0u);
  vmm.read_only_from = base;
  EXPECT_EQ(call(op::get_features), GuestResult(Errno::fault));
}

TEST_F(Version, PlatformParametersAreAWordOfTheCallers) {
  put(~std::uint64_t{0});
  EXPECT_EQ(call(op::platform_parameters, base, false), GuestResult::ok());
  EXPECT_EQ(get<std::uint64_t>(), 0xffffffff00000000);
  EXPECT_EQ(call(op::platform_parameters), GuestResult::ok());
  EXPECT_EQ(get<std::uint64_t>(), 0u);
}

TEST_F(Version, GuestHandleIs16Bytes) {
  EXPECT_EQ(call(op::guest_handle), GuestResult::ok());
  EXPECT_EQ(get<std::uint16_t>(), 0xbbaa);
}

TEST_F(Version, WhatCantBeWrittenIsEfaultAndUnknownIsntMine) {
  for (const auto sub : {op::extraversion, op::compile_info, op::capabilities, op::changeset,
                         op::platform_parameters, op::guest_handle, op::commandline}) {
    EXPECT_EQ(call(sub, unmapped), GuestResult(Errno::fault)) << sub;
  }
  EXPECT_EQ(call(15), GuestResult(Errno::nosys));
  EXPECT_FALSE(version.handle({0}, Hypercall{18, {0}}));
}

}  // namespace
}  // namespace xen_hcall
