// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "grant_frames.hpp"

#include <cstring>
#include <utility>
#include <vector>

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

void GrantFrames::save(XenSnapshot& snapshot) const {
  const std::scoped_lock lock(mutex_);
  snapshot.grant_frame_count = frames_;
  for (std::uint32_t index = 0; index < max_frames; ++index) {
    if (!gfns_[index]) continue;
    GrantFrameSnapshot& frame = snapshot.grant_frames.emplace_back();
    frame.index = index;
    frame.gfn = *gfns_[index];
    if (in_ram(frame.gfn) != nullptr) continue;
    const std::byte* page = own_->host(Gpa{index * page_size}, page_size);
    frame.page.assign(page, page + page_size);
  }
}

Result<void> GrantFrames::restore(const XenSnapshot& snapshot) {
  for (const GrantFrameSnapshot& frame : snapshot.grant_frames) {
    const std::byte* ram = frame.gfn >> (52 - page_shift) == 0 ? in_ram(frame.gfn) : nullptr;
    if ((ram == nullptr) != (frame.page.size() == page_size)) {
      return vmm_base::Error{"grant table frame of a snapshot", EINVAL, frame.index};
    }
    // map() makes it empty, as for a guest that asks for it the first time.
    const std::vector<std::byte> content =
        ram == nullptr ? frame.page : std::vector<std::byte>(ram, ram + page_size);
    VMM_CHECK(map(frame.index, frame.gfn));
    const std::scoped_lock lock(mutex_);
    VMM_TRY(to, page(frame.index, frame.gfn));
    std::memcpy(to, content.data(), page_size);
  }
  return grow(snapshot.grant_frame_count) ? Result<void>(vmm_base::success())
                                          : vmm_base::Error{"grant table frames of a snapshot",
                                                            EINVAL, snapshot.grant_frame_count};
}

}  // namespace vmm_reference
