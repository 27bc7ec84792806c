// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_hcall/hvm_op.hpp"

#include "double_vmm.hpp"

namespace xen_hcall {
namespace {

namespace op = xen_abi::hvmop;
namespace param = xen_abi::hvm_param;
using xen_abi::domid_self;

struct Hvm : Fixture {
  HvmOp<DoubleVmm> hvm{vmm, 2, 7};

  GuestResult call(std::uint64_t sub, std::uint64_t gva = base) {
    return ask(hvm, Hypercall{34, {sub, gva}});
  }
  GuestResult set(std::uint32_t index, std::uint64_t value, xen_abi::DomainId domid = domid_self) {
    put(xen_abi::HvmParam{domid, 0, index, value});
    return call(op::set_param);
  }
  GuestResult look(std::uint32_t index, xen_abi::DomainId domid = domid_self) {
    put(xen_abi::HvmParam{domid, 0, index, 0xdead});
    return call(op::get_param);
  }
  std::uint64_t value() { return get<xen_abi::HvmParam>().value; }
};

TEST_F(Hvm, TheVmmsParametersCanBeReadAndNotSet) {
  hvm.set_param(param::store_pfn, 0xfeff0);
  hvm.set_param(param::store_evtchn, 1);
  EXPECT_EQ(look(param::store_pfn), GuestResult::ok());
  EXPECT_EQ(value(), 0xfeff0u);
  EXPECT_EQ(look(param::console_pfn, 7), GuestResult::ok());
  EXPECT_EQ(value(), 0u);
  EXPECT_EQ(set(param::store_pfn, 1), GuestResult(Errno::perm));
  EXPECT_EQ(set(param::console_pfn, 1), GuestResult(Errno::perm));
  EXPECT_EQ(set(param::store_evtchn, 5), GuestResult::ok());
  EXPECT_EQ(hvm.param(param::store_evtchn), 5u);
  hvm.reset();  // of what a guest may set
  EXPECT_EQ(hvm.param(param::store_evtchn), 0u);
  EXPECT_EQ(hvm.param(param::store_pfn), 0xfeff0u);
}

TEST_F(Hvm, ParameterErrorsInXensOrder) {
  for (const auto sub : {op::set_param, op::get_param}) {
    EXPECT_EQ(call(sub, unmapped), GuestResult(Errno::fault));
    put(xen_abi::HvmParam{5, 0, param::count, 0});
    EXPECT_EQ(call(sub), GuestResult(Errno::inval));
    put(xen_abi::HvmParam{5, 0, param::store_pfn, 0});
    EXPECT_EQ(call(sub), GuestResult(Errno::srch));
    for (const std::uint32_t index :
         {4u, 13u, 20u, 21u, 22u, 23u, 24u, 25u, 26u, 30u}) {  // deprecated
      put(xen_abi::HvmParam{domid_self, 0, index, 0});
      EXPECT_EQ(call(sub), GuestResult(Errno::inval)) << index;
    }
    for (const std::uint32_t index :
         {3u, 5u, 6u, 9u, 10u, 12u, 14u, 27u, 32u, 38u}) {  // the toolstack's
      put(xen_abi::HvmParam{domid_self, 0, index, 0});
      EXPECT_EQ(call(sub), GuestResult(Errno::perm)) << index;
    }
  }
  EXPECT_EQ(set(param::altp2m, 1), GuestResult(Errno::exist));
  EXPECT_EQ(look(param::altp2m), GuestResult::ok());
  vmm.read_only_from = base;
  EXPECT_EQ(look(param::store_pfn), GuestResult(Errno::fault));
}

TEST_F(Hvm, CallbackIrqIsDecodedForTheVmm) {
  EXPECT_EQ(set(param::callback_irq, std::uint64_t{2} << 56 | 0xf3), GuestResult::ok());
  EXPECT_EQ(set(param::callback_irq, std::uint64_t{1} << 56 | 3 << 11 | 2), GuestResult::ok());
  EXPECT_EQ(set(param::callback_irq, 28), GuestResult::ok());
  EXPECT_EQ(set(param::callback_irq, 0), GuestResult::ok());
  EXPECT_EQ(set(param::callback_irq, std::uint64_t{9} << 56 | 1), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"callback 3 243 0", "callback 2 2 3", "callback 1 28 0",
                           "callback 0 0 0", "callback 0 0 0"}));
  vmm.failure = ENOTSUP;
  EXPECT_EQ(set(param::callback_irq, 5), GuestResult(Errno::inval));
  EXPECT_EQ(hvm.param(param::callback_irq), std::uint64_t{9} << 56 | 1);
}

