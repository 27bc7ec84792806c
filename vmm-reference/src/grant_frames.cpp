// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "grant_frames.hpp"

#include <cstring>
#include <utility>

namespace vmm_reference {

using vmm_base::Gpa;
using vmm_base::page_shift;
using vmm_base::page_size;
using vmm_base::Result;

// The page that the guest has, or is to have, for this frame at `gfn`.
Result<std::byte*> GrantFrames::page(std::uint32_t index, std::uint64_t gfn) {
  if (std::byte* page = in_ram(gfn)) return page;
  if (!own_) {
    VMM_TRY(pages, vm_memory::GuestMemory::create({{Gpa{0}, max_frames * page_size}}));
    own_.emplace(std::move(pages));
  }
  return own_->host(Gpa{index * page_size}, page_size);
}

Result<void> GrantFrames::map(std::uint32_t index, std::uint64_t gfn) {
  const std::scoped_lock lock(mutex_);
  if (index >= max_frames || gfn >> (52 - page_shift) != 0) {
    return vmm_base::Error{"grant table frame", EINVAL, index};
  }
  VMM_TRY(to, page(index, gfn));
  const auto slot = static_cast<std::uint32_t>(ram_.regions().size() + index);
  if (in_ram(gfn) == nullptr) {
    VMM_CHECK(vm_.set_user_memory_region(slot, Gpa{gfn << page_shift}, page_size, to));
  } else if (gfns_[index] && in_ram(*gfns_[index]) == nullptr) {
    VMM_CHECK(vm_.set_user_memory_region(slot, Gpa{}, 0, nullptr));
  }
  // It becomes Xen's page: empty at first, and what it was when it moves.
  if (!gfns_[index]) {
    std::memset(to, 0, page_size);
  } else {
    VMM_TRY(from, page(index, *gfns_[index]));
    std::memmove(to, from, page_size);
  }
  gfns_[index] = gfn;
  frames_ = std::max(frames_, index + 1);
  return vmm_base::success();
}

Result<void> GrantFrames::reset() {
  const std::scoped_lock lock(mutex_);
  Result<void> first = vmm_base::success();
  for (std::uint32_t index = 0; index < max_frames; ++index) {
    if (gfns_[index] && in_ram(*gfns_[index]) == nullptr) {
      const auto slot = static_cast<std::uint32_t>(ram_.regions().size() + index);
      auto removed = vm_.set_user_memory_region(slot, Gpa{}, 0, nullptr);
      if (first) first = removed;
    }
    gfns_[index].reset();
  }
  frames_ = 1;
  return first;
}

}  // namespace vmm_reference
