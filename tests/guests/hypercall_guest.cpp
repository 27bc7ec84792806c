// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a punted hypercall costs a guest, there and back: one of the timer's, stop_singleshot_timer,
// beside one that leaves KVM likewise and that nobody answers. By turns; says both medians, in
// ticks of its TSC for a hundred calls, on the VMM's stderr.
#include "guest.hpp"
#include "xen_abi/hypercall_numbers.hpp"
#include "xen_abi/vcpu.hpp"

namespace {

constexpr unsigned rounds = 101;
constexpr unsigned calls = 100;
constexpr unsigned nobodys = 38;  // Xen's tmem_op, which is no more

void sort(std::uint64_t* values) {
  for (unsigned i = 1; i < rounds; ++i) {
    for (unsigned at = i; at > 0 && values[at] < values[at - 1]; --at) {
      const std::uint64_t other = values[at - 1];
      values[at - 1] = values[at];
      values[at] = other;
    }
  }
}
void print(std::uint64_t number) {
  char digits[21] = {};
  char* at = digits + 20;
  do *--at = static_cast<char>('0' + number % 10);
  while ((number /= 10) != 0);
  guest::print(at);
}

}  // namespace

extern "C" void guest_main(std::uint64_t, std::uint64_t, std::uint64_t) {
  namespace hypercall = xen_abi::hypercall;
  const std::uint32_t xen = guest::find_xen();
  if (xen == 0) guest::fail("hypercall-guest: no Xen in CPUID\n");
  guest::write_msr(guest::cpuid(xen + xen_abi::cpuid::leaf_hypercall).ebx,
                   guest::address(guest::hypercall_page));
  std::uint64_t ours[rounds];
  std::uint64_t empty[rounds];
  for (unsigned round = 0; round < rounds; ++round) {
    std::uint64_t start = guest::rdtsc();
    for (unsigned i = 0; i < calls; ++i) {
      if (guest::hypercall(hypercall::vcpu_op, xen_abi::vcpuop::stop_singleshot_timer, 0) != 0) {
        guest::fail("hypercall-guest: stop_singleshot_timer was refused\n");
      }
    }
    ours[round] = guest::rdtsc() - start;
    start = guest::rdtsc();
    for (unsigned i = 0; i < calls; ++i) (void)guest::hypercall(nobodys, 0);
    empty[round] = guest::rdtsc() - start;
  }
  sort(ours);
  sort(empty);
  guest::print("punted ");
  print(ours[rounds / 2]);
  guest::print(" ");
  print(empty[rounds / 2]);
  guest::print("\n");
  guest::out32(vmm_reference::port_done, 0);
  for (;;) guest::halt();
}
