// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The kernel's structures of variable length, as owners that know their size: a header that counts,
// and entries after it in memory. Nobody else computes a size.
//
//   Msrs msrs(3);                          // zeroed room for three
//   msrs[0].index = 0x10;
//   for (kvm_msr_entry& entry : msrs) …    // range access
//   VMM_CHECK(vcpu.get_msrs(msrs));
#pragma once

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>
#include <memory>
#include <new>
#include <span>
#include <type_traits>
#include <utility>

#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"

namespace kvm_ioctls {

// `Count` is the header's member that says how many entries follow: what is used on the way into
// the kernel, what there is room for on the way to be filled. A moved-from one is empty.
template <class Header, class Entry, auto Count>
class FamBuffer {
  static_assert(std::is_trivially_copyable_v<Header> && std::is_trivially_copyable_v<Entry>);
  static_assert(alignof(Entry) <= alignof(std::max_align_t) &&
                sizeof(Header) % alignof(Entry) == 0);

 public:
  using value_type = Entry;

  // `size` entries, zeroed. Throws std::bad_alloc, as all that allocates.
  explicit FamBuffer(std::size_t size = 0)
      : memory_(std::make_unique<std::byte[]>(bytes_for(size))), capacity_(size) {
    resize(size);
  }
  explicit FamBuffer(std::span<const Entry> entries) : FamBuffer(entries.size()) {
    if (!entries.empty()) std::memcpy(data(), entries.data(), entries.size_bytes());
  }
  FamBuffer(std::initializer_list<Entry> entries)
      : FamBuffer(std::span<const Entry>(entries.begin(), entries.size())) {}

