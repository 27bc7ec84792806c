// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The rings of pages that a vCPU dirtied, instead of KVM_GET_DIRTY_LOG's bitmaps.
//
//   VMM_CHECK(vm.enable_dirty_ring(64 * 1024));          // before the first vCPU
//   VMM_TRY(ring, vcpu.map_dirty_ring(64 * 1024));
//   ring.harvest([&](std::uint32_t slot, std::uint64_t page) { … });
//   VMM_CHECK(vm.reset_dirty_rings());                   // the pages may be logged again
#pragma once

#include <sys/mman.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"

namespace kvm_ioctls {

// Owns its mapping, which keeps the vCPU in the kernel. One thread at a time may harvest a ring;
// the vCPU may run meanwhile.
class DirtyRing {
 public:
  // From Vcpu::map_dirty_ring().
  static vmm_base::Result<DirtyRing> from_fd(int vcpu, std::size_t bytes) noexcept {
    void* ring = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu,
                        KVM_DIRTY_LOG_PAGE_OFFSET * off_t{4096});
    if (ring == MAP_FAILED) return vmm_base::last_error("mmap of the dirty ring", bytes);
    return DirtyRing(static_cast<kvm_dirty_gfn*>(ring), bytes);
  }

  // Calls page(slot, n) for each entry that the vCPU has made since the last time, in its order:
  // page n of the memslot was written. Bits 31:16 of slot are the address space. Returns how many.
  template <class Page>
  std::uint32_t harvest(Page&& page) {
    if (ring_ == nullptr) return 0;  // moved from
    std::uint32_t count = 0;
    for (; count != entries_; ++count) {
      kvm_dirty_gfn& gfn = ring_.get()[next_ % entries_];
      // The kernel fills the entry, then sets the flag; and takes it back once it reads ours.
      std::atomic_ref flags(gfn.flags);
      if ((flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_MASK) != KVM_DIRTY_GFN_F_DIRTY) {
        break;
      }
      page(std::uint32_t{gfn.slot}, std::uint64_t{gfn.offset});
      flags.store(KVM_DIRTY_GFN_F_RESET, std::memory_order_release);
      ++next_;
    }
    return count;
  }

 private:
  struct Unmap {
    std::size_t bytes = 0;
    void operator()(kvm_dirty_gfn* ring) const noexcept { ::munmap(ring, bytes); }
  };
  DirtyRing(kvm_dirty_gfn* ring, std::size_t bytes) noexcept
      : ring_(ring, Unmap{bytes}),
        entries_(static_cast<std::uint32_t>(bytes / sizeof(kvm_dirty_gfn))) {}

  std::unique_ptr<kvm_dirty_gfn, Unmap> ring_;
  std::uint32_t entries_;
  std::uint32_t next_ = 0;
};

}  // namespace kvm_ioctls
