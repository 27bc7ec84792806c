// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Walks through Xen's timer hypercalls, case by case, and leaves a line of each: what the calls
// were answered, and which events came. tests/differential/expected.txt says what it should have
// left, and what the words mean.
#include <limits>

#include "guest_pages.hpp"
#include "timer_script.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_abi/memory.hpp"

namespace {

using guest::address;
using guest::beyond_ram;
using guest::Caller;
using guest::Case;
using guest::ms;
using guest::not_mapped;
using guest::Script;
using guest::window;
using guest::xen_ids;
namespace hypercall = xen_abi::hypercall;
namespace vcpuop = xen_abi::vcpuop;

constexpr unsigned upcall_vector = 0x40;
constexpr unsigned wake_vector = 0x41;

// --- values for arguments ---

constexpr std::uint32_t sshottmr_future = 1;
constexpr std::int64_t far_ahead = std::int64_t{1} << 50;  // where set_timer_op becomes 100 ms
constexpr std::int64_t last = std::numeric_limits<std::int64_t>::max();
constexpr std::uint64_t garbage = 0xdeadbeef00000000;
constexpr std::uint32_t nobody = 1000;  // no vCPU's id

// Halves, for an argument that isn't aligned.
void write_timeout(std::uint64_t at, std::int64_t timeout) {
  auto* halves = reinterpret_cast<volatile std::uint32_t*>(at);
  halves[0] = static_cast<std::uint32_t>(timeout);
  halves[1] = static_cast<std::uint32_t>(timeout >> 32);
}

// --- what many cases have in common ---

// A timer that `calls` must not touch.
template <class Calls>
void still_fires(Script& s, Calls&& calls) {
  const std::int64_t deadline = s.soon();
  s.set(deadline);
  calls();
  s.before(deadline).event();
}
// One that they cancel.
template <class Calls>
void never_fires(Script& s, Calls&& calls) {
  const std::int64_t deadline = s.soon();
  s.set(deadline);
  calls();
  s.before(deadline).quiet_past(deadline);
}
// One that they replace by a later one, or a sooner.
template <class Calls>
void fires_later(Script& s, Calls&& calls) {
  const std::int64_t deadline = s.soon();
  s.set(deadline);
  calls();
  s.before(deadline).event();
}
template <class Arm, class Replace>
void fires_sooner(Script& s, Arm&& arm, Replace&& replace) {
  const std::int64_t deadline = s.later();
  arm(deadline);
  replace();
  s.upcall().before(deadline).quiet_past(deadline);
}

// --- the cases, while VIRQ_TIMER has no port ---

constexpr Case unbound_cases[] = {
    {"unbound, armed, then bound",
     [](Script& s) {
       still_fires(s, [&] { s.bind(); });
       s.close_silently();
     }},
    {"unbound, deadline passes, then bound",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.set(deadline).let_pass(deadline).bind().quiet().close_silently();
     }},
    {"unbound, past, then bound",
     [](Script& s) { s.set(s.past()).bind().quiet().close_silently(); }},
    {"unbound, set_timer_op, then bound",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.timer_op(deadline).bind().before(deadline).event().close_silently();
     }},
    {"unbound, stopped, then bound",
     [](Script& s) {
       never_fires(s, [&] { s.stop().bind(); });
       s.close_silently();
     }},
    {"unbound, set_timer_op 0, then bound",
     [](Script& s) {
       never_fires(s, [&] { s.timer_op(0).bind(); });
       s.close_silently();
     }},
    {"unbound, no such vCPU", [](Script& s) { s.set_of(nobody).stop_of(nobody); }},
};

// --- with a port ---

