// SPDX-License-Identifier: BSD-3-Clause
//
// A virtual machine: memory, interrupt controller, clock, vCPUs. Any thread may call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "kvm_ioctls/vcpu.hpp"
#include "kvm_ioctls/xen_attr.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

class Vm {
 public:
  // Comes from Kvm::create_vm(). `run_size`: KVM_GET_VCPU_MMAP_SIZE, bytes.
  Vm(vmm_base::UniqueFd fd, std::size_t run_size) noexcept
      : fd_(std::move(fd)), run_size_(run_size) {}

  // KVM_CREATE_VCPU, then the mapping of its kvm_run. EEXIST if the id is taken.
  [[nodiscard]] vmm_base::Result<Vcpu> create_vcpu(vmm_base::KvmVcpuId id) const noexcept {
    VMM_TRY(vcpu, ioctl(fd(), "KVM_CREATE_VCPU", KVM_CREATE_VCPU, std::size_t{id.value}, id.value));
    return Vcpu::from_fd(vmm_base::UniqueFd(vcpu), run_size_, id);
  }

  // KVM_SET_USER_MEMORY_REGION: `size` bytes at `gpa` are the host's at `host`, all page-aligned;
  // the host's must stay mapped as long as the VM lives. size 0 removes the slot.
  [[nodiscard]] vmm_base::Result<void> set_user_memory_region(
      std::uint32_t slot, vmm_base::Gpa gpa, std::uint64_t size, void* host,
      std::uint32_t flags = 0) const noexcept {
    kvm_userspace_memory_region region{slot, flags, gpa.value, size,
                                       reinterpret_cast<std::uintptr_t>(host)};
    VMM_CHECK(
        ioctl(fd(), "KVM_SET_USER_MEMORY_REGION", KVM_SET_USER_MEMORY_REGION, &region, gpa.value));
    return vmm_base::success();
  }

  // KVM_SET_TSS_ADDR, KVM_SET_IDENTITY_MAP_ADDR: pages that Intel's KVM needs below 4 GiB: three,
  // and one. Before the first vCPU.
  [[nodiscard]] vmm_base::Result<void> set_tss_addr(vmm_base::Gpa gpa) const noexcept {
    VMM_CHECK(ioctl(fd(), "KVM_SET_TSS_ADDR", KVM_SET_TSS_ADDR, gpa.value, gpa.value));
    return vmm_base::success();
  }
  [[nodiscard]] vmm_base::Result<void> set_identity_map_addr(vmm_base::Gpa gpa) const noexcept {
    std::uint64_t address = gpa.value;
    VMM_CHECK(
        ioctl(fd(), "KVM_SET_IDENTITY_MAP_ADDR", KVM_SET_IDENTITY_MAP_ADDR, &address, address));
    return vmm_base::success();
  }

  // KVM_CREATE_IRQCHIP: PICs, IO-APIC and a local APIC a vCPU, in the kernel. Before the first
  // vCPU.
  [[nodiscard]] vmm_base::Result<void> create_irqchip() const noexcept {
    VMM_CHECK(KVM_IOCTLS_CALL(fd(), KVM_CREATE_IRQCHIP, 0));
    return vmm_base::success();
  }

  // KVM_ENABLE_CAP on the VM, with its first argument.
  [[nodiscard]] vmm_base::Result<void> enable_cap(std::uint32_t capability,
                                                  std::uint64_t argument = 0) const noexcept {
    kvm_enable_cap cap{};
    cap.cap = capability;
    cap.args[0] = argument;
    VMM_CHECK(ioctl(fd(), "KVM_ENABLE_CAP", KVM_ENABLE_CAP, &cap, capability));
    return vmm_base::success();
  }

  // KVM_SET_GSI_ROUTING: what each GSI does; replaces all routes, those of KVM_CREATE_IRQCHIP among
  // them. EINVAL for a route that can't be, E2BIG for more than 4096.
  [[nodiscard]] vmm_base::Result<void> set_gsi_routing(
      std::span<const kvm_irq_routing_entry> entries) const {
    std::vector<std::byte> buffer(sizeof(IrqRoutingHeader) + entries.size_bytes());
    const IrqRoutingHeader header{static_cast<std::uint32_t>(entries.size()), 0};
    std::memcpy(buffer.data(), &header, sizeof(header));
    std::memcpy(buffer.data() + sizeof(header), entries.data(), entries.size_bytes());
    VMM_CHECK(
        ioctl(fd(), "KVM_SET_GSI_ROUTING", KVM_SET_GSI_ROUTING, buffer.data(), entries.size()));
    return vmm_base::success();
  }

  // KVM_IRQFD: a signal of the eventfd is an interrupt on `gsi`, until it is unregistered or
  // closed. EBUSY if it is registered already.
  [[nodiscard]] vmm_base::Result<void> register_irqfd(int eventfd,
                                                      std::uint32_t gsi) const noexcept {
    return irqfd(eventfd, gsi, 0);
  }
  [[nodiscard]] vmm_base::Result<void> unregister_irqfd(int eventfd,
                                                        std::uint32_t gsi) const noexcept {
    return irqfd(eventfd, gsi, KVM_IRQFD_FLAG_DEASSIGN);
  }

