// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The parts of a bzImage, the form in which distributions install Linux for x86. Fields as in
// Linux, Documentation/arch/x86/boot.rst.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "linux_loader/load_error.hpp"
#include "vmm_base/guest_address.hpp"

namespace linux_loader {

struct BzImage {
  static constexpr std::uint64_t init_size_offset = 0x260;  // In the file, for a LoadError.

  std::span<const std::byte> setup_header;  // From 0x1f1 on, as boot parameters have it.
  std::span<const std::byte> code;          // The protected-mode part: decompressor and payload.
  std::span<const std::byte> payload;       // The packed vmlinux; the last 4 bytes are its size.
  std::uint64_t payload_offset;             // In the file.
  std::uint32_t unpacked_size;              // What those 4 bytes claim.
  vmm_base::Gpa pref_address;               // Where vmlinux wants to run; from 1 MiB on.
  std::uint64_t init_size;                  // RAM that it needs from there on.
  std::uint64_t cmdline_size;               // Without the zero at its end.
  vmm_base::Gpa initrd_max;                 // The last byte's highest address.
};

[[nodiscard]] bool is_bzimage(std::span<const std::byte> file) noexcept;

// Refused: what isn't x86-64, or is older than boot protocol 2.12 (Linux 3.8). The packed kernel
// itself isn't looked at.
[[nodiscard]] LoadResult<BzImage> parse_bzimage(std::span<const std::byte> file);

// Unpacks into `to`, which is of the size that the image claims: exactly that many bytes come out,
// or it is an error. Knows gzip, xz, zstd and lz4. At most 160 MiB are allocated.
[[nodiscard]] LoadResult<void> unpack(const BzImage& image, std::span<std::byte> to);

}  // namespace linux_loader
