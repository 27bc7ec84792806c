// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Our event channels on a real kernel: what it has been told to send, it sends without asking us,
// to the vCPU that the port is bound to now.
#include <cstring>

#include "host.hpp"
#include "micro_vm.hpp"
#include "xen_abi/shared_info.hpp"
#include "xen_evtchn/channels.hpp"
#include "xen_hcall/event_channel_op.hpp"
#include "xen_platform.hpp"

namespace conformance {
namespace {

namespace op = xen_abi::evtchnop;
using vmm_reference::XenPlatform;
using xen_abi::GuestResult;

struct EventChannels : testing::Test {
  vmm_reference::Host host = std::get<vmm_reference::Host>(vmm_reference::Host::open("/dev/kvm"));
  MicroVm vm{2};
  vmm_reference::IrqRoutes routes{vm.vm};
  HostErrors errors;
  XenPlatform platform{host, vm.vm, routes, vm.memory, vm.vcpus, errors};
  xen_evtchn::Channels channels{xen_abi::event_ports_64, 2};
  xen_hcall::EventChannelOp<XenPlatform> events{platform, channels};

  EventChannels() {
    for (std::uint32_t vcpu = 0; vcpu < 2; ++vcpu) platform.enter_hypercall({vcpu}, true);
    must(platform.map_shared_info(MicroVm::shared_info.value >> vmm_base::page_shift));
    // So that its virtual addresses can be looked up.
    must(vmm_reference::enter_long_mode(vm.vcpus[0], {}));
  }

  template <class Argument>
  void put(const Argument& argument) {
    must(vm.memory.write(MicroVm::argument, std::as_bytes(std::span(&argument, 1))));
  }
  // vCPU 0 has made this call, and it came to us.
  template <class Argument>
  Argument served(std::uint32_t sub, Argument argument) {
    put(argument);
    const auto answer = events.handle({0}, {32, {sub, MicroVm::argument.value}, true, 0});
    EXPECT_EQ(answer->guest, GuestResult::ok());
    EXPECT_TRUE(answer->host) << answer->host.error().message();
    must(vm.memory.read(MicroVm::argument, std::as_writable_bytes(std::span(&argument, 1))));
    return argument;
  }
  Outcome send(std::uint32_t port) {
    put(xen_abi::EvtchnSend{port});
    return vm.call(0, true, {32, {op::send, MicroVm::argument.value, 0}});
  }
  bool sent_by_kernel(std::uint32_t port) {
    const Outcome sent = send(port);
    return !sent.punted && sent.result == 0;
  }
  xen_abi::SharedInfo<std::uint64_t>& shared() {
    return *reinterpret_cast<xen_abi::SharedInfo<std::uint64_t>*>(
        vm.memory.host(MicroVm::shared_info, vmm_base::page_size));
  }
  // Whether the event is there, and its vCPU knows; takes it.
  bool arrived(std::uint32_t port, std::uint32_t vcpu) {
    xen_abi::VcpuInfo<std::uint64_t>& info = shared().vcpu_info[vcpu];
    const bool is_there =
        shared().evtchn_pending[0] == std::uint64_t{1} << port && info.pending_sel == 1;
    shared().evtchn_pending[0] = 0;
    info.pending_sel = 0;
    info.upcall_pending = 0;
    return is_there;
  }
};

TEST_F(EventChannels, TheKernelSendsIpis) {
  const std::uint32_t port = served(op::bind_ipi, xen_abi::EvtchnBindIpi{1, 0}).port;
  EXPECT_TRUE(sent_by_kernel(port));
  EXPECT_TRUE(arrived(port, 1));
  served(op::close, xen_abi::EvtchnClose{port});
  EXPECT_TRUE(send(port).punted);
  // The number is given away again, to another vCPU.
  EXPECT_EQ(served(op::bind_ipi, xen_abi::EvtchnBindIpi{0, 0}).port, port);
  EXPECT_TRUE(sent_by_kernel(port));
  EXPECT_TRUE(arrived(port, 0));
}

TEST_F(EventChannels, TheKernelSendsOnLoopbackChannelsAndFollowsThemToAnotherVcpu) {
  const std::uint32_t one =
      served(op::alloc_unbound,
             xen_abi::EvtchnAllocUnbound{xen_abi::domid_self, xen_abi::domid_self, 0})
          .port;
  const std::uint32_t other =
      served(op::bind_interdomain, xen_abi::EvtchnBindInterdomain{xen_abi::domid_self, one, 0})
          .local_port;
  EXPECT_TRUE(arrived(other, 0));  // for what may have been sent before
  EXPECT_TRUE(sent_by_kernel(other));
  EXPECT_TRUE(arrived(one, 0));
  EXPECT_TRUE(sent_by_kernel(one));
  EXPECT_TRUE(arrived(other, 0));
  served(op::bind_vcpu, xen_abi::EvtchnBindVcpu{one, 1});
  EXPECT_TRUE(sent_by_kernel(other));
  EXPECT_TRUE(arrived(one, 1));
  served(op::close, xen_abi::EvtchnClose{one});
  EXPECT_TRUE(send(other).punted);
  EXPECT_TRUE(send(one).punted);
}

TEST_F(EventChannels, UnmaskingRaisesWhatHadBeenPendingOnItsVcpu) {
  const std::uint32_t port = served(op::bind_ipi, xen_abi::EvtchnBindIpi{1, 0}).port;
  shared().evtchn_mask[0] = ~std::uint64_t{0};
  EXPECT_TRUE(sent_by_kernel(port));
  EXPECT_EQ(shared().evtchn_pending[0], std::uint64_t{1} << port);
  served(op::unmask, xen_abi::EvtchnUnmask{port});
  EXPECT_EQ(shared().evtchn_mask[0], ~(std::uint64_t{1} << port));
  EXPECT_TRUE(arrived(port, 1));
  served(op::unmask, xen_abi::EvtchnUnmask{port});
  EXPECT_FALSE(arrived(port, 1));
}

}  // namespace
}  // namespace conformance
