// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_hcall/vcpu_op.hpp"

#include "double_vmm.hpp"

namespace xen_hcall {
namespace {

namespace op = xen_abi::vcpuop;

struct Vcpu : Fixture {
  Shutdown<DoubleVmm> shutdown{vmm};
  VcpuOp<DoubleVmm> vcpus{vmm, 2, shutdown};

  // vCPU 0 calls.
  GuestResult call(std::uint32_t sub, std::uint64_t target, std::uint64_t gva = base,
                   bool long_mode = true) {
    return ask(vcpus, Hypercall{24, {sub, target, gva}, long_mode, 0});
  }
  GuestResult info(std::uint64_t target, std::uint64_t mfn, std::uint32_t offset,
                   bool long_mode = true) {
    put(xen_abi::RegisterVcpuInfo{mfn, offset, 0});
    return call(op::register_vcpu_info, target, base, long_mode);
  }
  GuestResult area(std::uint32_t sub, std::uint64_t target, std::uint64_t address,
                   bool long_mode = true) {
    put(xen_abi::RegisterArea{address});
    return call(sub, target, base, long_mode);
  }
};

TEST_F(Vcpu, NoSuchVcpuComesBeforeTheSubOpAndItsUpperHalfIsIgnored) {
  EXPECT_EQ(call(op::is_up, 2), GuestResult(Errno::noent));
  EXPECT_EQ(call(99, 2), GuestResult(Errno::noent));
  EXPECT_EQ(call(99, 1), GuestResult(Errno::nosys));
  EXPECT_EQ(call(op::is_up, 0xffff'ffff'0000'0000), GuestResult::ok(1));
  EXPECT_FALSE(vcpus.handle({0}, Hypercall{25, {3}}));
}

TEST_F(Vcpu, VcpuInfoOfAnyVcpuOnceInXensOrderOfErrors) {
  EXPECT_EQ(call(op::register_vcpu_info, 1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(info(1, 1, 4096), GuestResult(Errno::inval));
  EXPECT_EQ(info(1, ~0ull, 0), GuestResult(Errno::inval));
  EXPECT_EQ(info(1, 1, 4096 - 56), GuestResult(Errno::nxio));
  EXPECT_EQ(info(1, 1, 4), GuestResult(Errno::nxio));
  vmm.failure = EFAULT;
  EXPECT_EQ(info(1, 1, 0x40), GuestResult(Errno::inval));
  vmm.failure = 0;
  (void)said();
  EXPECT_EQ(info(1, 1, 0x40), GuestResult::ok());
  EXPECT_EQ(info(0, 1, 4096 - 64), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"vcpu_info 1 4160", "vcpu_info 0 8128"}));
  EXPECT_EQ(info(1, 2, 0x40), GuestResult(Errno::busy));
  EXPECT_EQ(info(1, 2, 4), GuestResult(Errno::busy));
  EXPECT_EQ(info(1, 2, 4096), GuestResult(Errno::inval));
  vcpus.reset();
  EXPECT_EQ(info(1, 2, 0x40), GuestResult::ok());
  EXPECT_EQ(info(0, 2, 0x80), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"vcpu_info 1 8256", "vcpu_info 0 8320"}));
  EXPECT_EQ(info(1, 2, 0x40), GuestResult(Errno::busy));
}

TEST_F(Vcpu, A32BitCallerAlignsVcpuInfoTo4) {
  EXPECT_EQ(info(1, 1, 2, false), GuestResult(Errno::nxio));
  EXPECT_EQ(info(1, 1, 4, false), GuestResult::ok());
}

TEST_F(Vcpu, MemoryAreasLieWhereTheCallerSeesThem) {
  EXPECT_EQ(call(op::register_runstate_memory_area, 1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(call(op::register_vcpu_time_memory_area, 1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(area(op::register_runstate_memory_area, 1, base + 0x101), GuestResult::ok());
  EXPECT_EQ(area(op::register_vcpu_time_memory_area, 1, base + 0x200), GuestResult::ok());
  EXPECT_EQ(area(op::register_runstate_memory_area, 0, 0), GuestResult::ok());
  EXPECT_EQ(area(op::register_vcpu_time_memory_area, 0, 0), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"runstate 1 65793", "time 1 66048", "runstate off 0", "time off 0"}));
  EXPECT_EQ(area(op::register_runstate_memory_area, 1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(area(op::register_vcpu_time_memory_area, 1, unmapped), GuestResult(Errno::fault));
  vmm.failure = EINVAL;
  EXPECT_EQ(area(op::register_runstate_memory_area, 1, base), GuestResult(Errno::inval));
}

TEST_F(Vcpu, A32BitCallersMemoryAreaIs4BytesAndShorter) {
  const std::uint64_t garbage = 0xffff'ffff'0000'0000;
  EXPECT_EQ(area(op::register_runstate_memory_area, 1, garbage | (base + memory_size - 44), false),
            GuestResult::ok());
  EXPECT_EQ(area(op::register_runstate_memory_area, 1, base + memory_size - 47),
            GuestResult(Errno::fault));
  EXPECT_EQ(area(op::register_runstate_memory_area, 1, base + memory_size - 48), GuestResult::ok());
}

TEST_F(Vcpu, PhysAreasStayInOnePageAndAreAligned) {
  for (const auto sub : {op::register_runstate_phys_area, op::register_vcpu_time_phys_area}) {
    EXPECT_EQ(call(sub, 1, unmapped), GuestResult(Errno::fault));
    EXPECT_EQ(area(sub, 1, 0x1000 - 24), GuestResult(Errno::nxio));
    EXPECT_EQ(area(sub, 1, 0x1004), GuestResult(Errno::nxio));
    EXPECT_EQ(area(sub, 1, 0x1004, false), GuestResult::ok());
    EXPECT_EQ(area(sub, 1, xen_abi::no_phys_area), GuestResult::ok());
    vmm.failure = EINVAL;
    EXPECT_EQ(area(sub, 1, 0x1008), GuestResult(Errno::inval));
    vmm.failure = 0;
  }
  EXPECT_EQ(area(op::register_runstate_phys_area, 1, 0x2000 - 44, false), GuestResult::ok());
  EXPECT_EQ(area(op::register_runstate_phys_area, 1, 0x2000 - 40, false), GuestResult(Errno::nxio));
  EXPECT_EQ(area(op::register_vcpu_time_phys_area, 1, 0x2000 - 32), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"update flag 1", "runstate 1 4100", "runstate off 1", "update flag 1",
                           "time 1 4100", "time off 1", "time 1 4104", "update flag 1",
                           "runstate 1 8148", "time 1 8160"}));
}

TEST_F(Vcpu, RunstateInfoInBothWidths) {
  EXPECT_EQ(call(op::get_runstate_info, 1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(call(op::get_runstate_info, 1), GuestResult::ok());
  EXPECT_EQ(get<std::int32_t>(), 2);
  EXPECT_EQ(get<std::uint32_t>(base + 4), 0u);
  EXPECT_EQ(get<std::uint64_t>(base + 8), 100u);
  EXPECT_EQ(get<std::uint64_t>(base + 40), 94u);
  EXPECT_EQ(call(op::get_runstate_info, 1, base + 0x100, false), GuestResult::ok());
  EXPECT_EQ(get<std::uint64_t>(base + 0x104), 100u);
  EXPECT_EQ(get<std::uint64_t>(base + 0x124), 94u);
  EXPECT_EQ(get<std::uint64_t>(base + 0x12c), 0u);
  vmm.failure = EOPNOTSUPP;
  EXPECT_EQ(call(op::get_runstate_info, 1), GuestResult(Errno::inval));
}

TEST_F(Vcpu, InitialiseOnceThenUpAndDown) {
  EXPECT_EQ(call(op::initialise, 1, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(call(op::up, 1), GuestResult(Errno::inval));
  xen_abi::VcpuHvmContext context{.mode = 9, .pad = 0, .x86_64 = {}};
  put(context);
  EXPECT_EQ(call(op::initialise, 0), GuestResult(Errno::exist));  // it runs
  EXPECT_EQ(call(op::initialise, 1), GuestResult(Errno::inval));
  context.mode = xen_abi::VcpuHvmContext::mode_64;
  context.x86_64.rip = 0x1234;
  context.x86_64.cr0 = 1u << 31;
  context.x86_64.cr4 = 1 << 5;
  context.x86_64.efer = 1 << 8;
  put(context);
  EXPECT_EQ(call(op::initialise, 1, base, false), GuestResult::ok());
  EXPECT_EQ(call(op::initialise, 1), GuestResult(Errno::exist));
  EXPECT_EQ(call(op::is_up, 1), GuestResult::ok(0));
  EXPECT_EQ(call(op::up, 1), GuestResult::ok());
  EXPECT_EQ(call(op::up, 1), GuestResult::ok());
  EXPECT_EQ(call(op::is_up, 1), GuestResult::ok(1));
  EXPECT_EQ(call(op::down, 0), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"initialise 1 4660", "up 1", "up 1", "down 0"}));
  EXPECT_EQ(call(op::down, 0), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"down 0"});
  EXPECT_EQ(call(op::down, 1), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"shutdown 0"});
}

TEST_F(Vcpu, WhatTheVmmCantStartOrStop) {
  vmm.failure = EINVAL;
  put(xen_abi::VcpuHvmContext{});
  for (const auto sub : {op::initialise, op::up, op::down, op::is_up}) {
    EXPECT_EQ(call(sub, 1), GuestResult(Errno::inval));
  }
  EXPECT_EQ(said(), Lines{});
}

TEST_F(Vcpu, ThereMayBeARunstatePhysAreaOnlyIfItCanBeMarked) {
  vmm.failure = EINVAL;
  EXPECT_EQ(area(op::register_runstate_phys_area, 1, 0x1000), GuestResult(Errno::inval));
  EXPECT_EQ(said(), Lines{"update flag 1"});
}

TEST_F(Vcpu, IsUpAndNmiAndPhysid) {
  EXPECT_EQ(call(op::is_up, 0), GuestResult::ok(1));
  EXPECT_EQ(call(op::is_up, 1), GuestResult::ok(0));
  EXPECT_EQ(call(op::send_nmi, 1, base), GuestResult(Errno::inval));
  EXPECT_EQ(call(op::send_nmi, 1, 0), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"nmi 1"});
  EXPECT_EQ(call(op::get_physid, 1, unmapped), GuestResult(Errno::inval));
  vmm.failure = EIO;
  EXPECT_EQ(call(op::is_up, 0), GuestResult(Errno::inval));
  EXPECT_EQ(call(op::send_nmi, 1, 0), GuestResult(Errno::inval));
}

}  // namespace
}  // namespace xen_hcall
