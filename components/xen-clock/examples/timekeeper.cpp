// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a vCPU's Xen clock reads, by the guest's own page where KVM keeps it by that.
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include <cstdio>

#include "xen_clock/vcpu_clock.hpp"

xen_clock::GuestTime vm_clock(int vm_fd) {
  kvm_clock_data now{};
  if (::ioctl(vm_fd, KVM_GET_CLOCK, &now) != 0) std::perror("KVM_GET_CLOCK");
  return xen_clock::GuestTime(xen_clock::Duration(static_cast<std::int64_t>(now.clock)));
}

struct Timekeeper {
  int vm_fd;
  int vcpu_fd;
  xen_clock::VcpuClock clock{};  // clock.set_page() when the guest registers vcpu_info

  void before_a_hypercall() {
    clock.refresh([&]() -> std::optional<xen_clock::VcpuTsc> {
      std::uint64_t offset = 0;
      kvm_device_attr attr{};
      attr.group = KVM_VCPU_TSC_CTRL;
      attr.attr = KVM_VCPU_TSC_OFFSET;
      attr.addr = reinterpret_cast<std::uintptr_t>(&offset);
      kvm_clock_data vm{};
      const int guest_khz = ::ioctl(vcpu_fd, KVM_GET_TSC_KHZ, 0);
      const int host_khz = ::ioctl(vm_fd, KVM_GET_TSC_KHZ, 0);
      if (::ioctl(vcpu_fd, KVM_GET_DEVICE_ATTR, &attr) != 0 || guest_khz < 0 || host_khz < 0 ||
          ::ioctl(vm_fd, KVM_GET_CLOCK, &vm) != 0) {
        return std::nullopt;
      }
      const auto host = static_cast<std::uint32_t>(host_khz);
      const auto map = xen_clock::tsc_map(static_cast<std::uint32_t>(guest_khz), host,
                                          xen_clock::vmx_tsc_fraction_bits, offset);
      return xen_clock::VcpuTsc{map, host, (vm.flags & KVM_CLOCK_TSC_STABLE) != 0};
    });
  }
  xen_clock::GuestTime guest_now() const {
    return clock.now([&] { return vm_clock(vm_fd); }).time;
  }
};

int main() {
  // Fds of your own VMM's; with none, the vCPU's page is all there is.
  Timekeeper keeper{-1, -1};
  const xen_abi::VcpuTimeInfo page{};
  keeper.clock.set_page(&page);
  keeper.before_a_hypercall();
  return keeper.guest_now() == xen_clock::GuestTime{} ? 0 : 1;
}
