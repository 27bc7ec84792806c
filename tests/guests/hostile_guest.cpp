// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Fires hypercalls, random and nearly right ones, from every vCPU and from every mode, for as long
// as it lives. Each run is another, by the number in RDX. What is asked of the VMM is only that it,
// and the host, bear it: tests/hostile.
#include "callers.hpp"
#include "guest_pages.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_abi/hypercall_numbers.hpp"
#include "xen_abi/memory.hpp"
#include "xen_abi/sched.hpp"
#include "xen_abi/vcpu.hpp"

extern "C" [[noreturn]] void legacy_forever(std::uint32_t seed, const std::uint8_t* instruction);
extern "C" volatile std::uint32_t unpaged_calls;

namespace {

using guest::address;
using guest::Caller;
namespace hypercall = xen_abi::hypercall;

constexpr std::uint64_t ram_size = 64 << 20;
constexpr std::uint64_t playground = 16 << 20;  // arguments that nothing else needs
constexpr std::uint64_t playground_size = 16 << 20;

// What this vCPU has called, by Caller; and what succeeded of it.
volatile std::uint32_t called[guest::max_vcpus][3];
volatile std::uint32_t succeeded[guest::max_vcpus];
volatile std::uint32_t changed[guest::max_vcpus];  // arguments, under others' hands
volatile bool domain_ready = false;
bool calls_by_port = false;
constinit guest::Segments segments[guest::max_vcpus];
vmm_reference::TextReport report;
alignas(4096) std::uint8_t shared_info_page[2 * 4096];  // with a page that answers may run into
alignas(4096) std::uint8_t vcpu_infos[guest::max_vcpus][64];

// Changed by some vCPUs while others pass it.
alignas(4096) volatile std::uint64_t contested[2 * 512];

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  std::uint64_t word() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_ * 0x2545f4914f6cdd1d;
  }
  std::uint32_t below(std::uint32_t count) {
    return static_cast<std::uint32_t>((word() >> 32) * count >> 32);
  }
  bool one_in(std::uint32_t count) { return below(count) == 0; }

 private:
  std::uint64_t state_;
};

// Where something can go wrong, or not.
std::uint64_t any_address(Random& random) {
  const std::uint64_t near = random.below(65);
  switch (random.below(20)) {
    case 0:
      return guest::window + 4096 - near;  // the next page lies elsewhere
    case 1:
      return guest::not_mapped - near;
    case 2:
      return guest::not_mapped + near;
    case 3:
      return ram_size - near;
    case 4:
      return guest::beyond_ram + near;
    case 5:
      return (random.one_in(2) ? 0xfee00000 : 0xfec00000) + near * 16;  // APICs
    case 6:
      return near;
    case 7:
      return ~near;
    case 8:
      return 0x0000'7fff'ffff'ffff - near;  // where canonical addresses end
    case 9:
      return 0xffff'f000 + near;
    case 10:
      return address(shared_info_page) + random.below(4096);
    case 11:
      return random.word();
    case 12:
    case 13:
      return address(contested) + near * 8;
    default:
      return playground + random.below(1 << 21) * std::uint64_t{8};
  }
}
std::uint64_t any_word(Random& random, std::uint64_t vcpus) {
  switch (random.below(10)) {
    case 0:
      return any_address(random);
    case 1:
      return any_address(random) >> 12;  // a frame
    case 2:
      return random.word();
    case 3:
      return random.below(5000) | std::uint64_t{random.below(static_cast<std::uint32_t>(vcpus) + 1)}
                                      << 32;
    case 4:
    case 5:
      return xen_abi::domid_self | std::uint64_t{random.below(16)} << 32;
    case 6:
      return random.below(16) | std::uint64_t{random.below(32)} << 32;
    case 7:
      return 1 << random.below(24);
    default:
      return random.below(40);
  }
}

// Arguments that are in memory, where it is.
void put_argument(Random& random, std::uint64_t at, std::uint64_t vcpus) {
  const auto lies_in = [at](std::uint64_t start, std::uint64_t size) {
    return at >= start && at - start <= size - 64;
  };
  const bool in_playground = lies_in(playground, playground_size);
  const bool in_window = lies_in(guest::window, guest::not_mapped - guest::window);
  if (!in_playground && !in_window) return;
  auto* words = reinterpret_cast<volatile std::uint64_t*>(at & ~std::uint64_t{7});
  for (int word = 0; word < 6; ++word) words[word] = any_word(random, vcpus);
}

struct Call {
  unsigned number;
  std::uint64_t a, b, c;
};

