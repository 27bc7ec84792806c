// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Any bytes as an ELF file. What is taken has its segments within the file, none that wraps or
// overlaps another, and its entry in one; loaded, memory holds them and nothing else, and it was
// asked for no empty range and none that wraps.
#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "linux_loader/elf.hpp"
#include "must.hpp"

namespace linux_loader {
namespace {

using vmm_base::Gpa;

class Ram {
 public:
  vmm_base::Result<void> write(Gpa to, std::span<const std::byte> data) {
    if (!contains(to, data.size())) return vmm_base::Error{"write", EFAULT, to.value};
    std::copy(data.begin(), data.end(), &bytes[to.value]);
    return vmm_base::success();
  }
  vmm_base::Result<void> fill_zero(Gpa to, std::uint64_t size) {
    if (!contains(to, size)) return vmm_base::Error{"fill_zero", EFAULT, to.value};
    std::fill_n(&bytes[to.value], size, std::byte{0});
    return vmm_base::success();
  }

  static constexpr std::uint64_t ram_size = 0x4000;
  std::vector<std::byte> bytes = std::vector<std::byte>(ram_size, std::byte{0xaa});

 private:
  [[nodiscard]] bool contains(Gpa to, std::uint64_t size) const {
    MUST(size != 0 && to.value <= ~std::uint64_t{0} - size);
    return to.value < bytes.size() && size <= bytes.size() - to.value;
  }
};

void check(const Elf& elf, std::span<const std::byte> file) {
  bool has_entry = false;
  Gpa end{};
  for (std::size_t i = 0; i < elf.segments.size(); ++i) {
    const Segment& segment = elf.segments[i];
    MUST(segment.end() > segment.address);
    if (!segment.data.empty()) {
      MUST(segment.data.data() >= file.data());
      MUST(segment.data.data() + segment.data.size() <= file.data() + file.size());
    }
    MUST(segment.paddr_offset <= file.size() - 8);
    for (std::size_t j = 0; j < i; ++j) {
      const Segment& other = elf.segments[j];
      MUST(segment.end() <= other.address || other.end() <= segment.address);
    }
    end = std::max(end, segment.end());
    has_entry |= segment.address <= elf.image.entry && elf.image.entry < segment.end();
  }
  MUST(has_entry && elf.image.end == end);
  MUST(elf.segments.size() <= max_program_headers);
}

void check(const LoadError& error, std::span<const std::byte> file) {
  MUST(error.reason != nullptr && error.reason[0] != '\0');
  MUST(error.offset <= std::max<std::size_t>(file.size(), 64));
}

void load(const Elf& elf, std::span<const std::byte> file) {
  Ram memory;
  const bool fits = elf.image.end.value <= Ram::ram_size;
  const auto loaded = load_elf(file, memory);
  MUST(loaded.has_value() == fits);
  if (!loaded) return;
  Ram expected;
  for (const Segment& segment : elf.segments) {
    std::copy(segment.data.begin(), segment.data.end(), &expected.bytes[segment.address.value]);
    std::fill_n(expected.bytes.begin() +
                    static_cast<std::ptrdiff_t>(segment.address.value + segment.data.size()),
                segment.zeros, std::byte{0});
  }
  MUST(memory.bytes == expected.bytes);
}

void run(std::span<const std::byte> file) {
  if (const auto pvh = parse_pvh_elf(file); pvh) {
    check(pvh.value(), file);
    MUST(pvh.value().image.entry.value >> 32 == 0);
  } else {
    check(pvh.error(), file);
  }
  const auto elf = parse_elf(file);
  if (!elf) {
    check(elf.error(), file);
    Ram memory;
    MUST(!load_elf(file, memory));
    MUST(memory.bytes == Ram{}.bytes);
    return;
  }
  MUST(is_elf(file));
  check(elf.value(), file);
  load(elf.value(), file);
}

}  // namespace
}  // namespace linux_loader

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Of its own size, so that a read beyond it is seen.
  const std::vector<std::uint8_t> exact(data, data + size);
  linux_loader::run(std::as_bytes(std::span(exact)));
  return 0;
}
