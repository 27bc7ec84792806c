// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The state in which the boot vCPU enters a kernel, as plain data for the VMM to set. What isn't
// named is as after INIT, and the other general registers are 0.
#pragma once

#include <cstdint>

#include "vmm_base/guest_address.hpp"

namespace linux_loader {

// As Intel's SDM, volume 3A, 3.4.5 names them; kvm_segment has the same fields.
struct SegmentRegister {
  std::uint64_t base = 0;
  std::uint32_t limit = 0;  // bytes - 1
  std::uint16_t selector = 0;
  std::uint8_t type = 0;
  std::uint8_t s = 0;  // 1: code or data
  std::uint8_t dpl = 0;
  std::uint8_t present = 0;
  std::uint8_t avl = 0;
  std::uint8_t l = 0;  // 64-bit code
  std::uint8_t db = 0;
  std::uint8_t g = 0;  // the limit counts pages
};

struct CpuState {
  std::uint64_t rip = 0;
  std::uint64_t rbx = 0;     // PVH: the start info
  std::uint64_t rsi = 0;     // else: the boot parameters
  std::uint64_t rflags = 0;  // interrupts off
  std::uint64_t cr0 = 0;
  std::uint64_t cr3 = 0;
  std::uint64_t cr4 = 0;
  std::uint64_t efer = 0;
  SegmentRegister code{};  // cs
  SegmentRegister data{};  // ds, es, fs, gs, ss
  SegmentRegister task{};  // tr
  std::uint64_t gdt_base = 0;
  std::uint16_t gdt_limit = 0;  // bytes - 1; the IDT's base and limit are 0
};

}  // namespace linux_loader
