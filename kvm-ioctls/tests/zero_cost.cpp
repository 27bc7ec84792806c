// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Pairs of functions that do the same: one with a wrapper, one with ioctl(2) as C would have it,
// the error handled alike. zero_cost.sh counts their instructions with callgrind.
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "kvm_ioctls/kvm.hpp"

#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#endif

namespace {

using namespace kvm_ioctls;

// By value: an error that had to be in memory would make a frame for each function.
[[noreturn, gnu::noinline, gnu::cold]] void die(const char* what, int code, std::uint64_t operand) {
  std::fprintf(stderr, "zero_cost: %s\n", vmm_base::Error{what, code, operand}.message().c_str());
  std::exit(1);
}
[[noreturn, gnu::always_inline]] inline void die(const vmm_base::Error& error) {
  die(error.operation, error.code, error.operand);
}
template <class T>
T must(vmm_base::Result<T> result) {
  if (!result) die(result.error());
  if constexpr (!std::is_void_v<T>) return std::move(result).assume_value();
}

// What C has instead of the handles.
struct Raw {
  int kvm;
  int vm;
  int vcpu;
  std::uint32_t id;
  kvm_run* run;
  std::size_t run_size;
};

struct Machine {
  Kvm kvm;
  Vm vm;
  Vcpu vcpu;
  Raw raw;
  kvm_regs regs{};
  Msrs msrs;
  std::uint64_t sum = 0;  // what was read, so that it must be read
};

using Function = void (*)(Machine&);

// --- An ioctl without an argument, and with a number -------------------------------------------

void get_vcpu_mmap_size(Machine& m) {
  auto size = m.kvm.get_vcpu_mmap_size();
  if (!size) [[unlikely]] {
    die(size.error());
  }
  m.sum += size.assume_value();
}
void get_vcpu_mmap_size_raw(Machine& m) {
  const int size = ::ioctl(m.raw.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  if (size < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_GET_VCPU_MMAP_SIZE", 0));
  }
  m.sum += static_cast<std::size_t>(size);
}

void check_extension(Machine& m) {
  auto value = m.vm.check_extension(KVM_CAP_USER_MEMORY);
  if (!value) [[unlikely]] {
    die(value.error());
  }
  m.sum += static_cast<unsigned>(value.assume_value());
}
void check_extension_raw(Machine& m) {
  const int value = ::ioctl(m.raw.vm, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY);
  if (value < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_CHECK_EXTENSION", KVM_CAP_USER_MEMORY));
  }
  m.sum += static_cast<unsigned>(value);
}

// --- A structure in, a structure out -----------------------------------------------------------

void set_regs(Machine& m) {
  auto set = m.vcpu.set_regs(m.regs);
  if (!set) [[unlikely]] {
    die(set.error());
  }
}
void set_regs_raw(Machine& m) {
  if (::ioctl(m.raw.vcpu, KVM_SET_REGS, &m.regs) < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_SET_REGS", m.raw.id));
  }
}

void get_regs(Machine& m) {
  auto regs = m.vcpu.get_regs();
  if (!regs) [[unlikely]] {
    die(regs.error());
  }
  m.sum += regs.assume_value().rip;
}
void get_regs_raw(Machine& m) {
  kvm_regs regs;
  if (::ioctl(m.raw.vcpu, KVM_GET_REGS, &regs) < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_GET_REGS", m.raw.id));
  }
  m.sum += regs.rip;
}

// --- A structure of variable length, kept and used again ----------------------------------------

void get_msrs(Machine& m) {
  auto done = m.vcpu.get_msrs(m.msrs);
  if (!done) [[unlikely]] {
    die(done.error());
  }
  m.sum += done.assume_value();
}
void get_msrs_raw(Machine& m) {
  auto* msrs = m.msrs.get();
  const int done = ::ioctl(m.raw.vcpu, KVM_GET_MSRS, msrs);
  if (done < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_GET_MSRS", msrs->nmsrs));
  }
  m.sum += static_cast<unsigned>(done);
}

// --- Structures that the wrapper makes of its arguments ------------------------------------------

void irq_line(Machine& m) {
  auto set = m.vm.irq_line(5, true);
  if (!set) [[unlikely]] {
    die(set.error());
  }
}
void irq_line_raw(Machine& m) {
  kvm_irq_level line{};
  line.irq = 5;
  line.level = 1;
  if (::ioctl(m.raw.vm, KVM_IRQ_LINE, &line) < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_IRQ_LINE", 5));
  }
}

void signal_msi(Machine& m) {
  auto delivered = m.vm.signal_msi(m.regs.r8, 0x41);
  if (!delivered) [[unlikely]] {
    die(delivered.error());
  }
  m.sum += delivered.assume_value() ? 1u : 0u;
}
void signal_msi_raw(Machine& m) {
  kvm_msi msi{};
  const std::uint64_t address = m.regs.r8;
  msi.address_lo = static_cast<__u32>(address);
  msi.address_hi = static_cast<__u32>(address >> 32);
  msi.data = 0x41;
  const int delivered = ::ioctl(m.raw.vm, KVM_SIGNAL_MSI, &msi);
  if (delivered < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_SIGNAL_MSI", 0x41));
  }
  m.sum += delivered > 0 ? 1u : 0u;
}

void set_device_attr(Machine& m) {
  auto set = m.vcpu.set_tsc_offset(m.regs.rax);
  if (!set) [[unlikely]] {
    die(set.error());
  }
}
void set_device_attr_raw(Machine& m) {
  const std::uint64_t offset = m.regs.rax;
  kvm_device_attr attr{};
  attr.group = KVM_VCPU_TSC_CTRL;
  attr.attr = KVM_VCPU_TSC_OFFSET;
  attr.addr = reinterpret_cast<std::uintptr_t>(&offset);
  if (::ioctl(m.raw.vcpu, KVM_SET_DEVICE_ATTR, &attr) < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_SET_DEVICE_ATTR", KVM_VCPU_TSC_OFFSET));
  }
}

// --- Xen -----------------------------------------------------------------------------------------

void xen_evtchn_send(Machine& m) {
  auto sent = m.vm.xen_hvm_evtchn_send(3, m.vcpu.id());
  if (!sent) [[unlikely]] {
    die(sent.error());
  }
}
void xen_evtchn_send_raw(Machine& m) {
  const kvm_irq_routing_xen_evtchn event{3, m.raw.id, KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL};
  if (::ioctl(m.raw.vm, KVM_XEN_HVM_EVTCHN_SEND, &event) < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_XEN_HVM_EVTCHN_SEND", 3));
  }
}

void xen_set_attr(Machine& m) {
  auto set = m.vcpu.xen_vcpu_set_attr(XenTimer{.port = 3, .expires_ns = m.regs.rax});
  if (!set) [[unlikely]] {
    die(set.error());
  }
}
void xen_set_attr_raw(Machine& m) {
  kvm_xen_vcpu_attr attr{};
  attr.type = KVM_XEN_VCPU_ATTR_TYPE_TIMER;
  attr.u.timer.port = 3;
  attr.u.timer.priority = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL;
  attr.u.timer.expires_ns = m.regs.rax;
  if (::ioctl(m.raw.vcpu, KVM_XEN_VCPU_SET_ATTR, &attr) < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_XEN_VCPU_SET_ATTR", KVM_XEN_VCPU_ATTR_TYPE_TIMER));
  }
}

void xen_get_attr(Machine& m) {
  auto timer = m.vcpu.xen_vcpu_get_attr<XenTimer>();
  if (!timer) [[unlikely]] {
    die(timer.error());
  }
  m.sum += timer.assume_value().expires_ns;
}
void xen_get_attr_raw(Machine& m) {
  kvm_xen_vcpu_attr attr{};
  attr.type = KVM_XEN_VCPU_ATTR_TYPE_TIMER;
  if (::ioctl(m.raw.vcpu, KVM_XEN_VCPU_GET_ATTR, &attr) < 0) [[unlikely]] {
    die(vmm_base::last_error("KVM_XEN_VCPU_GET_ATTR", KVM_XEN_VCPU_ATTR_TYPE_TIMER));
  }
  m.sum += attr.u.timer.expires_ns;
}

// --- KVM_RUN and what came of it -----------------------------------------------------------------

void run(Machine& m) {
  auto ran = m.vcpu.run(
      [&](IoOut& out) { m.sum += std::to_integer<unsigned>(out.data[0]); },
      [&](MmioWrite& write) { m.sum += write.address + std::to_integer<unsigned>(write.data[0]); },
      [&](XenHypercall& call) { call.set_result(m.sum += call.input()); },
      [&](Halted&) { ++m.sum; },  //
      [&](Interrupted&) {},       //
      [](auto&) { die({"exit"}); });
  if (!ran) [[unlikely]] {
    die(ran.error());
  }
}
// The same by way of a variant.
void run_match(Machine& m) {
  auto exit = m.vcpu.run();
  if (!exit) [[unlikely]] {
    die(exit.error());
  }
  match(
      exit.assume_value(), [&](IoOut& out) { m.sum += std::to_integer<unsigned>(out.data[0]); },
      [&](MmioWrite& write) { m.sum += write.address + std::to_integer<unsigned>(write.data[0]); },
      [&](XenHypercall& call) { call.set_result(m.sum += call.input()); },
      [&](Halted&) { ++m.sum; },  //
      [&](Interrupted&) {},       //
      [](auto&) { die({"exit"}); });
}
// With the checks that the wrapper makes.
void run_raw(Machine& m) {
  if (::ioctl(m.raw.vcpu, KVM_RUN, 0) < 0) [[unlikely]] {
    const int code = errno;
    if (code == EINTR || code == EAGAIN) return;
    if ((code == EFAULT || code == EHWPOISON) && m.raw.run->exit_reason == KVM_EXIT_MEMORY_FAULT) {
      die({"exit"});
    }
    die(vmm_base::last_error("KVM_RUN", m.raw.id));
  }
  kvm_run& page = *m.raw.run;
  switch (page.exit_reason) {
    case KVM_EXIT_XEN:
      if (page.xen.type != KVM_EXIT_XEN_HCALL) die({"exit"});
      page.xen.u.hcall.result = static_cast<__u64>(-std::int64_t{38});
      page.xen.u.hcall.result = m.sum += page.xen.u.hcall.input;
      break;
    case KVM_EXIT_IO: {
      const std::size_t length = std::size_t{page.io.size} * page.io.count;
      if (page.io.data_offset > m.raw.run_size || length > m.raw.run_size - page.io.data_offset) {
        die({"exit"});
      }
      if (page.io.direction != KVM_EXIT_IO_OUT) die({"exit"});
      m.sum += reinterpret_cast<const unsigned char*>(&page)[page.io.data_offset];
      break;
    }
    case KVM_EXIT_MMIO:
      if (page.mmio.len > sizeof(page.mmio.data) || page.mmio.is_write == 0) die({"exit"});
      m.sum += page.mmio.phys_addr + page.mmio.data[0];
      break;
    case KVM_EXIT_HLT:
      ++m.sum;
      break;
    case KVM_EXIT_INTR:
      break;
    default:
      die({"exit"});
  }
}

void exit_is_io(Machine& m) {
  m.raw.run->exit_reason = KVM_EXIT_IO;
  auto& io = m.raw.run->io;
  io = {};
  io.direction = KVM_EXIT_IO_OUT;
  io.size = 1;
  io.count = 1;
  io.data_offset = 4096;
}
void exit_is_mmio(Machine& m) {
  m.raw.run->exit_reason = KVM_EXIT_MMIO;
  m.raw.run->mmio = {};
  m.raw.run->mmio.len = 4;
  m.raw.run->mmio.is_write = 1;
}
void exit_is_xen(Machine& m) {
  m.raw.run->exit_reason = KVM_EXIT_XEN;
  m.raw.run->xen = {};
  m.raw.run->xen.type = KVM_EXIT_XEN_HCALL;
}
void exit_is_hlt(Machine& m) { m.raw.run->exit_reason = KVM_EXIT_HLT; }

#ifdef ZERO_COST_WITHOUT_KERNEL
constexpr bool no_kernel = true;  // zero_cost_kernel.cpp
#else
constexpr bool no_kernel = false;
#endif

enum class Needs { nothing, xen, made_up_exits };

struct Pair {
  const char* name;
  Function wrapper;
  Function raw;
  Needs needs = Needs::nothing;
  Function before = nullptr;
};
constexpr Pair pairs[] = {
    {"get_vcpu_mmap_size", get_vcpu_mmap_size, get_vcpu_mmap_size_raw},
    {"check_extension", check_extension, check_extension_raw},
    {"set_regs", set_regs, set_regs_raw},
    {"get_regs", get_regs, get_regs_raw},
    {"get_msrs", get_msrs, get_msrs_raw},
    {"irq_line", irq_line, irq_line_raw},
    {"signal_msi", signal_msi, signal_msi_raw},
    {"set_device_attr", set_device_attr, set_device_attr_raw},
    {"xen_hvm_evtchn_send", xen_evtchn_send, xen_evtchn_send_raw, Needs::xen},
    {"xen_vcpu_set_attr", xen_set_attr, xen_set_attr_raw, Needs::xen},
    {"xen_vcpu_get_attr", xen_get_attr, xen_get_attr_raw, Needs::xen},
    {"run_io", run, run_raw, Needs::nothing, exit_is_io},
    {"run_mmio", run, run_raw, Needs::made_up_exits, exit_is_mmio},
    {"run_xen", run, run_raw, Needs::made_up_exits, exit_is_xen},
    {"run_hlt", run, run_raw, Needs::made_up_exits, exit_is_hlt},
    {"run_match_io", run_match, run_raw, Needs::nothing, exit_is_io},
};

[[gnu::noinline]] void repeat(Function function, Machine& machine, unsigned times) {
  while (times-- != 0) function(machine);
}

// A dump of the instructions since the last, under a name.
void counted(const Pair& pair, const char* side, Machine& machine, unsigned times) {
  char name[80];
  std::snprintf(name, sizeof(name), "%s %s %u", pair.name, side, times);
#ifdef CALLGRIND_ZERO_STATS
  CALLGRIND_ZERO_STATS;
  repeat(side[0] == 'w' ? pair.wrapper : pair.raw, machine, times);
  CALLGRIND_DUMP_STATS_AT(name);
#else
  repeat(side[0] == 'w' ? pair.wrapper : pair.raw, machine, times);
#endif
}

}  // namespace

int main() {
#ifndef CALLGRIND_ZERO_STATS
  std::puts("built without valgrind/callgrind.h");
  return 77;
#endif
  auto opened = Kvm::open(no_kernel ? "/dev/null" : "/dev/kvm");
  if (!opened) {
    std::printf("%s\n", opened.error().message().c_str());
    return 77;
  }
  Kvm kvm = std::move(opened).assume_value();
  Vm vm = must(kvm.create_vm());
  // top: out %al,$0x10; jmp top
  constexpr std::size_t ram_size = 0x10000;
  void* ram = ::mmap(nullptr, ram_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (ram == MAP_FAILED) die(vmm_base::last_error("mmap", ram_size));
  const unsigned char code[] = {0xe6, 0x10, 0xeb, 0xfc};
  std::memcpy(static_cast<char*>(ram) + 0x1000, code, sizeof(code));
  must(vm.set_user_memory_region(0, {0}, ram_size, ram));
  must(vm.create_irqchip());
  bool xen = no_kernel;
  if (!no_kernel && must(vm.check_extension(KVM_CAP_XEN_HVM)) != 0) {
    must(vm.xen_hvm_config(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
                           0x40000000));
    must(vm.xen_hvm_set_attr(XenSharedInfo{.gfn = 4}));
    xen = true;
  }
  Vcpu vcpu = must(vm.create_vcpu({0}));
  if (!no_kernel) {
    if (xen) must(vcpu.xen_vcpu_set_attr(XenVcpuInfo{vmm_base::Gpa{0x5000}}));
    auto sregs = must(vcpu.get_sregs());
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    must(vcpu.set_sregs(sregs));
  }
  const Raw raw{kvm.fd(),        vm.fd(),      vcpu.fd(),
                vcpu.id().value, &vcpu.page(), must(kvm.get_vcpu_mmap_size())};
  Machine machine{std::move(kvm), std::move(vm), std::move(vcpu), raw, {}, Msrs(2)};
  machine.regs.rip = 0x1000;
  machine.regs.rflags = 2;
  machine.regs.r8 = 0xfee00000;
  machine.msrs[0].index = 0x10;   // the TSC
  machine.msrs[1].index = 0x174;  // SYSENTER_CS
  must(machine.vcpu.set_regs(machine.regs));

  for (const Pair& pair : pairs) {
    if (!no_kernel && pair.needs == Needs::made_up_exits) continue;
    if (pair.needs == Needs::xen && !xen) continue;
    for (const char* side : {"wrapper", "raw"}) {
      if (no_kernel && pair.before != nullptr) pair.before(machine);
      counted(pair, side, machine, 1);  // the dynamic linker's part of the first call
      counted(pair, side, machine, 100);
      counted(pair, side, machine, 200);
    }
  }
  return machine.sum == 42 ? 1 : 0;
}
