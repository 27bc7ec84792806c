// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Writes a file so that whoever reads it finds the old one or the new one, whole, whatever happens
// in between: beside it as PATH.tmp, readable by its owner only, then synced and renamed.
#pragma once

#include <functional>
#include <string>

#include "snapshot_format.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

// `produce` gives the bytes to its sink. On its error, and on any of ours, PATH is as it was, and
// PATH.tmp gone; a process that is killed leaves PATH.tmp, which the next one takes. EWOULDBLOCK:
// another process is writing the same one. Uses openat, flock, fstat, newfstatat, ftruncate, write,
// fsync, rename, unlink and close.
[[nodiscard]] vmm_base::Result<void> replace_file(
    const std::string& path, const std::function<vmm_base::Result<void>(const ByteSink&)>& produce);

}  // namespace vmm_reference
