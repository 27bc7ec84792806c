// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// All handlers behind a dispatcher, and any sequence of hypercalls of several vCPUs, 64- and
// 32-bit, on guest memory of which every byte is the fuzzer's, also between two reads. Answers are
// values or Xen's errors; the VMM is asked for nothing that isn't (hostile_vmm.hpp); an argument is
// read once. All of it runs twice, on a stack full of one byte and of another: the guest sees no
// difference, so no byte that was never written is copied to it.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <iterator>
#include <vector>

#include "hostile_vmm.hpp"
#include "must.hpp"
#include "xen_abi/console.hpp"
#include "xen_abi/memory.hpp"
#include "xen_hcall/console_op.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/event_channel_op.hpp"
#include "xen_hcall/grant_table_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/memory_op.hpp"
#include "xen_hcall/multicall_op.hpp"
#include "xen_hcall/physdev_op.hpp"
#include "xen_hcall/sched_op.hpp"
#include "xen_hcall/vcpu_op.hpp"
#include "xen_hcall/version_op.hpp"
#include "xen_hcall/vm_assist_op.hpp"

namespace xen_hcall {
namespace {

namespace number = xen_abi::hypercall;

struct Domain {
  explicit Domain(FuzzedDataProvider& input) : vmm(input, channels) {}

  static XenVersion xen() {
    XenVersion version;
    version.compiler = "compiler";
    version.build_id = {std::byte{1}, std::byte{2}};
    return version;
  }

