// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_evtchn/channels.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace xen_evtchn {
namespace {

namespace virq = xen_abi::virq;

EventPort port_of(const Or<EventPort>& answer) {
  const auto* port = std::get_if<EventPort>(&answer);
  EXPECT_NE(port, nullptr);
  return port != nullptr ? *port : EventPort{};
}
template <class T>
Errno error_of(const Or<T>& answer) {
  const auto* error = std::get_if<Errno>(&answer);
  EXPECT_NE(error, nullptr);
  return error != nullptr ? *error : Errno{};
}

struct ChannelsTest : testing::Test {
  Channels channels{4, 2, 7};
  std::vector<std::pair<Wiring, Wiring>> told{};

  void settle(EventPort port) {
    channels.settle(port, [&](const Wiring& was, const Wiring& now) {
      told.push_back({was, now});
    });
  }
  void close(EventPort port) {
    ASSERT_TRUE(std::holds_alternative<EventPort>(channels.close(port)));
    settle(port);
  }
};

TEST_F(ChannelsTest, ThePortIsTheLowestThatIsFreeAndNever0) {
  EXPECT_EQ(port_of(channels.bind_virq(virq::timer, {0})), EventPort{1});
  EXPECT_EQ(port_of(channels.bind_ipi({1})), EventPort{2});
  EXPECT_EQ(port_of(channels.alloc_unbound(0)), EventPort{3});
  EXPECT_EQ(error_of(channels.bind_ipi({0})), Errno::nospc);
  close({2});
  EXPECT_EQ(port_of(channels.bind_virq(virq::timer, {1})), EventPort{2});
}

TEST_F(ChannelsTest, BindVirqErrorsInXensOrder) {
  EXPECT_EQ(error_of(channels.bind_virq(24, {5})), Errno::inval);
  EXPECT_EQ(error_of(channels.bind_virq(0xffffffff, {5})), Errno::inval);
  EXPECT_EQ(error_of(channels.bind_virq(virq::argo, {1})), Errno::inval);
  EXPECT_EQ(error_of(channels.bind_virq(virq::timer, {2})), Errno::noent);
  EXPECT_EQ(error_of(channels.bind_virq(2, {0})), Errno::busy);
  EXPECT_EQ(port_of(channels.bind_virq(virq::timer, {1})), EventPort{1});
  (void)channels.alloc_unbound(0);
  (void)channels.alloc_unbound(0);
  EXPECT_EQ(error_of(channels.bind_virq(virq::timer, {1})), Errno::exist);
  EXPECT_EQ(error_of(channels.bind_virq(virq::timer, {0})), Errno::nospc);
}

TEST_F(ChannelsTest, AClosedPortIsGivenAwayOnlyWhenTheVmmHasBeenTold) {
  const EventPort port = port_of(channels.bind_virq(virq::timer, {0}));
  settle(port);
  ASSERT_TRUE(std::holds_alternative<EventPort>(channels.close(port)));
  EXPECT_EQ(error_of(channels.close(port)), Errno::inval);
  EXPECT_FALSE(channels.virq(virq::timer, {0}));
  EXPECT_EQ(error_of(channels.bind_virq(virq::timer, {0})), Errno::exist);
  EXPECT_EQ(port_of(channels.bind_ipi({0})), EventPort{2});
  settle(port);
  EXPECT_EQ(port_of(channels.bind_virq(virq::timer, {0})), port);
}

TEST_F(ChannelsTest, NorIsOneThatHasNoVirqToWaitFor) {
  const EventPort port = port_of(channels.bind_ipi({0}));
  settle(port);
  ASSERT_TRUE(std::holds_alternative<EventPort>(channels.close(port)));
  EXPECT_EQ(port_of(channels.bind_ipi({0})), EventPort{2});
  settle(port);
  EXPECT_EQ(port_of(channels.bind_ipi({0})), port);
}

TEST_F(ChannelsTest, APortClosedBeforeTheVmmKnewOfItIsFreeWithoutAWord) {
  const EventPort port = port_of(channels.bind_virq(virq::timer, {0}));
  close(port);
  EXPECT_TRUE(told.empty());
  EXPECT_EQ(port_of(channels.bind_virq(virq::timer, {0})), port);
}

TEST_F(ChannelsTest, SettleTellsEachChangeOnce) {
  const EventPort port = port_of(channels.bind_ipi({1}));
  settle(port);
  settle(port);
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0].first, Wiring{});
  EXPECT_EQ(told[0].second, (Wiring{Kind::ipi, {}, Target{port, {1}}}));
  settle({0});
  settle({4000000000});
  EXPECT_EQ(told.size(), 1u);
}

