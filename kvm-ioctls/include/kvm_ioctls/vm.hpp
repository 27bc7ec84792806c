// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A virtual machine: memory, interrupts, clock, filters, vCPUs. Any thread may call.
//
//   VMM_CHECK(vm.set_user_memory_region(0, Gpa{0}, size, host));
//   VMM_TRY(irqfd, vm.register_irqfd(eventfd, 5));   // as long as irqfd lives
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "kvm_ioctls/device_attr.hpp"
#include "kvm_ioctls/fam.hpp"
#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/registration.hpp"
#include "kvm_ioctls/stats.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "kvm_ioctls/vcpu.hpp"
#include "kvm_ioctls/vm_interrupts.hpp"
#include "kvm_ioctls/vm_memory.hpp"
#include "kvm_ioctls/xen_attr.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

// MSRs [base, base + count), and a bit for each: 1 leaves to KVM the accesses that `flags` names.
struct MsrFilterRange {
  std::uint32_t flags;  // KVM_MSR_FILTER_READ, _WRITE
  std::uint32_t base;
  std::uint32_t count;
  std::span<const std::uint8_t> bitmap;  // at least (count + 7) / 8 bytes
};

// Moved from, it has no fd, so that every ioctl is EBADF.
class Vm : public VmMemory<Vm>, public VmInterrupts<Vm>, public DeviceAttributes<Vm> {
  template <class T>
  using Result = vmm_base::Result<T>;

 public:
  // Comes from Kvm::create_vm(). `run_size`: KVM_GET_VCPU_MMAP_SIZE, bytes.
  Vm(vmm_base::UniqueFd fd, std::size_t run_size) : fd_(std::move(fd)), run_size_(run_size) {}

  // KVM_CHECK_EXTENSION [KVM_CAP_CHECK_EXTENSION_VM, 3.17]: 0 for absent, else 1 or the
  // capability's value, which may be another than Kvm's.
  [[nodiscard]] Result<int> check_extension(unsigned capability) const noexcept {
    return KVM_IOCTLS_CALL(fd(), KVM_CHECK_EXTENSION, capability, capability);
  }
  // KVM_ENABLE_CAP [KVM_CAP_ENABLE_CAP_VM, 4.2]: with its first argument, or with all four. EINVAL,
  // operand the capability, for one that there isn't.
  [[nodiscard]] Result<void> enable_cap(std::uint32_t capability,
                                        std::uint64_t argument = 0) const noexcept {
    kvm_enable_cap cap{};
    cap.cap = capability;
    cap.args[0] = argument;
    return enable_cap(cap);
  }
  [[nodiscard]] Result<void> enable_cap(const kvm_enable_cap& cap) const noexcept {
    return KVM_IOCTLS_SET(fd(), KVM_ENABLE_CAP, &cap, cap.cap);
  }

  // KVM_CREATE_VCPU [, 2.6]: then the mapping of its kvm_run. EEXIST, operand the id, if it is
  // taken; EINVAL if it is too large.
  [[nodiscard]] Result<Vcpu> create_vcpu(vmm_base::KvmVcpuId id) const {
    VMM_TRY(vcpu, KVM_IOCTLS_CALL(fd(), KVM_CREATE_VCPU, std::size_t{id.value}, id.value));
    return Vcpu::from_fd(vmm_base::UniqueFd(vcpu), run_size_, id);
  }
  // KVM_CREATE_DEVICE [KVM_CAP_DEVICE_CTRL, 3.10]: a device in the kernel: KVM_DEV_TYPE_VFIO.
  // ENODEV, operand the type, for one that there isn't.
  [[nodiscard]] Result<Device> create_device(std::uint32_t type) const noexcept {
    kvm_create_device device{};
    device.type = type;
    VMM_CHECK(KVM_IOCTLS_SET(fd(), KVM_CREATE_DEVICE, &device, type));
    return Device(vmm_base::UniqueFd(static_cast<int>(device.fd)));
  }