  FamBuffer(const FamBuffer& other) : FamBuffer(std::span<const Entry>(other)) {
    if (other.memory_ == nullptr) return;
    const auto count = header().*Count;
    header() = other.header();
    header().*Count = count;
  }
  FamBuffer(FamBuffer&& other) noexcept
      : memory_(std::move(other.memory_)), capacity_(std::exchange(other.capacity_, 0)) {}
  FamBuffer& operator=(FamBuffer other) noexcept {
    std::swap(memory_, other.memory_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  ~FamBuffer() = default;

  // How many entries the header says, but never more than there is memory for: the kernel's word
  // is checked here.
  [[nodiscard]] std::size_t size() const noexcept {
    return memory_ == nullptr ? 0 : std::min<std::size_t>(header().*Count, capacity_);
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] bool empty() const noexcept { return size() == 0; }
  // The number in the header as it is: after E2BIG what some ioctls want.
  [[nodiscard]] std::size_t wanted() const noexcept {
    return memory_ == nullptr ? 0 : static_cast<std::size_t>(header().*Count);
  }
  // Sets the header's count; to no more than capacity().
  void resize(std::size_t size) noexcept {
    if (memory_ == nullptr) return;
    using Number = std::remove_reference_t<decltype(header().*Count)>;
    header().*Count = static_cast<Number>(
        std::min<std::size_t>({size, capacity_, std::numeric_limits<Number>::max()}));
  }

  [[nodiscard]] Entry* data() noexcept { return reinterpret_cast<Entry*>(tail()); }
  [[nodiscard]] const Entry* data() const noexcept {
    return reinterpret_cast<const Entry*>(tail());
  }
  [[nodiscard]] Entry* begin() noexcept { return data(); }
  [[nodiscard]] Entry* end() noexcept { return data() + size(); }
  [[nodiscard]] const Entry* begin() const noexcept { return data(); }
  [[nodiscard]] const Entry* end() const noexcept { return data() + size(); }
  [[nodiscard]] Entry& operator[](std::size_t i) noexcept { return data()[i]; }
  [[nodiscard]] const Entry& operator[](std::size_t i) const noexcept { return data()[i]; }

  // The memory begins with the header, aligned by operator new. Not of a moved-from one.
  [[nodiscard]] Header& header() noexcept { return *reinterpret_cast<Header*>(memory_.get()); }
  [[nodiscard]] const Header& header() const noexcept {
    return *reinterpret_cast<const Header*>(memory_.get());
  }
  // For the ioctl; null, and so EFAULT, for a moved-from one.
  [[nodiscard]] Header* get() noexcept { return reinterpret_cast<Header*>(memory_.get()); }
  [[nodiscard]] const Header* get() const noexcept {
    return reinterpret_cast<const Header*>(memory_.get());
  }

 private:
  // The product must not wrap around.
  static constexpr std::size_t bytes_for(std::size_t size) {
    constexpr std::size_t most = std::numeric_limits<std::ptrdiff_t>::max();
    if (size > (most - sizeof(Header)) / sizeof(Entry)) throw std::bad_array_new_length();
    return sizeof(Header) + size * sizeof(Entry);
  }
  [[nodiscard]] std::byte* tail() const noexcept {
    return memory_ == nullptr ? nullptr : memory_.get() + sizeof(Header);
  }
  std::unique_ptr<std::byte[]> memory_;
  std::size_t capacity_;
};

using Cpuid = FamBuffer<Cpuid2Header, kvm_cpuid_entry2, &Cpuid2Header::nent>;
using Msrs = FamBuffer<MsrsHeader, kvm_msr_entry, &MsrsHeader::nmsrs>;
using MsrList = FamBuffer<MsrListHeader, __u32, &MsrListHeader::nmsrs>;
using IrqRouting = FamBuffer<IrqRoutingHeader, kvm_irq_routing_entry, &IrqRoutingHeader::nr>;
using RegList = FamBuffer<RegListHeader, __u64, &RegListHeader::n>;
// header().action is KVM_PMU_EVENT_ALLOW or _DENY; entries are event selects.
using PmuEventFilter = FamBuffer<PmuEventFilterHeader, __u64, &PmuEventFilterHeader::nevents>;
// A sigset_t of the kernel's, 8 bytes.
using SignalMask = FamBuffer<SignalMaskHeader, __u8, &SignalMaskHeader::len>;

namespace detail {

// Calls fill(buffer) with ever more room, until it isn't E2BIG any more.
template <class Buffer, class Fill>
vmm_base::Result<Buffer> grown(std::size_t room, const Fill& fill) {
  constexpr std::size_t most = 1 << 16;  // entries; the kernel has fewer of anything
  for (;;) {
    Buffer buffer(room);
    auto called = fill(buffer.get());
    if (called) return buffer;
    if (called.error().code != E2BIG || room >= most) return called.error();
    // Some of the ioctls say here how many they have.
    room = std::clamp<std::size_t>(buffer.wanted(), 2 * room, most);
  }
}

}  // namespace detail

// How many bytes XSAVE's area takes for this process's vCPUs: only Vm::xsave_size() tells.
class XsaveSize {
 public:
  [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }

 private:
  friend class Vm;
  explicit XsaveSize(std::size_t bytes) noexcept : bytes_(bytes) {}
  std::size_t bytes_;
};

// struct kvm_xsave, of 4096 bytes, or with the room after it that dynamic features need. The layout
// is that of CPUID leaf 0xd on the host. A moved-from one is empty.
class Xsave {
 public:
  Xsave() : Xsave(sizeof(XsaveHeader)) {}
  explicit Xsave(XsaveSize size) : Xsave(size.bytes()) {}
  [[nodiscard]] std::span<std::byte> bytes() noexcept {
    return {memory_.get(), memory_ == nullptr ? 0 : size_};
  }
  [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
    return {memory_.get(), memory_ == nullptr ? 0 : size_};
  }

 private:
  explicit Xsave(std::size_t bytes) : memory_(std::make_unique<std::byte[]>(bytes)), size_(bytes) {}
  std::unique_ptr<std::byte[]> memory_;
  std::size_t size_;
};

// struct kvm_nested_state: a header of 128 bytes, and the VMCS or VMCB after it. `bytes` of the
// whole, from check_extension(KVM_CAP_NESTED_STATE).
class NestedState {
 public:
  explicit NestedState(std::size_t bytes = sizeof(NestedStateHeader))
      : memory_(std::make_unique<std::byte[]>(std::max(bytes, sizeof(NestedStateHeader)))),
        capacity_(std::max(bytes, sizeof(NestedStateHeader))) {
    header().size = static_cast<__u32>(capacity_);
  }
  // Not of a moved-from one.
  [[nodiscard]] NestedStateHeader& header() noexcept { return *get(); }
  [[nodiscard]] const NestedStateHeader& header() const noexcept {
    return *reinterpret_cast<const NestedStateHeader*>(memory_.get());
  }
  // What follows the header; its format is header().format, KVM_STATE_NESTED_FORMAT_*.
  [[nodiscard]] std::span<std::byte> data() noexcept {
    if (memory_ == nullptr) return {};
    return {memory_.get() + sizeof(NestedStateHeader), size() - sizeof(NestedStateHeader)};
  }
  // Bytes of the whole, as the header says, but never more than there is memory for.
  [[nodiscard]] std::size_t size() const noexcept {
    return memory_ == nullptr
               ? 0
               : std::clamp<std::size_t>(header().size, sizeof(NestedStateHeader), capacity_);
  }
  [[nodiscard]] std::size_t capacity() const noexcept { return memory_ == nullptr ? 0 : capacity_; }
  [[nodiscard]] NestedStateHeader* get() noexcept {
    return reinterpret_cast<NestedStateHeader*>(memory_.get());
  }
  [[nodiscard]] const NestedStateHeader* get() const noexcept {
    return reinterpret_cast<const NestedStateHeader*>(memory_.get());
  }

 private:
  std::unique_ptr<std::byte[]> memory_;
  std::size_t capacity_;
};

}  // namespace kvm_ioctls
