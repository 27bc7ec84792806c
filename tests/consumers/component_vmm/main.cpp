// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// component_vmm GUEST: runs the timer guest on kvm_ioctls, vm_memory, xen_hcall and xen_timer.
#include <elf.h>
#include <poll.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <functional>
#include <kvm_ioctls/kvm.hpp>
#include <thread>
#include <vector>
#include <vm_memory/guest_memory.hpp>
#include <xen_abi/cpuid.hpp>
#include <xen_hcall/dispatcher.hpp>
#include <xen_hcall/event_channel_op.hpp>
#include <xen_hcall/hvm_op.hpp>
#include <xen_hcall/memory_op.hpp>
#include <xen_timer/handler.hpp>
#include <xen_timer/timerfd_backend.hpp>

using vmm_base::Gpa, vmm_base::Gva, vmm_base::Result, vmm_base::XenVcpuId, xen_abi::EventPort;
constexpr std::uint64_t ram_size = 64 << 20, timers = 1000;
constexpr Gpa page_tables{0x1000};

struct Report {  // what the guest leaves
  std::uint32_t magic, armed, refused, fired, unasked, xen_vcpu_id;
  std::int64_t lateness[4096];  // ns; negative is early
};

// What the handlers ask of their VMM; there is one vCPU, which is 0 to KVM, to Xen and to its APIC.
struct Platform {
  kvm_ioctls::Vm& vm;
  kvm_ioctls::Vcpu& vcpu;
  vm_memory::GuestMemory& ram;
  std::function<Result<void>(EventPort)> timer_bound{};

  template <class Copy>
  bool each_page(Gva gva, std::size_t size, const Copy& copy) {
    for (std::size_t at = 0, part = 0; at < size; at += part) {
      part = std::min<std::size_t>(size - at, vmm_base::page_size - (gva.value + at) % 4096);
      const auto gpa = vcpu.translate(gva + at);
      if (!gpa || !copy(gpa.value(), at, part)) return false;
    }
    return true;
  }
  bool copy_from_guest(XenVcpuId, Gva gva, std::span<std::byte> to) {
    return each_page(gva, to.size(), [&](Gpa gpa, std::size_t at, std::size_t size) {
      return ram.read(gpa, to.subspan(at, size)).has_value();
    });
  }
  bool copy_to_guest(XenVcpuId, Gva gva, std::span<const std::byte> from) {
    return each_page(gva, from.size(), [&](Gpa gpa, std::size_t at, std::size_t size) {
      return ram.write(gpa, from.subspan(at, size)).has_value();
    });
  }
  Result<void> map_shared_info(std::uint64_t gfn) {
    VMM_CHECK(ram.fill_zero(Gpa{gfn << vmm_base::page_shift}, vmm_base::page_size));
    return vm.xen_hvm_set_attr(kvm_ioctls::XenSharedInfo{gfn});
  }
  Result<void> set_upcall_vector(XenVcpuId, std::uint8_t vector) {
    return vcpu.xen_vcpu_set_attr(kvm_ioctls::XenVcpuUpcallVector{vector});
  }
  Result<void> virq_bound(XenVcpuId, std::uint32_t virq, EventPort port) {
    return virq == xen_abi::virq::timer ? timer_bound(port) : vmm_base::success();
  }
  Result<void> raise_event(XenVcpuId, EventPort port) {
    return vm.xen_hvm_evtchn_send(port.value, vcpu.id());
  }
  // Also the guest's own clock, as long as its TSC isn't scaled; else see xen_clock's VcpuClock.
  xen_timer::GuestTime guest_now(XenVcpuId) {
    const auto clock = vm.get_clock();
    return xen_clock::guest_time(clock ? static_cast<std::int64_t>(clock.value().clock) : 0);
  }

