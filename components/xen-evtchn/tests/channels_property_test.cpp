// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Channels against a model: a map of what is open, and Xen's rules said once more.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <map>
#include <variant>
#include <vector>

#include "channels_model.hpp"

namespace xen_evtchn {
namespace {

RC_GTEST_PROP(ChannelsProperty, BehaveAsTheModel, ()) {
  Model model;
  Real real;
  const auto port = [] { return *rc::gen::inRange(0u, ports + 2); };
  const auto vcpu = [] { return *rc::gen::inRange(0u, vcpus + 1); };
  const int steps = *rc::gen::inRange(0, 100);
  for (int step = 0; step < steps; ++step) {
    int expected = 0;
    int answer = 0;
    switch (*rc::gen::inRange(0, 6)) {
      case 0: {
        const auto remote = *rc::gen::element<DomainId>(0, self, xen_abi::domid_self);
        expected = model.alloc_unbound(remote);
        answer = real.opened(real.channels.alloc_unbound(remote));
        break;
      }
      case 1: {
        const auto remote = port();
        expected = model.bind_interdomain(remote);
        answer = real.opened(real.channels.bind_interdomain({remote}));
        real.settle({remote});
        break;
      }
      case 2: {
        const auto virq = *rc::gen::element(0u, 1u, 2u, 7u, 11u, 13u, 16u, 23u, 24u);
        const auto of = vcpu();
        expected = model.bind_virq(virq, of);
        answer = real.opened(real.channels.bind_virq(virq, {of}));
        break;
      }
      case 3: {
        const auto of = vcpu();
        expected = model.bind_ipi(of);
        answer = real.opened(real.channels.bind_ipi({of}));
        break;
      }
      case 4: {
        const auto which = port();
        expected = model.close(which);
        answer = real.changed(real.channels.close({which}));
        real.settle({which});
        break;
      }
      default: {
        const auto which = port();
        const auto to = vcpu();
        expected = model.bind_vcpu(which, to);
        answer = real.changed(real.channels.bind_vcpu({which}, {to}));
      }
    }
    RC_ASSERT(answer == expected);
    RC_ASSERT(is_as(model, real));
  }
}

std::vector<Channel> some_ports() {
  Channels channels(ports, vcpus, self);
  (void)channels.bind_virq(xen_abi::virq::argo, {0});
  (void)channels.bind_vcpu({1}, {2});
  (void)channels.bind_virq(xen_abi::virq::timer, {1});
  (void)channels.alloc_unbound(self);
  (void)channels.bind_interdomain({3});
  (void)channels.bind_ipi({2});
  return channels.save();
}

TEST(ChannelsRest, WhatIsSavedIsRestoredAndTold) {
  const std::vector<Channel> saved = some_ports();
  Channels restored(ports, vcpus, self);
  ASSERT_TRUE(restored.restore(saved));
  EXPECT_EQ(restored.save(), saved);
  EXPECT_EQ(restored.virq(xen_abi::virq::argo, {0}), (Target{{1}, {2}}));
  EXPECT_EQ(std::get<Errno>(restored.bind_virq(xen_abi::virq::timer, {1})), Errno::exist);
  std::map<std::uint32_t, Wiring> told;
  for (std::uint32_t port = 0; port < ports; ++port) {
    restored.settle({port}, [&](const Wiring&, const Wiring& now) { told[port] = now; });
  }
  EXPECT_EQ(told.size(), 5u);
  EXPECT_EQ(told[4].sends_to, (Target{{3}, {0}}));
  EXPECT_TRUE(std::holds_alternative<EventPort>(restored.close({2})));
  restored.settle({2}, [](const Wiring&, const Wiring&) {});
  EXPECT_EQ(std::get<EventPort>(restored.bind_virq(xen_abi::virq::timer, {1})), EventPort{2});
}

TEST(ChannelsRest, AStateThatCantHaveBeenSavedIsRefusedAndChangesNothing) {
  const std::vector<Channel> good = some_ports();
  const auto refused = [&](std::uint32_t port, const Channel& channel) {
    std::vector<Channel> bad = good;
    bad[port] = channel;
    Channels channels(ports, vcpus, self);
    const auto restored = channels.restore(bad);
    EXPECT_EQ(channels.save(), std::vector<Channel>(ports));
    EXPECT_TRUE(std::holds_alternative<EventPort>(channels.bind_virq(xen_abi::virq::timer, {1})));
    return !restored && restored.error().code == EINVAL && restored.error().operand == port;
  };
  EXPECT_TRUE(refused(0, {.kind = Kind::ipi}));
  EXPECT_TRUE(refused(6, {.kind = Kind::closed, .vcpu = {1}}));
  EXPECT_TRUE(refused(6, {.kind = Kind::ipi, .vcpu = {vcpus}}));
  EXPECT_TRUE(refused(6, {.kind = Kind::virq, .virq = 24}));
  EXPECT_TRUE(refused(6, {.kind = Kind::virq, .virq = 2}));
  EXPECT_TRUE(refused(6, {.kind = Kind::virq, .vcpu = {1}, .virq = xen_abi::virq::timer}));
  EXPECT_TRUE(refused(6, {.kind = Kind::interdomain, .remote_dom = self, .remote_port = {3}}));
  EXPECT_TRUE(refused(6, {.kind = Kind::interdomain, .remote_dom = self, .remote_port = {6}}));
  EXPECT_TRUE(refused(6, {.kind = Kind::interdomain, .remote_dom = self, .remote_port = {ports}}));
  EXPECT_TRUE(refused(3, {.kind = Kind::interdomain, .remote_dom = 0, .remote_port = {4}}));
  EXPECT_TRUE(refused(6, {.kind = static_cast<Kind>(3)}));
  // What would be told to the guest by EVTCHNOP_status, and by bind_vcpu to the VMM.
  EXPECT_TRUE(refused(6, {.kind = Kind::unbound, .remote_port = {3}}));
  EXPECT_TRUE(refused(6, {.kind = Kind::unbound, .virq = 1}));
  EXPECT_TRUE(refused(6, {.kind = Kind::ipi, .remote_dom = self}));
  EXPECT_TRUE(refused(6, {.kind = Kind::virq, .remote_port = {3}, .virq = xen_abi::virq::debug}));

  Channels smaller(ports - 1, vcpus, self);
  EXPECT_FALSE(smaller.restore(good));
  Channels in_use(ports, vcpus, self);
  (void)in_use.bind_ipi({0});
  EXPECT_FALSE(in_use.restore(good));
}

}  // namespace
}  // namespace xen_evtchn
