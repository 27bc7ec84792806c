// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Arms single-shot timers on each vCPU, sleeps in HLT until the upcall, and notes by its own clock
// how late it came, and whether that clock ever goes back.
#include "guest.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_abi/hypercall_numbers.hpp"
#include "xen_abi/memory.hpp"
#include "xen_abi/vcpu.hpp"

namespace {

using SharedInfo = xen_abi::SharedInfo<std::uint64_t>;
using VcpuInfo = xen_abi::VcpuInfo<std::uint64_t>;
namespace hypercall = xen_abi::hypercall;

constexpr unsigned upcall_vector = 0x40;
constexpr std::int64_t shortest_ns = 50'000;
constexpr std::int64_t longest_ns = 20'000'000;

alignas(4096) std::uint8_t shared_info_page[4096];
alignas(4096) VcpuInfo vcpu_infos[guest::max_vcpus];
vmm_reference::TimerReport reports[guest::max_vcpus];
volatile bool domain_ready = false;

// What the upcall needs of its vCPU; found by the local APIC's id, which the VMM makes the index.
struct Vcpu {
  VcpuInfo* info;
  vmm_reference::TimerReport* report;
  std::uint32_t port;
  std::int64_t deadline;
  volatile bool armed;
  volatile std::int64_t newest;  // of all that it has read off its clock
} vcpus[guest::max_vcpus];

// An upcall may come in between, and read it, too.
std::int64_t read_clock(Vcpu& self) {
  const std::int64_t before = self.newest;
  const std::int64_t now = guest::pvclock(self.info->time);
  if (now < before) ++self.report->back;
  if (now > self.newest) self.newest = now;
  return now;
}

SharedInfo& shared_info() { return *reinterpret_cast<SharedInfo*>(shared_info_page); }

void timer_fired(Vcpu& self, std::int64_t now) {
  vmm_reference::TimerReport& report = *self.report;
  ++report.fired;
  if (!self.armed) {
    ++report.unasked;
    return;
  }
  report.lateness_ns[(report.armed - 1) % vmm_reference::max_timers] = now - self.deadline;
  if (now < self.deadline) ++report.early;
  self.armed = false;
}

void upcall() {
  Vcpu& self = vcpus[guest::apic(0x20) >> 24];
  __atomic_store_n(&self.info->upcall_pending, std::uint8_t{0}, __ATOMIC_SEQ_CST);
  std::uint64_t words = __atomic_exchange_n(&self.info->pending_sel, 0, __ATOMIC_SEQ_CST);
  for (; words != 0; words &= words - 1) {
    const auto word = static_cast<unsigned>(__builtin_ctzll(words));
    std::uint64_t ports = __atomic_load_n(&shared_info().evtchn_pending[word], __ATOMIC_SEQ_CST);
    for (; ports != 0; ports &= ports - 1) {
      const auto bit = static_cast<unsigned>(__builtin_ctzll(ports));
      // Other vCPUs' ports stand in the same words: they are theirs to clear.
      if (word * 64 + bit != self.port) continue;
      // Not before: an upcall for another reason may have brought us here, and the event come
      // since.
      const std::int64_t now = read_clock(self);
      __atomic_fetch_and(&shared_info().evtchn_pending[word], ~(std::uint64_t{1} << bit),
                         __ATOMIC_SEQ_CST);
      timer_fired(self, now);
    }
  }
  guest::end_of_interrupt();
}

// What is once a domain: the hypercall page and shared_info.
void set_up_domain(std::uint32_t xen) {
  const auto page = reinterpret_cast<std::uintptr_t>(guest::hypercall_page);
  guest::write_msr(guest::cpuid(xen + xen_abi::cpuid::leaf_hypercall).ebx, page);
  const xen_abi::AddToPhysmap<std::uint64_t> map{
      xen_abi::domid_self, 0, xen_abi::mapspace::shared_info, 0,
      reinterpret_cast<std::uintptr_t>(shared_info_page) >> 12};
  if (guest::hypercall(hypercall::memory_op, xen_abi::memory_op::add_to_physmap,
                       reinterpret_cast<std::uintptr_t>(&map)) != 0) {
    guest::fail("timer-guest: shared_info was refused\n");
  }
  guest::on_interrupt = upcall;
  guest::set_gate(upcall_vector, guest::interrupt_entry);
  guest::set_gate(0xff, guest::spurious_entry);
}

void set_up_vcpu(Vcpu& self, std::uint32_t id) {
  guest::load_idt();
  guest::enable_apic();
  const auto info = reinterpret_cast<std::uintptr_t>(self.info);
  const xen_abi::RegisterVcpuInfo place{info >> 12, static_cast<std::uint32_t>(info & 0xfff), 0};
  if (guest::hypercall(hypercall::vcpu_op, xen_abi::vcpuop::register_vcpu_info, id,
                       reinterpret_cast<std::uintptr_t>(&place)) != 0) {
    guest::fail("timer-guest: vcpu_info was refused\n");
  }
  const xen_abi::EvtchnUpcallVector vector{id, upcall_vector};
  if (guest::hypercall(hypercall::hvm_op, xen_abi::hvmop::set_evtchn_upcall_vector,
                       reinterpret_cast<std::uintptr_t>(&vector)) != 0) {
    guest::fail("timer-guest: the upcall vector was refused\n");
  }
  xen_abi::EvtchnBindVirq bind{xen_abi::virq::timer, id, 0};
  if (guest::hypercall(hypercall::event_channel_op, xen_abi::evtchnop::bind_virq,
                       reinterpret_cast<std::uintptr_t>(&bind)) != 0) {
    guest::fail("timer-guest: VIRQ_TIMER was refused\n");
  }
  self.port = bind.port;
}

// Every octave from 50 us to 20 ms as often as every other.
std::int64_t random_distance(std::uint64_t& seed) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  const std::int64_t low = shortest_ns << (seed >> 40) % 9;
  const std::int64_t distance =
      low +
      static_cast<std::int64_t>((seed >> 8 & 0xffffffff) * static_cast<std::uint64_t>(low) >> 32);
  return distance < longest_ns ? distance : longest_ns;
}

