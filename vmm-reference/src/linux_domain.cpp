// SPDX-License-Identifier: BSD-3-Clause
#include "linux_domain.hpp"

#include <optional>
#include <vector>

#include "linux_loader/acpi.hpp"
#include "linux_loader/boot.hpp"
#include "linux_loader/mapped_file.hpp"
#include "xen_domain.hpp"

namespace vmm_reference {

namespace {

kvm_segment to_kvm(const linux_loader::SegmentRegister& from) {
  kvm_segment segment{};
  segment.base = from.base;
  segment.limit = from.limit;
  segment.selector = from.selector;
  segment.type = from.type;
  segment.s = from.s;
  segment.dpl = from.dpl;
  segment.present = from.present;
  segment.avl = from.avl;
  segment.l = from.l;
  segment.db = from.db;
  segment.g = from.g;
  segment.unusable = from.present == 0 ? 1 : 0;
  return segment;
}

Result<void> set_state(const kvm_ioctls::Vcpu& vcpu, const linux_loader::CpuState& state) {
  VMM_TRY(sregs, vcpu.get_sregs());
  sregs.cs = to_kvm(state.code);
  sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = to_kvm(state.data);
  sregs.tr = to_kvm(state.task);
  sregs.gdt.base = state.gdt_base;
  sregs.gdt.limit = state.gdt_limit;
  sregs.idt = {};
  sregs.cr0 = state.cr0;
  sregs.cr3 = state.cr3;
  sregs.cr4 = state.cr4;
  sregs.efer = state.efer;
  VMM_CHECK(vcpu.set_sregs(sregs));
  kvm_regs regs{};
  regs.rip = state.rip;
  regs.rbx = state.rbx;
  regs.rsi = state.rsi;
  regs.rflags = state.rflags;
  return vcpu.set_regs(regs);
}

// All vCPUs' ports are the machine's.
struct SharedPorts {
  PcPorts* pc;
  bool out(std::uint16_t port, std::span<const std::byte> data) { return pc->out(port, data); }
  void in(std::uint16_t port, std::span<std::byte> data) { pc->in(port, data); }
};

}  // namespace

std::variant<LinuxRun, std::string> run_linux(const Host& host, TimerMode mode,
                                              const Options& options) {
  auto kernel = linux_loader::MappedFile::open(options.kernel.c_str());
  if (!kernel) return options.kernel + ": " + kernel.error().message();
  std::optional<linux_loader::MappedFile> initramfs;
  if (!options.initramfs.empty()) {
    auto opened = linux_loader::MappedFile::open(options.initramfs.c_str());
    if (!opened) return options.initramfs + ": " + opened.error().message();
    initramfs.emplace(std::move(opened).assume_value());
  }

  const std::uint64_t ram = std::uint64_t{options.memory_mib} << 20;
  const std::uint32_t vcpus = options.vcpus.front();
  auto created =
      create_machine(host, {.ram_size = ram,
                            .vcpu_count = vcpus,
                            .xen_ids = mode == TimerMode::kernel || mode == TimerMode::moving});
  if (!created) return created.error().message();
  Machine machine = std::move(created).assume_value();

  std::vector<linux_loader::AcpiCpu> cpus;
  for (std::uint32_t id = 0; id < vcpus; ++id) cpus.push_back({XenVcpuId{id}, {id}});
  auto tables = linux_loader::write_acpi_tables(machine.memory, {.cpus = cpus, .cmos_rtc = true});
  if (!tables) return tables.error().message();
  auto state = linux_loader::load_linux(
      machine.memory,
      {.kernel = kernel.value().bytes(),
       .initramfs = initramfs ? initramfs->bytes() : std::span<const std::byte>{},
       .cmdline = options.cmdline,
       .memory_map = linux_loader::pc_memory_map(ram),
       .rsdp = linux_loader::rsdp_gpa,
       .entry = options.boot == "pvh" ? linux_loader::Entry::pvh : linux_loader::Entry::linux64});
  if (!state) return options.kernel + ": " + state.error().message();
  if (auto set = set_state(machine.vcpus[0], state.value()); !set) return set.error().message();

  XenPlatform platform(host, machine.vm, machine.memory, machine.vcpus);
  DomainRun run(vcpus);
  std::mutex mutex;
  std::optional<Ending> ending;
  const auto end = [&](Ending how) {
    const std::scoped_lock lock(mutex);
    if (!ending) ending = how;
    run.ended = true;
    run.interrupt();
  };
  platform.on_shutdown([&](xen_abi::ShutdownReason reason) {
    using Reason = xen_abi::ShutdownReason;
    end(reason == Reason::poweroff ? Ending::poweroff
        : reason == Reason::reboot ? Ending::reboot
                                   : Ending::crash);
  });
  PcPorts pc(machine.vm, end);
  std::vector<SharedPorts> ports(vcpus, SharedPorts{&pc});
  auto done = run_xen_domain(host, machine, platform, mode, std::span(ports), run, options.timeout);
  std::fflush(stdout);
  if (!done) return done.error().message();
  LinuxRun result{.ending = ending.value_or(Ending::crash)};
  for (std::uint32_t id = 0; id < vcpus; ++id) {
    if (run.states[id].fault.empty()) continue;
    result.fault = "vCPU " + std::to_string(id) + ": " + run.states[id].fault;
    break;
  }
  for (std::uint32_t id = 0; id < vcpus; ++id) {
    if (run.states[id].host_errors == 0) continue;
    std::fprintf(stderr, "vCPU %u: %llu host errors, the first: %s\n", id,
                 static_cast<unsigned long long>(run.states[id].host_errors),
                 run.states[id].first_host_error.c_str());
  }
  if (!done.value()) return "the time is out";
  return result;
}

}  // namespace vmm_reference
