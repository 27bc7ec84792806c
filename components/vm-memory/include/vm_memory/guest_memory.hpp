// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Guest RAM: regions of host memory at guest physical addresses, and copies in and out that are
// checked against their ends. The guest writes to all of it at any time: copy once, then check what
// was copied.
//
//   VMM_TRY(memory, GuestMemory::create({{Gpa{0}, 64 << 20}}));
//   VMM_CHECK(memory.write(Gpa{0x1000}, std::as_bytes(std::span(code))));
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <utility>
#include <vector>

#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"

namespace vm_memory {

using vmm_base::Gpa;
using vmm_base::Result;

// A mapping of anonymous host memory that backs [gpa, gpa + size).
class Region {
 public:
  Region(Gpa gpa, std::byte* host, std::uint64_t size) noexcept
      : gpa_(gpa), host_(host), size_(size) {}
  Region(Region&& other) noexcept
      : gpa_(other.gpa_), host_(std::exchange(other.host_, nullptr)), size_(other.size_) {}
  Region& operator=(Region&&) = delete;
  ~Region() {
    if (host_ != nullptr) ::munmap(host_, size_);
  }

  [[nodiscard]] Gpa gpa() const noexcept { return gpa_; }
  [[nodiscard]] std::byte* host() const noexcept { return host_; }
  [[nodiscard]] std::uint64_t size() const noexcept { return size_; }
  [[nodiscard]] bool contains(Gpa gpa) const noexcept {
    return gpa >= gpa_ && gpa.value - gpa_.value < size_;
  }

 private:
  Gpa gpa_;
  std::byte* host_;
  std::uint64_t size_;
};

class GuestMemory {
 public:
  struct Range {
    Gpa gpa;
    std::uint64_t size;  // bytes
  };

  // Maps each range; pages cost host memory when they are first touched, and are in no core dump.
  // EINVAL, operand the address, for a range that is empty, not page-aligned, beyond 2^52 or on top
  // of another; else mmap's or madvise's error.
  static Result<GuestMemory> create(std::initializer_list<Range> ranges) {
    GuestMemory memory;
    for (const Range& range : ranges) {
      constexpr std::uint64_t end_of_physical = std::uint64_t{1} << 52;
      const bool aligned = (range.gpa.value | range.size) % vmm_base::page_size == 0;
      if (!aligned || range.size == 0 || range.gpa.value > end_of_physical ||
          range.size > end_of_physical - range.gpa.value || memory.overlaps(range)) {
        return vmm_base::Error{"guest memory region", EINVAL, range.gpa.value};
      }
      void* host = ::mmap(nullptr, range.size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      if (host == MAP_FAILED) return vmm_base::last_error("mmap of guest memory", range.size);
      Region region(range.gpa, static_cast<std::byte*>(host), range.size);
      if (::madvise(host, range.size, MADV_DONTDUMP) != 0) {
        return vmm_base::last_error("MADV_DONTDUMP", range.size);
      }
      memory.regions_.push_back(std::move(region));
    }
    return memory;
  }

  [[nodiscard]] std::span<const Region> regions() const noexcept { return regions_; }

  // All of it or an error, EFAULT with the address that isn't RAM as operand; then a part may have
  // been copied. Ranges may run from one region into the next.
  Result<void> read(Gpa from, std::span<std::byte> to) const noexcept {
    return each_piece(from, to.size(), [&](std::byte* host, std::size_t at, std::size_t size) {
      std::memcpy(to.data() + at, host, size);
    });
  }
  Result<void> write(Gpa to, std::span<const std::byte> from) noexcept {
    return each_piece(to, from.size(), [&](std::byte* host, std::size_t at, std::size_t size) {
      std::memcpy(host, from.data() + at, size);
    });
  }
  Result<void> fill_zero(Gpa to, std::uint64_t size) noexcept {
    return each_piece(to, size,
                      [](std::byte* host, std::size_t, std::size_t n) { std::memset(host, 0, n); });
  }

  // `size` contiguous bytes for as long as this object lives, for what is shared with the guest;
  // null if they aren't within one region. Access them atomically or copy them.
  [[nodiscard]] std::byte* host(Gpa gpa, std::uint64_t size) const noexcept {
    const Region* region = find(gpa);
    if (region == nullptr) return nullptr;
    const std::uint64_t offset = gpa.value - region->gpa().value;
    return size <= region->size() - offset ? region->host() + offset : nullptr;
  }

 private:
  [[nodiscard]] bool overlaps(const Range& range) const noexcept {
    return std::any_of(regions_.begin(), regions_.end(), [&](const Region& region) {
      return range.gpa.value < region.gpa().value + region.size() &&
             region.gpa().value < range.gpa.value + range.size;
    });
  }

  [[nodiscard]] const Region* find(Gpa gpa) const noexcept {
    for (const Region& region : regions_) {
      if (region.contains(gpa)) return &region;
    }
    return nullptr;
  }

  template <class Piece>
  Result<void> each_piece(Gpa gpa, std::uint64_t size, Piece&& piece) const noexcept {
    for (std::uint64_t at = 0; at < size;) {
      const Region* region = find(gpa + at);
      // An address that wraps around is not RAM either.
      if (region == nullptr || gpa.value + at < gpa.value) {
        return vmm_base::Error{"guest memory access", EFAULT, gpa.value + at};
      }
      const std::uint64_t offset = gpa.value + at - region->gpa().value;
      const std::uint64_t length = std::min(size - at, region->size() - offset);
      piece(region->host() + offset, at, length);
      at += length;
    }
    return vmm_base::success();
  }

  std::vector<Region> regions_;
};

}  // namespace vm_memory
