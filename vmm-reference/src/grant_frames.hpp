// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Where the frames of a guest's grant table lie. Nobody here maps what the guest grants, so a frame
// is just a page of its: its own RAM, or, at an address without RAM, one of ours.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>

#include "kvm_ioctls/vm.hpp"
#include "snapshot.hpp"
#include "vm_memory/guest_memory.hpp"
#include "vmm_base/guest_address.hpp"
#include "xen_hcall/grant_table_op.hpp"

namespace vmm_reference {

// For any thread.
class GrantFrames {
 public:
  static constexpr std::uint32_t max_frames = 64;  // Xen's default

  // Takes max_frames memory slots, from the first one that RAM has left free.
  GrantFrames(const kvm_ioctls::Vm& vm, vm_memory::GuestMemory& ram) noexcept
      : vm_(vm), ram_(ram) {}

  [[nodiscard]] xen_hcall::GrantTableSize size() const {
    const std::scoped_lock lock(mutex_);
    return {frames_, max_frames};
  }
  bool grow(std::uint32_t frames) {
    const std::scoped_lock lock(mutex_);
    if (frames > max_frames) return false;
    frames_ = std::max(frames_, frames);
    return true;
  }
  [[nodiscard]] std::optional<std::uint64_t> frame(std::uint32_t index) const {
    const std::scoped_lock lock(mutex_);
    return index < max_frames ? gfns_[index] : std::nullopt;
  }

  // At rest. restore() into one that has no frame mapped; EINVAL, operand the frame, for a page
  // that is there although RAM is, or isn't.
  void save(XenSnapshot& snapshot) const;
  vmm_base::Result<void> restore(const XenSnapshot& snapshot);

  // EINVAL: no such frame. Else KVM's error: there is a device, say.
  vmm_base::Result<void> map(std::uint32_t index, std::uint64_t gfn);
  // As at first: one frame, which lies nowhere. Else KVM's first error.
  vmm_base::Result<void> reset();

 private:
  [[nodiscard]] std::byte* in_ram(std::uint64_t gfn) const noexcept {
    return ram_.host(vmm_base::Gpa{gfn << vmm_base::page_shift}, vmm_base::page_size);
  }
  vmm_base::Result<std::byte*> page(std::uint32_t index, std::uint64_t gfn);

  const kvm_ioctls::Vm& vm_;
  vm_memory::GuestMemory& ram_;
  mutable std::mutex mutex_;
  std::uint32_t frames_ = 1;
  std::array<std::optional<std::uint64_t>, max_frames> gfns_{};
  std::optional<vm_memory::GuestMemory> own_;  // a page a frame, once one is asked for
};

}  // namespace vmm_reference
