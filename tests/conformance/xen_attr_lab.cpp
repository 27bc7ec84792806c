// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// All six KVM_XEN ioctls and every typed attribute, on a real kernel: what is set is what is read.
#include <sys/eventfd.h>

#include "micro_vm.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/shared_info.hpp"

namespace conformance {
namespace {

using namespace kvm_ioctls;

struct XenAttr : testing::Test {
  MicroVm vm{2};
  Vcpu& vcpu = vm.vcpus[0];
  bool has(int flag) { return (must(vm.kvm.check_extension(KVM_CAP_XEN_HVM)) & flag) != 0; }
};

TEST_F(XenAttr, VmAttributesReadBackAsSet) {
  EXPECT_TRUE(must(vm.vm.xen_hvm_get_attr<XenLongMode>()).enabled);
  EXPECT_EQ(must(vm.vm.xen_hvm_get_attr<XenSharedInfo>()).gfn, 0xau);
  must(vm.vm.xen_hvm_set_attr(XenUpcallVector{0x31}));
  EXPECT_EQ(must(vm.vm.xen_hvm_get_attr<XenUpcallVector>()).vector, 0x31);
  must(vm.vm.xen_hvm_set_attr(XenVersion{4u << 16 | 17}));
  EXPECT_EQ(must(vm.vm.xen_hvm_get_attr<XenVersion>()).version, 4u << 16 | 17);
  must(vm.vm.xen_hvm_set_attr(XenSharedInfo{}));
  EXPECT_EQ(must(vm.vm.xen_hvm_get_attr<XenSharedInfo>()).gfn, xen_invalid_gpa);
}

TEST_F(XenAttr, NewerVmAttributesReadBackWhereTheKernelHasThem) {
  ASSERT_TRUE(has(KVM_XEN_HVM_CONFIG_RUNSTATE_UPDATE_FLAG));
  must(vm.vm.xen_hvm_set_attr(XenRunstateUpdateFlag{true}));
  EXPECT_TRUE(must(vm.vm.xen_hvm_get_attr<XenRunstateUpdateFlag>()).enabled);
  ASSERT_TRUE(has(KVM_XEN_HVM_CONFIG_SHARED_INFO_HVA));
  void* page = vm.memory.host(MicroVm::shared_info, 4096);
  must(vm.vm.xen_hvm_set_attr(XenSharedInfoHva{page}));
  EXPECT_EQ(must(vm.vm.xen_hvm_get_attr<XenSharedInfoHva>()).page, page);
  void* info = vm.memory.host(MicroVm::vcpu_info, 64);
  must(vcpu.xen_vcpu_set_attr(XenVcpuInfoHva{info}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuInfoHva>()).info, info);
}

TEST_F(XenAttr, BadVmAttributesAreRefusedByName) {
  EXPECT_EQ(vm.vm.xen_hvm_set_attr(XenUpcallVector{0x0f}).error(),
            (vmm_base::Error{"KVM_XEN_HVM_SET_ATTR", EINVAL, KVM_XEN_ATTR_TYPE_UPCALL_VECTOR}));
}

TEST_F(XenAttr, VcpuAttributesReadBackAsSet) {
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuInfo>()).gpa, MicroVm::vcpu_info);
  must(vcpu.xen_vcpu_set_attr(XenVcpuTimeInfo{Gpa{0xc000}}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuTimeInfo>()).gpa, Gpa{0xc000});
  must(vcpu.xen_vcpu_set_attr(XenVcpuUpcallVector{0x44}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuUpcallVector>()).vector, 0x44);
  must(vcpu.xen_vcpu_set_attr(XenVcpuIdAttr{vmm_base::XenVcpuId{1}}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenVcpuIdAttr>()).id, vmm_base::XenVcpuId{1});
  must(vcpu.xen_vcpu_set_attr(XenTimer{.port = 9, .expires_ns = 3'600'000'000'000}));
  const auto timer = must(vcpu.xen_vcpu_get_attr<XenTimer>());
  EXPECT_EQ(timer.port, 9u);
  EXPECT_EQ(timer.expires_ns, 3'600'000'000'000u);
}

TEST_F(XenAttr, RunstateWhereTheKernelHasIt) {
  if (!has(KVM_XEN_HVM_CONFIG_RUNSTATE)) {
    // A kernel without scheduler statistics says so.
    EXPECT_EQ(vcpu.xen_vcpu_get_attr<XenRunstateData>().error().code, EOPNOTSUPP);
    return;
  }
  must(vcpu.xen_vcpu_set_attr(XenRunstateArea{Gpa{0xd000}}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenRunstateArea>()).gpa, Gpa{0xd000});
  must(vcpu.xen_vcpu_set_attr(XenRunstateCurrent{2}));
  EXPECT_EQ(must(vcpu.xen_vcpu_get_attr<XenRunstateCurrent>()).state, 2u);
  must(vcpu.xen_vcpu_set_attr(XenRunstateAdjust{
      .state = ~std::uint64_t{0}, .state_entry_time = 0x5a, .time_offline = 0x5a}));
  EXPECT_GE(must(vcpu.xen_vcpu_get_attr<XenRunstateData>()).time_offline, 0x5au);
}

TEST_F(XenAttr, EvtchnSendRaisesThePortInSharedInfo) {
  must(vm.vm.xen_hvm_evtchn_send(70, vcpu.id()));
  const auto* shared = reinterpret_cast<xen_abi::SharedInfo<std::uint64_t>*>(
      vm.memory.host(MicroVm::shared_info, 4096));
  EXPECT_EQ(shared->evtchn_pending[1], std::uint64_t{1} << 6);
  EXPECT_EQ(vm.vm.xen_hvm_evtchn_send(0, vcpu.id()).error(),
            (vmm_base::Error{"KVM_XEN_HVM_EVTCHN_SEND", EINVAL, 0}));
}

TEST_F(XenAttr, EvtchnBindsAPortToAnEventfd) {
  const vmm_base::UniqueFd event(::eventfd(0, EFD_NONBLOCK));
  must(vm.vm.xen_hvm_set_attr(XenEvtchn{.send_port = 5, .kind = 2, .eventfd = event.get()}));
  EXPECT_EQ(vm.vm.xen_hvm_set_attr(XenEvtchn{.send_port = 5, .kind = 2, .eventfd = event.get()})
                .error()
                .code,
            EEXIST);
  const std::uint32_t port = 5;
  must(vm.memory.write(MicroVm::argument, std::as_bytes(std::span(&port, 1))));
  const Outcome sent =
      vm.call(0, true, {32, {xen_abi::evtchnop::send, MicroVm::argument.value, 0}});
  EXPECT_FALSE(sent.punted);
  EXPECT_EQ(sent.result, 0);
  eventfd_t count = 0;
  EXPECT_EQ(::eventfd_read(event.get(), &count), 0);
  EXPECT_EQ(count, 1u);
}

}  // namespace
}  // namespace conformance