Call any_call(Random& random, std::uint64_t vcpus) {
  constexpr std::uint8_t numbers[] = {hypercall::memory_op,        hypercall::multicall,
                                      hypercall::set_timer_op,     hypercall::xen_version,
                                      hypercall::console_io,       hypercall::grant_table_op,
                                      hypercall::vm_assist,        hypercall::vcpu_op,
                                      hypercall::vcpu_op,          hypercall::vcpu_op,
                                      hypercall::sched_op,         hypercall::event_channel_op,
                                      hypercall::event_channel_op, hypercall::event_channel_op,
                                      hypercall::physdev_op,       hypercall::hvm_op};
  const std::uint64_t argument = any_address(random);
  put_argument(random, argument, vcpus);
  Call call{numbers[random.below(sizeof numbers)], random.below(28), argument, any_address(random)};
  switch (call.number) {
    case hypercall::vcpu_op:
      call.c = argument;
      call.a = random.below(17);
      call.b = random.below(static_cast<std::uint32_t>(vcpus) + 1);
      // It would be quiet too soon.
      if (call.a == xen_abi::vcpuop::down && !random.one_in(200)) call.a = xen_abi::vcpuop::is_up;
      if (call.a == xen_abi::vcpuop::set_periodic_timer && random.one_in(2)) {
        *reinterpret_cast<volatile std::uint64_t*>(playground) = 1'000'000;
        call.c = playground;
      }
      break;
    case hypercall::memory_op:
      if (random.one_in(4)) call.a |= std::uint64_t{random.below(300)} << 6;
      break;
    case hypercall::multicall:
      call.a = argument;
      call.b = random.below(40);
      break;
    case hypercall::console_io:
      call.b = random.below(600);
      break;
    case hypercall::grant_table_op:
      call.c = random.below(3);
      break;
    case hypercall::set_timer_op:
      call.a = any_word(random, vcpus) << random.below(40);
      break;
    case hypercall::sched_op:
      // KVM answers that by itself, and its vCPU sleeps.
      if (call.a == xen_abi::schedop::block && !random.one_in(50))
        call.a = xen_abi::schedop::watchdog;
      break;
    default:
      break;
  }
  if (random.one_in(30)) call.a = random.word();
  if (random.one_in(30)) call.number = random.below(64);
  return call;
}

// Six numbers, each of a vCPU's or of all, a line each.
void write_report() {
  char* to = report.text;
  const auto line = [&](const char* name, std::uint32_t number) {
    while (*name != 0) *to++ = *name++;
    *to++ = ' ';
    for (std::uint32_t place = 1'000'000'000; place != 0; place /= 10) {
      *to++ = static_cast<char>('0' + number / place % 10);
    }
    *to++ = '\n';
  };
  const auto sum = [](const auto& of) {
    std::uint32_t all = 0;
    for (unsigned vcpu = 0; vcpu < guest::max_vcpus; ++vcpu) all += of(vcpu);
    return all;
  };
  line("kernel", sum([](unsigned vcpu) { return called[vcpu][0]; }));
  line("ring3", sum([](unsigned vcpu) { return called[vcpu][1]; }));
  line("compat", sum([](unsigned vcpu) { return called[vcpu][2]; }));
  line("unpaged", unpaged_calls);
  line("vm86", *reinterpret_cast<volatile std::uint32_t*>(0x9fff0));
  line("succeeded", sum([](unsigned vcpu) { return succeeded[vcpu]; }));
  line("changed", sum([](unsigned vcpu) { return changed[vcpu]; }));
  report.length = static_cast<std::uint32_t>(to - report.text);
  report.magic = vmm_reference::text_magic;
}

[[noreturn]] void call_forever(unsigned index, std::uint64_t vcpus, Random random) {
  for (std::uint32_t calls = 1;; ++calls) {
    const Call call = any_call(random, vcpus);
    Caller caller = Caller::kernel;
    // Where hypercalls are port writes, from ring 3 there are none.
    if (random.one_in(8)) caller = calls_by_port ? Caller::compat : Caller::ring3;
    if (random.one_in(6)) caller = Caller::compat;
    const std::int64_t result =
        segments[index].hypercall(caller, call.number, call.a, call.b, call.c);
    called[index][static_cast<unsigned>(caller)] = called[index][static_cast<unsigned>(caller)] + 1;
    if (result >= 0) succeeded[index] = succeeded[index] + 1;
    if (index == 0 && calls % 64 == 0) write_report();
  }
}

