// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Reading fields from a file of which no byte is trusted.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace linux_loader {

static_assert(std::endian::native == std::endian::little, "fields are read as they stand");

// Whether [offset, offset + size) lies in the file; neither number is trusted.
inline bool within(std::span<const std::byte> file, std::uint64_t offset, std::uint64_t size) {
  return offset <= file.size() && size <= file.size() - offset;
}

// The caller has checked the range. A copy, as nothing in a file is aligned.
template <class T>
T read(std::span<const std::byte> file, std::uint64_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

}  // namespace linux_loader
