// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "machine_state.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <optional>
#include <utility>

#include "progress.hpp"
#include "vcpu_tsc.hpp"
#include "vmm_base/guest_address.hpp"
#include "xen_clock/pvclock.hpp"

namespace vmm_reference {

using vmm_base::page_size;
using vmm_base::Result;

namespace {

// --- MSRs ---

constexpr std::uint32_t msr_tsc = 0x10;
constexpr std::uint32_t msr_mcg_cap = 0x179;
constexpr std::uint32_t msr_mc0_ctl = 0x400;
constexpr std::uint32_t msr_tsc_deadline = 0x6e0;

bool is_elsewhere(std::uint32_t index) {
  // Hyper-V's numbers, of which Xen's hypercall MSR is one; and what goes by the clocks.
  return index == msr_tsc || index >> 12 == 0x40000;
}

// None where this vCPU's CPUID hasn't what KVM knows of.
Result<std::optional<std::uint64_t>> get_msr(const kvm_ioctls::Vcpu& vcpu, std::uint32_t index) {
  const auto value = vcpu.get_msr(index);
  if (value) return std::optional(value.value());
  if (value.error().code != EINVAL) return value.error();
  return std::optional<std::uint64_t>();
}

// KVM's list lacks the MTRRs and the machine check banks.
Result<std::vector<std::uint32_t>> msrs_of(const Host& host, const kvm_ioctls::Vcpu& vcpu) {
  VMM_TRY(list, host.kvm.get_msr_index_list());
  std::vector<std::uint32_t> indices(list.begin(), list.end());
  for (std::uint32_t range = 0x200; range < 0x210; ++range) indices.push_back(range);
  for (const std::uint32_t fixed : {0x250u, 0x258u, 0x259u, 0x268u, 0x269u, 0x26au, 0x26bu, 0x26cu,
                                    0x26du, 0x26eu, 0x26fu, 0x2ffu}) {
    indices.push_back(fixed);
  }
  VMM_TRY(mcg_cap, get_msr(vcpu, msr_mcg_cap));
  const std::uint32_t banks = static_cast<std::uint32_t>(mcg_cap.value_or(0) & 0xff);
  for (std::uint32_t at = 0; at < banks * 4; ++at) indices.push_back(msr_mc0_ctl + at);
  std::erase_if(indices, is_elsewhere);
  std::sort(indices.begin(), indices.end());
  indices.erase(std::unique(indices.begin(), indices.end()), indices.end());
  return indices;
}

Result<void> save_msrs(const Host& host, const kvm_ioctls::Vcpu& vcpu, VcpuSnapshot& to) {
  VMM_TRY(indices, msrs_of(host, vcpu));
  for (const std::uint32_t index : indices) {
    VMM_TRY(value, get_msr(vcpu, index));
    if (value) to.msrs.push_back({index, 0, *value});
  }
  return vmm_base::success();
}

Result<void> restore_msrs(const kvm_ioctls::Vcpu& vcpu, std::span<const kvm_msr_entry> msrs) {
  for (const kvm_msr_entry& msr : msrs) {
    if (is_elsewhere(msr.index)) return vmm_base::Error{"an MSR of a snapshot", EINVAL, msr.index};
    if (msr.index == msr_tsc_deadline) continue;  // with the clocks
    const auto set = vcpu.set_msr(msr.index, msr.data);
    if (set) continue;
    if (set.error().code != EINVAL) return set;
    // Of those that can only be read.
    VMM_TRY(is, get_msr(vcpu, msr.index));
    if (is != msr.data) return set;
  }
  return vmm_base::success();
}

// --- a vCPU ---

// A Xen guest's vCPU that has put itself down is still in that hypercall: KVM_RUN waits before it
// completes it. Saved so, it would put itself down again once it is up.
Result<void> complete_last_exit(kvm_ioctls::Vcpu& vcpu, kvm_mp_state state) {
  if (state.mp_state != KVM_MP_STATE_UNINITIALIZED) return vmm_base::success();
  VMM_CHECK(vcpu.set_mp_state({KVM_MP_STATE_RUNNABLE}));
  vcpu.request_exit();  // for good, so that no kick is lost: one is looked for once more
  const auto ran = vcpu.run();
  VMM_CHECK(vcpu.set_mp_state(state));
  if (!ran) return ran.error();
  return vmm_base::success();
}

Result<void> save_vcpu(const Host& host, kvm_ioctls::Vcpu& vcpu, kvm_ioctls::XsaveSize xsave_size,
                       int nested_size, VcpuSnapshot& to) {
  // First: it lets a vCPU take the INIT or SIPI that waits for it.
  VMM_TRY(mp_state, vcpu.get_mp_state());
  to.mp_state = mp_state;
  VMM_CHECK(complete_last_exit(vcpu, mp_state));
  VMM_TRY(regs, vcpu.get_regs());
  to.regs = regs;
  VMM_TRY(sregs, vcpu.get_sregs());
  to.sregs = sregs;
  VMM_TRY(debugregs, vcpu.get_debugregs());
  to.debugregs = debugregs;
  VMM_TRY(xcrs, vcpu.get_xcrs());
  to.xcrs = xcrs;
  VMM_TRY(events, vcpu.get_vcpu_events());
  to.events = events;
  VMM_TRY(lapic, vcpu.get_lapic());
  to.lapic = lapic;
  VMM_TRY(cpuid, vcpu.get_cpuid2());
  to.cpuid.assign(cpuid.begin(), cpuid.end());
  VMM_TRY(xsave, xsave_size.bytes() > sizeof(kvm_ioctls::XsaveHeader) ? vcpu.get_xsave2(xsave_size)
                                                                      : vcpu.get_xsave());
  to.xsave.assign(xsave.bytes().begin(), xsave.bytes().end());
  if (nested_size > 0) {
    VMM_TRY(nested, vcpu.get_nested_state(static_cast<std::size_t>(nested_size)));
    const auto* bytes = reinterpret_cast<const std::byte*>(nested.get());
    to.nested.assign(bytes, bytes + nested.size());
  }
  return save_msrs(host, vcpu, to);
}

Result<void> restore_vcpu(const kvm_ioctls::Vcpu& vcpu, kvm_ioctls::XsaveSize xsave_size,
                          int nested_size, const VcpuSnapshot& from) {
  VMM_CHECK(vcpu.set_cpuid2(from.cpuid));
  VMM_CHECK(vcpu.set_sregs(from.sregs));
  VMM_CHECK(vcpu.set_regs(from.regs));
  if (from.xsave.size() > xsave_size.bytes()) {
    return vmm_base::Error{"the FPU of a snapshot", EPROTO, from.xsave.size()};
  }
  kvm_ioctls::Xsave xsave(xsave_size);
  std::copy(from.xsave.begin(), from.xsave.end(), xsave.bytes().begin());
  VMM_CHECK(vcpu.set_xsave(xsave, xsave_size));
  VMM_CHECK(vcpu.set_xcrs(from.xcrs));
  if (!from.nested.empty() && nested_size > 0) {
    kvm_ioctls::NestedState nested(from.nested.size());
    std::memcpy(nested.get(), from.nested.data(), from.nested.size());
    VMM_CHECK(vcpu.set_nested_state(nested));
  }
  // After the APIC's base, which is of sregs.
  VMM_CHECK(vcpu.set_lapic(from.lapic));
  VMM_CHECK(restore_msrs(vcpu, from.msrs));
  VMM_CHECK(vcpu.set_vcpu_events(from.events));
  VMM_CHECK(vcpu.set_debugregs(from.debugregs));
  return vcpu.set_mp_state(from.mp_state);
}

// --- RAM ---

bool is_zero(const std::byte* page) {
  return page[0] == std::byte{0} && std::memcmp(page, page + 1, page_size - 1) == 0;
}

RamSnapshot pages_of(const vm_memory::Region& region) {
  RamSnapshot ram{region.gpa(), region.size(), {}};
  for (std::uint64_t at = 0; at < region.size(); at += page_size) {
    if (is_zero(region.host() + at)) continue;
    const std::uint64_t start = at;
    do {
      at += page_size;
    } while (at < region.size() && !is_zero(region.host() + at));
    ram.runs.push_back({start, {region.host() + start, at - start}});
  }
  return ram;
}

// --- clocks ---

std::uint64_t real_time() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);  // can't fail
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

// KVM turns the deadline into one of its own clock's when it is set, and not again when the TSC is.
Result<void> restore_tsc_deadline(const kvm_ioctls::Vcpu& vcpu, const VcpuSnapshot& from) {
  for (const kvm_msr_entry& msr : from.msrs) {
    if (msr.index != msr_tsc_deadline || msr.data == 0) continue;
    VMM_CHECK(vcpu.set_msr(msr.index, msr.data));
  }
  return vmm_base::success();
}

// Of a local APIC: its timer's mode, the counts it began with and is at, and its divider.
constexpr std::size_t apic_timer = 0x320;
constexpr std::size_t apic_initial_count = 0x380;
constexpr std::size_t apic_count = 0x390;
constexpr std::size_t apic_divider = 0x3e0;
constexpr std::uint32_t apic_by_tsc = 1u << 18;

std::uint32_t apic_register(const kvm_lapic_state& apic, std::size_t at) {
  std::uint32_t value = 0;
  std::memcpy(&value, apic.regs + at, sizeof(value));
  return value;
}

// Without a TSC deadline it counts down by the host's time, also while its guest stands still, or
// is put together. A count is a ns, divided; none is a one-shot that has fired.
Result<void> restore_apic_count(const kvm_ioctls::Vcpu& vcpu, const kvm_lapic_state& from,
                                std::uint64_t skipped) {
  const std::uint32_t count = apic_register(from, apic_count);
  if ((apic_register(from, apic_timer) & apic_by_tsc) != 0 || count == 0) {
    return vmm_base::success();
  }
  const std::uint32_t divider = apic_register(from, apic_divider);
  const std::uint64_t passed = skipped >> (((divider & 3) + (divider >> 1 & 4) + 1) & 7);
  const auto left = static_cast<std::uint32_t>(count > passed ? count - passed : 1);
  // What has come to it since stays.
  VMM_TRY(apic, vcpu.get_lapic());
  std::memcpy(apic.regs + apic_count, &left, sizeof(left));
  return vcpu.set_lapic(apic);
}

Result<int> nested_state_size(const Host& host) {
  return host.kvm.check_extension(KVM_CAP_NESTED_STATE);
}

}  // namespace

