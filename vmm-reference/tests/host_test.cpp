// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What is made of hosts that this machine isn't.
#include "host.hpp"

#include <gtest/gtest.h>

#include "kvm_ioctls/double.hpp"
#include "xen_timer/signalling_timer.hpp"

namespace vmm_reference {
namespace {

using kvm_ioctls::KvmDouble;
using Modes = std::vector<TimerMode>;

constexpr int xen_5_12 = KVM_XEN_HVM_CONFIG_HYPERCALL_MSR | KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL |
                         KVM_XEN_HVM_CONFIG_SHARED_INFO;

Host open(const KvmDouble& kvm) {
  auto opened = Host::open(kvm.path());
  if (const auto* message = std::get_if<std::string>(&opened)) {
    ADD_FAILURE() << *message;
    std::abort();
  }
  return std::get<Host>(std::move(opened));
}
// Without the irqfds' where this machine lets nobody have an io_uring.
Modes here(Modes modes) {
  if (!xen_timer::SignallingTimer::create()) std::erase(modes, TimerMode::irqfd);
  return modes;
}
std::string why_not(const std::string& device) {
  auto opened = Host::open(device);
  const auto* message = std::get_if<std::string>(&opened);
  return message == nullptr ? "" : *message;
}

TEST(Host, Linux73LeavesTheXenIdUnset) {
  const KvmDouble kvm;
  const Host host = open(kvm);
  EXPECT_EQ(host.modes(), here({TimerMode::kernel, TimerMode::delegated, TimerMode::irqfd,
                                TimerMode::userspace, TimerMode::spinning, TimerMode::moving}));
  EXPECT_NE(host.description().find("Linux 7.3 and later"), std::string::npos);
}

TEST(Host, BeforeThatItIsZeroAndNothingIsDelegated) {
  const KvmDouble kvm;
  kvm.on<kvm_xen_vcpu_attr>(KVM_XEN_VCPU_GET_ATTR, [](kvm_xen_vcpu_attr& attr) {
    attr.u.vcpu_id = 0;
    return 0;
  });
  const Host host = open(kvm);
  EXPECT_EQ(host.modes(), here({TimerMode::kernel, TimerMode::irqfd, TimerMode::userspace,
                                TimerMode::spinning, TimerMode::moving}));
  EXPECT_NE(host.description().find("before Linux 7.3"), std::string::npos);
  EXPECT_NE(host.why_not(TimerMode::delegated).find("also answers the hypercalls"),
            std::string::npos);
}

TEST(Host, WithoutEventsByKvmTimersAreOurs) {
  const KvmDouble kvm;
  kvm.cap(KVM_CAP_XEN_HVM, xen_5_12);
  const Host host = open(kvm);
  EXPECT_TRUE(host.xen_exits);
  EXPECT_EQ(host.modes(), (Modes{TimerMode::userspace, TimerMode::spinning}));
  EXPECT_EQ(kvm.count(KVM_CREATE_VM), 0u) << "there is no id to ask for";
}

TEST(Host, WithoutKvmXenPortExitsStandIn) {
  const KvmDouble kvm;
  kvm.cap(KVM_CAP_XEN_HVM, 0);
  const Host host = open(kvm);
  EXPECT_FALSE(host.xen_exits);
  EXPECT_EQ(host.modes(), (Modes{TimerMode::userspace, TimerMode::spinning}));
  EXPECT_NE(host.description().find("no KVM_XEN here"), std::string::npos);
}

TEST(Host, SaysWhatIsMissing) {
  const KvmDouble kvm;
  kvm.cap(KVM_CAP_XEN_HVM, 0);
  kvm.cap(KVM_CAP_SYNC_REGS, 0);
  EXPECT_NE(why_not(kvm.path()).find("Linux 5.10 or later is needed"), std::string::npos);
  kvm.on(KVM_GET_API_VERSION, [](const kvm_ioctls::Call&) { return 11; });
  EXPECT_NE(why_not(kvm.path()).find("has API version 11, not 12"), std::string::npos);
  EXPECT_NE(why_not("/dev/null").find("is not a KVM device"), std::string::npos);
  EXPECT_NE(why_not("/nonexistent").find("there is no /nonexistent here"), std::string::npos);
}

}  // namespace
}  // namespace vmm_reference
