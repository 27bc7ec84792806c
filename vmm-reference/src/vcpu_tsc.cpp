// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vcpu_tsc.hpp"

#include <cpuid.h>

#include <cstdint>

namespace vmm_reference {

namespace {

// AMD's manual, volume 3, Fn8000_0001_ECX: bit 2 is SVM.
std::uint8_t tsc_fraction_bits() {
  unsigned eax = 0;
  unsigned ebx = 0;
  unsigned ecx = 0;
  unsigned edx = 0;
  const bool svm = __get_cpuid(0x8000'0001, &eax, &ebx, &ecx, &edx) != 0 && (ecx & 1 << 2) != 0;
  return svm ? xen_clock::svm_tsc_fraction_bits : xen_clock::vmx_tsc_fraction_bits;
}

}  // namespace

vmm_base::Result<xen_clock::VcpuTsc> vcpu_tsc(const kvm_ioctls::Vm& vm,
                                              const kvm_ioctls::Vcpu& vcpu) {
  VMM_TRY(offset, vcpu.get_tsc_offset());
  VMM_TRY(guest_khz, vcpu.get_tsc_khz());
  VMM_TRY(host_khz, vm.get_tsc_khz());  // we don't set it
  VMM_TRY(clock, vm.get_clock());
  return xen_clock::VcpuTsc{
      .map = xen_clock::tsc_map(guest_khz, host_khz, tsc_fraction_bits(), offset),
      .host_khz = host_khz,
      .master_clock = (clock.flags & KVM_CLOCK_TSC_STABLE) != 0};
}

}  // namespace vmm_reference