// Right at one moment, wrong at the next.
[[noreturn]] void change_forever(unsigned index, std::uint64_t vcpus, Random random) {
  for (;;) {
    contested[random.below(512)] = any_word(random, vcpus);
    changed[index] = changed[index] + 1;
  }
}

// Away from the low frames, which calls name by chance and make shared_info of: the VMM's page
// tables.
alignas(4096) std::uint64_t page_tables[6][512];
void move_page_tables() {
  std::uint64_t from = 0;
  asm volatile("mov %%cr3, %0" : "=r"(from));
  auto copy = [next = page_tables](std::uint64_t entry) mutable {
    const auto* table = reinterpret_cast<const std::uint64_t*>(entry & 0x000ffffffffff000);
    for (unsigned at = 0; at < 512; ++at) (*next)[at] = table[at];
    return address(*next++) | (entry & 0xfff);
  };
  (void)copy(from);
  page_tables[0][0] = copy(page_tables[0][0]);
  for (unsigned gigabyte = 0; gigabyte < 4; ++gigabyte) {
    page_tables[1][gigabyte] = copy(page_tables[1][gigabyte]);
  }
}
void use_page_tables() { asm volatile("mov %0, %%cr3" ::"r"(address(page_tables)) : "memory"); }

// Interrupts are off; guest.hpp's handler of them names a place in it.
[[gnu::used]] void (*const halt)() = guest::halt;

void set_up_domain(std::uint32_t xen) {
  move_page_tables();
  use_page_tables();
  guest::set_up_memory();
  guest::write_msr(guest::cpuid(xen + xen_abi::cpuid::leaf_hypercall).ebx,
                   address(guest::hypercall_page));
  const xen_abi::AddToPhysmap<std::uint64_t> map{
      xen_abi::domid_self, 0, xen_abi::mapspace::shared_info, 0, address(shared_info_page) >> 12};
  if (guest::hypercall(hypercall::memory_op, xen_abi::memory_op::add_to_physmap, address(&map)) !=
      0) {
    guest::fail("hostile-guest: shared_info was refused\n");
  }
  constexpr std::uint8_t out_immediate = 0xe7;
  calls_by_port = guest::hypercall_page[5] == out_immediate;
}

// So that there is something to spoil: a timer, and events.
void set_up_vcpu(std::uint32_t id) {
  guest::load_idt();
  guest::enable_apic();
  const std::uint64_t info = address(vcpu_infos[id]);
  const xen_abi::RegisterVcpuInfo place{info >> 12, static_cast<std::uint32_t>(info & 0xfff), 0};
  guest::hypercall(hypercall::vcpu_op, xen_abi::vcpuop::register_vcpu_info, id, address(&place));
  const xen_abi::EvtchnUpcallVector vector{id, 0x40};
  guest::hypercall(hypercall::hvm_op, xen_abi::hvmop::set_evtchn_upcall_vector, address(&vector));
  const xen_abi::EvtchnBindVirq bind{xen_abi::virq::timer, id, 0};
  guest::hypercall(hypercall::event_channel_op, xen_abi::evtchnop::bind_virq, address(&bind));
}

}  // namespace

extern "C" void guest_main(std::uint64_t index, std::uint64_t count, std::uint64_t seed) {
  const std::uint32_t xen = guest::find_xen();
  if (xen == 0) guest::fail("hostile-guest: no Xen in CPUID\n");
  const auto self = static_cast<unsigned>(index);
  if (index == 0) {
    set_up_domain(xen);
    write_report();
    __atomic_store_n(&domain_ready, true, __ATOMIC_RELEASE);
  }
  while (!__atomic_load_n(&domain_ready, __ATOMIC_ACQUIRE)) asm volatile("pause");
  use_page_tables();
  segments[self].load();
  guest::out32(vmm_reference::port_report, static_cast<std::uint32_t>(address(&report)));
  if (!(seed % 5 == 4)) set_up_vcpu(self);  // or it has nothing at first

  Random random(seed * guest::max_vcpus + index);
  // The first calls; three others are by turns in a mode of their own, change arguments or call.
  const std::uint64_t part = index == 0 || index > 3 ? 7 : (index + seed) % 8;
  if (part == 0) {
    static std::uint8_t instruction[3];
    for (unsigned byte = 0; byte < 3; ++byte) instruction[byte] = guest::hypercall_page[5 + byte];
    if (calls_by_port) instruction[2] = 0x90;  // behind it is the slot's ret
    legacy_forever(static_cast<std::uint32_t>(random.word()) | 1, instruction);
  }
  if (part <= 2) change_forever(self, count, random);
  call_forever(self, count, random);
}
