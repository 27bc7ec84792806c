// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Guest RAM as the loader needs it: the VMM's own type, vm_memory::GuestMemory for one.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"

namespace linux_loader {

// Both calls refuse a range that isn't wholly RAM. The loader asks for no empty range and none that
// wraps, but `size` may be anything else the file claims.
template <class M>
concept GuestWriter = requires(M& memory, vmm_base::Gpa to, std::span<const std::byte> data,
                               std::uint64_t size) {
  { memory.write(to, data) } -> std::same_as<vmm_base::Result<void>>;
  { memory.fill_zero(to, size) } -> std::same_as<vmm_base::Result<void>>;
};

// A GuestWriter that also has the RAM mapped: a pointer to all of [to, to + size), or null. With it
// a kernel is unpacked where it is to run, and not copied there afterwards.
template <class M>
concept MappedGuestMemory = GuestWriter<M> &&
    requires(M& memory, vmm_base::Gpa to, std::uint64_t size) {
  { memory.host(to, size) } -> std::same_as<std::byte*>;
};

// Refers to a GuestWriter, which must outlive it.
class GuestMemoryRef {
 public:
  template <GuestWriter M>
  requires(!std::is_same_v<std::remove_const_t<M>, GuestMemoryRef>)
      // NOLINTNEXTLINE(google-explicit-constructor): as std::span and std::string_view
      GuestMemoryRef(M& memory)
  noexcept
      : memory_(&memory),
        write_([](void* to, vmm_base::Gpa gpa, std::span<const std::byte> data) {
          return static_cast<M*>(to)->write(gpa, data);
        }),
        fill_zero_([](void* to, vmm_base::Gpa gpa, std::uint64_t size) {
          return static_cast<M*>(to)->fill_zero(gpa, size);
        }) {
    if constexpr (MappedGuestMemory<M>) {
      host_ = [](void* in, vmm_base::Gpa gpa, std::uint64_t size) {
        return static_cast<M*>(in)->host(gpa, size);
      };
    }
  }

  [[nodiscard]] vmm_base::Result<void> write(vmm_base::Gpa to,
                                             std::span<const std::byte> data) const {
    return write_(memory_, to, data);
  }
  [[nodiscard]] vmm_base::Result<void> fill_zero(vmm_base::Gpa to, std::uint64_t size) const {
    return fill_zero_(memory_, to, size);
  }
  // Null where the memory isn't a MappedGuestMemory, too.
  [[nodiscard]] std::byte* host(vmm_base::Gpa gpa, std::uint64_t size) const {
    return host_ != nullptr ? host_(memory_, gpa, size) : nullptr;
  }

 private:
  void* memory_;
  vmm_base::Result<void> (*write_)(void*, vmm_base::Gpa, std::span<const std::byte>);
  vmm_base::Result<void> (*fill_zero_)(void*, vmm_base::Gpa, std::uint64_t);
  std::byte* (*host_)(void*, vmm_base::Gpa, std::uint64_t) = nullptr;
};

}  // namespace linux_loader
