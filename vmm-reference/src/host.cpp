// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "host.hpp"

#include <algorithm>

#include "xen_timer/signalling_timer.hpp"

namespace vmm_reference {

namespace {

std::string open_error(const std::string& device, const vmm_base::Error& error) {
  if (error.code == ENOENT || error.code == ENXIO || error.code == ENODEV) {
    return "there is no " + device +
           " here: load the kvm_intel or kvm_amd module and turn virtualisation on in the "
           "firmware, or run in the lab (vmm-reference/demo --lab), which needs none";
  }
  if (error.code == EACCES || error.code == EPERM) {
    return "no permission to open " + device +
           ": become a member of its group (sudo adduser $USER kvm, then log in again)";
  }
  if (error.code == ENOTSUP) {
    return device + " has API version " + std::to_string(error.operand) +
           ", not 12: a Linux kernel of 2.6.22 or later is needed";
  }
  if (error.code == ENOTTY)
    return device + " is not a KVM device: it answers no KVM_GET_API_VERSION";
  return "can't use " + device + ": " + error.message();
}

}  // namespace

std::variant<Host, std::string> Host::open(const std::string& device) {
  auto opened = kvm_ioctls::Kvm::open(device.c_str());
  if (!opened) return open_error(device, opened.error());
  Host host{std::move(opened).assume_value()};

  std::optional<vmm_base::Error> failed;
  const auto check = [&](unsigned capability) {
    auto checked = host.kvm.check_extension(capability);
    if (checked) return checked.value();
    failed = checked.error();
    return 0;
  };
  const int xen = check(KVM_CAP_XEN_HVM);
  constexpr int exits = KVM_XEN_HVM_CONFIG_HYPERCALL_MSR | KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL |
                        KVM_XEN_HVM_CONFIG_SHARED_INFO;
  host.xen_exits = (xen & exits) == exits;
  host.evtchn_send = host.xen_exits && (xen & KVM_XEN_HVM_CONFIG_EVTCHN_SEND) != 0;
  host.event_routes = host.evtchn_send && (xen & KVM_XEN_HVM_CONFIG_EVTCHN_2LEVEL) != 0;
  const bool can_stand_in =
      host.xen_exits || (check(KVM_CAP_X86_USER_SPACE_MSR) != 0 && check(KVM_CAP_SYNC_REGS) != 0);
  if (failed) return open_error(device, *failed);
  if (!can_stand_in) {
    return device +
           " has neither KVM_CAP_XEN_HVM nor what can stand in for it "
           "(KVM_CAP_X86_USER_SPACE_MSR and KVM_CAP_SYNC_REGS): Linux 5.10 or later is needed";
  }
  if (host.evtchn_send) {
    auto vm = host.kvm.create_vm();
    if (!vm) return vm.error().message();
    auto vcpu = vm.value().create_vcpu({0});
    if (!vcpu) return vcpu.error().message();
    auto rule = kvm_ioctls::xen_id_rule(vcpu.value());
    if (!rule) return rule.error().message();
    host.id_rule = rule.value();
  }
  return host;
}

std::vector<TimerMode> Host::modes() const {
  std::vector<TimerMode> modes;
  if (evtchn_send) modes.push_back(TimerMode::kernel);
  if (id_rule == kvm_ioctls::XenIdRule::unset) modes.push_back(TimerMode::delegated);
  if (event_routes && xen_timer::SignallingTimer::create()) modes.push_back(TimerMode::irqfd);
  modes.push_back(TimerMode::userspace);
  modes.push_back(TimerMode::spinning);  // faster, but nobody's default: it costs CPU time
  if (evtchn_send) modes.push_back(TimerMode::moving);
  return modes;
}

std::string Host::why_not(TimerMode mode) const {
  if (mode == TimerMode::kernel || mode == TimerMode::moving) {
    return "this kernel's KVM has no Xen timer: that needs CONFIG_KVM_XEN and Linux 5.19 or later";
  }
  if (mode == TimerMode::irqfd && event_routes) {
    const auto ring = xen_timer::SignallingTimer::create();
    return "no io_uring may be had: " + (ring ? "for a moment" : ring.error().message()) +
           "; that needs Linux 6.1, and kernel.io_uring_disabled and seccomp filters to allow it";
  }
  if (mode == TimerMode::irqfd) {
    return "this kernel's KVM routes no interrupt to a Xen event channel: that needs "
           "CONFIG_KVM_XEN and Linux 6.1 or later";
  }
  if (!evtchn_send) return "this kernel's KVM has no Xen timer to delegate to";
  return "before Linux 7.3 a kernel that keeps the timer also answers the hypercalls";
}

std::string Host::description() const {
  std::string text =
      xen_exits ? "hypercalls by KVM_EXIT_XEN" : "hypercalls by port exits (no KVM_XEN here)";
  text += evtchn_send ? ", events by KVM" : ", events by userspace";
  if (id_rule) {
    text += *id_rule == kvm_ioctls::XenIdRule::unset
                ? ", a Xen vCPU id not set is unset (Linux 7.3 and later)"
                : ", a Xen vCPU id not set is 0 (before Linux 7.3)";
  }
  return text;
}

}  // namespace vmm_reference
