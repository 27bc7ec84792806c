// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Errors of the host's that have no other way to the user than to be told when the guest is done.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "vmm_base/result.hpp"

namespace vmm_reference {

// A guest can cause them at will, so only the first is kept. Any thread.
class HostErrors {
 public:
  void note(const vmm_base::Error& error) {
    const std::scoped_lock lock(mutex_);
    ++count_;
    if (!first_) first_ = error;
  }
  void note(const vmm_base::Result<void>& result) {
    if (!result) note(result.error());
  }
  // A clause that says how many and which; empty if there were none.
  [[nodiscard]] std::string message() const {
    const std::scoped_lock lock(mutex_);
    if (!first_) return {};
    return std::to_string(count_) + " host errors, the first: " + first_->message();
  }

 private:
  mutable std::mutex mutex_;
  std::uint64_t count_ = 0;
  std::optional<vmm_base::Error> first_;
};

}  // namespace vmm_reference
