// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "long_mode.hpp"

#include <array>
#include <span>

namespace vmm_reference {

namespace {

constexpr std::uint64_t present_writable = 0x3;
constexpr std::uint64_t large_page = 0x80;
using Table = std::array<std::uint64_t, 512>;

vmm_base::Result<void> write_table(vm_memory::GuestMemory& memory, vmm_base::Gpa at,
                                   const Table& table) {
  return memory.write(at, std::as_bytes(std::span(table)));
}

}  // namespace

vmm_base::Result<void> write_page_tables(vm_memory::GuestMemory& memory) {
  const vmm_base::Gpa pdpt = page_tables + vmm_base::page_size;
  Table pml4{};
  pml4[0] = pdpt.value | present_writable;
  VMM_CHECK(write_table(memory, page_tables, pml4));

  Table gigabytes{};
  for (std::uint64_t gigabyte = 0; gigabyte < 4; ++gigabyte) {
    const vmm_base::Gpa directory = pdpt + (gigabyte + 1) * vmm_base::page_size;
    gigabytes[gigabyte] = directory.value | present_writable;
    Table pages{};
    for (std::uint64_t page = 0; page < pages.size(); ++page) {
      pages[page] = (gigabyte << 30 | page << 21) | present_writable | large_page;
    }
    VMM_CHECK(write_table(memory, directory, pages));
  }
  return write_table(memory, pdpt, gigabytes);
}

vmm_base::Result<void> enter_long_mode(const kvm_ioctls::Vcpu& vcpu, kvm_regs regs) {
  VMM_TRY(sregs, vcpu.get_sregs());
  kvm_segment code{};
  code.limit = 0xffffffff;
  code.selector = 8;
  code.type = 11;  // execute, read, accessed
  code.present = 1;
  code.s = 1;
  code.l = 1;
  code.g = 1;
  kvm_segment data = code;
  data.selector = 16;
  data.type = 3;  // read, write, accessed
  data.l = 0;
  data.db = 1;
  sregs.cs = code;
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
  sregs.cr0 = 0x80050033;  // PG AM WP NE ET MP PE
  sregs.cr3 = page_tables.value;
  sregs.cr4 = 0x20;    // PAE
  sregs.efer = 0x500;  // LMA LME
  VMM_CHECK(vcpu.set_sregs(sregs));
  regs.rflags = 0x2;
  return vcpu.set_regs(regs);
}

}  // namespace vmm_reference
