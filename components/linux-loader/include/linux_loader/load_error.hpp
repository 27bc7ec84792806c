// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Why a file was refused: a reason, and the place in the file.
#pragma once

#include <boost/outcome/basic_result.hpp>
#include <boost/outcome/policy/all_narrow.hpp>
#include <cstdint>
#include <string>

namespace linux_loader {

struct LoadError {
  const char* reason;    // "segments overlap": a literal, no capital, no full stop.
  std::uint64_t offset;  // In `file`, bytes: of the field at fault, or of the first byte too much.

  // "kernel"; "unpacked kernel", the ELF file in a bzImage; "initramfs"; "command line".
  const char* file = "kernel";

  // "unpacked kernel, byte 18: not for x86-64"
  [[nodiscard]] std::string message() const {
    return std::string(file) + ", byte " + std::to_string(offset) + ": " + reason;
  }
};

// Narrow contracts, as vmm_base::Result's.
template <class T>
using LoadResult =
    boost::outcome_v2::basic_result<T, LoadError, boost::outcome_v2::policy::all_narrow>;

}  // namespace linux_loader