constexpr Case cases[] = {
    {"set, future", [](Script& s) { s.set(s.soon()).event(); }},
    {"set, future, asleep", [](Script& s) { s.set(s.soon()).asleep().quiet(); }},
    {"set, future, interrupts off", [](Script& s) { s.set(s.soon()).wait_pending().event(); }},
    {"set, past", [](Script& s) { s.set(s.past()).event(); }},
    {"set, just now",
     [](Script& s) { s.set_at_once(static_cast<std::uint64_t>(s.now())).event(); }},
    {"set, 0", [](Script& s) { s.set(0).event(); }},
    {"set, 2^50 ns and more ahead",
     [](Script& s) { s.set(s.in(1000) + far_ahead).quiet_until(s.now() + 110 * ms).stop(); }},
    {"set, 2^62", [](Script& s) { s.set(last / 2 + 1).quiet().stop().quiet(); }},
    {"set, 2^63 - 1", [](Script& s) { s.set(last).quiet().stop().quiet(); }},
    {"set, 2^63",
     [](Script& s) { s.set_at_once(std::uint64_t{1} << 63).upcall(100 * ms).quiet(); }},
    {"set, 2^64 - 1", [](Script& s) { s.set_at_once(~std::uint64_t{0}).event(); }},
    {"set, flag future, future", [](Script& s) { s.set(s.soon(), sshottmr_future).event(); }},
    {"set, flag future, past", [](Script& s) { s.set(s.past(), sshottmr_future).event(); }},
    {"set, garbage flags, future", [](Script& s) { s.set(s.soon(), 0xfffffffe).event(); }},
    {"set, garbage flags, past", [](Script& s) { s.set(s.past(), 0xfffffffe).event(); }},
    {"set, argument changed after the call",
     [](Script& s) {
       s.set(s.soon());
       s.argument.timeout_abs_ns = last / 2;
       s.event();
     }},
    {"set, twice past before the upcall", [](Script& s) { s.set(s.past()).set(s.past()).event(); }},
    {"set, past, then future before the upcall",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.set(s.past()).set(deadline).let_pass(deadline).event();
     }},

    {"stop, idle", [](Script& s) { s.stop().quiet(); }},
    {"stop, armed", [](Script& s) { never_fires(s, [&] { s.stop(); }); }},
    {"stop, twice", [](Script& s) { never_fires(s, [&] { s.stop().stop(); }); }},
    {"stop, expired in the call, not taken",
     [](Script& s) { s.set(s.past()).stop().look().event(); }},
    {"stop, expired by the clock, not taken",
     [](Script& s) { s.set(s.soon()).wait_pending().stop().look().event(); }},
    {"stop, then set again", [](Script& s) { fires_later(s, [&] { s.stop().set(s.later()); }); }},
    {"stop_periodic, idle", [](Script& s) { s.stop_periodic_of(s.id()).quiet(); }},
    {"stop_periodic, armed",
     [](Script& s) { still_fires(s, [&] { s.stop_periodic_of(s.id()); }); }},
    {"stop_periodic, no such vCPU", [](Script& s) { s.stop_periodic_of(nobody); }},

    {"set_periodic, shorter than 1 ms",
     [](Script& s) { s.set_periodic_of(s.id(), ms - 1).quiet(); }},
    {"set_periodic, 2^62", [](Script& s) { s.set_periodic_of(s.id(), last / 2 + 1).quiet(); }},
    {"set_periodic, not mapped", [](Script& s) { s.set_periodic_at(not_mapped, s.id()); }},
    {"set_periodic, no such vCPU", [](Script& s) { s.set_periodic_at(not_mapped, nobody); }},
    {"set_periodic, until stopped",
     [](Script& s) {
       const std::int64_t period = s.tickless();
       const std::int64_t start = s.now();
       s.set_periodic_of(s.id(), period).upcall();
       s.due(start + period).upcall().due(start + 2 * period).upcall();
       s.stop_periodic_of(s.id()).before(start + 3 * period).quiet_past(start + 3 * period);
     }},
    {"set_periodic, less than a period after a tick",
     [](Script& s) {
       const std::int64_t period = s.tickless();
       const std::int64_t start = s.now();
       s.set_periodic_of(s.id(), period).upcall().stop_periodic_of(s.id());
       s.set_periodic_of(s.id(), period).before(start + period).due(start + period).upcall();
       s.stop_periodic_of(s.id()).before(start + 2 * period).quiet_past(start + 2 * period);
     }},
    {"set_periodic, and set",
     [](Script& s) {
       const std::int64_t period = s.tickless();
       const std::int64_t start = s.now();
       s.set_periodic_of(s.id(), period).upcall().set(start + period / 2).upcall();
       s.before(start + period).due(start + period).upcall();
       s.stop_periodic_of(s.id()).before(start + 2 * period).quiet_past(start + 2 * period);
     }},
    {"set_periodic, and stop",
     [](Script& s) {
       const std::int64_t period = s.tickless();
       const std::int64_t start = s.now();
       s.set_periodic_of(s.id(), period).upcall().set(start + period / 2).stop();
       s.before(start + period / 2).due(start + period).upcall();
       s.stop_periodic_of(s.id()).before(start + 2 * period).quiet_past(start + 2 * period);
     }},

    {"re-armed, later", [](Script& s) { fires_later(s, [&] { s.set(s.later()); }); }},
    {"re-armed, sooner",
     [](Script& s) {
       fires_sooner(
           s, [&](auto deadline) { s.set(deadline); }, [&] { s.set(s.soon()); });
     }},
    {"re-armed, past",
     [](Script& s) {
       fires_sooner(
           s, [&](auto deadline) { s.set(deadline); }, [&] { s.set(s.past()); });
     }},
    {"re-armed, 2^64 - 1",
     [](Script& s) {
       fires_sooner(
           s, [&](auto deadline) { s.set(deadline); }, [&] { s.set_at_once(~std::uint64_t{0}); });
     }},

    {"set_timer_op, future", [](Script& s) { s.timer_op(s.soon()).event(); }},
    {"set_timer_op, past", [](Script& s) { s.timer_op(s.past()).event(); }},
    {"set_timer_op, 0, idle", [](Script& s) { s.timer_op(0).quiet(); }},
    {"set_timer_op, 0, armed by itself",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.timer_op(deadline).timer_op(0).before(deadline).quiet_past(deadline);
     }},
    {"set_timer_op, 0, armed by set", [](Script& s) { never_fires(s, [&] { s.timer_op(0); }); }},
    {"set_timer_op, 0, expired, not taken",
     [](Script& s) { s.timer_op(s.past()).timer_op(0).look().event(); }},
    {"set_timer_op, stopped by stop",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.timer_op(deadline).stop().before(deadline).quiet_past(deadline);
     }},
    {"set_timer_op, -1", [](Script& s) { s.timer_op_in_100_ms(-1).event(); }},
    {"set_timer_op, -2^63", [](Script& s) { s.timer_op_in_100_ms(-last - 1).event(); }},
    {"set_timer_op, 2^63 - 1", [](Script& s) { s.timer_op_in_100_ms(last).event(); }},
    {"set_timer_op, 2^50 ns and more ahead",
     [](Script& s) { s.timer_op_in_100_ms(s.in(1000) + far_ahead).event(); }},
    {"set_timer_op, 2^50 - 1 ns ahead",
     [](Script& s) {
       s.timer_op(s.now() + far_ahead - 1).quiet_until(s.now() + 110 * ms).timer_op(0);
     }},
    {"set_timer_op, -1, then 0",
     [](Script& s) {
       const std::int64_t deadline = s.now() + 100 * ms;
       s.timer_op_in_100_ms(-1).timer_op(0).before(deadline).quiet_past(deadline);
     }},

    {"set, then set_timer_op later",
     [](Script& s) { fires_later(s, [&] { s.timer_op(s.later()); }); }},
    {"set, then set_timer_op sooner",
     [](Script& s) {
       fires_sooner(
           s, [&](auto deadline) { s.set(deadline); }, [&] { s.timer_op(s.soon()); });
     }},
    {"set, then set_timer_op past",
     [](Script& s) {
       fires_sooner(
           s, [&](auto deadline) { s.set(deadline); }, [&] { s.timer_op(s.past()); });
     }},
    {"set_timer_op, then set later",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.timer_op(deadline).set(s.later()).before(deadline).event();
     }},
    {"set_timer_op, then set sooner",
     [](Script& s) {
       fires_sooner(
           s, [&](auto deadline) { s.timer_op(deadline); }, [&] { s.set(s.soon()); });
     }},
    {"set_timer_op, then set past",
     [](Script& s) {
       fires_sooner(
           s, [&](auto deadline) { s.timer_op(deadline); }, [&] { s.set(s.past()); });
     }},
    {"set_timer_op, then set refused",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.timer_op(deadline).set_at(not_mapped, s.id()).before(deadline).event();
     }},

    {"argument, not mapped",
     [](Script& s) { still_fires(s, [&] { s.set_at(not_mapped, s.id()); }); }},
    {"argument, no memory there",
     [](Script& s) { still_fires(s, [&] { s.set_at(beyond_ram, s.id()); }); }},
    {"argument, second half not mapped",
     [](Script& s) { still_fires(s, [&] { s.set_at(not_mapped - 8, s.id()); }); }},
    {"argument, only padding not mapped",
     [](Script& s) { still_fires(s, [&] { s.set_at(not_mapped - 12, s.id()); }); }},
    {"argument, ends with its page",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       write_timeout(not_mapped - 16, deadline);
       s.set_at(not_mapped - 16, s.id(), deadline).event();
     }},
    {"argument, on two pages that are no neighbours",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       write_timeout(window + 4096 - 4, deadline);
       s.set_at(window + 4096 - 4, s.id(), deadline).event();
     }},

    {"vCPU id, upper half garbage",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.argument = {static_cast<std::uint64_t>(deadline), 0};
       s.set_at(address(&s.argument), garbage | s.id(), deadline).stop_of(garbage | s.id());
       s.before(deadline).quiet_past(deadline);
     }},
    {"command, upper half garbage",
     [](Script& s) {
       s.argument = {static_cast<std::uint64_t>(s.past()), 0};
       s.vcpu_op("set", garbage | vcpuop::set_singleshot_timer, s.id(), address(&s.argument), 0);
       s.event();
     }},
    {"no such vCPU", [](Script& s) { still_fires(s, [&] { s.set_of(nobody).stop_of(nobody); }); }},
    {"no such vCPU, argument not mapped", [](Script& s) { s.set_at(not_mapped, nobody); }},
    {"no such vCPU, id 2^32 - 1", [](Script& s) { s.set_of(0xffffffff).stop_of(0xffffffff); }},

    {"masked, then unmasked by hand",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.mask().set(deadline).quiet_past(deadline).wait_pending();
       s.unmask().look().quiet();
       s.take_by_hand().set(s.past()).event();
     }},
    {"masked, past", [](Script& s) { s.mask().set(s.past()).quiet().look(); }},
    {"masked, stopped",
     [](Script& s) {
       s.mask();
       never_fires(s, [&] { s.stop(); });
       s.look();
     }},

    {"bound twice", [](Script& s) { still_fires(s, [&] { s.bind(); }); }},
    {"closed, deadline passes, bound again",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.set(deadline).close().before(deadline).let_pass(deadline).bind().quiet();
     }},
    {"closed, bound again", [](Script& s) { still_fires(s, [&] { s.close().bind(); }); }},
    {"closed, bound to another port",
     [](Script& s) { still_fires(s, [&] { s.close().give_port_away().bind(); }); }},
    {"closed, bound again, set_timer_op",
     [](Script& s) {
       const std::int64_t deadline = s.soon();
       s.timer_op(deadline).close().bind().before(deadline).event();
     }},
    {"closed, stopped, bound again",
     [](Script& s) { never_fires(s, [&] { s.close().stop().bind(); }); }},
    {"closed, re-armed, bound again",
     [](Script& s) { fires_later(s, [&] { s.close().set(s.later()).bind(); }); }},
    {"closed, event not taken, bound again",
     [](Script& s) {
       s.set(s.past()).close().bind().look().quiet();
       s.set(s.past()).event();
     }},

    {"32-bit, set, future",
     [](Script& s) {
       s.caller = Caller::compat;
       s.set(s.soon()).event();
     }},
    {"32-bit, set, past",
     [](Script& s) {
       s.caller = Caller::compat;
       s.set(s.past()).event();
     }},
    {"32-bit, stop",
     [](Script& s) {
       s.caller = Caller::compat;
       never_fires(s, [&] { s.stop(); });
     }},
    {"32-bit, stop_periodic",
     [](Script& s) {
       s.caller = Caller::compat;
       s.stop_periodic_of(s.id());
     }},
    {"32-bit, argument ends with its page",
     [](Script& s) {
       s.caller = Caller::compat;
       const std::int64_t deadline = s.soon();
       write_timeout(not_mapped - 12, deadline);
       s.set_at(not_mapped - 12, s.id(), deadline).event();
     }},
    {"32-bit, argument's flags not mapped",
     [](Script& s) {
       s.caller = Caller::compat;
       still_fires(s, [&] { s.set_at(not_mapped - 8, s.id()); });
     }},
    {"32-bit, no such vCPU",
     [](Script& s) {
       s.caller = Caller::compat;
       s.set_of(nobody).stop_of(nobody);
     }},
    {"32-bit, set_timer_op, future",
     [](Script& s) {
       s.caller = Caller::compat;
       s.timer_op(s.soon()).event();
     }},
    {"32-bit, set_timer_op, past",
     [](Script& s) {
       s.caller = Caller::compat;
       s.timer_op(s.past()).event();
     }},
    {"32-bit, set_timer_op, 2^32 ns ahead, then 0",
     [](Script& s) {
       s.caller = Caller::compat;
       s.timer_op(s.now() + (std::int64_t{1} << 32)).quiet().timer_op(0);
     }},
    {"32-bit, set_timer_op, -1",
     [](Script& s) {
       s.caller = Caller::compat;
       s.timer_op_in_100_ms(-1).event();
     }},
    {"32-bit, set_timer_op, then 64-bit stop",
     [](Script& s) {
       s.caller = Caller::compat;
       const std::int64_t deadline = s.soon();
       s.timer_op(deadline);
       s.caller = Caller::kernel;
       s.stop().before(deadline).quiet_past(deadline);
     }},
};