Result<void> save_machine(const Host& host, Machine& machine, Snapshot& snapshot) {
  VMM_TRY(nested_size, nested_state_size(host));
  snapshot.vcpus.resize(machine.vcpus.size());
  for (std::size_t id = 0; id < machine.vcpus.size(); ++id) {
    VMM_TRY(xsave_size, machine.vm.xsave_size(machine.vcpus[id]));
    VMM_CHECK(save_vcpu(host, machine.vcpus[id], xsave_size, nested_size, snapshot.vcpus[id]));
  }
  for (std::uint32_t chip = 0; chip < snapshot.irqchips.size(); ++chip) {
    VMM_TRY(state, machine.vm.get_irqchip(chip));
    snapshot.irqchips[chip] = state;
  }
  return vmm_base::success();
}

Result<void> put_down_again(const Machine& machine, const Snapshot& snapshot) {
  for (std::size_t id = 0; id < snapshot.vcpus.size(); ++id) {
    const kvm_mp_state& state = snapshot.vcpus[id].mp_state;
    if (state.mp_state != KVM_MP_STATE_UNINITIALIZED) continue;
    VMM_CHECK(machine.vcpus[id].set_mp_state(state));
  }
  return vmm_base::success();
}

void save_ram(const Machine& machine, Snapshot& snapshot) {
  snapshot.ram_size = 0;
  for (const vm_memory::Region& region : machine.memory.regions()) {
    snapshot.ram_size += region.size();
    snapshot.ram.push_back(pages_of(region));
  }
}

