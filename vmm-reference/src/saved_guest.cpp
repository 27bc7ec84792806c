// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "saved_guest.hpp"

#include <algorithm>
#include <cstdint>

#include "progress.hpp"
#include "snapshot_format.hpp"

namespace vmm_reference {

std::variant<SavedGuest, std::string> SavedGuest::open(const std::string& path) {
  auto file = linux_loader::MappedFile::open(path.c_str());
  if (!file) return path + ": " + file.error().message();
  const BlockingProgress progress("reading " + path);
  auto snapshot = read_snapshot(file.value().bytes());
  if (!snapshot) return path + ": " + snapshot.error().message();
  return SavedGuest(std::move(file).assume_value(), std::move(snapshot).assume_value());
}

std::chrono::nanoseconds SavedGuest::age() const {
  const std::chrono::nanoseconds now = std::chrono::system_clock::now().time_since_epoch();
  const auto saved =
      static_cast<std::int64_t>(std::min<std::uint64_t>(snapshot_.clock.real, INT64_MAX));
  return std::max(now - std::chrono::nanoseconds(saved), std::chrono::nanoseconds(0));
}

}  // namespace vmm_reference