// --- where hypercalls are instructions of their own: from ring 3 a port write is no hypercall ---

constexpr Case instruction_cases[] = {
    {"ring 3",
     [](Script& s) {
       still_fires(s, [&] {
         s.caller = Caller::ring3;
         s.set_of(s.id()).stop().timer_op(s.past()).timer_op(0).stop_periodic_of(s.id());
         s.set_at(not_mapped, nobody);
       });
     }},
};
bool is_instruction() {
  constexpr unsigned after_mov = 5;  // mov $number, %eax comes first
  constexpr std::uint8_t vmcall_or_vmmcall = 0x0f;
  return guest::hypercall_page[after_mov] == vmcall_or_vmmcall;
}

// --- on several vCPUs: on all alike, and on the first, who owns a timer, with another ---

constexpr Case all_cases[] = {
    {"all vCPUs, set, future", [](Script& s) { s.set(s.soon()).event(); }},
    {"all vCPUs, set, future, asleep", [](Script& s) { s.set(s.soon()).asleep().quiet(); }},
    {"all vCPUs, set, past", [](Script& s) { s.set(s.past()).event(); }},
    {"all vCPUs, set_timer_op, future", [](Script& s) { s.timer_op(s.soon()).event(); }},
};

// Arms, lets the other do what it does, and must get its event all the same.
void own_a_timer(Script& s) {
  const std::int64_t deadline = s.later();
  s.set(deadline).meet_other().meet_other().before(deadline).event();
}