  // What this guest doesn't use.
  static Result<void> no(const char* what) { return vmm_base::Error{what, ENOTSUP, 0}; }
  Result<void> map_grant_frame(std::uint32_t, std::uint64_t) { return no("grant table"); }
  Result<void> set_callback(xen_hcall::CallbackIrq) { return no("callback"); }
  Result<void> send_routed(EventPort, std::optional<xen_evtchn::Target>) { return no("route"); }
  Result<void> unmask_event(XenVcpuId, EventPort) { return no("unmask"); }
  void clear_pending(EventPort) {}
  bool is_ram(std::uint64_t gfn) { return gfn < ram_size >> vmm_base::page_shift; }
  bool populate_page(std::uint64_t gfn) { return is_ram(gfn); }
  bool remove_page(std::uint64_t) { return false; }
};

// A handler of one's own: xen_hcall's VcpuOp has all of vcpu_op, and asks a lot more.
struct RegisterVcpuInfo {
  Platform& vmm;
  std::optional<xen_abi::Answer> handle(XenVcpuId id, const xen_abi::Hypercall& call) {
    if (call.number != xen_abi::hypercall::vcpu_op) return std::nullopt;
    if (call.params[0] != xen_abi::vcpuop::register_vcpu_info) return std::nullopt;
    const auto info = xen_hcall::read_guest<xen_abi::RegisterVcpuInfo>(vmm, id, call.params[2]);
    if (!info) return xen_abi::Answer{xen_abi::Errno::fault};
    const Gpa place{(info->mfn << vmm_base::page_shift) + info->offset};
    return xen_hcall::done(vmm.vcpu.xen_vcpu_set_attr(kvm_ioctls::XenVcpuInfo{place}));
  }
};

// The guest, in 64-bit mode with 4 GiB mapped to themselves.
Result<void> load(const char* path, vm_memory::GuestMemory& ram, kvm_ioctls::Vcpu& vcpu) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> image(std::istreambuf_iterator<char>(file), {});
  if (image.size() < 4096) return vmm_base::Error{"guest", ENOEXEC, image.size()};
  const auto* elf = reinterpret_cast<const Elf64_Ehdr*>(image.data());
  for (Elf64_Off i = 0; i < elf->e_phnum; ++i) {
    const auto& part = reinterpret_cast<const Elf64_Phdr*>(image.data() + elf->e_phoff)[i];
    if (part.p_type != PT_LOAD) continue;
    const auto bytes = std::as_bytes(std::span(image)).subspan(part.p_offset, part.p_filesz);
    VMM_CHECK(ram.write(Gpa{part.p_paddr}, bytes));
  }
  std::vector<std::uint64_t> tables(6 * 512);
  tables[0] = (page_tables + 0x1000).value + 3;
  for (std::uint64_t i = 0; i < 4 * 512; ++i) {
    tables[512 + i / 512] = (page_tables + (2 + i / 512) * 0x1000).value + 3;
    tables[1024 + i] = i << 21 | 0x83;
  }
  VMM_CHECK(ram.write(page_tables, std::as_bytes(std::span(tables))));
  VMM_TRY(sregs, vcpu.get_sregs());
  sregs.cs = {.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
  sregs.cr0 = 0x80050033, sregs.cr3 = page_tables.value, sregs.cr4 = 0x20, sregs.efer = 0x500;
  VMM_CHECK(vcpu.set_sregs(sregs));
  return vcpu.set_regs({.rdx = timers, .rsi = 1, .rdi = 0, .rip = elf->e_entry, .rflags = 2});
}

Result<void> set_cpuid(const kvm_ioctls::Kvm& kvm, kvm_ioctls::Vcpu& vcpu) {
  namespace id = xen_abi::cpuid;
  constexpr auto base = id::hyperv_base;  // beside KVM's own leaves
  VMM_TRY(supported, kvm.get_supported_cpuid());
  std::vector<kvm_cpuid_entry2> leaves(supported.begin(), supported.end());
  const std::uint32_t xen[] = {id::signature_ebx, id::signature_ecx, id::signature_edx};
  leaves.push_back({base, 0, 0, base + id::leaf_hvm, xen[0], xen[1], xen[2], {}});
  leaves.push_back({base + id::leaf_hypercall, 0, 0, 1, id::hypercall_msr, 0, 0, {}});
  leaves.push_back({base + id::leaf_hvm, 0, 0, id::hvm_vcpu_id_present, 0, 0, 0, {}});
  return vcpu.set_cpuid2(leaves);
}

