// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What VFIO's *_INFO calls return, from the call to our structures.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "vfio_ioctls/container.hpp"
#include "vfio_ioctls/device.hpp"
#include "vmm_base/result.hpp"

namespace vfio_ioctls {

// No kernel's answer comes near: a page of IOVA ranges or sparse areas is 256 of them.
inline constexpr std::size_t most_info_bytes = 1 << 20;

// Info is a structure that begins with argsz. Calls call(Info*) -> Result<int> with `header`, and
// again with as much room as the kernel then asks for. Returns the answer's bytes, at least Info's.
// EBADMSG, operand argsz, if it asks for too much or for ever.
template <class Info, class Call>
vmm_base::Result<std::vector<std::byte>> read_info(const char* name, Info header, Call&& call) {
  std::vector<std::byte> buffer(sizeof(Info));
  for (int attempt = 0; attempt < 4; ++attempt) {
    header.argsz = static_cast<std::uint32_t>(buffer.size());
    std::memcpy(buffer.data(), &header, sizeof(header));
    // vector's memory is aligned for any of the kernel's structures.
    VMM_CHECK(call(reinterpret_cast<Info*>(buffer.data())));
    std::uint32_t wanted = 0;
    std::memcpy(&wanted, buffer.data(), sizeof(wanted));
    if (wanted <= buffer.size()) return buffer;
    if (wanted > most_info_bytes) return vmm_base::Error{name, EBADMSG, wanted};
    buffer.assign(wanted, std::byte{0});
  }
  return vmm_base::Error{name, EBADMSG, buffer.size()};
}

// The answer of VFIO_DEVICE_GET_REGION_INFO, and of VFIO_IOMMU_GET_INFO.
vmm_base::Result<RegionInfo> decode_region_info(std::span<const std::byte> answer);
vmm_base::Result<IommuInfo> decode_iommu_info(std::span<const std::byte> answer);

}  // namespace vfio_ioctls
