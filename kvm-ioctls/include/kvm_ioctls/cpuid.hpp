// SPDX-License-Identifier: BSD-3-Clause
//
// struct kvm_cpuid2, whose entries follow it in memory, as an owner that knows its size.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <vector>

#include "kvm_ioctls/uapi.hpp"

namespace kvm_ioctls {

class CpuidBuffer {
 public:
  explicit CpuidBuffer(std::uint32_t room)
      : memory_(
            std::make_unique<std::byte[]>(sizeof(Cpuid2Header) + room * sizeof(kvm_cpuid_entry2))) {
    get()->nent = room;
  }
  explicit CpuidBuffer(std::span<const kvm_cpuid_entry2> entries)
      : CpuidBuffer(static_cast<std::uint32_t>(entries.size())) {
    if (!entries.empty()) std::memcpy(tail(), entries.data(), entries.size_bytes());
  }

  // The memory begins with the header, suitably aligned by operator new.
  [[nodiscard]] Cpuid2Header* get() noexcept {
    return reinterpret_cast<Cpuid2Header*>(memory_.get());
  }

  [[nodiscard]] std::vector<kvm_cpuid_entry2> entries() {
    std::vector<kvm_cpuid_entry2> out(get()->nent);
    if (!out.empty()) std::memcpy(out.data(), tail(), out.size() * sizeof(kvm_cpuid_entry2));
    return out;
  }

 private:
  std::byte* tail() noexcept { return memory_.get() + sizeof(Cpuid2Header); }
  std::unique_ptr<std::byte[]> memory_;
};

}  // namespace kvm_ioctls