  // KVM_GET_CLOCK, KVM_SET_CLOCK [KVM_CAP_ADJUST_CLOCK, 2.6]: the guest's system time in ns, as KVM
  // reckons it for the whole VM, and flags: KVM_CLOCK_TSC_STABLE while every vCPU's pvclock follows
  // one master clock; KVM_CLOCK_REALTIME, _HOST_TSC since 5.16. EINVAL, operand the time, to set
  // others.
  [[nodiscard]] Result<kvm_clock_data> get_clock() const noexcept {
    return KVM_IOCTLS_GET(kvm_clock_data, fd(), KVM_GET_CLOCK, 0);
  }
  [[nodiscard]] Result<void> set_clock(const kvm_clock_data& clock) const noexcept {
    return KVM_IOCTLS_SET(fd(), KVM_SET_CLOCK, &clock, clock.clock);
  }
  // KVM_GET_TSC_KHZ [KVM_CAP_VM_TSC_CONTROL, 5.19]: the TSC frequency, kHz, of the vCPUs to come:
  // the host's, unless it was set.
  [[nodiscard]] Result<std::uint32_t> get_tsc_khz() const noexcept {
    VMM_TRY(khz, KVM_IOCTLS_CALL(fd(), KVM_GET_TSC_KHZ, 0, 0));
    return static_cast<std::uint32_t>(khz);
  }
  // KVM_SET_TSC_KHZ [KVM_CAP_VM_TSC_CONTROL, 5.19]: EINVAL, operand the frequency, if the processor
  // can't scale to it, or, since Linux 6.17, once there is a vCPU.
  [[nodiscard]] Result<void> set_tsc_khz(std::uint32_t khz) const noexcept {
    return KVM_IOCTLS_SET(fd(), KVM_SET_TSC_KHZ, std::size_t{khz}, khz);
  }

  // How many bytes XSAVE's area takes: KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2), or 4096 before Linux
  // 5.17. Any vCPU will do: the first one settles which features this process may give its guests
  // (arch_prctl's ARCH_REQ_XCOMP_GUEST_PERM), so that a size from before could be too small.
  // EPROTO, operand the number, for one that can't be; EBADF for a vCPU that was moved from.
  [[nodiscard]] Result<XsaveSize> xsave_size(const Vcpu& vcpu) const noexcept {
    if (vcpu.fd() < 0) return vmm_base::Error{"KVM_CHECK_EXTENSION", EBADF, KVM_CAP_XSAVE2};
    VMM_TRY(size, check_extension(KVM_CAP_XSAVE2));
    if (size == 0) return XsaveSize(sizeof(XsaveHeader));
    if (static_cast<std::size_t>(size) < sizeof(XsaveHeader) || size > 1 << 20) {
      return vmm_base::Error{"KVM_CHECK_EXTENSION", EPROTO, static_cast<std::uint64_t>(size)};
    }
    return XsaveSize(static_cast<std::size_t>(size));
  }

  // KVM_X86_SET_MSR_FILTER [KVM_CAP_X86_MSR_FILTER, 5.10]: which MSRs the guest reaches in KVM; an
  // access that is denied is the exit MsrRead or MsrWrite after enabling KVM_CAP_X86_USER_SPACE_MSR
  // with KVM_MSR_EXIT_REASON_FILTER, else #GP. Outside of all ranges `deny` says; with no range and
  // no deny it is as if never set. EINVAL, operand their number, for more than 16 ranges, or,
  // operand its base, a bitmap that is too short.
  [[nodiscard]] Result<void> set_msr_filter(std::span<const MsrFilterRange> ranges,
                                            bool deny = false) const noexcept {
    kvm_msr_filter filter{};
    if (ranges.size() > std::size(filter.ranges)) {
      return vmm_base::Error{"KVM_X86_SET_MSR_FILTER", EINVAL, ranges.size()};
    }
    filter.flags = deny ? KVM_MSR_FILTER_DEFAULT_DENY : KVM_MSR_FILTER_DEFAULT_ALLOW;
    for (std::size_t i = 0; i != ranges.size(); ++i) {
      const MsrFilterRange& range = ranges[i];
      if (range.bitmap.size() < (std::uint64_t{range.count} + 7) / 8) {
        return vmm_base::Error{"KVM_X86_SET_MSR_FILTER", EINVAL, range.base};
      }
      filter.ranges[i].flags = range.flags;
      filter.ranges[i].base = range.base;
      filter.ranges[i].nmsrs = range.count;
      filter.ranges[i].bitmap = const_cast<__u8*>(range.bitmap.data());  // NOLINT: only read
    }
    return KVM_IOCTLS_SET(fd(), KVM_X86_SET_MSR_FILTER, &filter, ranges.size());
  }
  // KVM_SET_PMU_EVENT_FILTER [KVM_CAP_PMU_EVENT_FILTER, 5.3]: which events the guest's counters
  // count. E2BIG, operand their number, for more than 300; EINVAL for an action or flags that there
  // aren't.
  [[nodiscard]] Result<void> set_pmu_event_filter(const PmuEventFilter& filter) const noexcept {
    return KVM_IOCTLS_SET(fd(), KVM_SET_PMU_EVENT_FILTER, filter.get(), filter.size());
  }

