// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/elf.hpp"

#include <elf.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>

#include "bytes.hpp"

namespace linux_loader {
namespace {

static_assert(sizeof(Elf64_Ehdr) == 64 && sizeof(Elf64_Phdr) == 56);

LoadResult<Elf64_Ehdr> read_header(std::span<const std::byte> file) {
  if (file.size() < sizeof(Elf64_Ehdr)) {
    return LoadError{"the file ends within the ELF header", file.size()};
  }
  const auto header = read<Elf64_Ehdr>(file, 0);
  if (!is_elf(file)) return LoadError{"not an ELF file", 0};
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

// What both kinds of entry need; `image.entry` is left at 0.
LoadResult<Elf> read_segments(std::span<const std::byte> file, const Elf64_Ehdr& header) {
  Elf elf{};
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
    elf.image.end = std::max(elf.image.end, segment.end());
    elf.segments.push_back(segment);
  }
  return elf;
}

bool lies_in_a_segment(vmm_base::Gpa entry, const Elf& elf) {
  return std::any_of(elf.segments.begin(), elf.segments.end(), [&](const Segment& segment) {
    return segment.address <= entry && entry < segment.end();
  });
}

struct PvhNote {
  vmm_base::Gpa entry;
  std::uint64_t offset;  // In the file, of the entry's address.
};

// Looks for the note in `notes`, the part of the file from `at` on. 64-bit kernels align notes to 4
// bytes, but where p_align says 8.
LoadResult<std::optional<PvhNote>> find_pvh_note(std::span<const std::byte> notes, std::uint64_t at,
                                                 std::uint64_t align) {
  static constexpr char owner[] = "Xen";
  constexpr std::uint32_t phys32_entry = 18;  // XEN_ELFNOTE_PHYS32_ENTRY, xen/elfnote.h
  const auto padded = [&](std::uint64_t size) { return (size + align - 1) / align * align; };
  for (std::uint64_t offset = 0; offset < notes.size();) {
    if (!within(notes, offset, sizeof(Elf64_Nhdr))) {
      return LoadError{"the notes end within a note", at + notes.size()};
    }
    const auto note = read<Elf64_Nhdr>(notes, offset);
    const std::uint64_t name = offset + sizeof note;
    const std::uint64_t value = name + padded(note.n_namesz);
    if (!within(notes, name, note.n_namesz)) {
      return LoadError{"a note's name outside the notes",
                       at + offset + offsetof(Elf64_Nhdr, n_namesz)};
    }
    if (!within(notes, value, note.n_descsz)) {
      return LoadError{"a note's value outside the notes",
                       at + offset + offsetof(Elf64_Nhdr, n_descsz)};
    }
    if (note.n_type == phys32_entry && note.n_namesz == sizeof owner &&
        std::memcmp(notes.data() + name, owner, sizeof owner) == 0) {
      if (note.n_descsz == 4) return PvhNote{{read<std::uint32_t>(notes, value)}, at + value};
      if (note.n_descsz == 8) return PvhNote{{read<std::uint64_t>(notes, value)}, at + value};
      return LoadError{"a PVH note that is neither 4 nor 8 bytes",
                       at + offset + offsetof(Elf64_Nhdr, n_descsz)};
    }
    offset = value + padded(note.n_descsz);
  }
  return std::optional<PvhNote>();
}

}  // namespace

bool is_elf(std::span<const std::byte> file) noexcept {
  return file.size() >= SELFMAG && std::memcmp(file.data(), ELFMAG, SELFMAG) == 0;
}

LoadResult<Elf> parse_elf(std::span<const std::byte> file) {
  VMM_TRY(header, read_header(file));
  VMM_TRY(elf, read_segments(file, header));
  elf.image.entry = {header.e_entry};
  if (!lies_in_a_segment(elf.image.entry, elf)) {
    return LoadError{"the entry point lies in no segment", offsetof(Elf64_Ehdr, e_entry)};
  }
  return std::move(elf);
}

LoadResult<Elf> parse_pvh_elf(std::span<const std::byte> file) {
  VMM_TRY(header, read_header(file));
  VMM_TRY(elf, read_segments(file, header));
  for (std::size_t i = 0; i < header.e_phnum; ++i) {
    const std::uint64_t at = header.e_phoff + i * sizeof(Elf64_Phdr);
    const auto notes = read<Elf64_Phdr>(file, at);
    if (notes.p_type != PT_NOTE) continue;
    if (!within(file, notes.p_offset, notes.p_filesz)) {
      return LoadError{"notes outside the file", at + offsetof(Elf64_Phdr, p_offset)};
    }
    VMM_TRY(note, find_pvh_note(file.subspan(notes.p_offset, notes.p_filesz), notes.p_offset,
                                notes.p_align == 8 ? 8 : 4));
    if (!note) continue;
    elf.image.entry = note->entry;
    if (!lies_in_a_segment(elf.image.entry, elf)) {
      return LoadError{"the PVH entry point lies in no segment", note->offset};
    }
    if (elf.image.entry.value > std::numeric_limits<std::uint32_t>::max()) {
      return LoadError{"the PVH entry point lies above 4 GiB", note->offset};
    }
    return std::move(elf);
  }
  return LoadError{"no PVH note: built without CONFIG_PVH", offsetof(Elf64_Ehdr, e_phoff)};
}

}  // namespace linux_loader
