// SPDX-License-Identifier: BSD-3-Clause
//
// A virtual processor. Its ioctls wait while it is in KVM_RUN, so they belong on the thread that
// runs it; request_exit() is for any thread.
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "kvm_ioctls/cpuid.hpp"
#include "kvm_ioctls/exit.hpp"
#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "kvm_ioctls/xen_attr.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

class Vcpu {
 public:
  // Comes from Vm::create_vcpu(). Maps `run_size` bytes of kvm_run.
  static vmm_base::Result<Vcpu> from_fd(vmm_base::UniqueFd fd, std::size_t run_size,
                                        vmm_base::KvmVcpuId id) noexcept {
    void* run = ::mmap(nullptr, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (run == MAP_FAILED) return vmm_base::last_error("mmap of kvm_run", id.value);
    return Vcpu(std::move(fd), Run(static_cast<kvm_run*>(run), Unmap{run_size}), id);
  }

  // KVM_RUN. A signal, or request_exit(), is the exit Interrupted.
  [[nodiscard]] vmm_base::Result<Exit> run() noexcept {
    if (::ioctl(fd(), KVM_RUN, 0) < 0) {
      // EAGAIN: a vCPU that waited for INIT and SIPI was woken, by those as well.
      if (errno == EINTR || errno == EAGAIN) return Exit(Interrupted{});
      return vmm_base::last_error("KVM_RUN", id_.value);
    }
    return decode_exit(*run_, run_.get_deleter().size);
  }

  // Makes the next KVM_RUN return Interrupted at once, until cleared. One that is under way needs a
  // signal as well. Any thread.
  void request_exit(bool wanted = true) noexcept {
    std::atomic_ref(run_->immediate_exit).store(wanted ? 1 : 0, std::memory_order_relaxed);
  }

  [[nodiscard]] vmm_base::Result<kvm_regs> get_regs() const noexcept {
    return get<kvm_regs>("KVM_GET_REGS", KVM_GET_REGS);
  }
  [[nodiscard]] vmm_base::Result<void> set_regs(const kvm_regs& regs) const noexcept {
    return set("KVM_SET_REGS", KVM_SET_REGS, regs);
  }
  [[nodiscard]] vmm_base::Result<kvm_sregs> get_sregs() const noexcept {
    return get<kvm_sregs>("KVM_GET_SREGS", KVM_GET_SREGS);
  }
  [[nodiscard]] vmm_base::Result<void> set_sregs(const kvm_sregs& sregs) const noexcept {
    return set("KVM_SET_SREGS", KVM_SET_SREGS, sregs);
  }
  [[nodiscard]] vmm_base::Result<kvm_mp_state> get_mp_state() const noexcept {
    return get<kvm_mp_state>("KVM_GET_MP_STATE", KVM_GET_MP_STATE);
  }
  [[nodiscard]] vmm_base::Result<void> set_mp_state(const kvm_mp_state& state) const noexcept {
    return set("KVM_SET_MP_STATE", KVM_SET_MP_STATE, state);
  }

  // KVM_SET_CPUID2. E2BIG for more leaves than KVM takes.
  [[nodiscard]] vmm_base::Result<void> set_cpuid2(std::span<const kvm_cpuid_entry2> leaves) const {
    CpuidBuffer buffer(leaves);
    VMM_CHECK(ioctl(fd(), "KVM_SET_CPUID2", KVM_SET_CPUID2, buffer.get(), leaves.size()));
    return vmm_base::success();
  }

  // KVM_SET_MSRS of one register. EINVAL, operand its number, if KVM refused it.
  [[nodiscard]] vmm_base::Result<void> set_msr(std::uint32_t index,
                                               std::uint64_t value) const noexcept {
    struct {
      MsrsHeader header{.nmsrs = 1, .pad = 0};
      kvm_msr_entry entry{};
    } msrs;
    msrs.entry.index = index;
    msrs.entry.data = value;
    VMM_TRY(done, ioctl(fd(), "KVM_SET_MSRS", KVM_SET_MSRS, &msrs, index));
    if (done != 1) return vmm_base::Error{"KVM_SET_MSRS", EINVAL, index};
    return vmm_base::success();
  }

  // KVM_TRANSLATE: a guest virtual address by this vCPU's page tables as they are now. EFAULT if it
  // isn't mapped.
  [[nodiscard]] vmm_base::Result<vmm_base::Gpa> translate(vmm_base::Gva gva) const noexcept {
    kvm_translation translation{};
    translation.linear_address = gva.value;
    VMM_CHECK(ioctl(fd(), "KVM_TRANSLATE", KVM_TRANSLATE, &translation, gva.value));
    if (translation.valid == 0) return vmm_base::Error{"KVM_TRANSLATE", EFAULT, gva.value};
    return vmm_base::Gpa{translation.physical_address};
  }

  // KVM_GET_TSC_KHZ: the guest's TSC frequency, kHz.
  [[nodiscard]] vmm_base::Result<std::uint32_t> get_tsc_khz() const noexcept {
    VMM_TRY(khz, ioctl(fd(), "KVM_GET_TSC_KHZ", KVM_GET_TSC_KHZ, 0, id_.value));
    return static_cast<std::uint32_t>(khz);
  }

  // KVM_GET_DEVICE_ATTR(KVM_VCPU_TSC_OFFSET): guest TSC = scaled host TSC + this, in cycles, modulo
  // 2^64. Linux 5.16.
  [[nodiscard]] vmm_base::Result<std::uint64_t> get_tsc_offset() const noexcept {
    std::uint64_t offset = 0;
    kvm_device_attr attr{};
    attr.group = KVM_VCPU_TSC_CTRL;
    attr.attr = KVM_VCPU_TSC_OFFSET;
    attr.addr = reinterpret_cast<std::uintptr_t>(&offset);
    VMM_CHECK(ioctl(fd(), "KVM_GET_DEVICE_ATTR", KVM_GET_DEVICE_ATTR, &attr, KVM_VCPU_TSC_OFFSET));
    return offset;
  }

  // KVM_XEN_VCPU_{SET,GET}_ATTR with any of the vCPU attributes of xen_attr.hpp. ENOENT if the
  // kernel doesn't know the attribute; the error's operand is its type.
  template <class Attr>
  [[nodiscard]] vmm_base::Result<void> xen_vcpu_set_attr(const Attr& value) const noexcept {
    kvm_xen_vcpu_attr attr{};
    attr.type = Attr::type;
    value.store(attr);
    return set("KVM_XEN_VCPU_SET_ATTR", KVM_XEN_VCPU_SET_ATTR, attr, Attr::type);
  }
  template <class Attr>
  [[nodiscard]] vmm_base::Result<Attr> xen_vcpu_get_attr() const noexcept {
    kvm_xen_vcpu_attr attr{};
    attr.type = Attr::type;
    VMM_CHECK(ioctl(fd(), "KVM_XEN_VCPU_GET_ATTR", KVM_XEN_VCPU_GET_ATTR, &attr, Attr::type));
    return Attr::load(attr);
  }

  // KVM_CAP_SYNC_REGS: from now on every exit leaves the general and the special registers in
  // synced(), with no ioctl.
  void sync_registers() noexcept { run_->kvm_valid_regs = KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS; }
  [[nodiscard]] const kvm_sync_regs& synced() const noexcept { return run_->s.regs; }
  // Changes RAX with the next run(), after sync_registers().
  void set_synced_rax(std::uint64_t value) noexcept {
    run_->s.regs.regs.rax = value;
    run_->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
  }

  [[nodiscard]] vmm_base::KvmVcpuId id() const noexcept { return id_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  struct Unmap {
    std::size_t size = 0;
    void operator()(kvm_run* run) const noexcept { ::munmap(run, size); }
  };
  using Run = std::unique_ptr<kvm_run, Unmap>;

  Vcpu(vmm_base::UniqueFd fd, Run run, vmm_base::KvmVcpuId id) noexcept
      : fd_(std::move(fd)), run_(std::move(run)), id_(id) {}

  template <class T>
  vmm_base::Result<T> get(const char* name, unsigned long request) const noexcept {
    T value{};
    VMM_CHECK(ioctl(fd(), name, request, &value, id_.value));
    return value;
  }
  template <class T>
  vmm_base::Result<void> set(const char* name, unsigned long request,
                             const T& value) const noexcept {
    return set(name, request, value, id_.value);
  }
  template <class T>
  vmm_base::Result<void> set(const char* name, unsigned long request, const T& value,
                             std::uint64_t operand) const noexcept {
    VMM_CHECK(ioctl(fd(), name, request, &value, operand));
    return vmm_base::success();
  }

  vmm_base::UniqueFd fd_;
  Run run_;
  vmm_base::KvmVcpuId id_;
};

}  // namespace kvm_ioctls
