// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Loads a kernel, Debian's or an ELF guest of your own, and says where its vCPU starts:
// load_kernel FILE
#include "load_kernel.hpp"

#include <cinttypes>
#include <cstdio>

#include "linux_loader/elf.hpp"
#include "linux_loader/mapped_file.hpp"

LoadResult<std::uint64_t> entry_of(Memory& memory, std::span<const std::byte> file,
                                   std::uint64_t ram_size) {
  if (is_elf(file)) {
    VMM_TRY(image, load_elf(file, memory));
    return image.entry.value;
  }
  const AcpiCpu cpus[] = {{{0}, {0}}};
  VMM_TRY(state, boot_debian(memory, file, {}, ram_size, cpus));
  return state.rip;
}

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  auto file = MappedFile::open(argv[1]);
  if (!file) return std::puts(file.error().message().c_str()), 1;
  constexpr std::uint64_t ram_size = 128 << 20;
  Memory memory(ram_size);
  auto entry = entry_of(memory, file.value().bytes(), ram_size);
  if (!entry) return std::puts(entry.error().message().c_str()), 1;
  std::printf("starts at %#" PRIx64 "\n", entry.value());
}