struct SharedCase {
  Case owner;
  Case other;
};
constexpr SharedCase shared_cases[] = {
    {{"another's timer, set, owner", own_a_timer},
     {"another's timer, set, other",
      [](Script& s) {
        s.meet_other().set_of(xen_ids[0]).set_at(not_mapped, xen_ids[0]).meet_other().quiet();
      }}},
    {{"another's timer, stop, owner", own_a_timer},
     {"another's timer, stop, other",
      [](Script& s) { s.meet_other().stop_of(xen_ids[0]).meet_other().quiet(); }}},
    {{"another's timer, stop_periodic, owner", own_a_timer},
     {"another's timer, stop_periodic, other",
      [](Script& s) { s.meet_other().stop_periodic_of(xen_ids[0]).meet_other().quiet(); }}},
    {{"another's timer, set_periodic, owner",
      [](Script& s) {
        const std::int64_t period = s.tickless(40);
        const std::int64_t start = s.now();  // at the earliest
        s.meet_other().meet_other().look().upcall().due(start + period).upcall();
        s.meet_other().meet_other().before(start + 2 * period).quiet_past(start + 2 * period);
      }},
     {"another's timer, set_periodic, other",
      [](Script& s) {
        const std::int64_t period = s.tickless(40);
        s.meet_other().set_periodic_of(xen_ids[0], period).meet_other();
        s.meet_other().stop_periodic_of(xen_ids[0]).meet_other().quiet();
      }}},
    {{"another's timer, 32-bit, owner", own_a_timer},
     {"another's timer, 32-bit, other",
      [](Script& s) {
        s.caller = Caller::compat;
        s.meet_other().set_of(xen_ids[0]).stop_of(xen_ids[0]).meet_other().quiet();
      }}},
    {{"another's timer, 32-bit, not mapped, owner", own_a_timer},
     {"another's timer, 32-bit, not mapped, other",
      [](Script& s) {
        s.caller = Caller::compat;
        s.meet_other().set_at(not_mapped, xen_ids[0]).meet_other().quiet();
      }}},
    {{"each its own, one stops, owner", own_a_timer},
     {"each its own, one stops, other",
      [](Script& s) {
        s.meet_other();
        const std::int64_t deadline = s.later();
        s.set(deadline).stop().timer_op(0).meet_other().before(deadline).quiet_past(deadline);
      }}},
    {{"each its own, one sooner, owner", own_a_timer},
     {"each its own, one sooner, other",
      [](Script& s) { s.meet_other().set(s.soon()).upcall().meet_other().quiet(); }}},
};