TEST_F(ChannelsTest, WhatChangesWhileTheVmmIsToldIsToldByTheSame) {
  const EventPort port = port_of(channels.bind_virq(virq::argo, {0}));
  std::vector<std::uint32_t> vcpus;
  channels.settle(port, [&](const Wiring&, const Wiring& now) {
    vcpus.push_back(now.virq->vcpu.value);
    if (vcpus.size() > 1) return;
    EXPECT_EQ(port_of(channels.bind_vcpu(port, {1})), port);
    channels.settle(port, [](const Wiring&, const Wiring&) { ADD_FAILURE() << "a second teller"; });
  });
  EXPECT_EQ(vcpus, (std::vector<std::uint32_t>{0, 1}));
}

TEST_F(ChannelsTest, LoopbackEndsRaiseEachOther) {
  const EventPort one = port_of(channels.alloc_unbound(xen_abi::domid_self));
  EXPECT_EQ(std::get<Channel>(channels.status(one)).remote_dom, 7);
  EXPECT_FALSE(std::get<std::optional<Target>>(channels.send(one)));
  const EventPort other = port_of(channels.bind_interdomain(one));
  EXPECT_EQ(port_of(channels.bind_vcpu(one, {1})), other);
  EXPECT_EQ(std::get<std::optional<Target>>(channels.send(other)), (Target{one, {1}}));
  EXPECT_EQ(std::get<std::optional<Target>>(channels.send(one)), (Target{other, {0}}));
  EXPECT_EQ(std::get<std::optional<Target>>(channels.target(one)), (Target{one, {1}}));
  EXPECT_EQ(port_of(channels.close(other)), one);
  EXPECT_EQ(std::get<Channel>(channels.status(one)),
            (Channel{.kind = Kind::unbound, .vcpu = {1}, .remote_dom = 7}));
}

TEST_F(ChannelsTest, AVcpusOwnStaysWhereItIs) {
  const EventPort timer = port_of(channels.bind_virq(virq::timer, {0}));
  const EventPort ipi = port_of(channels.bind_ipi({0}));
  EXPECT_EQ(error_of(channels.bind_vcpu(timer, {1})), Errno::inval);
  EXPECT_EQ(error_of(channels.bind_vcpu(ipi, {1})), Errno::inval);
  EXPECT_EQ(error_of(channels.bind_vcpu({3}, {2})), Errno::noent);
  EXPECT_EQ(error_of(channels.bind_vcpu({3}, {1})), Errno::inval);
}

TEST_F(ChannelsTest, ADomainsVirqMovesAndIsStillVcpu0s) {
  const EventPort port = port_of(channels.bind_virq(virq::argo, {0}));
  EXPECT_EQ(port_of(channels.bind_vcpu(port, {1})), port);
  EXPECT_EQ(channels.virq(virq::argo, {0}), (Target{port, {1}}));
  EXPECT_FALSE(channels.virq(virq::argo, {1}));
  EXPECT_EQ(error_of(channels.bind_virq(virq::argo, {0})), Errno::exist);
  EXPECT_FALSE(channels.virq(24, {0}));
  EXPECT_FALSE(channels.virq(virq::argo, {2}));
}

TEST_F(ChannelsTest, NoPortOfTheGuestsIsAnIndexOutOfBounds) {
  for (const EventPort port : {EventPort{4}, EventPort{4000000000}}) {
    EXPECT_EQ(error_of(channels.close(port)), Errno::inval);
    EXPECT_EQ(error_of(channels.send(port)), Errno::inval);
    EXPECT_EQ(error_of(channels.target(port)), Errno::inval);
    EXPECT_EQ(error_of(channels.status(port)), Errno::inval);
    EXPECT_EQ(error_of(channels.bind_vcpu(port, {0})), Errno::inval);
    EXPECT_EQ(error_of(channels.bind_interdomain(port)), Errno::inval);
  }
  EXPECT_EQ(error_of(channels.close({0})), Errno::inval);
  EXPECT_EQ(std::get<Channel>(channels.status({0})), Channel{});
}

}  // namespace
}  // namespace xen_evtchn
