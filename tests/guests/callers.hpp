// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Hypercalls from where a kernel doesn't make them: from ring 3, and from 32-bit code. Needs a GDT
// of its own for each vCPU, and page tables that let ring 3 in.
#pragma once

#include "guest.hpp"

extern "C" std::int64_t call_from_ring3(const void* slot, std::uint64_t a, std::uint64_t b,
                                        std::uint64_t c, std::uint64_t* rsp0);
extern "C" std::int64_t call_from_32bit(const void* slot, std::uint32_t a, std::uint32_t b,
                                        std::uint32_t c);
extern "C" void back_from_ring3();

namespace guest {

enum class Caller { kernel, ring3, compat };

class Segments {
 public:
  // On the vCPU itself.
  void load() {
    const auto tss = reinterpret_cast<std::uintptr_t>(tss_);
    gdt_[6] =
        (sizeof(tss_) - 1) | (tss & 0xffffff) << 16 | 0x89ull << 40 | (tss >> 24 & 0xff) << 56;
    gdt_[7] = tss >> 32;
    struct [[gnu::packed]] {
      std::uint16_t limit;
      std::uint64_t base;
    } pointer{sizeof(gdt_) - 1, reinterpret_cast<std::uintptr_t>(gdt_)};
    asm volatile("lgdt %0; ltr %w1" ::"m"(pointer), "r"(6 * 8) : "memory");
    constexpr unsigned way_back = 0x80;
    set_gate(way_back, back_from_ring3);
    idt[way_back].type = 0xee;  // ring 3 may call it
  }

  // RAX or, sign-extended, EAX. Of 32-bit code, the arguments are cut to 32 bits.
  std::int64_t hypercall(Caller caller, unsigned number, std::uint64_t a, std::uint64_t b,
                         std::uint64_t c) {
    const void* slot = &hypercall_page[number * xen_abi::cpuid::hypercall_slot_size];
    switch (caller) {
      case Caller::ring3:
        return call_from_ring3(slot, a, b, c, reinterpret_cast<std::uint64_t*>(tss_ + rsp0));
      case Caller::compat:
        return call_from_32bit(slot, static_cast<std::uint32_t>(a), static_cast<std::uint32_t>(b),
                               static_cast<std::uint32_t>(c));
      case Caller::kernel:
        break;
    }
    return guest::hypercall(number, a, b, c);
  }

 private:
  static constexpr std::size_t rsp0 = 4;  // in the TSS: the stack for what comes from ring 3
  alignas(8) std::uint64_t gdt_[8] = {
      0,
      0x00af9b000000ffff,  // 0x08: 64-bit code
      0x00cf93000000ffff,  // 0x10: data
      0x00cf9b000000ffff,  // 0x18: 32-bit code
      0x00cff3000000ffff,  // 0x20: ring 3's data
      0x00affb000000ffff,  // 0x28: ring 3's 64-bit code
  };
  alignas(8) std::uint8_t tss_[104] = {};
};

}  // namespace guest
