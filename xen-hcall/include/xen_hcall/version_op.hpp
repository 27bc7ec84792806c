// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_xen_version, all its sub-ops. All guests see is what XenVersion says; that is a Xen
// of the given version, and leaves its build and command line out unless told.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "vmm_base/guest_address.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/version.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

// What a guest may know of its Xen. A text beyond its fixed size is cut; all but the first of a
// `…2` sub-op's callers see it whole.
struct XenVersion {
  std::uint16_t major = 4;
  std::uint16_t minor = 18;
  std::string extraversion = ".0";
  std::string compiler{};
  std::string compile_by{};
  std::string compile_domain{};
  std::string compile_date{};
  std::string capabilities = "hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64";
  std::string changeset{};
  std::optional<std::string> commandline{};  // nullopt: denied, as to all but a control domain
  std::vector<std::byte> build_id{};         // nullopt-like when empty: -ENODATA
  std::array<std::byte, 16> guest_handle{};  // the domain's UUID
  // Bits of feature submap 0. The default is what this component and KVM keep.
  std::uint32_t features =
      xen_abi::feature::writable_page_tables | xen_abi::feature::auto_translated_physmap |
      xen_abi::feature::hvm_callback_vector | xen_abi::feature::hvm_safe_pvclock |
      xen_abi::feature::memory_op_vnode_supported | xen_abi::feature::not_direct_mapped |
      xen_abi::feature::runstate_phys_area | xen_abi::feature::vcpu_time_phys_area;
};

template <class V>
requires GuestReader<V> && GuestWriter<V>
class VersionOp {
 public:
  VersionOp(V& vmm, XenVersion version) : vmm_(vmm), version_(std::move(version)) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::xen_version;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    const std::uint64_t gva = call.params[1];
    switch (static_cast<std::uint32_t>(call.params[0])) {
      case xen_abi::xenver::version:
        return ok(version_.major << 16 | version_.minor);
      case xen_abi::xenver::extraversion:
        return text<xen_abi::extraversion_size>(vcpu, gva, version_.extraversion);
      case xen_abi::xenver::compile_info:
        return compile_info(vcpu, gva);
      case xen_abi::xenver::capabilities:
        return text<xen_abi::capabilities_size>(vcpu, gva, version_.capabilities);
      case xen_abi::xenver::changeset:
        return text<xen_abi::changeset_size>(vcpu, gva, version_.changeset);
      case xen_abi::xenver::platform_parameters:
        return call.long_mode ? platform_parameters<std::uint64_t>(vcpu, gva)
                              : platform_parameters<std::uint32_t>(vcpu, gva);
      case xen_abi::xenver::get_features:
        return get_features(vcpu, gva);
      case xen_abi::xenver::pagesize:
        return gva == 0 ? ok(vmm_base::page_size) : xen_abi::Answer{xen_abi::Errno::inval};
      case xen_abi::xenver::guest_handle:
        return put(vcpu, gva, version_.guest_handle);
      case xen_abi::xenver::commandline:
        return commandline(vcpu, gva);
      case xen_abi::xenver::build_id:
        return build_id(vcpu, gva);
      case xen_abi::xenver::extraversion2:
        return any_length(vcpu, gva, as_bytes(version_.extraversion));
      case xen_abi::xenver::capabilities2:
        return any_length(vcpu, gva, as_bytes(version_.capabilities));
      case xen_abi::xenver::changeset2:
        return any_length(vcpu, gva, as_bytes(version_.changeset));
      case xen_abi::xenver::commandline2:
        if (!version_.commandline) return xen_abi::Answer{xen_abi::Errno::perm};
        return any_length(vcpu, gva, as_bytes(*version_.commandline));
      default:
        return std::nullopt;
    }
  }

 private:
  template <class T>
  xen_abi::Answer put(XenVcpuId vcpu, std::uint64_t gva, const T& value) {
    if (!write_guest(vmm_, vcpu, gva, value)) return {xen_abi::Errno::fault};
    return ok();
  }

  // Cut to its place, the ending 0 included.
  static void copy_text(std::span<char> to, std::string_view from) {
    std::fill(to.begin(), to.end(), '\0');
    std::copy_n(from.begin(), std::min(from.size(), to.size() - 1), to.begin());
  }
  template <std::size_t size>
  xen_abi::Answer text(XenVcpuId vcpu, std::uint64_t gva, std::string_view from) {
    std::array<char, size> all;
    copy_text(all, from);
    return put(vcpu, gva, all);
  }

  xen_abi::Answer compile_info(XenVcpuId vcpu, std::uint64_t gva) {
    xen_abi::CompileInfo info;
    copy_text(info.compiler, version_.compiler);
    copy_text(info.compile_by, version_.compile_by);
    copy_text(info.compile_domain, version_.compile_domain);
    copy_text(info.compile_date, version_.compile_date);
    return put(vcpu, gva, info);
  }

  // Where Xen lies in the address space: for PV guests.
  template <class Word>
  xen_abi::Answer platform_parameters(XenVcpuId vcpu, std::uint64_t gva) {
    return put(vcpu, gva, Word{0});
  }

  xen_abi::Answer get_features(XenVcpuId vcpu, std::uint64_t gva) {
    auto info = read_guest<xen_abi::FeatureInfo>(vmm_, vcpu, gva);
    if (!info) return {xen_abi::Errno::fault};
    if (info->submap_idx != 0) return {xen_abi::Errno::inval};
    info->submap = version_.features;
    return put(vcpu, gva, *info);
  }

  // Denied, it is a text that says so.
  xen_abi::Answer commandline(XenVcpuId vcpu, std::uint64_t gva) {
    if (version_.commandline) {
      return text<xen_abi::commandline_size>(vcpu, gva, *version_.commandline);
    }
    static constexpr char denied[] = "<denied>";
    return put(vcpu, gva, denied);
  }

  xen_abi::Answer build_id(XenVcpuId vcpu, std::uint64_t gva) {
    if (version_.build_id.empty()) return {xen_abi::Errno::nodata};
    return any_length(vcpu, gva, version_.build_id);
  }

  static std::span<const std::byte> as_bytes(const std::string& text) {
    return std::as_bytes(std::span(text));
  }
  // The length alone if there is no buffer; the buffer starts with its own.
  xen_abi::Answer any_length(XenVcpuId vcpu, std::uint64_t gva, std::span<const std::byte> bytes) {
    const xen_abi::Answer length = ok(static_cast<std::int64_t>(bytes.size()));
    if (gva == 0) return length;
    const auto room = read_guest<std::uint32_t>(vmm_, vcpu, gva);
    if (!room) return {xen_abi::Errno::fault};
    if (bytes.size() > *room) return {xen_abi::Errno::nobufs};
    if (!vmm_.copy_to_guest(vcpu, vmm_base::Gva{gva + sizeof(*room)}, bytes)) {
      return {xen_abi::Errno::fault};
    }
    return length;
  }

  V& vmm_;
  XenVersion version_;
};

}  // namespace xen_hcall
