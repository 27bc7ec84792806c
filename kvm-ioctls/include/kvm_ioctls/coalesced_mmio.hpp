// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Writes that KVM keeps back, for addresses of Vm::register_coalesced_mmio(), to be read at the
// next exit or any other time.
//
//   vcpu.coalesced_mmio(page).drain([&](const CoalescedWrite& write) { … });
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "kvm_ioctls/uapi.hpp"

namespace kvm_ioctls {

struct CoalescedWrite {
  std::uint64_t address;  // guest physical, or a port number
  bool pio;
  std::span<const std::byte> data;  // 1 to 8 bytes; valid during the call
};

// A view of the VM's only ring, which is in every vCPU's mapping; valid as long as the vCPU. One
// thread of the VMM at a time may drain it.
class CoalescedMmioRing {
 public:
  static constexpr std::uint32_t page = 4096;

  // Of `page` bytes; null for a ring that there isn't: it is always empty.
  explicit CoalescedMmioRing(std::byte* ring) noexcept : ring_(ring) {}

  // Calls write(CoalescedWrite) for each, oldest first. Returns how many.
  template <class Write>
  std::uint32_t drain(Write&& write) {
    if (ring_ == nullptr) return 0;
    auto& indices = *reinterpret_cast<Indices*>(ring_);
    const auto* entries = reinterpret_cast<const kvm_coalesced_mmio*>(ring_ + sizeof(Indices));
    std::atomic_ref last(indices.last);
    std::atomic_ref first(indices.first);
    std::uint32_t at = first.load(std::memory_order_relaxed);
    std::uint32_t count = 0;
    for (; count != entries_in_page && at < entries_in_page; ++count) {
      const std::uint32_t end = last.load(std::memory_order_acquire);
      if (at == end || end >= entries_in_page) break;
      const kvm_coalesced_mmio& entry = entries[at];
      const std::size_t size = entry.len <= sizeof(entry.data) ? entry.len : sizeof(entry.data);
      write(CoalescedWrite{entry.phys_addr, entry.pio != 0,
                           std::as_bytes(std::span(entry.data)).first(size)});
      at = (at + 1) % entries_in_page;
      first.store(at, std::memory_order_release);
    }
    return count;
  }

 private:
  // struct kvm_coalesced_mmio_ring without its entries.
  struct Indices {
    std::uint32_t first;
    std::uint32_t last;
  };
  static constexpr std::uint32_t entries_in_page =
      (page - sizeof(Indices)) / sizeof(kvm_coalesced_mmio);
  std::byte* ring_;
};

}  // namespace kvm_ioctls
