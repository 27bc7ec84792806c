// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Loads a guest kernel from an ELF file: 64-bit, little-endian, x86-64, ET_EXEC, as vmlinux is.
//
//   auto image = linux_loader::load_elf(file, memory);   // memory: any GuestWriter
//   if (!image) {
//     std::fprintf(stderr, "byte %#" PRIx64 ": %s\n", image.error().offset, image.error().reason);
//   }
//   regs.rip = image.value().entry.value;
//
// No byte of the file is trusted, and the whole file is checked before guest memory is touched.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "linux_loader/guest_memory.hpp"
#include "linux_loader/load_error.hpp"
#include "vmm_base/guest_address.hpp"
#include "vmm_base/result.hpp"

namespace linux_loader {

struct Image {
  vmm_base::Gpa entry;  // e_entry, read as a physical address; lies within a segment.
  vmm_base::Gpa end;    // The first byte after the highest segment.
};

// A file with more is refused; vmlinux has five or so.
inline constexpr std::size_t max_program_headers = 64;

// A PT_LOAD program header with p_memsz > 0.
struct Segment {
  vmm_base::Gpa address;            // p_paddr.
  std::span<const std::byte> data;  // p_filesz bytes of the file that was parsed.
  std::uint64_t zeros;              // Bytes to zero after `data`: p_memsz - p_filesz.
  std::uint64_t paddr_offset;       // Of the p_paddr field in the file, for a LoadError.

  // The first byte after the segment; doesn't wrap.
  [[nodiscard]] vmm_base::Gpa end() const noexcept { return address + data.size() + zeros; }
};

struct Elf {
  Image image;
  std::vector<Segment> segments;  // In the file's order; no two overlap. Views into the file.
};

// Whether it starts as an ELF file does, of whatever kind.
[[nodiscard]] bool is_elf(std::span<const std::byte> file) noexcept;

// Checks the file and says where its segments go. Needs no guest.
[[nodiscard]] LoadResult<Elf> parse_elf(std::span<const std::byte> file);

// The same for a kernel that is entered at its PVH note (XEN_ELFNOTE_PHYS32_ENTRY, in a PT_NOTE),
// so that `image.entry` is the note's, and e_entry isn't looked at. Such a kernel lies below 4 GiB.
[[nodiscard]] LoadResult<Elf> parse_pvh_elf(std::span<const std::byte> file);

// Writes the segments to guest memory. Where an error comes from the file, memory is untouched;
// where the memory refuses a segment, that one and those before it may have been written.
template <GuestWriter M>
[[nodiscard]] LoadResult<Image> load_elf(std::span<const std::byte> file, M& memory) {
  VMM_TRY(elf, parse_elf(file));
  for (const Segment& segment : elf.segments) {
    const LoadError refused{"guest memory refuses the segment", segment.paddr_offset};
    if (!segment.data.empty() && !memory.write(segment.address, segment.data)) return refused;
    if (segment.zeros != 0 &&
        !memory.fill_zero(segment.address + segment.data.size(), segment.zeros)) {
      return refused;
    }
  }
  return elf.image;
}

}  // namespace linux_loader
