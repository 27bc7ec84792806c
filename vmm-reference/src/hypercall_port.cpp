// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "hypercall_port.hpp"

#include <array>
#include <cstring>

#include "vmm_base/guest_address.hpp"
#include "xen_abi/cpuid.hpp"

namespace vmm_reference {

bool HypercallPort::fill(std::uint64_t msr_value) noexcept {
  std::array<std::byte, vmm_base::page_size> page;
  page.fill(std::byte{0xcc});
  for (std::uint32_t number = 0; number < page.size() / xen_abi::cpuid::hypercall_slot_size;
       ++number) {
    std::byte* slot = &page[std::size_t{number} * xen_abi::cpuid::hypercall_slot_size];
    slot[0] = std::byte{0xb8};  // mov $number, %eax
    std::memcpy(slot + 1, &number, sizeof(number));
    slot[5] = std::byte{0xe7};  // out %eax, $port
    slot[6] = std::byte{port};
    slot[7] = std::byte{0xc3};  // ret
  }
  const vmm_base::Gpa gpa{msr_value & ~(vmm_base::page_size - 1)};
  return memory_.write(gpa, page).has_value();
}

xen_abi::Hypercall HypercallPort::decode(const kvm_ioctls::Vcpu& vcpu) noexcept {
  const kvm_regs& r = vcpu.sync_regs().regs();
  const kvm_sregs& s = vcpu.sync_regs().sregs();
  constexpr std::uint64_t efer_lma = 0x400;
  xen_abi::Hypercall call;
  call.long_mode = (s.efer & efer_lma) != 0 && s.cs.l != 0;
  call.cpl = s.ss.dpl;
  if (call.long_mode) {
    call.number = r.rax;
    call.params = {r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9};
  } else {
    call.number = static_cast<std::uint32_t>(r.rax);
    call.params = {r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp};
    for (auto& parameter : call.params) parameter = static_cast<std::uint32_t>(parameter);
  }
  return call;
}

}  // namespace vmm_reference