Result<void> restore_machine(const Host& host, const Machine& machine, const Snapshot& snapshot) {
  VMM_TRY(nested_size, nested_state_size(host));
  const BlockingProgress progress("restoring the guest's memory");
  for (const RamSnapshot& ram : snapshot.ram) {
    for (const RamSnapshot::Run& run : ram.runs) {
      std::byte* to = machine.memory.host(ram.gpa + run.offset, run.bytes.size());
      if (to == nullptr) return vmm_base::Error{"RAM of a snapshot", EFAULT, ram.gpa.value};
      std::memcpy(to, run.bytes.data(), run.bytes.size());
    }
  }
  for (const kvm_irqchip& chip : snapshot.irqchips) {
    VMM_CHECK(machine.vm.set_irqchip(chip));
  }
  for (std::size_t id = 0; id < machine.vcpus.size(); ++id) {
    const VcpuSnapshot& from = snapshot.vcpus[id];
    VMM_TRY(khz, machine.vcpus[id].get_tsc_khz());
    if (khz != from.tsc_khz) {
      VMM_CHECK(machine.vcpus[id].set_tsc_khz(from.tsc_khz));
    }
    VMM_TRY(xsave_size, machine.vm.xsave_size(machine.vcpus[id]));
    VMM_CHECK(restore_vcpu(machine.vcpus[id], xsave_size, nested_size, from));
  }
  return vmm_base::success();
}

