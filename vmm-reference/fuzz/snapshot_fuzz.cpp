// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A snapshot, changed in any number of places, as a file: whatever it is now, it is refused at a
// place that it has, or taken, and then written again byte for byte. With checksums that are right,
// too, so that they aren't what refuses it.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../tests/snapshot_sample.hpp"
#include "must.hpp"

namespace vmm_reference {
namespace {

FileBytes some(FuzzedDataProvider& input) {
  const auto bytes =
      input.ConsumeBytes<std::uint8_t>(input.ConsumeIntegralInRange<std::size_t>(1, 40));
  FileBytes to(bytes.size());
  if (!bytes.empty()) std::memcpy(to.data(), bytes.data(), bytes.size());
  return to;
}

// Mostly near the beginning of a section, where what says something is.
std::size_t place(FuzzedDataProvider& input, const FileBytes& bytes) {
  const auto starts = sections_of(bytes);
  if (starts.empty() || input.ConsumeIntegralInRange(0, 15) == 0) {
    return input.ConsumeIntegralInRange<std::size_t>(0, bytes.size());
  }
  const std::size_t start = starts[input.ConsumeIntegralInRange<std::size_t>(0, starts.size() - 1)];
  return std::min(bytes.size(), start + input.ConsumeIntegralInRange<std::size_t>(0, 200));
}

void change(FuzzedDataProvider& input, FileBytes& bytes) {
  const std::size_t at = place(input, bytes);
  const auto here = bytes.begin() + static_cast<std::ptrdiff_t>(at);
  switch (input.ConsumeIntegralInRange(0, 4)) {
    case 0: {
      const FileBytes other = some(input);
      std::copy_n(other.begin(), std::min(other.size(), bytes.size() - at), here);
      break;
    }
    case 1: {  // a number in little-endian, at a place of its own
      const auto number = input.ConsumeIntegral<std::uint64_t>();
      const std::size_t size = std::size_t{1} << input.ConsumeIntegralInRange(0, 3);
      if (at / size * size + size <= bytes.size()) {
        std::memcpy(bytes.data() + at / size * size, &number, size);
      }
      break;
    }
    case 2: {
      const FileBytes other = some(input);
      bytes.insert(here, other.begin(), other.end());
      break;
    }
    case 3:
      bytes.erase(
          here, here + static_cast<std::ptrdiff_t>(std::min<std::size_t>(
                           bytes.size() - at, input.ConsumeIntegralInRange<std::size_t>(1, 5000))));
      break;
    default: {  // a section grows or shrinks by 8 bytes, and says so
      const auto starts = sections_of(bytes);
      if (starts.empty()) return;
      const std::size_t start =
          starts[input.ConsumeIntegralInRange<std::size_t>(0, starts.size() - 1)];
      std::uint64_t size = 0;
      std::memcpy(&size, bytes.data() + start + 8, sizeof(size));
      const auto content = bytes.begin() + static_cast<std::ptrdiff_t>(start) + 24;
      if (input.ConsumeBool()) {
        bytes.insert(content, 8, std::byte{input.ConsumeIntegral<std::uint8_t>()});
        size += 8;
      } else if (size >= 8 && bytes.size() - start >= 32) {
        bytes.erase(content, content + 8);
        size -= 8;
      }
      std::memcpy(bytes.data() + start + 8, &size, sizeof(size));
    }
  }
}

void run(FuzzedDataProvider& input) {
  static const FileBytes originals[] = {bytes_of(sample(Boot::pvh)),
                                        bytes_of(sample(Boot::native))};
  FileBytes bytes = originals[input.ConsumeBool() ? 1 : 0];
  const bool sealed = input.ConsumeIntegralInRange(0, 7) != 0;
  while (input.remaining_bytes() > 0) change(input, bytes);
  if (sealed) seal(bytes);
  const FileBytes exact(bytes);  // of its own size, so that a read beyond it is seen
  const auto read = read_snapshot(exact);
  if (!read) {
    MUST(read.error().offset <= exact.size());
    MUST(!read.error().reason.empty());
    return;
  }
  MUST(bytes_of(read.value()) == exact);
}

}  // namespace
}  // namespace vmm_reference

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  vmm_reference::run(input);
  return 0;
}
