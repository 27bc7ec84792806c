// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_hcall/vcpu_registers.hpp"

#include <gtest/gtest.h>

#include <functional>

namespace xen_hcall {
namespace {

using Context = xen_abi::VcpuHvmContext;

// A vCPU in protected mode, as a guest might start one.
Context flat_32() {
  Context context{.mode = Context::mode_32, .pad = 0, .x86_32 = {}};
  auto& regs = context.x86_32;
  regs.eip = 0x1000;
  regs.eflags = 0xffffffff;
  regs.cr0 = 0x11;
  regs.cs_limit = regs.ds_limit = regs.ss_limit = regs.es_limit = 0xfffff;
  regs.tr_limit = 0x67;
  regs.cs_ar = 0xc9a;
  regs.ds_ar = regs.ss_ar = regs.es_ar = 0xc92;
  regs.tr_ar = 0x89;
  return context;
}
Context long_64() {
  Context context{.mode = Context::mode_64, .pad = 0, .x86_64 = {}};
  context.x86_64.rip = 0xffff800000001000;
  context.x86_64.cr0 = 1u << 31 | 1;
  context.x86_64.cr4 = 1 << 5;
  context.x86_64.efer = 1 << 8;
  return context;
}
bool is_valid_with(Context context, const std::function<void(Context&)>& change) {
  change(context);
  return initial_registers(context).has_value();
}

TEST(VcpuRegistersTest, A32BitStartIsTakenOverWithItsSegmentsInUse) {
  const auto regs = initial_registers(flat_32());
  ASSERT_TRUE(regs);
  EXPECT_EQ(regs->rip, 0x1000u);
  EXPECT_EQ(regs->rflags, 0x3f7fd7u);
  EXPECT_EQ(regs->cs.attributes, 0xc9b);
  EXPECT_EQ(regs->ss.attributes, 0xc93);
  EXPECT_EQ(regs->tr.attributes, 0x8b);
  EXPECT_TRUE(regs->cs.is_in_pages());
  EXPECT_TRUE(regs->cs.is_default_big());
  EXPECT_FALSE(regs->cs.is_64_bit());
  EXPECT_FALSE(regs->cs.is_available());
}

TEST(VcpuRegistersTest, A64BitStartHasFlatSegmentsAndLongModeActive) {
  const auto regs = initial_registers(long_64());
  ASSERT_TRUE(regs);
  EXPECT_EQ(regs->efer, 0x500u);
  EXPECT_TRUE(regs->cs.is_64_bit());
  EXPECT_EQ(regs->cs.attributes, 0xa9b);
  EXPECT_EQ(regs->ds.attributes, 0xc93);
  EXPECT_EQ(regs->tr.limit, 0x67u);
}

TEST(VcpuRegistersTest, LongModeIsActiveOnlyWithPaging) {
  Context context = flat_32();
  context.x86_32.efer = 0x500;
  EXPECT_EQ(initial_registers(context)->efer, 0x100u);
  context.x86_32.cr0 |= 1u << 31;
  EXPECT_EQ(initial_registers(context)->efer, 0x500u);
}

TEST(VcpuRegistersTest, WhatXenRefusesOfA64BitStart) {
  const auto with = [](const std::function<void(Context&)>& change) {
    return is_valid_with(long_64(), change);
  };
  EXPECT_TRUE(with([](Context& c) { c.x86_64.rip = 0x00007fffffffffff; }));
  EXPECT_FALSE(with([](Context& c) { c.x86_64.rip = 0x0000800000000000; }));
  EXPECT_FALSE(with([](Context& c) { c.x86_64.rip = 0xffff7fffffffffff; }));
  EXPECT_FALSE(with([](Context& c) { c.x86_64.cr0 = 1; }));
  EXPECT_FALSE(with([](Context& c) { c.x86_64.cr4 = 0; }));
  EXPECT_FALSE(with([](Context& c) { c.x86_64.efer = 0; }));
  EXPECT_FALSE(with([](Context& c) { c.pad = 1; }));
  EXPECT_FALSE(with([](Context& c) { c.mode = 2; }));
}

TEST(VcpuRegistersTest, WhatXenRefusesOfA32BitStart) {
  const auto with = [](const std::function<void(xen_abi::VcpuHvmX86_32&)>& change) {
    return is_valid_with(flat_32(), [&](Context& context) { change(context.x86_32); });
  };
  using Regs = xen_abi::VcpuHvmX86_32;
  EXPECT_FALSE(with([](Regs& r) { r.pad1 = 1; }));
  EXPECT_FALSE(with([](Regs& r) { r.pad2[2] = 1; }));
  EXPECT_FALSE(with([](Regs& r) { r.cs_ar |= 0x1000; }));  // beyond the attributes
  EXPECT_FALSE(with([](Regs& r) { r.cs_ar = 0; }));
  EXPECT_FALSE(with([](Regs& r) { r.ss_ar = 0; }));
  EXPECT_FALSE(with([](Regs& r) { r.tr_ar = 0; }));
  EXPECT_TRUE(with([](Regs& r) { r.ds_ar = 0; }));
  EXPECT_TRUE(with([](Regs& r) { r.es_ar = 0; }));
  EXPECT_FALSE(with([](Regs& r) { r.cs_ar = 0xc92; }));                    // data
  EXPECT_FALSE(with([](Regs& r) { r.ss_ar = 0xc9a; }));                    // code
  EXPECT_FALSE(with([](Regs& r) { r.ss_ar = 0xc90; }));                    // not writable
  EXPECT_FALSE(with([](Regs& r) { r.ds_ar = 0xc98; }));                    // code, not readable
  EXPECT_TRUE(with([](Regs& r) { r.ds_ar = 0xc9a; }));                     // code, readable
  EXPECT_FALSE(with([](Regs& r) { r.ds_ar = 0xc12; }));                    // not present
  EXPECT_FALSE(with([](Regs& r) { r.es_ar = 0xc82; }));                    // a system segment
  EXPECT_FALSE(with([](Regs& r) { r.tr_ar = 0x99; }));                     // not one
  EXPECT_FALSE(with([](Regs& r) { r.tr_ar = 0x81; }));                     // a 16-bit TSS
  EXPECT_FALSE(with([](Regs& r) { r.tr_ar = 0x09; }));                     // not present
  EXPECT_FALSE(with([](Regs& r) { r.cs_ar = 0x49a, r.eip = 0x100000; }));  // 1 MiB in bytes …
  EXPECT_TRUE(with([](Regs& r) { r.cs_ar = 0x49a, r.cs_limit = 0x1000; }));
  EXPECT_FALSE(with([](Regs& r) { r.cs_ar = 0x49a, r.cs_limit = 0xfff; }));  // … below EIP
  EXPECT_FALSE(with([](Regs& r) { r.ss_ar |= 0x60; }));                      // another ring than CS
  EXPECT_FALSE(with([](Regs& r) { r.ds_ar |= 0x60; }));                      // an outer ring
  EXPECT_FALSE(with([](Regs& r) { r.es_ar |= 0x20; }));
  EXPECT_FALSE(with([](Regs& r) { r.efer = 1 << 10; }));
}

}  // namespace
}  // namespace xen_hcall
