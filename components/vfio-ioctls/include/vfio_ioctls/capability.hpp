// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The chain of capabilities at the end of what VFIO's *_INFO calls return: its offsets and sizes
// are checked before use, and a chain that loops ends.
#pragma once

#include <linux/vfio.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <type_traits>

#include "vmm_base/result.hpp"

namespace vfio_ioctls {

struct Capability {
  std::uint16_t id;
  std::uint16_t version;
  // From its header on to the end of the answer, as no capability tells its own size.
  std::span<const std::byte> bytes;

  // Its fixed part; none if that doesn't fit.
  template <class T>
  [[nodiscard]] std::optional<T> as() const noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    if (bytes.size() < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data(), sizeof(T));
    return value;
  }

  // Element `index` of the array behind the fixed part, if that and all before it fit.
  template <class T>
  [[nodiscard]] std::optional<T> element(std::size_t fixed, std::size_t index) const noexcept {
    static_assert(std::is_trivially_copyable_v<T>);
    if (bytes.size() < fixed || index >= (bytes.size() - fixed) / sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes.data() + fixed + index * sizeof(T), sizeof(T));
    return value;
  }
};

// Calls visit(Capability) -> Result<void> for each in `info`, the bytes of an answer of which the
// first `fixed` are the structure; `first` is its cap_offset, 0 for none. Stops at an error of
// visit. Error `name`, EBADMSG, operand the offset at fault: a capability that isn't within the
// answer, or a loop.
template <class Visit>
vmm_base::Result<void> walk_capabilities(const char* name, std::span<const std::byte> info,
                                         std::size_t fixed, std::uint32_t first, Visit&& visit) {
  std::size_t left =
      info.size() / sizeof(vfio_info_cap_header);  // No chain without a loop has more.
  for (std::uint32_t at = first; at != 0; --left) {
    vfio_info_cap_header header;
    if (left == 0 || at < fixed || at > info.size() || info.size() - at < sizeof(header)) {
      return vmm_base::Error{name, EBADMSG, at};
    }
    std::memcpy(&header, info.data() + at, sizeof(header));
    VMM_CHECK(visit(Capability{header.id, header.version, info.subspan(at)}));
    at = header.next;
  }
  return vmm_base::success();
}

}  // namespace vfio_ioctls
