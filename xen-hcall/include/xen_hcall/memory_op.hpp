// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_memory_op, what unprivileged HVM and PVH guests use of it: where shared_info and the
// grant table lie, the memory map, and the balloon.
#pragma once

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/memory.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// map_shared_info, map_grant_frame: shared_info, or frame `index` of the grant table, now lies in
//   this guest frame, and nowhere else. The error is told to the guest as -EINVAL.
// populate_page, remove_page: gives the guest memory at this frame, or takes it away; false if that
//   can't be, as where none is to be. A VMM without a balloon may say true for what is RAM, and
//   leave it there.
template <class V>
concept MemoryOpVmm = GuestReader<V> && GuestWriter<V> &&
    requires(V& vmm, std::uint32_t index, std::uint64_t gfn) {
  { vmm.map_shared_info(gfn) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.map_grant_frame(index, gfn) } -> std::same_as<vmm_base::Result<void>>;
  { vmm.populate_page(gfn) } -> std::same_as<bool>;
  { vmm.remove_page(gfn) } -> std::same_as<bool>;
};

template <MemoryOpVmm V>
class MemoryOp {
 public:
  // `map`: the guest's memory, for XENMEM_memory_map and the sizes; empty: the call isn't there.
  explicit MemoryOp(V& vmm, std::vector<xen_abi::E820Entry> map = {}, xen_abi::DomainId self = 1)
      : vmm_(vmm), map_(std::move(map)), self_(self), pages_(ram_pages()) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::memory_op;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    return call.long_mode ? memory_op<std::uint64_t>({vcpu, call.params[1]}, call.params[0])
                          : memory_op<std::uint32_t>({vcpu, call.params[1]}, call.params[0]);
  }

  // At rest, for who saves a domain and restores it: how many pages the balloon has left it.
  // EINVAL, operand their number, for more than the map has.
  [[nodiscard]] std::uint64_t pages() const noexcept { return pages_; }
  vmm_base::Result<void> set_pages(std::uint64_t pages) noexcept {
    if (pages > ram_pages()) return vmm_base::Error{"pages of a domain", EINVAL, pages};
    pages_ = pages;
    return vmm_base::success();
  }

 private:
  // How far one call goes; for what it leaves, the guest calls again. Xen stops for interrupts.
  static constexpr std::uint64_t max_pages = 4096;

  template <class Word>
  std::optional<xen_abi::Answer> memory_op(Caller caller, std::uint64_t command) {
    const std::uint64_t start = command >> xen_abi::memory_op::extent_shift;
    const auto op = static_cast<std::uint32_t>(command & xen_abi::memory_op::command_mask);
    switch (op) {
      case xen_abi::memory_op::increase_reservation:
        return each_extent<Word>(caller, start, [](std::uint64_t) { return false; });
      case xen_abi::memory_op::decrease_reservation:
        return each_extent<Word>(caller, start, [this](std::uint64_t gfn) { return remove(gfn); });
      case xen_abi::memory_op::populate_physmap:
        return each_extent<Word>(caller, start,
                                 [this](std::uint64_t gfn) { return populate(gfn); });
      case xen_abi::memory_op::add_to_physmap:
        return add_to_physmap<Word>(caller, start);
      case xen_abi::memory_op::add_to_physmap_batch:
        return add_to_physmap_batch<Word>(caller, start);
      default:
        break;
    }
    switch (op) {
      case xen_abi::memory_op::maximum_ram_page:
        return start != 0 ? xen_abi::Answer{xen_abi::Errno::inval} : ok(as_result(max_gfn() + 1));
      case xen_abi::memory_op::current_reservation:
        return of_domain(caller, start, pages_);
      case xen_abi::memory_op::maximum_reservation:
        return of_domain(caller, start, ram_pages());
      case xen_abi::memory_op::maximum_gpfn:
        return of_domain(caller, start, max_gfn());
      case xen_abi::memory_op::remove_from_physmap:
        return remove_from_physmap<Word>(caller, start);
      default:
        break;
    }
    if (start != 0) return std::nullopt;  // which is no such sub-op
    switch (op) {
      case xen_abi::memory_op::memory_map:
        return memory_map<Word>(caller);
      case xen_abi::memory_op::machine_memory_map:  // the hardware domain's
        return xen_abi::Answer{xen_abi::Errno::perm};
      case xen_abi::memory_op::get_sharing_freed_pages:
      case xen_abi::memory_op::get_sharing_shared_pages:
        return ok();  // no page is shared
      default:
        return std::nullopt;
    }
  }

  // --- where pages lie ---

  template <class Word>
  xen_abi::Answer add_to_physmap(Caller caller, std::uint64_t start) {
    if (start > 0xffff) return {xen_abi::Errno::dom};
    const auto argument = read_guest<xen_abi::AddToPhysmap<Word>>(vmm_, caller.vcpu, caller.gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (argument->space == xen_abi::mapspace::gmfn_foreign) return {xen_abi::Errno::nosys};
    if (!is_self(argument->domid)) return {xen_abi::Errno::srch};
    if (argument->space == xen_abi::mapspace::dev_mmio) return {xen_abi::Errno::acces};
    return add_page(argument->space, argument->idx, argument->gpfn);
  }

  template <class Word>
  xen_abi::Answer add_to_physmap_batch(Caller caller, std::uint64_t start) {
    if (start > 0xffff) return {xen_abi::Errno::dom};
    const auto argument =
        read_guest<xen_abi::AddToPhysmapBatch<Word>>(vmm_, caller.vcpu, caller.gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (argument->space == xen_abi::mapspace::gmfn_range) return {xen_abi::Errno::opnotsupp};
    if (!is_self(argument->domid)) return {xen_abi::Errno::srch};
    if (argument->space == xen_abi::mapspace::dev_mmio) return {xen_abi::Errno::acces};
    if (argument->size < start) return {xen_abi::Errno::ilseq};
    if (argument->size == start && start != 0) return {xen_abi::Errno::ilseq};
    if (argument->size - start > max_pages) return {xen_abi::Errno::too_big};
    xen_abi::Answer answer = ok();
    for (std::uint64_t at = start; at < argument->size; ++at) {
      const auto idx = read_guest<Word>(vmm_, caller.vcpu, argument->idxs + at * sizeof(Word));
      const auto gpfn = read_guest<Word>(vmm_, caller.vcpu, argument->gpfns + at * sizeof(Word));
      if (!idx || !gpfn) return {xen_abi::Errno::fault, answer.host};
      if (*gpfn == invalid_gfn) return {xen_abi::Errno::inval, answer.host};
      const xen_abi::Answer added = add_page(argument->space, *idx, *gpfn);
      if (!added.host) answer.host = added.host;
      const auto error = static_cast<std::int32_t>(added.guest.rax());
      if (!write_guest(vmm_, caller.vcpu, argument->errs + at * sizeof(error), error)) {
        return {xen_abi::Errno::fault, answer.host};
      }
    }
    return answer;
  }

  // Xen could move the guest's own frames about, too; nobody asks for it, and here it would take a
  // memory slot a frame.
  xen_abi::Answer add_page(std::uint32_t space, std::uint64_t idx, std::uint64_t gpfn) {
    if (gpfn == invalid_gfn) return {xen_abi::Errno::inval};
    switch (space) {
      case xen_abi::mapspace::shared_info:
        return idx == 0 ? done(vmm_.map_shared_info(gpfn)) : xen_abi::Answer{xen_abi::Errno::inval};
      case xen_abi::mapspace::grant_table:
        if (idx >> 31 != 0) return {xen_abi::Errno::inval};  // a status frame of version 2, or none
        return done(vmm_.map_grant_frame(static_cast<std::uint32_t>(idx), gpfn));
      case xen_abi::mapspace::gmfn:
      case xen_abi::mapspace::gmfn_range:
        return {xen_abi::Errno::opnotsupp};
      case xen_abi::mapspace::gmfn_foreign:
        return {xen_abi::Errno::srch};
      default:
        return {xen_abi::Errno::inval};
    }
  }

  template <class Word>
  xen_abi::Answer remove_from_physmap(Caller caller, std::uint64_t start) {
    if (start != 0) return {xen_abi::Errno::inval};
    const auto argument =
        read_guest<xen_abi::RemoveFromPhysmap<Word>>(vmm_, caller.vcpu, caller.gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (!is_self(argument->domid)) return {xen_abi::Errno::srch};
    return remove(argument->gpfn) ? ok() : xen_abi::Answer{xen_abi::Errno::noent};
  }

  // --- the balloon ---

  // How many extents are done, those before `start` included; never an error.
  template <class Word, class Page>
  xen_abi::Answer each_extent(Caller caller, std::uint64_t start, Page&& page) {
    const xen_abi::Answer none = ok(as_result(start));
    const auto argument =
        read_guest<xen_abi::MemoryReservation<Word>>(vmm_, caller.vcpu, caller.gva);
    if (!argument || start >= argument->nr_extents) return none;
    if (argument->nr_extents > 0xffffffffu >> xen_abi::memory_op::extent_shift) return none;
    if (!is_self(argument->domid) || argument->extent_order > max_order) return none;

    const std::uint64_t size = std::uint64_t{1} << argument->extent_order;
    const std::uint64_t end =
        std::min<std::uint64_t>(argument->nr_extents, start + max_pages / size);
    for (std::uint64_t extent = start; extent < end; ++extent) {
      const auto gfn =
          read_guest<Word>(vmm_, caller.vcpu, argument->extent_start + extent * sizeof(Word));
      for (std::uint64_t at = 0; at < size; ++at) {
        if (!gfn || !page(*gfn + at)) return ok(as_result(extent));
      }
    }
    return ok(as_result(end));
  }

  bool populate(std::uint64_t gfn) {
    if (pages_ >= ram_pages() || !vmm_.populate_page(gfn)) return false;
    ++pages_;
    return true;
  }
  bool remove(std::uint64_t gfn) {
    if (!vmm_.remove_page(gfn)) return false;
    if (pages_ > 0) --pages_;
    return true;
  }

  // --- what there is ---

  template <class Word>
  std::optional<xen_abi::Answer> memory_map(Caller caller) {
    auto argument = read_guest<xen_abi::MemoryMap<Word>>(vmm_, caller.vcpu, caller.gva);
    if (!argument) return xen_abi::Answer{xen_abi::Errno::fault};
    if (map_.empty()) return std::nullopt;
    const auto count = std::min<std::size_t>(argument->nr_entries, map_.size());
    argument->nr_entries = static_cast<std::uint32_t>(count);
    if (!vmm_.copy_to_guest(caller.vcpu, vmm_base::Gva{argument->buffer},
                            std::as_bytes(std::span(map_).first(count))) ||
        !write_guest(vmm_, caller.vcpu, caller.gva, *argument)) {
      return xen_abi::Answer{xen_abi::Errno::fault};
    }
    return ok();
  }

  xen_abi::Answer of_domain(Caller caller, std::uint64_t start, std::uint64_t value) {
    if (start != 0) return {xen_abi::Errno::inval};
    const auto domain = read_guest<xen_abi::DomainId>(vmm_, caller.vcpu, caller.gva);
    if (!domain) return {xen_abi::Errno::fault};
    if (!is_self(*domain)) return {xen_abi::Errno::srch};
    return ok(as_result(value));
  }

  [[nodiscard]] bool is_self(xen_abi::DomainId domain) const noexcept {
    return xen_abi::is_self(domain, self_);
  }
  [[nodiscard]] std::uint64_t ram_pages() const {
    std::uint64_t pages = 0;
    for (const auto& entry : map_) {
      if (entry.type == xen_abi::e820_ram) pages += entry.size >> vmm_base::page_shift;
    }
    return pages;
  }
  [[nodiscard]] std::uint64_t max_gfn() const {
    std::uint64_t end = 1;
    for (const auto& entry : map_) {
      if (entry.type == xen_abi::e820_ram) {
        end = std::max<std::uint64_t>(end, (entry.address + entry.size) >> vmm_base::page_shift);
      }
    }
    return end - 1;
  }
  static std::int64_t as_result(std::uint64_t value) { return static_cast<std::int64_t>(value); }

  static constexpr std::uint64_t invalid_gfn = ~std::uint64_t{0};
  static constexpr std::uint32_t max_order =
      9;  // 2 MiB, as for a domain without devices of its own

  V& vmm_;
  std::vector<xen_abi::E820Entry> map_;
  xen_abi::DomainId self_;
  std::atomic<std::uint64_t> pages_;  // that the guest has; how many, not which
};

}  // namespace xen_hcall
