// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A value that one thread writes and any thread reads whole, without locks: the writer never waits,
// and a reader that is disturbed gives up.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>

namespace xen_clock {

template <class T>
class Seqlock {
 public:
  // One writer at a time.
  void store(const T& value) noexcept {
    Words words;
    std::memcpy(words.data(), &value, sizeof(value));
    const std::uint32_t count = count_.load(std::memory_order_relaxed);
    count_.store(count + 1, std::memory_order_relaxed);
    // Release, so that who reads a new word finds the count changed.
    for (std::size_t i = 0; i < words.size(); ++i) {
      words_[i].store(words[i], std::memory_order_release);
    }
    count_.store(count + 2, std::memory_order_release);
  }

  // nullopt if it is being written all the time: the writer may have been preempted.
  [[nodiscard]] std::optional<T> load() const noexcept {
    for (int attempt = 0; attempt < 16; ++attempt) {
      const std::uint32_t count = count_.load(std::memory_order_acquire);
      Words words;
      for (std::size_t i = 0; i < words.size(); ++i) {
        words[i] = words_[i].load(std::memory_order_acquire);
      }
      if (count % 2 != 0 || count != count_.load(std::memory_order_relaxed)) continue;
      T value;
      std::memcpy(static_cast<void*>(&value), words.data(), sizeof(value));
      return value;
    }
    return std::nullopt;
  }

 private:
  using Words = std::array<std::uint64_t, sizeof(T) / 8>;
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) == sizeof(Words));

  std::atomic<std::uint32_t> count_ = 0;  // odd while it is being written
  std::array<std::atomic<std::uint64_t>, sizeof(T) / 8> words_{};
};

}  // namespace xen_clock
