// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a freestanding guest has instead of a library: ports, MSRs, CPUID, Xen hypercalls, its own
// pvclock, interrupts.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vmm_reference/guest_protocol.hpp"
#include "xen_abi/cpuid.hpp"
#include "xen_abi/shared_info.hpp"

namespace guest {

constexpr unsigned max_vcpus = vmm_reference::max_vcpus;

inline std::uint64_t address(const volatile void* p) { return reinterpret_cast<std::uintptr_t>(p); }

inline void out8(std::uint16_t port, std::uint8_t value) {
  asm volatile("outb %0, %1" ::"a"(value), "Nd"(port) : "memory");
}
inline void out32(std::uint16_t port, std::uint32_t value) {
  asm volatile("outl %0, %1" ::"a"(value), "Nd"(port) : "memory");
}
inline void print(const char* text) {
  while (*text != 0) out8(vmm_reference::port_text, static_cast<std::uint8_t>(*text++));
}
[[noreturn]] inline void fail(const char* text) {
  print(text);
  out32(vmm_reference::port_done, 1);
  for (;;) asm volatile("cli; hlt");
}

inline void write_msr(std::uint32_t index, std::uint64_t value) {
  asm volatile("wrmsr" ::"c"(index), "a"(static_cast<std::uint32_t>(value)),
               "d"(static_cast<std::uint32_t>(value >> 32))
               : "memory");
}
inline std::uint64_t rdtsc() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  // Not before what comes before it in the program.
  asm volatile("lfence; rdtsc" : "=a"(low), "=d"(high)::"memory");
  return std::uint64_t{high} << 32 | low;
}

struct Cpuid {
  std::uint32_t eax, ebx, ecx, edx;
};
inline Cpuid cpuid(std::uint32_t leaf) {
  Cpuid r{};
  asm volatile("cpuid" : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx) : "a"(leaf), "c"(0));
  return r;
}

// Xen's first CPUID leaf, or 0.
inline std::uint32_t find_xen() {
  for (std::uint32_t base = 0x40000000; base < 0x40010000; base += 0x100) {
    const Cpuid r = cpuid(base);
    if (r.ebx == xen_abi::cpuid::signature_ebx && r.ecx == xen_abi::cpuid::signature_ecx &&
        r.edx == xen_abi::cpuid::signature_edx && r.eax >= base + 2) {
      return base;
    }
  }
  return 0;
}

alignas(4096) inline std::uint8_t hypercall_page[4096];

inline std::int64_t hypercall(unsigned number, std::uint64_t a, std::uint64_t b = 0,
                              std::uint64_t c = 0) {
  std::int64_t result = 0;
  asm volatile("call *%[slot]"
               : "=a"(result), "+D"(a), "+S"(b), "+d"(c)
               : [slot] "r"(&hypercall_page[number * xen_abi::cpuid::hypercall_slot_size])
               : "memory", "rcx", "r8", "r9", "r10", "r11");
  return result;
}

// This vCPU's Xen system time, ns, as every PV clock reader computes it.
inline std::int64_t pvclock(const volatile xen_abi::VcpuTimeInfo& info) {
  for (;;) {
    const std::uint32_t version = info.version;
    asm volatile("" ::: "memory");
    std::uint64_t delta = rdtsc() - info.tsc_timestamp;
    const int shift = info.tsc_shift;
    delta = shift < 0 ? delta >> -shift : delta << shift;
    __extension__ using Uint128 = unsigned __int128;
    const auto ns = static_cast<std::uint64_t>(Uint128{delta} * info.tsc_to_system_mul >> 32);
    const std::uint64_t time = info.system_time + ns;
    asm volatile("" ::: "memory");
    if ((version & 1) == 0 && version == info.version) return static_cast<std::int64_t>(time);
  }
}

// --- interrupts ---

// In start.S: saves the registers and calls on_interrupt; or does nothing.
extern "C" void interrupt_entry();
extern "C" void spurious_entry();
inline void (*on_interrupt)();

using Interrupt = void (*)();
struct [[gnu::packed]] Gate {
  std::uint16_t low;
  std::uint16_t selector;
  std::uint8_t ist;
  std::uint8_t type;
  std::uint16_t middle;
  std::uint32_t high;
  std::uint32_t reserved;
};
static_assert(sizeof(Gate) == 16);
alignas(16) inline Gate idt[256];

inline void set_gate(unsigned vector, Interrupt handler) {
  const auto address = reinterpret_cast<std::uintptr_t>(handler);
  idt[vector] = {static_cast<std::uint16_t>(address),
                 8,
                 0,
                 0x8e,
                 static_cast<std::uint16_t>(address >> 16),
                 static_cast<std::uint32_t>(address >> 32),
                 0};
}
inline void load_idt() {
  struct [[gnu::packed]] {
    std::uint16_t limit;
    std::uint64_t base;
  } pointer{sizeof(idt) - 1, reinterpret_cast<std::uintptr_t>(idt)};
  asm volatile("lidt %0" ::"m"(pointer));
}

// Waits for an interrupt; called and left with interrupts off.
[[gnu::noinline]] inline void halt() {
  asm volatile(
      "sti\n"
      ".globl halt_instruction\n"
      "halt_instruction: hlt\n"
      "cli" ::
          : "memory");
}

// For whom an interrupt came: sti takes effect only after the hlt behind it, but QEMU's SVM forgets
// so when the host interrupts its guest between the two. The wake-up would then come before the
// sleep, so that hlt is skipped.
extern "C" const char halt_instruction;
extern "C" [[gnu::used]] inline void handle_interrupt(std::uint64_t* rip) {
  if (*rip == reinterpret_cast<std::uintptr_t>(&halt_instruction)) ++*rip;
  on_interrupt();
}

// The local APIC's registers, at their usual place.
inline volatile std::uint32_t& apic(unsigned offset) {
  return *reinterpret_cast<volatile std::uint32_t*>(0xfee00000ul + offset);
}
inline void enable_apic() { apic(0xf0) = 0x1ff; }  // spurious vector 0xff, software-enabled
inline void end_of_interrupt() { apic(0xb0) = 0; }

}  // namespace guest
