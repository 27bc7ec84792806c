// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VM's interrupt controllers, and what raises or ends an interrupt by an fd. A part of Vm.
//
// EBADF for a VM that was moved from.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <utility>

#include "kvm_ioctls/fam.hpp"
#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/registration.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"

namespace kvm_ioctls {

// What a guest's write must be to signal an eventfd.
struct IoEvent {
  std::uint64_t address = 0;  // guest physical, or a port
  bool pio = false;
  std::uint32_t size = 0;                    // 1, 2, 4 or 8 bytes; 0 for any
  std::optional<std::uint64_t> datamatch{};  // the value written; nullopt for any
};

// Self has fd() and shared_fd().
template <class Self>
class VmInterrupts {
  template <class T>
  using Result = vmm_base::Result<T>;

 public:
  // KVM_CREATE_IRQCHIP [KVM_CAP_IRQCHIP, 2.6]: PICs, IO-APIC and a local APIC a vCPU, in the
  // kernel. EINVAL once there is a vCPU, EEXIST the second time.
  [[nodiscard]] Result<void> create_irqchip() const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_CREATE_IRQCHIP, 0, 0);
  }
  // KVM_GET_IRQCHIP, KVM_SET_IRQCHIP [KVM_CAP_IRQCHIP, 2.6]: the state of one, `chip`
  // KVM_IRQCHIP_PIC_MASTER, _PIC_SLAVE or _IOAPIC. ENXIO without an in-kernel one; EINVAL for
  // another.
  [[nodiscard]] Result<kvm_irqchip> get_irqchip(std::uint32_t chip) const noexcept {
    kvm_irqchip state{};
    state.chip_id = chip;
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_GET_IRQCHIP, &state, chip));
    return state;
  }
  [[nodiscard]] Result<void> set_irqchip(const kvm_irqchip& state) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_IRQCHIP, &state, state.chip_id);
  }

  // KVM_CREATE_PIT2 [KVM_CAP_PIT2, 2.6]: an i8254 timer in the kernel, after create_irqchip();
  // `flags` 0 or KVM_PIT_SPEAKER_DUMMY. ENOENT without an in-kernel PIC, EEXIST the second time.
  [[nodiscard]] Result<void> create_pit2(std::uint32_t flags = 0) const noexcept {
    kvm_pit_config config{};
    config.flags = flags;
    return KVM_IOCTLS_SET(number(), KVM_CREATE_PIT2, &config, flags);
  }
  // KVM_GET_PIT2, KVM_SET_PIT2 [KVM_CAP_PIT_STATE2, 2.6]: its state. ENXIO without one.
  [[nodiscard]] Result<kvm_pit_state2> get_pit2() const noexcept {
    return KVM_IOCTLS_GET(kvm_pit_state2, number(), KVM_GET_PIT2, 0);
  }
  [[nodiscard]] Result<void> set_pit2(const kvm_pit_state2& state) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_PIT2, &state, 0);
  }
  // KVM_REINJECT_CONTROL [KVM_CAP_REINJECT_CONTROL, 2.6]: whether ticks that the guest missed are
  // given to it later. ENXIO without a PIT.
  [[nodiscard]] Result<void> reinject_control(bool reinject) const noexcept {
    kvm_reinject_control control{};
    control.pit_reinject = reinject ? 1 : 0;
    return KVM_IOCTLS_SET(number(), KVM_REINJECT_CONTROL, &control, reinject);
  }

  // KVM_SET_BOOT_CPU_ID [KVM_CAP_SET_BOOT_CPU_ID, 2.6]: which vCPU is the boot processor; 0 unless
  // set. EBUSY, operand the id, once there is a vCPU; EINVAL, on a new kernel, if it is too large.
  [[nodiscard]] Result<void> set_boot_cpu_id(vmm_base::KvmVcpuId id) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_BOOT_CPU_ID, std::size_t{id.value}, id.value);
  }

  // KVM_IRQ_LINE [KVM_CAP_IRQCHIP, 2.6]: a pin of create_irqchip()'s, by GSI, goes high or low. The
  // error's operand is the GSI, as in all below. ENXIO without an in-kernel one.
  [[nodiscard]] Result<void> irq_line(std::uint32_t gsi, bool level) const noexcept {
    kvm_irq_level line{};
    line.irq = gsi;
    line.level = level ? 1 : 0;
    return KVM_IOCTLS_SET(number(), KVM_IRQ_LINE, &line, gsi);
  }
  // KVM_IRQ_LINE_STATUS [KVM_CAP_IRQ_INJECT_STATUS, 2.6]: the same; returns how many vCPUs took it,
  // 0 if it was coalesced with one that waits, -1 if it was masked.
  [[nodiscard]] Result<int> irq_line_status(std::uint32_t gsi, bool level) const noexcept {
    kvm_irq_level line{};
    line.irq = gsi;
    line.level = level ? 1 : 0;
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_IRQ_LINE_STATUS, &line, gsi));
    return int{line.status};
  }

  // KVM_SIGNAL_MSI [KVM_CAP_SIGNAL_MSI, 3.5]: a message-signalled interrupt. Returns whether it was
  // delivered; false if the guest blocked it. The error's operand is `data`: EINVAL without an
  // in-kernel APIC.
  [[nodiscard]] Result<bool> signal_msi(std::uint64_t address, std::uint32_t data) const noexcept {
    kvm_msi msi{};
    msi.address_lo = static_cast<std::uint32_t>(address);
    msi.address_hi = static_cast<std::uint32_t>(address >> 32);
    msi.data = data;
    VMM_TRY(delivered, KVM_IOCTLS_CALL(number(), KVM_SIGNAL_MSI, &msi, data));
    return delivered > 0;
  }

  // KVM_SET_GSI_ROUTING [KVM_CAP_IRQ_ROUTING, 2.6]: what each GSI does; replaces all routes, those
  // of create_irqchip() among them. EINVAL, operand their number, for a route that can't be, for
  // more than 4096, and without an in-kernel APIC.
  [[nodiscard]] Result<void> set_gsi_routing(const IrqRouting& routes) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_GSI_ROUTING, routes.get(), routes.size());
  }
  [[nodiscard]] Result<void> set_gsi_routing(std::span<const kvm_irq_routing_entry> entries) const {
    return set_gsi_routing(IrqRouting(entries));
  }

  // KVM_IRQFD [KVM_CAP_IRQFD; IRQFD_RESAMPLE, 2.6; 3.7]: a signal of `eventfd` is an interrupt on
  // `gsi`, for as long as the IrqFd is kept. With `resample`, an eventfd too, the interrupt is
  // level-triggered, and its end signals that. The fds are duplicated. EBUSY if it is registered
  // already.
  [[nodiscard]] Result<IrqFd> register_irqfd(int eventfd, std::uint32_t gsi,
                                             std::optional<int> resample = {}) const {
    VMM_TRY(copy, detail::duplicate(eventfd));
    kvm_irqfd irqfd{};
    irqfd.fd = static_cast<std::uint32_t>(copy.get());
    irqfd.gsi = gsi;
    if (resample) {
      irqfd.flags = KVM_IRQFD_FLAG_RESAMPLE;
      irqfd.resamplefd = static_cast<std::uint32_t>(*resample);  // the kernel takes a reference
    }
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_IRQFD, &irqfd, gsi));
    return IrqFd(self().shared_fd(), std::move(copy), gsi);
  }

  // KVM_IOEVENTFD [KVM_CAP_IOEVENTFD, 2.6]: a guest's write as `event` says signals `eventfd` and
  // is no exit, for as long as the IoEventFd is kept. The fd is duplicated. EEXIST, operand the
  // address, for one that is registered already; EINVAL for a size that can't be.
  [[nodiscard]] Result<IoEventFd> register_ioeventfd(const IoEvent& event, int eventfd) const {
    VMM_TRY(copy, detail::duplicate(eventfd));
    kvm_ioeventfd request{};
    request.addr = event.address;
    request.len = event.size;
    request.fd = copy.get();
    if (event.pio) request.flags |= KVM_IOEVENTFD_FLAG_PIO;
    if (event.datamatch) {
      request.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
      request.datamatch = *event.datamatch;
    }
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_IOEVENTFD, &request, event.address));
    return IoEventFd(self().shared_fd(), std::move(copy), request);
  }

  // KVM_REGISTER_COALESCED_MMIO [KVM_CAP_COALESCED_MMIO; COALESCED_PIO, 2.6; 4.20]: writes to
  // `size` bytes at an address, or with `pio` to ports, are kept back in the ring of
  // Vcpu::coalesced_mmio(), until it is full, for as long as the zone is kept. Zones must not
  // overlap: the kernel undoes, with one, all that contain it.
  [[nodiscard]] Result<CoalescedMmioZone> register_coalesced_mmio(std::uint64_t address,
                                                                  std::uint32_t size,
                                                                  bool pio = false) const {
    kvm_coalesced_mmio_zone zone{};
    zone.addr = address;
    zone.size = size;
    zone.pio = pio ? 1 : 0;
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_REGISTER_COALESCED_MMIO, &zone, address));
    return CoalescedMmioZone(self().shared_fd(), zone);
  }

  // KVM_HYPERV_EVENTFD [KVM_CAP_HYPERV_EVENTFD, 4.17]: a Hyper-V guest's HvSignalEvent on
  // `connection`, at most 0xffffff, signals `eventfd`, for as long as the owner is kept. EEXIST,
  // operand the connection, if it is taken; EINVAL above that.
  [[nodiscard]] Result<HypervEventFd> register_hyperv_eventfd(std::uint32_t connection,
                                                              int eventfd) const {
    kvm_hyperv_eventfd request{};
    request.conn_id = connection;
    request.fd = eventfd;  // the kernel takes a reference
    VMM_CHECK(KVM_IOCTLS_SET(number(), KVM_HYPERV_EVENTFD, &request, connection));
    return HypervEventFd(self().shared_fd(), connection);
  }

 private:
  [[nodiscard]] const Self& self() const noexcept { return static_cast<const Self&>(*this); }
  [[nodiscard]] int number() const noexcept { return self().fd(); }
};

}  // namespace kvm_ioctls
