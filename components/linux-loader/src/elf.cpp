// SPDX-License-Identifier: BSD-3-Clause
#include "linux_loader/elf.hpp"

#include <elf.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstring>
#include <limits>

namespace linux_loader {
namespace {

static_assert(std::endian::native == std::endian::little, "fields are read as they stand");
static_assert(sizeof(Elf64_Ehdr) == 64 && sizeof(Elf64_Phdr) == 56);

// Whether [offset, offset + size) lies in the file; neither number is trusted.
bool within(std::span<const std::byte> file, std::uint64_t offset, std::uint64_t size) {
  return offset <= file.size() && size <= file.size() - offset;
}

// The caller has checked the range. A copy, as nothing in a file is aligned.
template <class T>
T read(std::span<const std::byte> file, std::uint64_t offset) {
  T value;
  std::memcpy(&value, file.data() + offset, sizeof value);
  return value;
}

LoadResult<Elf64_Ehdr> read_header(std::span<const std::byte> file) {
  if (file.size() < sizeof(Elf64_Ehdr)) {
    return LoadError{"the file ends within the ELF header", file.size()};
  }
  const auto header = read<Elf64_Ehdr>(file, 0);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return LoadError{"not an ELF file", 0};
  if (header.e_ident[EI_CLASS] != ELFCLASS64) return LoadError{"not a 64-bit file", EI_CLASS};
  if (header.e_ident[EI_DATA] != ELFDATA2LSB) return LoadError{"not little-endian", EI_DATA};
  if (header.e_ident[EI_VERSION] != EV_CURRENT) {
    return LoadError{"an unknown ELF version", EI_VERSION};
  }
  if (header.e_type != ET_EXEC) {
    return LoadError{"not an executable (ET_EXEC)", offsetof(Elf64_Ehdr, e_type)};
  }
  if (header.e_machine != EM_X86_64) {
    return LoadError{"not for x86-64", offsetof(Elf64_Ehdr, e_machine)};
  }
  if (header.e_version != EV_CURRENT) {
    return LoadError{"an unknown ELF version", offsetof(Elf64_Ehdr, e_version)};
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr)) {
    return LoadError{"program headers of a wrong size", offsetof(Elf64_Ehdr, e_phentsize)};
  }
  if (header.e_phnum == 0) return LoadError{"no program headers", offsetof(Elf64_Ehdr, e_phnum)};
  // PN_XNUM, the escape for a count that doesn't fit, is among these.
  if (header.e_phnum > max_program_headers) {
    return LoadError{"too many program headers", offsetof(Elf64_Ehdr, e_phnum)};
  }
  if (!within(file, header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr))) {
    return LoadError{"program headers outside the file", offsetof(Elf64_Ehdr, e_phoff)};
  }
  return header;
}

// `at`: where the program header stands in the file.
LoadResult<Segment> read_segment(std::span<const std::byte> file, const Elf64_Phdr& header,
                                 std::uint64_t at) {
  if (header.p_filesz > header.p_memsz) {
    return LoadError{"a segment larger in the file than in memory",
                     at + offsetof(Elf64_Phdr, p_filesz)};
  }
  if (!within(file, header.p_offset, header.p_filesz)) {
    return LoadError{"a segment's data outside the file", at + offsetof(Elf64_Phdr, p_offset)};
  }
  if (header.p_memsz > std::numeric_limits<std::uint64_t>::max() - header.p_paddr) {
    return LoadError{"a segment that wraps around the address space",
                     at + offsetof(Elf64_Phdr, p_memsz)};
  }
  return Segment{{header.p_paddr},
                 file.subspan(header.p_offset, header.p_filesz),
                 header.p_memsz - header.p_filesz,
                 at + offsetof(Elf64_Phdr, p_paddr)};
}

}  // namespace

LoadResult<Elf> parse_elf(std::span<const std::byte> file) {
  VMM_TRY(header, read_header(file));
  Elf elf{{{header.e_entry}, {0}}, {}};
  bool entry_found = false;
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    const std::uint64_t at = header.e_phoff + i * sizeof(Elf64_Phdr);
    const auto program_header = read<Elf64_Phdr>(file, at);
    if (program_header.p_type != PT_LOAD) continue;
    VMM_TRY(segment, read_segment(file, program_header, at));
    if (segment.address == segment.end()) continue;

    for (const Segment& other : elf.segments) {
      if (segment.address < other.end() && other.address < segment.end()) {
        return LoadError{"segments overlap", segment.paddr_offset};
      }
    }
    entry_found |= segment.address <= elf.image.entry && elf.image.entry < segment.end();
    elf.image.end = std::max(elf.image.end, segment.end());
    elf.segments.push_back(segment);
  }
  if (!entry_found) {
    return LoadError{"the entry point lies in no segment", offsetof(Elf64_Ehdr, e_entry)};
  }
  return elf;
}

}  // namespace linux_loader