  xen_evtchn::Channels channels{64, vcpu_count};  // few, so that they run out
  HostileVmm vmm;
  VersionOp<HostileVmm> version{vmm, xen()};
  MemoryOp<HostileVmm> memory{vmm,
                              {{0, 0xa0000, 1}, {0xa0000, 0x60000, 2}, {0x100000, 1 << 20, 1}}};
  Shutdown<HostileVmm> shutdown{vmm};
  VcpuOp<HostileVmm> vcpus{vmm, vcpu_count, shutdown};
  HvmOp<HostileVmm> hvm{vmm, vcpu_count};
  EventChannelOp<HostileVmm> events{vmm, channels};
  SchedOp<HostileVmm> sched{vmm, channels, shutdown};
  GrantTableOp<HostileVmm> grants{vmm};
  ConsoleOp<HostileVmm> console{vmm};
  PhysdevOp<HostileVmm> physdev{vmm};
  VmAssistOp<HostileVmm> vm_assist{vmm};
  Dispatcher<VersionOp<HostileVmm>, MemoryOp<HostileVmm>, VcpuOp<HostileVmm>, HvmOp<HostileVmm>,
             EventChannelOp<HostileVmm>, SchedOp<HostileVmm>, GrantTableOp<HostileVmm>,
             ConsoleOp<HostileVmm>, PhysdevOp<HostileVmm>, VmAssistOp<HostileVmm>>
      calls{version, memory, vcpus, hvm, events, sched, grants, console, physdev, vm_assist};
  MulticallOp<HostileVmm, decltype(calls)> multicall{vmm, calls};
  Dispatcher<decltype(multicall), decltype(calls)> dispatcher{multicall, calls};
};

// An address in a page, near one's end, or anywhere.
std::uint64_t address(FuzzedDataProvider& input) {
  const auto choice = input.ConsumeIntegral<std::uint8_t>();
  if (choice >= 0xf0) return input.ConsumeIntegral<std::uint64_t>();
  if ((choice & 0x30) == 0x20) return GuestPages::endless + (choice & 0xfu) * 8;
  const std::uint64_t page = GuestPages::addresses[choice & 3];
  if ((choice & 0x30) == 0x30)
    return page + GuestPages::page - input.ConsumeIntegral<std::uint8_t>() % 65;
  return page + input.ConsumeIntegral<std::uint8_t>() % 32 * 8;
}

// Most arguments are small numbers and addresses: eight bytes that hold some.
void put_argument(FuzzedDataProvider& input, HostileVmm& vmm, std::uint64_t at) {
  const int words = input.ConsumeIntegralInRange(0, 8);
  for (int word = 0; word < words; ++word) {
    const auto choice = input.ConsumeIntegral<std::uint8_t>();
    std::uint64_t value = 0;
    if (choice < 0x60) {
      value = choice;
    } else if (choice < 0x90) {  // two small ones, one behind the other
      value = input.ConsumeIntegral<std::uint8_t>() |
              std::uint64_t{input.ConsumeIntegral<std::uint8_t>()} << 32;
    } else if (choice < 0xa0) {  // DOMID_SELF in front
      value = 0x7ff0 | std::uint64_t{input.ConsumeIntegral<std::uint16_t>()} << 32 |
              std::uint64_t{choice & 7u} << 16;
    } else if (choice < 0xd0) {
      value = address(input);
    } else {
      value = input.ConsumeIntegral<std::uint64_t>();
    }
    std::array<std::uint8_t, 8> bytes;
    std::memcpy(bytes.data(), &value, sizeof value);
    vmm.guest_writes(at, bytes);
    at += sizeof value;
  }
}

xen_abi::Hypercall any_call(FuzzedDataProvider& input, HostileVmm& vmm) {
  constexpr std::uint64_t numbers[] = {
      number::memory_op,        number::memory_op,        number::multicall,
      number::xen_version,      number::console_io,       number::grant_table_op,
      number::vm_assist,        number::vcpu_op,          number::vcpu_op,
      number::sched_op,         number::event_channel_op, number::event_channel_op,
      number::event_channel_op, number::physdev_op,       number::hvm_op,
      number::set_timer_op};
  const auto what = input.ConsumeIntegral<std::uint8_t>();
  xen_abi::Hypercall call;
  call.number =
      what < 0xf8 ? numbers[what % std::size(numbers)] : input.ConsumeIntegral<std::uint64_t>();
  call.long_mode = (what & 0x10) == 0;
  if ((what & 0xe0) == 0xe0) call.cpl = input.ConsumeIntegral<std::uint8_t>() & 3;
  for (std::size_t at = 0; at < 3; ++at) {
    const auto how = input.ConsumeIntegral<std::uint8_t>();
    call.params[at] = how < 0x80   ? how & 0x1fu
                      : how < 0xf0 ? address(input)
                                   : input.ConsumeIntegral<std::uint64_t>();
    if (how >= 0x40 && how < 0xf0) put_argument(input, vmm, call.params[at]);
  }
  // Extents that are done, in the upper bits of memory_op's sub-op; a batch is the largest of them.
  if (call.number == number::memory_op && (call.params[0] & 0x10) != 0) {
    call.params[0] = (call.params[0] & 0xf) | std::uint64_t{input.ConsumeIntegral<std::uint8_t>()}
                                                  << 6;
  }
  if (call.number == number::memory_op && call.params[0] == 0xd) {
    call.params[0] = xen_abi::memory_op::add_to_physmap_batch;
  }
  if (!call.long_mode) {
    call.number = static_cast<std::uint32_t>(call.number);
    for (auto& param : call.params) param = static_cast<std::uint32_t>(param);
  }
  return call;
}

// Those whose argument is one structure; the others walk through arrays that may overlap it.
bool reads_once(const xen_abi::Hypercall& call) {
  switch (call.number) {
    case number::multicall:
    case number::console_io:
      return false;
    case number::memory_op: {
      const auto op = call.params[0] & xen_abi::memory_op::command_mask;
      return op != xen_abi::memory_op::increase_reservation &&
             op != xen_abi::memory_op::decrease_reservation &&
             op != xen_abi::memory_op::populate_physmap &&
             op != xen_abi::memory_op::add_to_physmap_batch;
    }
    case number::sched_op:
      return static_cast<std::uint32_t>(call.params[0]) != xen_abi::schedop::poll;
    default:
      return true;
  }
}

bool is_xens(xen_abi::Errno error) {
  using enum xen_abi::Errno;
  switch (error) {
    case perm:
    case noent:
    case srch:
    case nxio:
    case too_big:
    case nomem:
    case acces:
    case fault:
    case busy:
    case exist:
    case inval:
    case nospc:
    case dom:
    case nosys:
    case nodata:
    case overflow:
    case ilseq:
    case opnotsupp:
    case nobufs:
      return true;
  }
  return false;
}

// What the next frames' variables are, until they are written.
[[gnu::noinline]] void fill_stack(std::uint8_t with) {
  std::uint8_t stack[16384];
  std::memset(stack, with, sizeof stack);
  asm volatile("" ::"r"(stack) : "memory");
}

struct Seen {
  std::vector<std::uint64_t> rax;
  std::vector<std::uint8_t> memory;
  friend bool operator==(const Seen&, const Seen&) = default;
};

Seen run(const std::uint8_t* data, std::size_t size, std::uint8_t stack) {
  FuzzedDataProvider input(data, size);
  Domain domain(input);
  Seen seen;
  for (int steps = 0; steps < 40 && input.remaining_bytes() > 0; ++steps) {
    const XenVcpuId vcpu{input.ConsumeIntegralInRange<std::uint32_t>(0, vcpu_count - 1)};
    const xen_abi::Hypercall call = any_call(input, domain.vmm);
    domain.vmm.begin(vcpu, reads_once(call), call.number == number::multicall);
    fill_stack(stack);
    const xen_abi::Answer answer = domain.dispatcher(vcpu, call);
    const auto rax = static_cast<std::int64_t>(answer.guest.rax());
    MUST(rax >= 0 || (rax > -4096 && is_xens(static_cast<xen_abi::Errno>(-rax))));
    MUST(call.cpl == 0 || rax == -static_cast<int>(xen_abi::Errno::perm));
    seen.rax.push_back(answer.guest.rax());
  }
  seen.memory = domain.vmm.guest.bytes();
  return seen;
}

}  // namespace
}  // namespace xen_hcall

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto seen = xen_hcall::run(data, size, 0x5a);
  MUST(seen == xen_hcall::run(data, size, 0xa5));
  return 0;
}