  // KVM_GET_STATS_FD [KVM_CAP_BINARY_STATS_FD, 5.14]: the VM's counters.
  [[nodiscard]] Result<Stats> get_stats() const {
    VMM_TRY(stats, KVM_IOCTLS_CALL(fd(), KVM_GET_STATS_FD, 0, 0));
    return Stats::from_fd(vmm_base::UniqueFd(stats));
  }

  // KVM_XEN_HVM_CONFIG [KVM_CAP_XEN_HVM, 2.6; 5.12 to intercept]: `flags`
  // KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL and others of KVM_CAP_XEN_HVM; `msr`, 0x40000000 to
  // 0x4fffffff, is where the guest writes the hypercall page's address. EINVAL, operand the flags,
  // for others; ENOTTY without KVM_XEN.
  [[nodiscard]] Result<void> xen_hvm_config(std::uint32_t flags, std::uint32_t msr) const noexcept {
    ::kvm_xen_hvm_config config{};
    config.flags = flags;
    config.msr = msr;
    return KVM_IOCTLS_SET(fd(), KVM_XEN_HVM_CONFIG, &config, flags);
  }
  // KVM_XEN_HVM_SET_ATTR, KVM_XEN_HVM_GET_ATTR [KVM_CAP_XEN_HVM, 5.12]: any of the VM attributes of
  // xen_attr.hpp. ENOENT if the kernel doesn't know the attribute, ENOTTY without KVM_XEN; the
  // error's operand is its type.
  template <class Attr>
  [[nodiscard]] Result<void> xen_hvm_set_attr(const Attr& value) const noexcept {
    kvm_xen_hvm_attr attr{};
    attr.type = Attr::type;
    value.store(attr);
    return KVM_IOCTLS_SET(fd(), KVM_XEN_HVM_SET_ATTR, &attr, Attr::type);
  }
  template <class Attr>
  [[nodiscard]] Result<Attr> xen_hvm_get_attr() const noexcept {
    kvm_xen_hvm_attr attr{};
    attr.type = Attr::type;
    VMM_CHECK(KVM_IOCTLS_SET(fd(), KVM_XEN_HVM_GET_ATTR, &attr, Attr::type));
    return Attr::load(attr);
  }
  // KVM_XEN_HVM_EVTCHN_SEND [KVM_CAP_XEN_HVM, 5.19]: raises a 2-level event channel on a vCPU. Also
  // succeeds if the port is masked or pending already; EINVAL, operand the port, for port 0 or one
  // out of range.
  [[nodiscard]] Result<void> xen_hvm_evtchn_send(std::uint32_t port,
                                                 vmm_base::KvmVcpuId vcpu) const noexcept {
    const kvm_irq_routing_xen_evtchn event{port, vcpu.value,
                                           KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL};
    return KVM_IOCTLS_SET(fd(), KVM_XEN_HVM_EVTCHN_SEND, &event, port);
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // For what must not outlive the VM.
  [[nodiscard]] const SharedFd& shared_fd() const noexcept { return fd_; }

 private:
  SharedFd fd_;
  std::size_t run_size_;
};

}  // namespace kvm_ioctls
