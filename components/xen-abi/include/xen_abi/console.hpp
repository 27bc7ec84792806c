// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_console_io: console_io(u32 cmd, u32 count, GVA text), from xen/include/public/xen.h.
#pragma once

#include <cstdint>

namespace xen_abi::consoleio {
inline constexpr std::uint32_t write = 0;
inline constexpr std::uint32_t read = 1;
}  // namespace xen_abi::consoleio
