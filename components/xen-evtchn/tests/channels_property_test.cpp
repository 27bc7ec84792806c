// SPDX-License-Identifier: BSD-3-Clause
//
// Channels against a model: a map of what is open, and Xen's rules said once more.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <variant>
#include <vector>

#include "xen_evtchn/channels.hpp"

namespace xen_evtchn {
namespace {

constexpr std::uint32_t ports = 7;
constexpr std::uint32_t vcpus = 3;
constexpr DomainId self = 7;

struct Model {
  struct Open {
    char kind;               // 'u'nbound, 'i'nterdomain, 'v'irq, 'p' for IPI
    std::uint32_t to = 0;    // vCPU
    std::uint32_t what = 0;  // domain, other end, virq
  };
  std::map<std::uint32_t, Open> open{};

  static bool has(std::uint32_t virq) { return virq == 0 || virq == 1 || virq == 7 || virq == 13; }

  int add(Open opened) {
    for (std::uint32_t port = 1; port < ports; ++port) {
      if (open.emplace(port, opened).second) return static_cast<int>(port);
    }
    return -28;
  }
  int alloc_unbound(DomainId remote) {
    return add({'u', 0, remote == xen_abi::domid_self ? self : remote});
  }
  int bind_interdomain(std::uint32_t remote) {
    if (open.size() == ports - 1) return -28;
    const auto found = open.find(remote);
    if (found == open.end() || found->second.kind != 'u' || found->second.what != self) return -22;
    const int port = add({'i', 0, remote});
    found->second.kind = 'i';
    found->second.what = static_cast<std::uint32_t>(port);
    return port;
  }
  int bind_virq(std::uint32_t virq, std::uint32_t vcpu) {
    if (virq > 23 || (!has(virq) && vcpu != 0)) return -22;
    if (vcpu >= vcpus) return -2;
    if (!has(virq) && virq != 11) return -16;
    for (const auto& [port, is] : open) {
      if (is.kind == 'v' && is.what == virq && (is.to == vcpu || virq == 11)) return -17;
    }
    return add({'v', vcpu, virq});
  }
  int bind_ipi(std::uint32_t vcpu) { return vcpu < vcpus ? add({'p', vcpu}) : -2; }
  int close(std::uint32_t port) {
    const auto found = open.find(port);
    if (found == open.end()) return -22;
    if (found->second.kind == 'i') {
      open[found->second.what].kind = 'u';
      open[found->second.what].what = self;
    }
    open.erase(port);
    return 0;
  }
  int bind_vcpu(std::uint32_t port, std::uint32_t vcpu) {
    if (vcpu >= vcpus) return -2;
    const auto found = open.find(port);
    if (found == open.end() || found->second.kind == 'p') return -22;
    if (found->second.kind == 'v' && found->second.what != 11) return -22;
    found->second.to = vcpu;
    return 0;
  }

  // What a port should be, and have been told as.
  [[nodiscard]] Channel status(std::uint32_t port) const {
    const auto found = open.find(port);
    if (found == open.end()) return {};
    const Open& is = found->second;
    switch (is.kind) {
      case 'u':
        return {Kind::unbound, {is.to}, static_cast<DomainId>(is.what), {}, 0};
      case 'i':
        return {Kind::interdomain, {is.to}, self, {is.what}, 0};
      case 'v':
        return {Kind::virq, {is.to}, 0, {}, is.what};
      default:
        return {Kind::ipi, {is.to}, 0, {}, 0};
    }
  }
  [[nodiscard]] Wiring wiring(std::uint32_t port) const {
    const Channel is = status(port);
    Wiring wired{is.kind, {}, {}};
    if (is.kind == Kind::virq) wired.virq = VirqBinding{is.virq, is.vcpu};
    if (is.kind == Kind::ipi) wired.sends_to = Target{{port}, is.vcpu};
    if (is.kind == Kind::interdomain) {
      wired.sends_to = Target{is.remote_port, status(is.remote_port.value).vcpu};
    }
    return wired;
  }
};

// The channels, and a VMM that knows what it has been told.
struct Real {
  Channels channels{ports, vcpus, self};
  std::vector<Wiring> world = std::vector<Wiring>(ports);

  void settle(EventPort port) {
    channels.settle(port, [&](const Wiring& was, const Wiring& now) {
      RC_ASSERT(world[port.value] == was);
      world[port.value] = now;
    });
  }
  // The port that was opened, or the error, as the guest sees them.
  int opened(const Or<EventPort>& answer) {
    if (const auto* error = std::get_if<Errno>(&answer)) return -static_cast<int>(*error);
    settle(std::get<EventPort>(answer));
    return static_cast<int>(std::get<EventPort>(answer).value);
  }
  // 0, or the error; the answer is one more port to settle.
  int changed(const Or<EventPort>& answer) {
    const int result = opened(answer);
    return result > 0 ? 0 : result;
  }
};

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
    for (std::uint32_t at = 0; at < ports; ++at) {
      RC_ASSERT(std::get<Channel>(real.channels.status({at})) == model.status(at));
      RC_ASSERT(real.world[at] == model.wiring(at));
      const auto sent = real.channels.send({at});
      const auto kind = model.status(at).kind;
      RC_ASSERT((kind == Kind::closed || kind == Kind::virq) ==
                std::holds_alternative<Errno>(sent));
      if (const auto* target = std::get_if<std::optional<Target>>(&sent)) {
        RC_ASSERT(*target == model.wiring(at).sends_to);
      }
    }
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

  Channels smaller(ports - 1, vcpus, self);
  EXPECT_FALSE(smaller.restore(good));
  Channels in_use(ports, vcpus, self);
  (void)in_use.bind_ipi({0});
  EXPECT_FALSE(in_use.restore(good));
}

}  // namespace
}  // namespace xen_evtchn
