// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A snapshot in its file, for a guest to go on from.
#pragma once

#include <chrono>
#include <string>
#include <utility>
#include <variant>

#include "linux_loader/mapped_file.hpp"
#include "snapshot.hpp"

namespace vmm_reference {

class SavedGuest {
 public:
  // Error: a sentence, the path before it.
  [[nodiscard]] static std::variant<SavedGuest, std::string> open(const std::string& path);

  [[nodiscard]] const Snapshot& snapshot() const noexcept { return snapshot_; }
  // What has passed since it was saved; 0 if the host's clock has gone back.
  [[nodiscard]] std::chrono::nanoseconds age() const;

 private:
  SavedGuest(linux_loader::MappedFile file, Snapshot snapshot)
      : file_(std::move(file)), snapshot_(std::move(snapshot)) {}

  linux_loader::MappedFile file_;  // which snapshot_'s RAM is a view of
  Snapshot snapshot_;
};

}  // namespace vmm_reference
