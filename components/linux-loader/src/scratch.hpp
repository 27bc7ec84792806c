// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Host memory for an unpacked kernel: its pages cost nothing until they are written.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <span>

namespace linux_loader {

class Scratch {
 public:
  // bytes() is empty where the host has no memory.
  explicit Scratch(std::size_t size) noexcept {
    void* mapped = ::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapped != MAP_FAILED) bytes_ = {static_cast<std::byte*>(mapped), size};
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (!bytes_.empty()) ::munmap(bytes_.data(), bytes_.size());
  }

  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace linux_loader
