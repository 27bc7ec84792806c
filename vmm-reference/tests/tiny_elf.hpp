// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// An ELF file that a test guest, and a Linux kernel entered at its PVH note, look like. Nobody ever
// runs it.
#pragma once

#include <elf.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace vmm_reference {

inline std::vector<std::byte> tiny_elf() {
  constexpr std::uint64_t start = 0x100000;
  struct Note {
    std::uint32_t name_size = 4;
    std::uint32_t size = 8;
    std::uint32_t type = 18;  // XEN_ELFNOTE_PHYS32_ENTRY
    char name[4] = {'X', 'e', 'n', 0};
    std::uint32_t entry[2] = {start, 0};
  };
  struct File {
    Elf64_Ehdr header{};
    Elf64_Phdr load{};
    Elf64_Phdr notes{};
    Note note{};
    char code[64] = {'\xf4'};
  } file;
  std::memcpy(file.header.e_ident, ELFMAG, SELFMAG);
  file.header.e_ident[EI_CLASS] = ELFCLASS64;
  file.header.e_ident[EI_DATA] = ELFDATA2LSB;
  file.header.e_ident[EI_VERSION] = EV_CURRENT;
  file.header.e_type = ET_EXEC;
  file.header.e_machine = EM_X86_64;
  file.header.e_version = EV_CURRENT;
  file.header.e_entry = start;
  file.header.e_phoff = offsetof(File, load);
  file.header.e_phentsize = sizeof(Elf64_Phdr);
  file.header.e_phnum = 2;
  file.load.p_type = PT_LOAD;
  file.load.p_offset = offsetof(File, code);
  file.load.p_vaddr = file.load.p_paddr = start;
  file.load.p_filesz = file.load.p_memsz = sizeof(file.code);
  file.notes.p_type = PT_NOTE;
  file.notes.p_offset = offsetof(File, note);
  file.notes.p_filesz = sizeof(file.note);
  file.notes.p_align = 4;
  std::vector<std::byte> bytes(sizeof(file));
  std::memcpy(bytes.data(), &file, sizeof(file));
  return bytes;
}

}  // namespace vmm_reference
