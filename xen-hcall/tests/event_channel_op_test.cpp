// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_hcall/event_channel_op.hpp"

#include "double_vmm.hpp"

namespace xen_hcall {
namespace {

namespace op = xen_abi::evtchnop;
using xen_abi::domid_self;

struct Events : Fixture {
  xen_evtchn::Channels channels{8, 2, 7};
  EventChannelOp<DoubleVmm> events{vmm, channels};

  GuestResult call(std::uint32_t sub, std::uint64_t gva = base) {
    return ask(events, Hypercall{32, {sub, gva}});
  }
  template <class T>
  GuestResult call(std::uint32_t sub, const T& argument) {
    put(argument);
    return call(sub);
  }
  GuestResult virq(std::uint32_t virq, std::uint32_t vcpu) {
    return call(op::bind_virq, xen_abi::EvtchnBindVirq{virq, vcpu, 99});
  }
  GuestResult ipi(std::uint32_t vcpu) {
    return call(op::bind_ipi, xen_abi::EvtchnBindIpi{vcpu, 99});
  }
  GuestResult unbound(xen_abi::DomainId remote) {
    return call(op::alloc_unbound, xen_abi::EvtchnAllocUnbound{domid_self, remote, 99});
  }
  GuestResult connect(std::uint32_t remote_port) {
    return call(op::bind_interdomain, xen_abi::EvtchnBindInterdomain{domid_self, remote_port, 99});
  }
  GuestResult close(std::uint32_t port) { return call(op::close, xen_abi::EvtchnClose{port}); }
  GuestResult move(std::uint32_t port, std::uint32_t vcpu) {
    return call(op::bind_vcpu, xen_abi::EvtchnBindVcpu{port, vcpu});
  }
  GuestResult send(std::uint32_t port) { return call(op::send, xen_abi::EvtchnSend{port}); }
};

TEST_F(Events, AnUnreadableArgumentIsEfaultFirst) {
  for (const auto sub :
       {op::alloc_unbound, op::bind_interdomain, op::bind_virq, op::bind_ipi, op::bind_pirq,
        op::close, op::send, op::status, op::bind_vcpu, op::unmask, op::reset, op::set_priority}) {
    EXPECT_EQ(call(sub, unmapped), GuestResult(Errno::fault)) << sub;
  }
  EXPECT_EQ(said(), Lines{});
}

TEST_F(Events, BindVirqOfAnyVcpuTellsTheGuestAndTheVmmAndCloseUndoesIt) {
  EXPECT_EQ(virq(0, 1), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::EvtchnBindVirq>().port, 1u);
  EXPECT_EQ(said(), Lines{"virq 1 0 1"});
  EXPECT_EQ(virq(0, 1), GuestResult(Errno::exist));
  EXPECT_EQ(virq(0, 0), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"virq 0 0 2"});
  EXPECT_EQ(close(1), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"virq 1 0 0", "clear 1"}));
  EXPECT_EQ(close(1), GuestResult(Errno::inval));
  EXPECT_EQ(virq(24, 5), GuestResult(Errno::inval));
  EXPECT_EQ(virq(0, 2), GuestResult(Errno::noent));
  EXPECT_EQ(virq(2, 0), GuestResult(Errno::busy));
}

TEST_F(Events, AFailedBindLeavesNoPortBehind) {
  vmm.failure = EINVAL;
  EXPECT_EQ(virq(0, 0), GuestResult(Errno::inval));
  EXPECT_EQ(said(), (Lines{"virq 0 0 1", "virq 0 0 0", "clear 1"}));
  vmm.failure = 0;
  vmm.read_only_from = base;
  EXPECT_EQ(virq(0, 0), GuestResult(Errno::fault));
  EXPECT_EQ(ipi(0), GuestResult(Errno::fault));
  EXPECT_EQ(unbound(0), GuestResult(Errno::fault));
  EXPECT_EQ(said(), Lines{});  // the VMM hadn't been told
  vmm.read_only_from.reset();
  EXPECT_EQ(virq(0, 0), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"virq 0 0 1"});
}

TEST_F(Events, AnIpiIsRoutedToItsVcpuAndRaisedByHandIfItComesHere) {
  EXPECT_EQ(ipi(2), GuestResult(Errno::noent));
  EXPECT_EQ(ipi(1), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::EvtchnBindIpi>().port, 1u);
  EXPECT_EQ(said(), Lines{"route 1 1 1"});
  EXPECT_EQ(send(1), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"raise 1 1"});
  EXPECT_EQ(close(1), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"unroute 1", "clear 1"}));
}

