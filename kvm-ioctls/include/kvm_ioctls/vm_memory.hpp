// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VM's memory: slots, the pages that were written, private memory. A part of Vm.
//
// EBADF for a VM that was moved from.
#pragma once

#include <bit>
#include <cerrno>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

#include "kvm_ioctls/ioctl.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

// A bit for each page of a memslot, or of a part of one. A moved-from one has none.
class DirtyBitmap {
 public:
  explicit DirtyBitmap(std::uint64_t pages)
      : words_(pages / 64 + (pages % 64 != 0)), pages_(pages) {}
  [[nodiscard]] std::uint64_t pages() const noexcept { return words_.empty() ? 0 : pages_; }
  [[nodiscard]] bool test(std::uint64_t page) const noexcept {
    return page < pages() && (words_[page / 64] >> (page % 64) & 1) != 0;
  }
  void set(std::uint64_t page) noexcept {
    if (page < pages()) words_[page / 64] |= std::uint64_t{1} << (page % 64);
  }
  // Calls visit(page) for each that is set, in order.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (std::size_t i = 0; i != words_.size(); ++i) {
      for (std::uint64_t rest = words_[i]; rest != 0; rest &= rest - 1) {
        visit(64 * std::uint64_t{i} + static_cast<unsigned>(std::countr_zero(rest)));
      }
    }
  }
  // For the ioctls.
  [[nodiscard]] void* data() noexcept { return words_.data(); }
  [[nodiscard]] const void* data() const noexcept { return words_.data(); }

 private:
  std::vector<std::uint64_t> words_;
  std::uint64_t pages_;
};

namespace detail {

// How many pages each slot has that is logged: KVM_GET_DIRTY_LOG writes a bit for each, and is told
// no size. Locked during the ioctls, so that no slot grows between the look at it and the call.
struct LoggedSlots {
  std::mutex mutex;
  std::map<std::uint32_t, std::uint64_t> pages;
};

}  // namespace detail

// Self has fd().
template <class Self>
class VmMemory {
  template <class T>
  using Result = vmm_base::Result<T>;

 public:
  // KVM_SET_USER_MEMORY_REGION [KVM_CAP_USER_MEMORY, 2.6]: `size` bytes at `gpa` are the host's at
  // `host`, all page-aligned; the host's must stay mapped as long as the VM lives. size 0 removes
  // the slot. EEXIST, operand the address, where another slot is; EINVAL for what isn't
  // page-aligned, a slot above KVM_CAP_NR_MEMSLOTS and flags that the kernel hasn't.
  [[nodiscard]] Result<void> set_user_memory_region(std::uint32_t slot, vmm_base::Gpa gpa,
                                                    std::uint64_t size, void* host,
                                                    std::uint32_t flags = 0) const {
    const kvm_userspace_memory_region region{slot, flags, gpa.value, size,
                                             reinterpret_cast<std::uintptr_t>(host)};
    return noting(region, [&] {
      return KVM_IOCTLS_SET(number(), KVM_SET_USER_MEMORY_REGION, &region, gpa.value);
    });
  }
  // KVM_SET_USER_MEMORY_REGION2 [KVM_CAP_USER_MEMORY2, 6.8]: the same with a guest_memfd, under
  // KVM_MEM_GUEST_MEMFD, for the slot's private pages.
  [[nodiscard]] Result<void> set_user_memory_region2(const UserspaceMemoryRegion2& region) const {
    return noting(region, [&] {
      return KVM_IOCTLS_SET(number(), KVM_SET_USER_MEMORY_REGION2, &region, region.guest_phys_addr);
    });
  }

