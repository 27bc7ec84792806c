// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A file as bytes, without a copy of it.
#pragma once

#include <cstddef>
#include <span>
#include <utility>

#include "vmm_base/result.hpp"

namespace linux_loader {

// Maps a regular file, read-only. Who can write to the file can change the bytes, and who shortens
// it ends this process by SIGBUS: don't map what the guest's owner can write; copy that.
class MappedFile {
 public:
  static vmm_base::Result<MappedFile> open(const char* path);

  MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  MappedFile& operator=(MappedFile&& other) noexcept {
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~MappedFile();

  [[nodiscard]] std::span<const std::byte> bytes() const noexcept { return bytes_; }

 private:
  explicit MappedFile(std::span<std::byte> bytes) noexcept : bytes_(bytes) {}
  std::span<std::byte> bytes_;
};

}  // namespace linux_loader
