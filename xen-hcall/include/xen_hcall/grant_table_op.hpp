// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_grant_table_op: how large the grant table is and where its frames lie, version 1.
// Granting takes no call; mapping and copying are for back ends, of which a guest here is none.
#pragma once

#include <cstdint>
#include <optional>

#include "xen_abi/grant_table.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

struct GrantTableSize {
  std::uint32_t frames = 0;      // that there are
  std::uint32_t max_frames = 0;  // that there can be; 0 where there is no grant table
};

// grant_table_size: as it is now.
// grow_grant_table: to so many frames, at most max_frames; false if it can't.
// grant_frame: the guest frame where frame `index` lies, as map_grant_frame() was last told.
template <class V>
concept GrantTableVmm = GuestReader<V> && GuestWriter<V> && requires(V& vmm, std::uint32_t index) {
  { vmm.grant_table_size() } -> std::same_as<GrantTableSize>;
  { vmm.grow_grant_table(index) } -> std::same_as<bool>;
  { vmm.grant_frame(index) } -> std::same_as<std::optional<std::uint64_t>>;
};

template <GrantTableVmm V>
class GrantTableOp {
 public:
  explicit GrantTableOp(V& vmm, xen_abi::DomainId self = 1) noexcept : vmm_(vmm), self_(self) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::grant_table_op;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    const auto command = static_cast<std::uint32_t>(call.params[0]);
    const std::uint64_t gva = call.params[1];
    const auto count = static_cast<std::uint32_t>(call.params[2]);
    switch (command) {
      case xen_abi::gnttabop::query_size:
      case xen_abi::gnttabop::setup_table:
      case xen_abi::gnttabop::set_version:
      case xen_abi::gnttabop::get_version:
        break;
      default:
        return std::nullopt;
    }
    if (count >> 31 != 0) return xen_abi::Answer{xen_abi::Errno::inval};
    switch (command) {
      case xen_abi::gnttabop::query_size:
        return query_size(vcpu, gva, count);
      case xen_abi::gnttabop::setup_table:
        return call.long_mode ? setup_table<std::uint64_t>(vcpu, gva, count)
                              : setup_table<std::uint32_t>(vcpu, gva, count);
      case xen_abi::gnttabop::set_version:
        return set_version(vcpu, gva);
      default:
        return get_version(vcpu, gva);
    }
  }

 private:
  // Answers 0 whatever it finds; that is in `status`.
  xen_abi::Answer query_size(XenVcpuId vcpu, std::uint64_t gva, std::uint32_t count) {
    if (count != 1) return {xen_abi::Errno::inval};
    auto argument = read_guest<xen_abi::GnttabQuerySize>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (is_self(argument->dom)) {
      const GrantTableSize size = vmm_.grant_table_size();
      argument->nr_frames = size.frames;
      argument->max_nr_frames = size.max_frames;
      argument->status = xen_abi::grant_status::okay;
    } else {
      argument->status = xen_abi::grant_status::bad_domain;
    }
    return put(vcpu, gva, *argument);
  }

  // The same.
  template <class Word>
  xen_abi::Answer setup_table(XenVcpuId vcpu, std::uint64_t gva, std::uint32_t count) {
    if (count != 1) return {xen_abi::Errno::inval};
    auto argument = read_guest<xen_abi::GnttabSetupTable<Word>>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    argument->status = list_frames(vcpu, *argument);
    return put(vcpu, gva, *argument);
  }
  template <class Word>
  std::int16_t list_frames(XenVcpuId vcpu, const xen_abi::GnttabSetupTable<Word>& argument) {
    if (!is_self(argument.dom)) return xen_abi::grant_status::bad_domain;
    const GrantTableSize size = vmm_.grant_table_size();
    if (argument.nr_frames > size.max_frames ||
        (argument.nr_frames > size.frames && !vmm_.grow_grant_table(argument.nr_frames))) {
      return xen_abi::grant_status::general_error;
    }
    for (std::uint32_t index = 0; index < argument.nr_frames; ++index) {
      const auto gfn = static_cast<Word>(vmm_.grant_frame(index).value_or(~std::uint64_t{0}));
      if (!write_guest(vmm_, vcpu, argument.frame_list + index * std::uint64_t{sizeof(Word)},
                       gfn)) {
        return xen_abi::grant_status::bad_virt_addr;
      }
    }
    return xen_abi::grant_status::okay;
  }

  // Whatever is asked for, the version that holds comes back: 1.
  xen_abi::Answer set_version(XenVcpuId vcpu, std::uint64_t gva) {
    auto argument = read_guest<xen_abi::GnttabSetVersion>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    const std::uint32_t asked = argument->version;
    argument->version = 1;
    if (!write_guest(vmm_, vcpu, gva, *argument)) return {xen_abi::Errno::fault};
    if (asked == 1) return ok();
    return {asked == 2 ? xen_abi::Errno::nosys : xen_abi::Errno::inval};
  }

  xen_abi::Answer get_version(XenVcpuId vcpu, std::uint64_t gva) {
    auto argument = read_guest<xen_abi::GnttabGetVersion>(vmm_, vcpu, gva);
    if (!argument) return {xen_abi::Errno::fault};
    if (!is_self(argument->dom)) return {xen_abi::Errno::srch};
    argument->version = 1;
    return put(vcpu, gva, *argument);
  }

  template <class T>
  xen_abi::Answer put(XenVcpuId vcpu, std::uint64_t gva, const T& value) {
    return write_guest(vmm_, vcpu, gva, value) ? ok() : xen_abi::Answer{xen_abi::Errno::fault};
  }
  [[nodiscard]] bool is_self(xen_abi::DomainId domain) const noexcept {
    return xen_abi::is_self(domain, self_);
  }

  V& vmm_;
  xen_abi::DomainId self_;
};

}  // namespace xen_hcall
