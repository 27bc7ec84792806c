// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// An unmodified Linux kernel as a Xen guest, with a serial console.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "host.hpp"
#include "observer.hpp"
#include "options.hpp"
#include "pc_ports.hpp"
#include "saved_guest.hpp"

namespace vmm_reference {

struct LinuxRun {
  Ending ending{};
  std::string fault{};                 // of a crash: what KVM said
  std::vector<std::string> remarks{};  // what else went wrong, a sentence each
  std::uint64_t punted = 0;            // timer hypercalls that came to us
};

// Runs the guest until it ends, its serial line being standard input and output; where there is
// one, from a snapshot, which `options` is to agree with. `observer` watches a Xen guest. Error: a
// sentence.
[[nodiscard]] std::variant<LinuxRun, std::string> run_linux(const Host& host, TimerMode mode,
                                                            const Options& options,
                                                            Observer* observer = nullptr,
                                                            const SavedGuest* saved = nullptr);

}  // namespace vmm_reference