  // KVM_IRQ_LINE: a pin of KVM_CREATE_IRQCHIP's, by GSI, goes high or low.
  [[nodiscard]] vmm_base::Result<void> irq_line(std::uint32_t gsi, bool level) const noexcept {
    kvm_irq_level line{};
    line.irq = gsi;
    line.level = level ? 1 : 0;
    VMM_CHECK(ioctl(fd(), "KVM_IRQ_LINE", KVM_IRQ_LINE, &line, gsi));
    return vmm_base::success();
  }

  // KVM_SIGNAL_MSI: a message-signalled interrupt. Returns whether it was delivered; false if the
  // guest blocked it.
  [[nodiscard]] vmm_base::Result<bool> signal_msi(std::uint64_t address,
                                                  std::uint32_t data) const noexcept {
    kvm_msi msi{};
    msi.address_lo = static_cast<std::uint32_t>(address);
    msi.address_hi = static_cast<std::uint32_t>(address >> 32);
    msi.data = data;
    VMM_TRY(delivered, ioctl(fd(), "KVM_SIGNAL_MSI", KVM_SIGNAL_MSI, &msi, data));
    return delivered > 0;
  }

  // KVM_GET_CLOCK: the guest's system time in ns, as KVM reckons it for the whole VM, and flags:
  // KVM_CLOCK_TSC_STABLE while every vCPU's pvclock follows one master clock.
  [[nodiscard]] vmm_base::Result<kvm_clock_data> get_clock() const noexcept {
    kvm_clock_data clock{};
    VMM_CHECK(KVM_IOCTLS_CALL(fd(), KVM_GET_CLOCK, &clock));
    return clock;
  }
  [[nodiscard]] vmm_base::Result<void> set_clock(const kvm_clock_data& clock) const noexcept {
    VMM_CHECK(ioctl(fd(), "KVM_SET_CLOCK", KVM_SET_CLOCK, &clock, clock.clock));
    return vmm_base::success();
  }

  // KVM_GET_TSC_KHZ: the TSC frequency, kHz, of the vCPUs to come: the host's, unless it was set.
  // Linux 5.18.
  [[nodiscard]] vmm_base::Result<std::uint32_t> get_tsc_khz() const noexcept {
    VMM_TRY(khz, KVM_IOCTLS_CALL(fd(), KVM_GET_TSC_KHZ, 0));
    return static_cast<std::uint32_t>(khz);
  }

  // KVM_XEN_HVM_CONFIG: `flags` KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL and others of
  // KVM_CAP_XEN_HVM; `msr`, 0x40000000 to 0x4fffffff, is where the guest writes the hypercall
  // page's address. Linux 5.12.
  [[nodiscard]] vmm_base::Result<void> xen_hvm_config(std::uint32_t flags,
                                                      std::uint32_t msr) const noexcept {
    ::kvm_xen_hvm_config config{};
    config.flags = flags;
    config.msr = msr;
    VMM_CHECK(ioctl(fd(), "KVM_XEN_HVM_CONFIG", KVM_XEN_HVM_CONFIG, &config, flags));
    return vmm_base::success();
  }

  // KVM_XEN_HVM_{SET,GET}_ATTR with any of the VM attributes of xen_attr.hpp. ENOENT if the kernel
  // doesn't know the attribute; the error's operand is its type.
  template <class Attr>
  [[nodiscard]] vmm_base::Result<void> xen_hvm_set_attr(const Attr& value) const noexcept {
    kvm_xen_hvm_attr attr{};
    attr.type = Attr::type;
    value.store(attr);
    VMM_CHECK(ioctl(fd(), "KVM_XEN_HVM_SET_ATTR", KVM_XEN_HVM_SET_ATTR, &attr, Attr::type));
    return vmm_base::success();
  }
  template <class Attr>
  [[nodiscard]] vmm_base::Result<Attr> xen_hvm_get_attr() const noexcept {
    kvm_xen_hvm_attr attr{};
    attr.type = Attr::type;
    VMM_CHECK(ioctl(fd(), "KVM_XEN_HVM_GET_ATTR", KVM_XEN_HVM_GET_ATTR, &attr, Attr::type));
    return Attr::load(attr);
  }

  // KVM_XEN_HVM_EVTCHN_SEND: raises a 2-level event channel on a vCPU. Also succeeds if the port is
  // masked or pending already; EINVAL for port 0 or one out of range. Linux 5.19.
  [[nodiscard]] vmm_base::Result<void> xen_hvm_evtchn_send(
      std::uint32_t port, vmm_base::KvmVcpuId vcpu) const noexcept {
    kvm_irq_routing_xen_evtchn event{port, vcpu.value, KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL};
    VMM_CHECK(ioctl(fd(), "KVM_XEN_HVM_EVTCHN_SEND", KVM_XEN_HVM_EVTCHN_SEND, &event, port));
    return vmm_base::success();
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  [[nodiscard]] vmm_base::Result<void> irqfd(int eventfd, std::uint32_t gsi,
                                             std::uint32_t flags) const noexcept {
    kvm_irqfd irqfd{};
    irqfd.fd = static_cast<std::uint32_t>(eventfd);
    irqfd.gsi = gsi;
    irqfd.flags = flags;
    VMM_CHECK(ioctl(fd(), "KVM_IRQFD", KVM_IRQFD, &irqfd, gsi));
    return vmm_base::success();
  }

  vmm_base::UniqueFd fd_;
  std::size_t run_size_;
};

}  // namespace kvm_ioctls
