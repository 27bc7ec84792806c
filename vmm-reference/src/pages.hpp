// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The pages that are made of the table of options: what it doesn't have isn't on them, and what it
// has is on all.
#pragma once

#include <CLI/App.hpp>
#include <string>

namespace vmm_reference {

// What --help says: 80 columns, for a terminal or a pipe.
[[nodiscard]] std::string help_page(const CLI::App& app);
// For man(1), in roff's man(7).
[[nodiscard]] std::string man_page(const CLI::App& app);
// For bash, with or without the package bash-completion.
[[nodiscard]] std::string bash_completion(const CLI::App& app);

}  // namespace vmm_reference
