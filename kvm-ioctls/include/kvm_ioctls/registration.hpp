// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a VM was told to do with an fd or an address, as owners that undo it: keep them as long as
// it is to hold. They keep the VM, and their own duplicates of the fds, so that they may outlive
// any of them.
#pragma once

#include <fcntl.h>

#include <cstdint>
#include <memory>
#include <utility>

#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

// A VM's fd, for the VM and what must not outlive it. Moved from, it is -1.
class SharedFd {
 public:
  explicit SharedFd(vmm_base::UniqueFd fd)
      : number_(fd.get()), owner_(std::make_shared<const vmm_base::UniqueFd>(std::move(fd))) {}
  SharedFd(const SharedFd&) = default;
  SharedFd& operator=(const SharedFd&) = default;
  SharedFd(SharedFd&& other) noexcept
      : number_(std::exchange(other.number_, -1)), owner_(std::move(other.owner_)) {}
  SharedFd& operator=(SharedFd&& other) noexcept {
    number_ = std::exchange(other.number_, -1);
    owner_ = std::move(other.owner_);
    return *this;
  }
  ~SharedFd() = default;
  [[nodiscard]] int get() const noexcept { return number_; }

 private:
  int number_;  // owner_'s, without the way there
  std::shared_ptr<const vmm_base::UniqueFd> owner_;
};

namespace detail {

// The error's operand is the fd.
inline vmm_base::Result<vmm_base::UniqueFd> duplicate(int fd) noexcept {
  const int copy = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (copy < 0) return vmm_base::last_error("fcntl(F_DUPFD_CLOEXEC)", static_cast<unsigned>(fd));
  return vmm_base::UniqueFd(copy);
}

}  // namespace detail

// KVM_IRQFD: a signal of an eventfd is an interrupt. From Vm::register_irqfd().
class IrqFd {
 public:
  IrqFd(SharedFd vm, vmm_base::UniqueFd eventfd, std::uint32_t gsi) noexcept
      : vm_(std::move(vm)), eventfd_(std::move(eventfd)), gsi_(gsi) {}
  IrqFd(IrqFd&&) noexcept = default;
  // What it was before is undone.
  IrqFd& operator=(IrqFd other) noexcept {
    std::swap(vm_, other.vm_);
    std::swap(eventfd_, other.eventfd_);
    std::swap(gsi_, other.gsi_);
    return *this;
  }
  ~IrqFd() { (void)unregister(); }

  // Ends it now; when this returns, no interrupt of it is under way. Nothing if it has ended.
  vmm_base::Result<void> unregister() noexcept {
    const vmm_base::UniqueFd eventfd = std::move(eventfd_);
    if (!eventfd) return vmm_base::success();
    kvm_irqfd irqfd{};
    irqfd.fd = static_cast<std::uint32_t>(eventfd.get());
    irqfd.gsi = gsi_;
    irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
    return KVM_IOCTLS_SET(vm_.get(), KVM_IRQFD, &irqfd, gsi_);
  }

  // This registration's duplicate of the eventfd: whoever writes to it raises the interrupt. -1
  // once it has ended.
  [[nodiscard]] int eventfd() const noexcept { return eventfd_.get(); }
  [[nodiscard]] std::uint32_t gsi() const noexcept { return gsi_; }

 private:
  SharedFd vm_;
  vmm_base::UniqueFd eventfd_;
  std::uint32_t gsi_;
};

// KVM_IOEVENTFD: a guest's write is a signal of an eventfd, and no exit. From
// Vm::register_ioeventfd().
class IoEventFd {
 public:
  IoEventFd(SharedFd vm, vmm_base::UniqueFd eventfd, const kvm_ioeventfd& what) noexcept
      : vm_(std::move(vm)), eventfd_(std::move(eventfd)), what_(what) {}
  IoEventFd(IoEventFd&&) noexcept = default;
  // What it was before is undone.
  IoEventFd& operator=(IoEventFd other) noexcept {
    std::swap(vm_, other.vm_);
    std::swap(eventfd_, other.eventfd_);
    std::swap(what_, other.what_);
    return *this;
  }
  ~IoEventFd() { (void)unregister(); }

  // Ends it now; a write is an exit again. Nothing if it has ended.
  vmm_base::Result<void> unregister() noexcept {
    const vmm_base::UniqueFd eventfd = std::move(eventfd_);
    if (!eventfd) return vmm_base::success();
    kvm_ioeventfd request = what_;
    request.fd = eventfd.get();
    request.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
    return KVM_IOCTLS_SET(vm_.get(), KVM_IOEVENTFD, &request, request.addr);
  }

  // This registration's duplicate of the eventfd; -1 once it has ended.
  [[nodiscard]] int eventfd() const noexcept { return eventfd_.get(); }

 private:
  SharedFd vm_;
  vmm_base::UniqueFd eventfd_;
  kvm_ioeventfd what_;
};

// KVM_HYPERV_EVENTFD: a guest's HvSignalEvent on a connection is a signal of an eventfd. From
// Vm::register_hyperv_eventfd().
class HypervEventFd {
 public:
  HypervEventFd(SharedFd vm, std::uint32_t connection) noexcept
      : vm_(std::move(vm)), connection_(connection) {}
  HypervEventFd(HypervEventFd&&) noexcept = default;
  // What it was before is undone.
  HypervEventFd& operator=(HypervEventFd other) noexcept {
    std::swap(vm_, other.vm_);
    std::swap(connection_, other.connection_);
    return *this;
  }
  ~HypervEventFd() { (void)unregister(); }

  // Ends it now. Nothing if it has ended.
  vmm_base::Result<void> unregister() noexcept {
    const SharedFd vm = std::move(vm_);
    if (vm.get() < 0) return vmm_base::success();
    kvm_hyperv_eventfd request{};
    request.conn_id = connection_;
    request.fd = -1;
    request.flags = KVM_HYPERV_EVENTFD_DEASSIGN;
    return KVM_IOCTLS_SET(vm.get(), KVM_HYPERV_EVENTFD, &request, connection_);
  }

 private:
  SharedFd vm_;
  std::uint32_t connection_;
};

// KVM_REGISTER_COALESCED_MMIO: writes to a range are kept back in the ring. From
// Vm::register_coalesced_mmio().
class CoalescedMmioZone {
 public:
  CoalescedMmioZone(SharedFd vm, const kvm_coalesced_mmio_zone& zone) noexcept
      : vm_(std::move(vm)), zone_(zone) {}
  CoalescedMmioZone(CoalescedMmioZone&&) noexcept = default;
  // What it was before is undone.
  CoalescedMmioZone& operator=(CoalescedMmioZone other) noexcept {
    std::swap(vm_, other.vm_);
    std::swap(zone_, other.zone_);
    return *this;
  }
  ~CoalescedMmioZone() { (void)unregister(); }

  // KVM_UNREGISTER_COALESCED_MMIO [KVM_CAP_COALESCED_MMIO, 2.6]: ends it now; a write is an exit
  // again. Nothing if it has ended.
  vmm_base::Result<void> unregister() noexcept {
    const SharedFd vm = std::move(vm_);
    if (vm.get() < 0) return vmm_base::success();
    return KVM_IOCTLS_SET(vm.get(), KVM_UNREGISTER_COALESCED_MMIO, &zone_, zone_.addr);
  }

 private:
  SharedFd vm_;
  kvm_coalesced_mmio_zone zone_;
};

}  // namespace kvm_ioctls