Result<void> save_clocks(const Machine& machine,
                         const std::function<std::uint64_t(vmm_base::XenVcpuId)>& guest_now,
                         Snapshot& snapshot) {
  std::vector<xen_clock::VcpuTsc> tscs;
  for (const kvm_ioctls::Vcpu& vcpu : machine.vcpus) {
    VMM_TRY(tsc, vcpu_tsc(machine.vm, vcpu));
    tscs.push_back(tsc);
  }
  const std::uint64_t now = xen_clock::host_tsc();
  VMM_TRY(clock, machine.vm.get_clock());
  snapshot.clock = {clock.clock, real_time()};
  for (std::uint32_t id = 0; id < machine.vcpus.size(); ++id) {
    snapshot.clock.guest = std::max(snapshot.clock.guest, guest_now({id}));
    snapshot.vcpus[id].tsc = tscs[id].map.guest_tsc(now);
    VMM_TRY(khz, machine.vcpus[id].get_tsc_khz());
    snapshot.vcpus[id].tsc_khz = khz;
  }
  return vmm_base::success();
}

Result<void> restore_clocks(const Machine& machine, const Snapshot& snapshot,
                            std::chrono::nanoseconds later) {
  std::vector<xen_clock::VcpuTsc> tscs;
  for (const kvm_ioctls::Vcpu& vcpu : machine.vcpus) {
    VMM_TRY(tsc, vcpu_tsc(machine.vm, vcpu));
    tscs.push_back(tsc);
  }
  const auto cycles = [](std::uint64_t ns, std::uint64_t khz) {
    return static_cast<std::uint64_t>(static_cast<xen_clock::Uint128>(ns) * khz / 1'000'000);
  };
  const auto skipped = static_cast<std::uint64_t>(later.count());
  const std::uint64_t start = xen_clock::host_tsc();
  for (std::size_t id = 0; id < machine.vcpus.size(); ++id) {
    const VcpuSnapshot& from = snapshot.vcpus[id];
    const std::uint64_t tsc = from.tsc + cycles(skipped, from.tsc_khz);
    VMM_CHECK(machine.vcpus[id].set_tsc_offset(tsc - tscs[id].map.scale(start)));
  }
  kvm_clock_data clock{};
  clock.clock = snapshot.clock.guest + skipped;
  // What the TSCs have run since.
  if (!tscs.empty() && tscs[0].host_khz != 0) {
    const auto passed = static_cast<xen_clock::Uint128>(xen_clock::host_tsc() - start);
    clock.clock += static_cast<std::uint64_t>(passed * 1'000'000 / tscs[0].host_khz);
  }
  VMM_CHECK(machine.vm.set_clock(clock));
  for (std::size_t id = 0; id < machine.vcpus.size(); ++id) {
    const VcpuSnapshot& from = snapshot.vcpus[id];
    VMM_CHECK(restore_tsc_deadline(machine.vcpus[id], from));
    VMM_CHECK(restore_apic_count(machine.vcpus[id], from.lapic, skipped));
  }
  return vmm_base::success();
}

namespace {

// Its watchdogs are to keep still. Before it runs: KVM tells it with the next pvclock.
Result<void> tell_of_pause(const Machine& machine) {
  for (const kvm_ioctls::Vcpu& vcpu : machine.vcpus) {
    const auto told = vcpu.kvmclock_ctrl();
    if (!told && told.error().code != EINVAL) return told;  // it may have no pvclock
  }
  return vmm_base::success();
}

}  // namespace

Result<void> with_kvm_guest_at_rest(const Host& host, Machine& machine, Snapshot& snapshot,
                                    const std::function<Result<void>(Snapshot&)>& use) {
  VMM_CHECK(or_no_memory([&]() -> Result<void> {
    VMM_CHECK(save_machine(host, machine, snapshot));
    return save_clocks(
        machine, [](vmm_base::XenVcpuId) { return std::uint64_t{0}; }, snapshot);
  }));
  Result<void> used = or_no_memory([&] {
    save_ram(machine, snapshot);
    return use(snapshot);
  });
  Result<void> restored = or_no_memory([&] { return restore_clocks(machine, snapshot); });
  Result<void> told = tell_of_pause(machine);
  if (!used) return used;
  return restored ? told : restored;
}

Result<void> restore_kvm_guest(const Host& host, const Machine& machine, const Snapshot& snapshot,
                               std::chrono::nanoseconds later) {
  VMM_CHECK(restore_machine(host, machine, snapshot));
  VMM_CHECK(restore_clocks(machine, snapshot, later));
  return tell_of_pause(machine);
}

}  // namespace vmm_reference
