// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// GoogleTest says an error as we do, not by its bytes.
#pragma once

#include <ostream>

#include "vmm_base/result.hpp"

namespace vmm_base {
inline void PrintTo(const Error& error, std::ostream* out) { *out << error.message(); }
}  // namespace vmm_base