// --- the program ---

// The local APIC's id, which the VMM makes the index.
Script scripts[guest::max_vcpus];
void upcall() {
  scripts[guest::apic(0x20) >> 24].on_upcall();
  guest::end_of_interrupt();
}

// What is once a domain: the hypercall page, shared_info, page tables, interrupt gates.
void set_up_domain(std::uint32_t xen) {
  guest::write_msr(guest::cpuid(xen + xen_abi::cpuid::leaf_hypercall).ebx,
                   address(guest::hypercall_page));
  const xen_abi::AddToPhysmap<std::uint64_t> map{xen_abi::domid_self, 0,
                                                 xen_abi::mapspace::shared_info, 0,
                                                 address(guest::shared_info_page) >> 12};
  if (guest::hypercall(hypercall::memory_op, xen_abi::memory_op::add_to_physmap, address(&map)) !=
      0) {
    guest::fail("semantics-guest: shared_info was refused\n");
  }
  guest::on_interrupt = upcall;
  guest::set_gate(upcall_vector, guest::interrupt_entry);
  guest::set_gate(wake_vector, guest::interrupt_entry);
  guest::set_gate(0xff, guest::spurious_entry);
  guest::set_up_memory();
}

void set_up_vcpu(unsigned index) {
  guest::reload_page_tables();
  guest::segments[index].load();
  guest::load_idt();
  guest::enable_apic();
  const std::uint64_t info = address(&guest::vcpu_infos[index]);
  const xen_abi::RegisterVcpuInfo place{info >> 12, static_cast<std::uint32_t>(info & 0xfff), 0};
  const xen_abi::EvtchnUpcallVector vector{xen_ids[index], upcall_vector};
  if (guest::hypercall(hypercall::vcpu_op, vcpuop::register_vcpu_info, xen_ids[index],
                       address(&place)) != 0 ||
      guest::hypercall(hypercall::hvm_op, xen_abi::hvmop::set_evtchn_upcall_vector,
                       address(&vector)) != 0) {
    guest::fail("semantics-guest: vcpu_info or the upcall vector was refused\n");
  }
}

