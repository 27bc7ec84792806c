// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// KVM_GET_STATS_FD: the kernel's counters of a VM or a vCPU, which describe themselves.
//
//   VMM_TRY(stats, vcpu.get_stats());
//   for (const Stat& stat : stats.all()) { VMM_TRY(values, stats.read(stat)); … }
//   if (const Stat* exits = stats.find("exits")) …
#pragma once

#include <unistd.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace kvm_ioctls {

// One counter, or a histogram of several values.
struct Stat {
  enum class Type : std::uint8_t { cumulative, instant, peak, linear_histogram, log_histogram };
  enum class Unit : std::uint8_t { none, bytes, seconds, cycles, boolean };
  std::string name;
  Type type{};  // may be a number that isn't named here, on a newer kernel; so may unit
  Unit unit{};
  bool power_of_two = false;      // a value is to be multiplied by 2^exponent, else by 10^exponent
  std::int16_t exponent = 0;      // -9 with seconds: nanoseconds
  std::uint16_t count = 0;        // values
  std::uint32_t offset = 0;       // in the data block, bytes
  std::uint32_t bucket_size = 0;  // of a linear histogram
};

// Owns the fd. Reading is for any thread, and doesn't wait for the vCPU.
class Stats {
 public:
  // Reads the header and the descriptors. EPROTO, operand the offending number, for a layout that
  // can't be; EIO for one that ends early.
  static vmm_base::Result<Stats> from_fd(vmm_base::UniqueFd fd) {
    Stats stats(std::move(fd));
    kvm_stats_header header{};
    VMM_CHECK(stats.read_at(&header, sizeof(header), 0));
    if (header.name_size == 0 || header.name_size > max_name) return wrong(header.name_size);
    if (header.num_desc > max_stats) return wrong(header.num_desc);
    std::string id(header.name_size, '\0');
    VMM_CHECK(stats.read_at(id.data(), id.size(), header.id_offset));
    stats.id_ = id.substr(0, id.find('\0'));

    const std::size_t size = descriptor_size + header.name_size;
    std::vector<char> raw(size * header.num_desc);
    VMM_CHECK(stats.read_at(raw.data(), raw.size(), header.desc_offset));
    stats.stats_.reserve(header.num_desc);
    for (std::size_t at = 0; at != raw.size(); at += size) {
      Descriptor descriptor;
      std::memcpy(&descriptor, &raw[at], sizeof(descriptor));
      Stat stat;
      stat.name.assign(&raw[at + descriptor_size],
                       ::strnlen(&raw[at + descriptor_size], header.name_size));
      stat.type = static_cast<Stat::Type>(descriptor.flags & KVM_STATS_TYPE_MASK);
      stat.unit =
          static_cast<Stat::Unit>((descriptor.flags & KVM_STATS_UNIT_MASK) >> KVM_STATS_UNIT_SHIFT);
      stat.power_of_two = (descriptor.flags & KVM_STATS_BASE_MASK) == KVM_STATS_BASE_POW2;
      stat.exponent = descriptor.exponent;
      stat.count = descriptor.size;
      stat.offset = descriptor.offset;
      stat.bucket_size = descriptor.bucket_size;
      stats.stats_.push_back(std::move(stat));
    }
    stats.data_ = header.data_offset;
    return stats;
  }

  // "kvm-PID/vcpu-N" or "kvm-PID".
  [[nodiscard]] const std::string& id() const noexcept { return id_; }
  [[nodiscard]] const std::vector<Stat>& all() const noexcept { return stats_; }
  // Null if this kernel has no counter of that name.
  [[nodiscard]] const Stat* find(std::string_view name) const noexcept {
    for (const Stat& stat : stats_) {
      if (stat.name == name) return &stat;
    }
    return nullptr;
  }

  // The values of a counter now; one, but for a histogram. `stat` is one of all().
  [[nodiscard]] vmm_base::Result<std::vector<std::uint64_t>> read(const Stat& stat) const {
    std::vector<std::uint64_t> values(stat.count);
    VMM_CHECK(read_at(values.data(), values.size() * sizeof(values[0]),
                      std::uint64_t{data_} + stat.offset));
    return values;
  }

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  // struct kvm_stats_desc without its name.
  struct Descriptor {
    std::uint32_t flags;
    std::int16_t exponent;
    std::uint16_t size;
    std::uint32_t offset;
    std::uint32_t bucket_size;
  };
  static constexpr std::size_t descriptor_size = sizeof(Descriptor);
  static_assert(descriptor_size == 16);
  static constexpr std::uint32_t max_name = 4096;    // the kernel's is 48
  static constexpr std::uint32_t max_stats = 65536;  // the kernel has some 50

  explicit Stats(vmm_base::UniqueFd fd) noexcept : fd_(std::move(fd)) {}
  static vmm_base::Error wrong(std::uint64_t number) noexcept {
    return {"KVM_GET_STATS_FD", EPROTO, number};
  }
  [[nodiscard]] vmm_base::Result<void> read_at(void* to, std::size_t size,
                                               std::uint64_t offset) const noexcept {
    const ssize_t got = ::pread(fd(), to, size, static_cast<off_t>(offset));
    if (got < 0) return vmm_base::last_error("pread of KVM statistics", offset);
    if (static_cast<std::size_t>(got) != size) {
      return vmm_base::Error{"pread of KVM statistics", EIO, offset};
    }
    return vmm_base::success();
  }

  vmm_base::UniqueFd fd_;
  std::string id_;
  std::vector<Stat> stats_;
  std::uint32_t data_ = 0;
};

}  // namespace kvm_ioctls
