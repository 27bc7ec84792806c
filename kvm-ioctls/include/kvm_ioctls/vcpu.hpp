// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A virtual processor. Its ioctls wait while it is in KVM_RUN, so they belong on the thread that
// runs it; a Kicker (kicker.hpp) is for any thread.
//
//   VMM_TRY(vcpu, vm.create_vcpu(KvmVcpuId{0}));
//   VMM_TRY(exit, vcpu.run());
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "kvm_ioctls/coalesced_mmio.hpp"
#include "kvm_ioctls/device_attr.hpp"
#include "kvm_ioctls/dirty_ring.hpp"
#include "kvm_ioctls/exit.hpp"
#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/kicker.hpp"
#include "kvm_ioctls/sync_regs.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "kvm_ioctls/vcpu_events.hpp"
#include "kvm_ioctls/vcpu_registers.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

// Moved from, it has no fd, so that every ioctl is EBADF, and a page that leads nowhere.
class Vcpu : public VcpuRegisters<Vcpu>, public VcpuEvents<Vcpu>, public DeviceAttributes<Vcpu> {
 public:
  // Comes from Vm::create_vcpu(). Maps `run_size` bytes of kvm_run. EPROTO, operand that size, if
  // it is too small to be one.
  static vmm_base::Result<Vcpu> from_fd(vmm_base::UniqueFd fd, std::size_t run_size,
                                        vmm_base::KvmVcpuId id) {
    if (run_size < sizeof(kvm_run)) {
      return vmm_base::Error{"KVM_GET_VCPU_MMAP_SIZE", EPROTO, run_size};
    }
    // First, so that no lack of memory leaves the mapping without an owner.
    auto page = std::make_shared<detail::RunPage>(run_size);
    void* run = ::mmap(nullptr, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd.get(), 0);
    if (run == MAP_FAILED) return vmm_base::last_error("mmap of kvm_run", id.value);
    page->run = static_cast<kvm_run*>(run);
    return Vcpu(std::move(fd), std::move(page), id);
  }
  Vcpu(Vcpu&& other) noexcept
      : fd_(std::move(other.fd_)),
        page_(std::move(other.page_)),
        run_(std::exchange(other.run_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        id_(other.id_) {}
  Vcpu& operator=(Vcpu&& other) noexcept {
    Vcpu taken(std::move(other));
    std::swap(fd_, taken.fd_);
    std::swap(page_, taken.page_);
    std::swap(run_, taken.run_);
    std::swap(size_, taken.size_);
    std::swap(id_, taken.id_);
    return *this;
  }
  ~Vcpu() = default;

  // KVM_RUN [, 2.6]: runs the guest until something is for the VMM to do. A signal, a kick and
  // immediate_exit are the exit Interrupted; EFAULT that KVM explains is the exit MemoryFault. The
  // exit is valid until the next run().
  [[nodiscard]] vmm_base::Result<Exit> run() noexcept {
    if (::ioctl(fd(), KVM_RUN, 0) < 0) [[unlikely]] {
      return run_failed(errno, [](auto& kind) -> vmm_base::Result<Exit> { return Exit(kind); });
    }
    return decode_exit(*run_, size_);
  }
  // The same, and calls the first of `cases` that takes the exit, as match() does; returns what
  // that returns, which all of them must. It costs no more than a switch over the exit's number.
  template <class... Cases>
  requires(sizeof...(Cases) != 0)
      [[nodiscard, gnu::always_inline]] inline auto run(Cases&&... cases) {
    detail::Overloaded<std::remove_cvref_t<Cases>...> visit{std::forward<Cases>(cases)...};
    using Returned = decltype(visit(std::declval<Interrupted&>()));
    using Outcome = vmm_base::Result<Returned>;
    const auto outcome = [&visit](auto& kind) -> Outcome {
      if constexpr (std::is_void_v<Returned>) {
        visit(kind);
        return vmm_base::success();
      } else {
        return visit(kind);
      }
    };
    if (::ioctl(fd(), KVM_RUN, 0) < 0) [[unlikely]] {
      return run_failed(errno, outcome);
    }
    return visit_exit(*run_, size_, outcome);
  }
  // KVM_RUN alone: what came of it is in page(). EINTR, or EAGAIN, for Interrupted.
  [[nodiscard]] vmm_base::Result<void> enter() noexcept {
    return KVM_IOCTLS_SET(fd(), KVM_RUN, 0, id_.value);
  }

  // The kvm_run page, which the kernel reads when it enters KVM_RUN and writes when it leaves.
  [[nodiscard]] kvm_run& page() const noexcept {
    if (run_ == nullptr) [[unlikely]] {
      thread_local kvm_run nowhere{};
      return nowhere;
    }
    return *run_;
  }

  // A handle to take this vCPU out of run() from any thread, where a Runner runs it.
  [[nodiscard]] Kicker kicker(KickSignal signal) const noexcept { return {page_, signal}; }
  // Makes every KVM_RUN return Interrupted at once, until cleared; the Kicker's flag without a
  // protocol. One that is under way needs a signal as well. Any thread.
  void request_exit(bool wanted = true) noexcept {
    std::atomic_ref(page().immediate_exit).store(wanted ? 1 : 0, std::memory_order_relaxed);
  }
  // For an APIC in userspace: makes run() return IrqWindowOpen once the guest takes interrupts.
  void request_interrupt_window(bool wanted) noexcept {
    page().request_interrupt_window = wanted ? 1 : 0;
  }

  // KVM_CAP_SYNC_REGS: registers in the page, with no ioctl.
  [[nodiscard]] SyncRegs sync_regs() const noexcept { return SyncRegs(page()); }

  // The VM's ring of writes kept back; `page_offset` is check_extension(KVM_CAP_COALESCED_MMIO), in
  // pages; an empty ring for an offset outside of the mapping.
  [[nodiscard]] CoalescedMmioRing coalesced_mmio(int page_offset) const noexcept {
    const std::size_t at = static_cast<std::size_t>(page_offset) * CoalescedMmioRing::page;
    if (page_offset <= 0 || size_ < CoalescedMmioRing::page ||
        at > size_ - CoalescedMmioRing::page) {
      return CoalescedMmioRing(nullptr);
    }
    return CoalescedMmioRing(reinterpret_cast<std::byte*>(run_) + at);
  }
  // This vCPU's ring of dirtied pages, of as many bytes as Vm::enable_dirty_ring() was told.
  [[nodiscard]] vmm_base::Result<DirtyRing> map_dirty_ring(std::size_t bytes) const noexcept {
    return DirtyRing::from_fd(fd(), bytes);
  }

  [[nodiscard]] vmm_base::KvmVcpuId id() const noexcept { return id_; }
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  // For Runner.
  [[nodiscard]] const std::shared_ptr<detail::RunPage>& run_page() const noexcept { return page_; }

 private:
  Vcpu(vmm_base::UniqueFd fd, std::shared_ptr<detail::RunPage> page,
       vmm_base::KvmVcpuId id) noexcept
      : fd_(std::move(fd)), page_(std::move(page)), run_(page_->run), size_(page_->size), id_(id) {}

  // What visit() makes of it, or the error.
  template <class Visit>
  [[nodiscard, gnu::always_inline]] inline auto run_failed(int code, const Visit& visit) noexcept
      -> decltype(visit(std::declval<Interrupted&>())) {
    // EAGAIN: a vCPU that waited for INIT and SIPI was woken, by those as well.
    if (code == EINTR || code == EAGAIN) return detail::visited(Interrupted{}, visit);
    if ((code == EFAULT || code == EHWPOISON) && page().exit_reason == KVM_EXIT_MEMORY_FAULT) {
      const auto& fault = *reinterpret_cast<const MemoryFaultPayload*>(run_->padding);
      return detail::visited(MemoryFault{fault.flags, fault.gpa, fault.size, code}, visit);
    }
    return vmm_base::Error{"KVM_RUN", code, id_.value};
  }

  vmm_base::UniqueFd fd_;
  std::shared_ptr<detail::RunPage> page_;
  kvm_run* run_;      // page_'s, without the way there
  std::size_t size_;  // of the mapping, bytes
  vmm_base::KvmVcpuId id_;
};

}  // namespace kvm_ioctls