// The last vCPU does it, while the others sleep.
void run_single_cases(Script& script, bool mine) {
  static volatile bool done = false;
  if (!mine) {
    while (!done) guest::halt();
    return;
  }
  for (const Case& c : unbound_cases) script.run(c);
  script.bind_silently();
  for (const Case& c : cases) script.run(c);
  if (is_instruction()) {
    for (const Case& c : instruction_cases) script.run(c);
  }
  done = true;
  guest::apic(0x300) = 0xc4000 | wake_vector;  // an IPI to all but this one
}

}  // namespace

extern "C" void guest_main(std::uint64_t index64, std::uint64_t count64, std::uint64_t) {
  static volatile bool domain_ready = false;
  const auto index = static_cast<unsigned>(index64);
  const auto count = static_cast<unsigned>(count64);
  const std::uint32_t xen = guest::find_xen();
  if (xen == 0) guest::fail("semantics-guest: no Xen in CPUID\n");
  if (count > guest::max_vcpus) guest::fail("semantics-guest: more vCPUs than it was built for\n");
  xen_ids[index] = guest::cpuid(xen + xen_abi::cpuid::leaf_hvm).ebx;
  Script& script = scripts[index];
  script.start(index, count);
  guest::out32(vmm_reference::port_report,
               static_cast<std::uint32_t>(address(&guest::reports[index])));

  if (index == 0) {
    set_up_domain(xen);
    domain_ready = true;
  }
  while (!domain_ready) asm volatile("pause");
  set_up_vcpu(index);
  script.meet_all();

  const bool is_last = index == count - 1;
  run_single_cases(script, is_last);
  if (count > 1) {
    if (!is_last) script.bind_silently();
    script.meet_all();
    for (const Case& c : all_cases) script.run_together(&c);
    for (const SharedCase& c : shared_cases) {
      script.run_together(index == 0 ? &c.owner : index == 1 ? &c.other : nullptr);
    }
  }
  guest::out32(vmm_reference::port_done, 0);
}