Result<bool> run(const char* guest) {
  VMM_TRY(kvm, kvm_ioctls::Kvm::open());
  VMM_TRY(vm, kvm.create_vm());
  VMM_TRY(ram, vm_memory::GuestMemory::create({{Gpa{0}, ram_size}}));
  VMM_CHECK(vm.set_user_memory_region(0, Gpa{0}, ram_size, ram.regions()[0].host()));
  VMM_CHECK(vm.create_irqchip());
  VMM_CHECK(vm.xen_hvm_config(KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
                              xen_abi::cpuid::hypercall_msr));
  VMM_TRY(vcpu, vm.create_vcpu(vmm_base::KvmVcpuId{0}));
  VMM_CHECK(set_cpuid(kvm, vcpu));
  VMM_CHECK(load(guest, ram, vcpu));
  Platform platform{vm, vcpu, ram};
  xen_evtchn::Channels channels(xen_abi::event_ports_64, 1);
  VMM_TRY(backend, xen_timer::TimerfdBackend::create(1));
  xen_timer::Handler timer(platform, backend);
  platform.timer_bound = [&](EventPort port) {
    return port == EventPort{} ? timer.unbind({0}) : timer.bind({0}, port);
  };
  xen_hcall::MemoryOp memory(platform);
  xen_hcall::HvmOp hvm(platform, 1);
  xen_hcall::EventChannelOp events(platform, channels);
  RegisterVcpuInfo vcpu_info{platform};
  xen_hcall::Dispatcher dispatcher(timer, memory, hvm, events, vcpu_info);
  std::jthread serving([&](const std::stop_token& stop) {
    for (pollfd wake{backend.fd(), POLLIN, 0}; !stop.stop_requested();) {
      if (::poll(&wake, 1, 100) > 0) (void)timer.expire();
    }
  });
  std::uint32_t report_at = 0, vcpu_ops = 0;
  for (bool go_on = true; go_on;) {
    auto ran = vcpu.run(
        [&](kvm_ioctls::XenHypercall& exit) {
          xen_abi::Hypercall call{exit.input(), {}, exit.longmode(), exit.cpl()};
          std::copy(exit.params().begin(), exit.params().end(), call.params.begin());
          if (call.number == xen_abi::hypercall::vcpu_op) ++vcpu_ops;  // one isn't the timer's
          exit.set_result(dispatcher({0}, call).guest.rax());
          return true;
        },
        [&](kvm_ioctls::IoOut& out) {
          if (out.port == 0x500) std::fputc(static_cast<int>(out.data[0]), stderr);
          if (out.port == 0x504) std::memcpy(&report_at, out.data.data(), sizeof(report_at));
          return out.port != 0x508;
        },
        [](kvm_ioctls::Interrupted&) { return true; }, [](auto&) { return false; });
    if (!ran) return ran.error();
    go_on = ran.value();
  }
  static Report report;
  VMM_CHECK(ram.read(Gpa{report_at}, std::as_writable_bytes(std::span(&report, 1))));
  std::sort(report.lateness, report.lateness + timers);
  std::printf("component_vmm: %u timer calls served, %u of %lu fired; min %td, p50 %td ns late\n",
              vcpu_ops - 1, report.fired, timers, report.lateness[0], report.lateness[timers / 2]);
  return report.fired == timers && vcpu_ops == timers + 2 && report.lateness[0] >= 0;
}

int main(int argc, char** argv) {
  const auto good = run(argc == 2 ? argv[1] : "GUEST");
  if (!good) std::fprintf(stderr, "%s\n", good.error().message().c_str());
  return good && good.value() ? 0 : 1;
}