TEST_F(Events, AKernelThatCantRouteIsTheVmmsTroubleAlone) {
  vmm.failure = ENOSPC;
  put(xen_abi::EvtchnBindIpi{1, 0});
  const auto answer = events.handle({0}, Hypercall{32, {op::bind_ipi, base}});
  EXPECT_EQ(answer->guest, GuestResult::ok());
  EXPECT_EQ(answer->host.error().code, ENOSPC);
  put(xen_abi::EvtchnSend{1});
  const auto sent = events.handle({0}, Hypercall{32, {op::send, base}});
  EXPECT_EQ(sent->guest, GuestResult::ok());
  EXPECT_EQ(sent->host.error().code, ENOSPC);
}

TEST_F(Events, ALoopbackChannelRaisesItsOtherEnd) {
  EXPECT_EQ(unbound(domid_self), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::EvtchnAllocUnbound>().port, 1u);
  EXPECT_EQ(send(1), GuestResult::ok());
  EXPECT_EQ(said(), Lines{});  // nobody listens
  EXPECT_EQ(connect(1), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::EvtchnBindInterdomain>().local_port, 2u);
  EXPECT_EQ(said(), (Lines{"route 2 1 0", "route 1 2 0", "raise 0 2"}));
  EXPECT_EQ(move(1, 1), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"route 2 1 1"});
  EXPECT_EQ(send(2), GuestResult::ok());
  EXPECT_EQ(send(1), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"raise 1 1", "raise 0 2"}));
  EXPECT_EQ(close(2), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"unroute 1", "unroute 2", "clear 2"}));
  EXPECT_EQ(connect(1), GuestResult::ok());  // it waits for somebody anew
  EXPECT_EQ(said(), (Lines{"route 2 1 1", "route 1 2 0", "raise 0 2"}));
}

TEST_F(Events, InterdomainErrors) {
  put(xen_abi::EvtchnAllocUnbound{5, 0, 0});
  EXPECT_EQ(call(op::alloc_unbound), GuestResult(Errno::srch));
  EXPECT_EQ(call(op::bind_interdomain, xen_abi::EvtchnBindInterdomain{0, 1, 0}),
            GuestResult(Errno::srch));
  EXPECT_EQ(connect(1), GuestResult(Errno::inval));
  EXPECT_EQ(connect(8), GuestResult(Errno::inval));
  EXPECT_EQ(unbound(0), GuestResult::ok());
  EXPECT_EQ(connect(1), GuestResult(Errno::inval));  // it waits for domain 0
  EXPECT_EQ(ipi(0), GuestResult::ok());
  EXPECT_EQ(connect(2), GuestResult(Errno::inval));
}

TEST_F(Events, SendAndUnmaskErrors) {
  EXPECT_EQ(send(8), GuestResult(Errno::inval));
  EXPECT_EQ(send(1), GuestResult(Errno::inval));
  EXPECT_EQ(virq(0, 0), GuestResult::ok());
  EXPECT_EQ(send(1), GuestResult(Errno::inval));
  (void)said();
  EXPECT_EQ(call(op::unmask, xen_abi::EvtchnUnmask{8}), GuestResult(Errno::inval));
  EXPECT_EQ(call(op::unmask, xen_abi::EvtchnUnmask{5}), GuestResult::ok());
  EXPECT_EQ(said(), Lines{});
  EXPECT_EQ(call(op::unmask, xen_abi::EvtchnUnmask{1}), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"unmask 0 1"});
}

TEST_F(Events, BindVcpuErrorsInXensOrder) {
  EXPECT_EQ(move(8, 2), GuestResult(Errno::noent));
  EXPECT_EQ(move(8, 1), GuestResult(Errno::inval));
  EXPECT_EQ(move(1, 1), GuestResult(Errno::inval));
  EXPECT_EQ(virq(0, 0), GuestResult::ok());
  EXPECT_EQ(move(1, 1), GuestResult(Errno::inval));
  EXPECT_EQ(ipi(0), GuestResult::ok());
  EXPECT_EQ(move(2, 1), GuestResult(Errno::inval));
}

