// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_hvm_op: hvm_op(ulong cmd, GVA arg), from xen/include/public/hvm/hvm_op.h and
// params.h. The arguments have one layout for both widths.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xen_abi/domain.hpp"

namespace xen_abi {

namespace hvmop {
inline constexpr std::uint64_t set_param = 0;
inline constexpr std::uint64_t get_param = 1;
inline constexpr std::uint64_t flush_tlbs = 5;
inline constexpr std::uint64_t pagetable_dying = 9;
inline constexpr std::uint64_t get_time = 10;
inline constexpr std::uint64_t xentrace = 11;
inline constexpr std::uint64_t get_mem_type = 15;
inline constexpr std::uint64_t set_evtchn_upcall_vector = 23;
}  // namespace hvmop

namespace hvm_param {
inline constexpr std::uint32_t callback_irq = 0;
inline constexpr std::uint32_t store_pfn = 1;
inline constexpr std::uint32_t store_evtchn = 2;
inline constexpr std::uint32_t pae_enabled = 4;
inline constexpr std::uint32_t dm_domain = 13;
inline constexpr std::uint32_t vm86_tss = 15;
inline constexpr std::uint32_t console_pfn = 17;
inline constexpr std::uint32_t console_evtchn = 18;
inline constexpr std::uint32_t acpi_ioports_location = 19;
inline constexpr std::uint32_t memory_event_cr0 = 20;
inline constexpr std::uint32_t nested_hvm = 24;
inline constexpr std::uint32_t memory_event_single_step = 25;
inline constexpr std::uint32_t bufioreq_evtchn = 26;
inline constexpr std::uint32_t memory_event_msr = 30;
inline constexpr std::uint32_t vm_generation_id_addr = 34;
inline constexpr std::uint32_t altp2m = 35;
inline constexpr std::uint32_t x87_fip_width = 36;
inline constexpr std::uint32_t vm86_tss_sized = 37;
inline constexpr std::uint32_t count = 39;
}  // namespace hvm_param

// The value of callback_irq: a type in bits 56 to 63, and what it names below.
namespace callback_irq {
inline constexpr unsigned type_shift = 56;
inline constexpr std::uint64_t gsi = 0;       // Bits 0 to 7; 0 for no callback.
inline constexpr std::uint64_t pci_intx = 1;  // Device in bits 11 to 15, pin in 0 and 1.
inline constexpr std::uint64_t vector = 2;    // Bits 0 to 7.
}  // namespace callback_irq

struct HvmParam {
  DomainId domid;
  std::uint16_t pad;
  std::uint32_t index;
  std::uint64_t value;  // In or out.
};
static_assert(sizeof(HvmParam) == 16);

struct EvtchnUpcallVector {
  std::uint32_t vcpu;
  std::uint8_t vector;  // 0x10 to 0xff; 0 for none.
};
static_assert(sizeof(EvtchnUpcallVector) == 8);

struct HvmPagetableDying {
  DomainId domid;
  std::uint16_t pad[3];
  std::uint64_t gpa;
};
static_assert(sizeof(HvmPagetableDying) == 16);

struct HvmGetMemType {
  DomainId domid;
  std::uint16_t mem_type;  // Out.
  std::uint16_t pad[2];
  std::uint64_t pfn;
};
static_assert(sizeof(HvmGetMemType) == 16);
inline constexpr std::uint16_t hvmmem_ram_rw = 0;
inline constexpr std::uint16_t hvmmem_mmio_dm = 2;

}  // namespace xen_abi
