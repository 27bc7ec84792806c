// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A snapshot as bytes. Pure: no file, no guest, no KVM.
//
// All numbers are little-endian. A head of 16 bytes: "VMMSNAP\n", u32 version, u32 CRC of the 12
// bytes before. Then sections, one after the other, each: 4 letters, its name; u32 which of that
// name, by vCPU or region; u64 length, bytes; u32 0; u32 CRC of the 20 bytes before; then the
// content, zeros up to a multiple of 8, u32 CRC of the content, u32 0. The last is "END ", which
// counts those before it; nothing follows. CRCs are zlib's. There is one way to write a snapshot:
// what read_snapshot() takes, write_snapshot() writes again byte for byte.
//
// A change of any section is another version. This one reads its own only.
#pragma once

#include <boost/outcome/basic_result.hpp>
#include <boost/outcome/policy/all_narrow.hpp>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "snapshot.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

inline constexpr std::uint32_t snapshot_version = 1;

// Takes the bytes in order; an error ends the writing, and is returned.
using ByteSink = std::function<vmm_base::Result<void>(std::span<const std::byte>)>;

// Each sink's error as it is. It has 4 KiB or more at a time, but for the last.
[[nodiscard]] vmm_base::Result<void> write_snapshot(const Snapshot& snapshot, const ByteSink& sink);

struct SnapshotError {
  std::uint64_t offset = 0;  // bytes, where in the file
  std::string reason;
  // "at byte 0x1234: section APIC of 1: its checksum is wrong"
  [[nodiscard]] std::string message() const;
};

// Every byte is checked; a guest that this describes can have been, as far as that can be told
// without one. Views of `bytes` are in the RAM of what is returned.
[[nodiscard]] boost::outcome_v2::basic_result<Snapshot, SnapshotError,
                                              boost::outcome_v2::policy::all_narrow>
read_snapshot(std::span<const std::byte> bytes);

}  // namespace vmm_reference