void arm_and_wait(Vcpu& self, std::uint32_t id, std::int64_t distance, bool awake) {
  vmm_reference::TimerReport& report = *self.report;
  self.deadline = read_clock(self) + distance;
  self.armed = true;
  ++report.armed;
  const xen_abi::SetSingleshotTimer timer{static_cast<std::uint64_t>(self.deadline), 0};
  if (guest::hypercall(hypercall::vcpu_op, xen_abi::vcpuop::set_singleshot_timer, id,
                       reinterpret_cast<std::uintptr_t>(&timer)) != 0) {
    ++report.refused;
    self.armed = false;
  }
  if (awake) {
    asm volatile("sti" ::: "memory");
    while (self.armed) (void)read_clock(self);
    asm volatile("cli" ::: "memory");
  }
  while (self.armed) guest::halt();
}

}  // namespace

extern "C" void guest_main(std::uint64_t index, std::uint64_t count, std::uint64_t timers,
                           std::uint64_t load_ms, std::uint64_t awake) {
  const std::uint32_t xen = guest::find_xen();
  if (xen == 0) guest::fail("timer-guest: no Xen in CPUID\n");
  const std::uint32_t id = guest::cpuid(xen + xen_abi::cpuid::leaf_hvm).ebx;
  if (index >= guest::max_vcpus || count > guest::max_vcpus || timers > vmm_reference::max_timers) {
    guest::fail("timer-guest: more than it was built for\n");
  }

  Vcpu& self = vcpus[index];
  self.info = &vcpu_infos[index];
  self.report = &reports[index];
  self.report->magic = vmm_reference::report_magic;
  self.report->xen_vcpu_id = id;
  guest::out32(vmm_reference::port_report,
               static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(self.report)));

  if (index == 0) {
    set_up_domain(xen);
    __atomic_store_n(&domain_ready, true, __ATOMIC_RELEASE);
  }
  while (!__atomic_load_n(&domain_ready, __ATOMIC_ACQUIRE)) asm volatile("pause");
  set_up_vcpu(self, id);

  std::uint64_t seed = 0x9e3779b97f4a7c15 * (index + 1);
  if (load_ms == 0) {
    for (std::uint64_t i = 0; i < timers; ++i) {
      arm_and_wait(self, id, random_distance(seed), awake != 0 && i % 4 == 3);
    }
  } else {
    const std::int64_t end = read_clock(self) + static_cast<std::int64_t>(load_ms) * 1'000'000;
    while (read_clock(self) < end) {
      // From what has passed before the call is made to a little ahead.
      arm_and_wait(self, id, random_distance(seed) % shortest_ns, false);
    }
  }

  const std::int64_t stopped =
      guest::hypercall(hypercall::vcpu_op, xen_abi::vcpuop::stop_singleshot_timer, id);
  if (stopped != 0) guest::fail("timer-guest: stop_singleshot_timer was refused\n");
  guest::out32(vmm_reference::port_done, 0);
}