TEST_F(Hvm, ParametersThatMustMakeSense) {
  EXPECT_EQ(set(param::x87_fip_width, 5), GuestResult(Errno::inval));
  EXPECT_EQ(set(param::x87_fip_width, 8), GuestResult::ok());
  EXPECT_EQ(set(param::vm86_tss, std::uint64_t{1} << 32), GuestResult(Errno::inval));
  EXPECT_EQ(set(param::vm86_tss, 0x1000), GuestResult::ok());
  EXPECT_EQ(look(param::vm86_tss_sized), GuestResult::ok());
  EXPECT_EQ(value(), std::uint64_t{128} << 32 | 0x1000);
  EXPECT_EQ(set(param::vm86_tss_sized, std::uint64_t{103} << 32 | 0x2000),
            GuestResult(Errno::inval));
  EXPECT_EQ(set(param::vm86_tss_sized, std::uint64_t{0x10000} << 32 | 0x2000), GuestResult::ok());
  EXPECT_EQ(look(param::vm86_tss_sized), GuestResult::ok());
  EXPECT_EQ(value(), std::uint64_t{104 + 32 + 8192 + 1} << 32 | 0x2000);
  EXPECT_EQ(look(param::vm86_tss), GuestResult::ok());
  EXPECT_EQ(value(), 0x2000u);
}

TEST_F(Hvm, TheUpcallVectorOfAnyVcpu) {
  EXPECT_EQ(call(op::set_evtchn_upcall_vector, unmapped), GuestResult(Errno::fault));
  put(xen_abi::EvtchnUpcallVector{2, 0x0f});
  EXPECT_EQ(call(op::set_evtchn_upcall_vector), GuestResult(Errno::inval));
  put(xen_abi::EvtchnUpcallVector{2, 0x10});
  EXPECT_EQ(call(op::set_evtchn_upcall_vector), GuestResult(Errno::noent));
  put(xen_abi::EvtchnUpcallVector{1, 0xf3});
  EXPECT_EQ(call(op::set_evtchn_upcall_vector), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"vector 1 243"});
  vmm.failure = EINVAL;
  EXPECT_EQ(call(op::set_evtchn_upcall_vector), GuestResult(Errno::inval));
}

TEST_F(Hvm, PagetableDyingIsForShadowPagingAlone) {
  EXPECT_EQ(call(op::pagetable_dying, unmapped), GuestResult(Errno::fault));
  put(xen_abi::HvmPagetableDying{5, {}, 0});
  EXPECT_EQ(call(op::pagetable_dying), GuestResult(Errno::srch));
  put(xen_abi::HvmPagetableDying{domid_self, {}, 0});
  EXPECT_EQ(call(op::pagetable_dying), GuestResult(Errno::inval));
}

TEST_F(Hvm, MemoryIsRamOrADevices) {
  EXPECT_EQ(call(op::get_mem_type, unmapped), GuestResult(Errno::fault));
  put(xen_abi::HvmGetMemType{5, 9, {}, 99});
  EXPECT_EQ(call(op::get_mem_type), GuestResult(Errno::srch));
  put(xen_abi::HvmGetMemType{domid_self, 9, {}, 99});
  EXPECT_EQ(call(op::get_mem_type), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::HvmGetMemType>().mem_type, xen_abi::hvmmem_ram_rw);
  put(xen_abi::HvmGetMemType{domid_self, 9, {}, 100});
  EXPECT_EQ(call(op::get_mem_type), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::HvmGetMemType>().mem_type, xen_abi::hvmmem_mmio_dm);
}

TEST_F(Hvm, UnknownIsntMine) {
  EXPECT_EQ(call(op::xentrace), GuestResult(Errno::nosys));
  EXPECT_EQ(call(0x1'0000'0001), GuestResult(Errno::nosys));  // an unsigned long, not cut
}

}  // namespace
}  // namespace xen_hcall
