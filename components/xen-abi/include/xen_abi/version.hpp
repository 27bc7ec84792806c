// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_xen_version: xen_version(int cmd, GVA arg), from xen/include/public/version.h and
// features.h. Only platform_parameters differs in the two widths.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xen_abi {

namespace xenver {
inline constexpr std::uint32_t version = 0;
inline constexpr std::uint32_t extraversion = 1;
inline constexpr std::uint32_t compile_info = 2;
inline constexpr std::uint32_t capabilities = 3;
inline constexpr std::uint32_t changeset = 4;
inline constexpr std::uint32_t platform_parameters = 5;
inline constexpr std::uint32_t get_features = 6;
inline constexpr std::uint32_t pagesize = 7;
inline constexpr std::uint32_t guest_handle = 8;
inline constexpr std::uint32_t commandline = 9;
inline constexpr std::uint32_t build_id = 10;
// Since Xen 4.18: of any length, in a buffer that starts with its own.
inline constexpr std::uint32_t extraversion2 = 11;
inline constexpr std::uint32_t capabilities2 = 12;
inline constexpr std::uint32_t changeset2 = 13;
inline constexpr std::uint32_t commandline2 = 14;
}  // namespace xenver

// Bits of submap 0.
namespace feature {
inline constexpr std::uint32_t writable_page_tables = 1u << 0;
inline constexpr std::uint32_t auto_translated_physmap = 1u << 2;
inline constexpr std::uint32_t hvm_callback_vector = 1u << 8;
inline constexpr std::uint32_t hvm_safe_pvclock = 1u << 9;
inline constexpr std::uint32_t hvm_pirqs = 1u << 10;
inline constexpr std::uint32_t memory_op_vnode_supported = 1u << 13;
inline constexpr std::uint32_t not_direct_mapped = 1u << 16;
inline constexpr std::uint32_t runstate_phys_area = 1u << 18;  // Since Xen 4.19, as the next.
inline constexpr std::uint32_t vcpu_time_phys_area = 1u << 19;
}  // namespace feature

// Fixed sizes of the texts, the ending 0 included.
inline constexpr std::size_t extraversion_size = 16;
inline constexpr std::size_t capabilities_size = 1024;
inline constexpr std::size_t changeset_size = 64;
inline constexpr std::size_t commandline_size = 1024;

struct CompileInfo {
  char compiler[64];
  char compile_by[16];
  char compile_domain[32];
  char compile_date[32];
};
static_assert(sizeof(CompileInfo) == 144);

struct FeatureInfo {
  std::uint32_t submap_idx;
  std::uint32_t submap;  // Out.
};
static_assert(sizeof(FeatureInfo) == 8);

}  // namespace xen_abi
