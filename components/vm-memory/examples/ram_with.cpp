// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// 64 MiB of RAM from address 0, with code in it.
#include <array>
#include <cstdio>

#include "vm_memory/guest_memory.hpp"

using vmm_base::Gpa;

vmm_base::Result<vm_memory::GuestMemory> ram_with(std::span<const std::byte> code) {
  VMM_TRY(memory, vm_memory::GuestMemory::create({{Gpa{0}, 64 << 20}}));
  VMM_CHECK(memory.write(Gpa{0x1000}, code));
  return std::move(memory);
}

int main() {
  constexpr std::array hlt{std::byte{0xf4}};
  auto memory = ram_with(hlt);
  if (!memory) return std::puts(memory.error().message().c_str()), 1;
  std::array<std::byte, 1> read{};
  return memory.value().read(Gpa{0x1000}, read) && read == hlt ? 0 : 1;
}