  // KVM_GET_DIRTY_LOG [, 2.6]: the pages of a slot with KVM_MEM_LOG_DIRTY_PAGES that were written
  // since the last time. `pages` must have as many as the slot, or it is "KVM_GET_DIRTY_LOG, pages
  // of the bitmap", EINVAL, their number. ENOENT, operand the slot, for one that there isn't, that
  // isn't logged, or that wasn't set by this class; ENXIO where there are rings.
  [[nodiscard]] Result<void> get_dirty_log(std::uint32_t slot, DirtyBitmap& pages) const {
    std::unique_lock<std::mutex> lock;
    if (logged_ != nullptr) {  // moved from, it has no fd either
      lock = std::unique_lock(logged_->mutex);
      const auto found = logged_->pages.find(slot);
      if (found == logged_->pages.end() || found->second == 0) {
        return vmm_base::Error{"KVM_GET_DIRTY_LOG", ENOENT, slot};
      }
      if (found->second != pages.pages()) {
        return vmm_base::Error{"KVM_GET_DIRTY_LOG, pages of the bitmap", EINVAL, pages.pages()};
      }
    }
    kvm_dirty_log log{};
    log.slot = slot;
    log.dirty_bitmap = pages.data();
    return KVM_IOCTLS_SET(number(), KVM_GET_DIRTY_LOG, &log, slot);
  }
  // KVM_CLEAR_DIRTY_LOG [KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, 5.2]: after that capability was
  // enabled, logs anew the pages that are set in `pages`, whose first is `first_page` of the slot.
  // Both first_page and the number are multiples of 64, but for the end of the slot: EINVAL,
  // operand the slot, for others, and beyond the slot's end.
  [[nodiscard]] Result<void> clear_dirty_log(std::uint32_t slot, std::uint64_t first_page,
                                             const DirtyBitmap& pages) const noexcept {
    if (pages.pages() > std::numeric_limits<std::uint32_t>::max()) {
      return vmm_base::Error{"KVM_CLEAR_DIRTY_LOG", EINVAL, slot};
    }
    kvm_clear_dirty_log log{};
    log.slot = slot;
    log.first_page = first_page;
    log.num_pages = static_cast<std::uint32_t>(pages.pages());
    log.dirty_bitmap = const_cast<void*>(pages.data());  // NOLINT: the kernel only reads it
    return KVM_IOCTLS_SET(number(), KVM_CLEAR_DIRTY_LOG, &log, slot);
  }
  // KVM_ENABLE_CAP(KVM_CAP_DIRTY_LOG_RING_ACQ_REL, or _RING where that is too new): every vCPU to
  // come has a ring of `bytes`, a power of two and at least a page, instead of the bitmaps. Linux
  // 5.11. EINVAL, operand `bytes`, for other sizes, the second time, and once there is a vCPU;
  // E2BIG above 65536 entries, 1 MiB.
  [[nodiscard]] Result<void> enable_dirty_ring(std::uint64_t bytes) const noexcept {
    // The kernel looks at the low half.
    if (bytes > std::numeric_limits<std::uint32_t>::max()) {
      return vmm_base::Error{"KVM_ENABLE_CAP", E2BIG, bytes};
    }
    auto enabled = self().enable_cap(KVM_CAP_DIRTY_LOG_RING_ACQ_REL, bytes);
    if (!enabled && enabled.error().code == EINVAL) {
      enabled = self().enable_cap(KVM_CAP_DIRTY_LOG_RING, bytes);
    }
    if (!enabled) return vmm_base::Error{"KVM_ENABLE_CAP", enabled.error().code, bytes};
    return vmm_base::success();
  }
  // KVM_RESET_DIRTY_RINGS [KVM_CAP_DIRTY_LOG_RING, 5.11]: logs anew the pages that were harvested
  // from all rings; returns how many those were. EINVAL where there are none.
  [[nodiscard]] Result<std::uint32_t> reset_dirty_rings() const noexcept {
    VMM_TRY(count, KVM_IOCTLS_CALL(number(), KVM_RESET_DIRTY_RINGS, 0, 0));
    return static_cast<std::uint32_t>(count);
  }