TEST_F(Events, ADomainsVirqIsToldAnewWhenItMoves) {
  EXPECT_EQ(virq(xen_abi::virq::argo, 1), GuestResult(Errno::inval));
  EXPECT_EQ(virq(xen_abi::virq::argo, 0), GuestResult::ok());
  EXPECT_EQ(move(1, 1), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"virq 0 11 1", "virq 0 11 0", "virq 1 11 1"}));
}

TEST_F(Events, StatusOfEachKind) {
  const auto status = [&](std::uint32_t port) {
    return call(op::status, xen_abi::EvtchnStatus{7, port, 99, 99, {99}, 99});
  };
  const auto found = [&] { return get<xen_abi::EvtchnStatus>(); };
  EXPECT_EQ(call(op::status, xen_abi::EvtchnStatus{5, 1, 0, 0, {0}, 0}), GuestResult(Errno::srch));
  EXPECT_EQ(status(8), GuestResult(Errno::inval));
  EXPECT_EQ(status(0), GuestResult::ok());
  EXPECT_EQ(found().status, xen_abi::evtchn_status::closed);
  EXPECT_EQ(unbound(domid_self), GuestResult::ok());
  EXPECT_EQ(status(1), GuestResult::ok());
  EXPECT_EQ(found().status, xen_abi::evtchn_status::unbound);
  EXPECT_EQ(found().remote_dom, 7);
  EXPECT_EQ(connect(1), GuestResult::ok());
  EXPECT_EQ(move(1, 1), GuestResult::ok());
  EXPECT_EQ(status(1), GuestResult::ok());
  EXPECT_EQ(found().status, xen_abi::evtchn_status::interdomain);
  EXPECT_EQ(found().remote_dom, 7);
  EXPECT_EQ(found().remote_port, 2u);
  EXPECT_EQ(found().vcpu, 1u);
  EXPECT_EQ(virq(1, 1), GuestResult::ok());
  EXPECT_EQ(status(3), GuestResult::ok());
  EXPECT_EQ(found().status, xen_abi::evtchn_status::virq);
  EXPECT_EQ(found().virq, 1u);
  EXPECT_EQ(ipi(1), GuestResult::ok());
  EXPECT_EQ(status(4), GuestResult::ok());
  EXPECT_EQ(found().status, xen_abi::evtchn_status::ipi);
  vmm.read_only_from = base;
  EXPECT_EQ(status(4), GuestResult(Errno::fault));
}

TEST_F(Events, ResetClosesAll) {
  EXPECT_EQ(virq(0, 0), GuestResult::ok());
  EXPECT_EQ(unbound(domid_self), GuestResult::ok());
  EXPECT_EQ(connect(2), GuestResult::ok());
  (void)said();
  EXPECT_EQ(call(op::reset, xen_abi::EvtchnReset{5}), GuestResult(Errno::srch));
  EXPECT_EQ(call(op::reset, xen_abi::EvtchnReset{domid_self}), GuestResult::ok());
  EXPECT_EQ(said(),
            (Lines{"virq 0 0 0", "clear 1", "unroute 3", "unroute 2", "clear 2", "clear 3"}));
  EXPECT_EQ(ipi(0), GuestResult::ok());
  EXPECT_EQ(get<xen_abi::EvtchnBindIpi>().port, 1u);
}

TEST_F(Events, NoPirqsNoFifo) {
  EXPECT_EQ(call(op::bind_pirq, xen_abi::EvtchnBindPirq{}), GuestResult(Errno::inval));
  EXPECT_EQ(call(op::init_control), GuestResult(Errno::nosys));
  EXPECT_EQ(call(op::expand_array), GuestResult(Errno::opnotsupp));
  EXPECT_EQ(call(op::set_priority, xen_abi::EvtchnSetPriority{8, 0}), GuestResult(Errno::inval));
  EXPECT_EQ(call(op::set_priority, xen_abi::EvtchnSetPriority{1, 0}), GuestResult(Errno::nosys));
}

TEST_F(Events, EnospcWhenAllPortsAreTaken) {
  for (int port = 1; port < 8; ++port) EXPECT_EQ(unbound(domid_self), GuestResult::ok());
  EXPECT_EQ(unbound(0), GuestResult(Errno::nospc));
  EXPECT_EQ(connect(1), GuestResult(Errno::nospc));
  EXPECT_EQ(virq(0, 0), GuestResult(Errno::nospc));
  EXPECT_EQ(ipi(0), GuestResult(Errno::nospc));
}

}  // namespace
}  // namespace xen_hcall
