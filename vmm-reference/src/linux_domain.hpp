// SPDX-License-Identifier: BSD-3-Clause
//
// An unmodified Linux kernel as a Xen guest, with a serial console.
#pragma once

#include <string>
#include <variant>

#include "host.hpp"
#include "options.hpp"
#include "pc_ports.hpp"

namespace vmm_reference {

struct LinuxRun {
  Ending ending{};
  std::string fault{};  // of a crash
};

// Runs the guest until it ends, its console being standard output. Error: a sentence.
[[nodiscard]] std::variant<LinuxRun, std::string> run_linux(const Host& host, TimerMode mode,
                                                            const Options& options);

}  // namespace vmm_reference