  // KVM_SET_NR_MMU_PAGES [KVM_CAP_MMU_SHADOW_CACHE_CONTROL, 2.6]: how many pages KVM's shadow page
  // tables may take. EINVAL, operand their number, below 64.
  [[nodiscard]] Result<void> set_nr_mmu_pages(std::uint32_t pages) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_NR_MMU_PAGES, std::size_t{pages}, pages);
  }

  // KVM_SET_TSS_ADDR [KVM_CAP_SET_TSS_ADDR, 2.6]: three pages that Intel's KVM needs below 4 GiB,
  // where no memslot is. EINVAL, operand the address, above that. Before a vCPU runs.
  [[nodiscard]] Result<void> set_tss_addr(vmm_base::Gpa gpa) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_SET_TSS_ADDR, gpa.value, gpa.value);
  }
  // KVM_SET_IDENTITY_MAP_ADDR [KVM_CAP_SET_IDENTITY_MAP_ADDR, 2.6]: one more. EINVAL once there is
  // a vCPU.
  [[nodiscard]] Result<void> set_identity_map_addr(vmm_base::Gpa gpa) const noexcept {
    __u64 address = gpa.value;
    return KVM_IOCTLS_SET(number(), KVM_SET_IDENTITY_MAP_ADDR, &address, gpa.value);
  }

  // KVM_CREATE_GUEST_MEMFD [KVM_CAP_GUEST_MEMFD, 6.8]: `size` bytes of memory that userspace can't
  // reach, unless `flags` has GUEST_MEMFD_FLAG_MMAP of Linux 6.18. For set_user_memory_region2().
  // EINVAL, operand the size, if it isn't in whole pages, and for flags that the kernel hasn't.
  [[nodiscard]] Result<vmm_base::UniqueFd> create_guest_memfd(
      std::uint64_t size, std::uint64_t flags = 0) const noexcept {
    const CreateGuestMemfd request{size, flags, {}};
    VMM_TRY(memfd, KVM_IOCTLS_CALL(number(), KVM_CREATE_GUEST_MEMFD, &request, size));
    return vmm_base::UniqueFd(memfd);
  }
  // KVM_SET_MEMORY_ATTRIBUTES [KVM_CAP_MEMORY_ATTRIBUTES, 6.8, needs a VM with private memory:
  // SEV-SNP, TDX or CONFIG_KVM_SW_PROTECTED_VM]: makes [gpa, gpa + size) private,
  // KVM_MEMORY_ATTRIBUTE_PRIVATE, or shared, 0. ENOTTY on another VM.
  [[nodiscard]] Result<void> set_memory_attributes(vmm_base::Gpa gpa, std::uint64_t size,
                                                   std::uint64_t attributes) const noexcept {
    const MemoryAttributes request{gpa.value, size, attributes, 0};
    return KVM_IOCTLS_SET(number(), KVM_SET_MEMORY_ATTRIBUTES, &request, gpa.value);
  }

  // KVM_MEMORY_ENCRYPT_OP [KVM_CAP_VM_TYPES, 4.16, needs SEV or TDX]: a subcommand, KVM_SEV_* in a
  // kvm_sev_cmd or KVM_TDX_* in a kvm_tdx_cmd, whose own error is in there. ENOTTY without either.
  [[nodiscard]] Result<void> memory_encrypt_op(void* command) const noexcept {
    return KVM_IOCTLS_SET(number(), KVM_MEMORY_ENCRYPT_OP, command, 0);
  }
  // KVM_MEMORY_ENCRYPT_REG_REGION, KVM_MEMORY_ENCRYPT_UNREG_REGION [, 4.16, needs SEV]: pins memory
  // that may hold encrypted pages. ENOTTY without SEV.
  [[nodiscard]] Result<void> memory_encrypt_reg_region(void* host,
                                                       std::uint64_t size) const noexcept {
    const kvm_enc_region region{reinterpret_cast<std::uintptr_t>(host), size};
    return KVM_IOCTLS_SET(number(), KVM_MEMORY_ENCRYPT_REG_REGION, &region, region.addr);
  }
  [[nodiscard]] Result<void> memory_encrypt_unreg_region(void* host,
                                                         std::uint64_t size) const noexcept {
    const kvm_enc_region region{reinterpret_cast<std::uintptr_t>(host), size};
    return KVM_IOCTLS_SET(number(), KVM_MEMORY_ENCRYPT_UNREG_REGION, &region, region.addr);
  }

 private:
  [[nodiscard]] const Self& self() const noexcept { return static_cast<const Self&>(*this); }
  [[nodiscard]] int number() const noexcept { return self().fd(); }

  // Calls set(), and notes the slot if it is logged. One that isn't any more is ENOENT of the
  // kernel's.
  template <class Region, class Set>
  [[nodiscard]] Result<void> noting(const Region& region, const Set& set) const {
    constexpr std::uint64_t page_size = 4096;
    if ((region.flags & KVM_MEM_LOG_DIRTY_PAGES) == 0 || logged_ == nullptr) return set();
    const std::scoped_lock lock(logged_->mutex);
    std::uint64_t& pages = logged_->pages[region.slot];
    Result<void> done = set();
    if (done) pages = region.memory_size / page_size;
    return done;
  }

  std::shared_ptr<detail::LoggedSlots> logged_ = std::make_shared<detail::LoggedSlots>();
};

}  // namespace kvm_ioctls
