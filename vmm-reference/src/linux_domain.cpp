// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_domain.hpp"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "console.hpp"
#include "hypercalls.hpp"
#include "linux_loader/acpi.hpp"
#include "linux_loader/boot.hpp"
#include "linux_loader/mapped_file.hpp"
#include "machine_state.hpp"
#include "progress.hpp"
#include "sandbox.hpp"
#include "snapshot_file.hpp"
#include "vcpu_loop.hpp"
#include "vfio_devices.hpp"
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

std::string cannot_read(const std::string& path, const vmm_base::Error& error) {
  return "can't read " + path + ": " + strerrordesc_np(error.code);
}

// With the name of the file at fault, if it is one.
std::string cannot_load(const Options& options, const linux_loader::LoadError& error) {
  const std::string_view file = error.file;
  if (file == "command line") return error.message();
  return (file == "initramfs" ? options.initramfs : options.kernel) + ": " + error.message();
}

using Pci = PciRoot<VfioFunction>;

// One for all vCPUs.
class LinuxDevices final : public Devices {
 public:
  LinuxDevices(PcPorts& pc, Pci* pci) noexcept : pc_(pc), pci_(pci) {}  // null without --vfio

  bool out(std::uint16_t port, std::span<const std::byte> data) override {
    if (pci_ == nullptr || !Pci::is_port(port)) return pc_.out(port, data);
    pci_->out(port, data);
    return true;
  }
  void in(std::uint16_t port, std::span<std::byte> data) override {
    if (pci_ == nullptr || !Pci::is_port(port)) return pc_.in(port, data);
    pci_->in(port, data);
  }
  void read_memory(Gpa gpa, std::span<std::byte> data) override {
    if (pci_ == nullptr) return Devices::read_memory(gpa, data);
    pci_->read_memory(gpa, data);
  }
  void write_memory(Gpa gpa, std::span<const std::byte> data) override {
    if (pci_ != nullptr) pci_->write_memory(gpa, data);
  }

 private:
  PcPorts& pc_;
  Pci* pci_;
};

// How the guest ended is what is said first.
class FirstEnding {
 public:
  explicit FirstEnding(boost::asio::io_context& loop) : loop_(loop) {}
  // From any thread.
  void is(Ending how) {
    const std::scoped_lock lock(mutex_);
    if (!how_) how_ = how;
    loop_.stop();
  }
  std::optional<Ending> get() const { return how_; }

 private:
  boost::asio::io_context& loop_;
  std::mutex mutex_;
  std::optional<Ending> how_;
};

Ending ending_of(xen_abi::ShutdownReason reason) {
  switch (reason) {
    case xen_abi::ShutdownReason::poweroff:
      return Ending::poweroff;
    case xen_abi::ShutdownReason::reboot:
    case xen_abi::ShutdownReason::soft_reset:  // with no vCPU left that could go on
      return Ending::reboot;
    case xen_abi::ShutdownReason::watchdog:
      return Ending::watchdog;
    default:
      return Ending::crash;
  }
}

Result<bool> run_as_xen_guest(const Host& host, Machine& machine, IrqRoutes& routes, TimerMode mode,
                              std::span<Devices* const> devices, DomainRun& run,
                              FirstEnding& ending, Observer* observer) {
  XenPlatform platform(host, machine.vm, routes, machine.memory, machine.vcpus, run.errors);
  platform.on_shutdown([&](xen_abi::ShutdownReason reason) { ending.is(ending_of(reason)); });
  const std::string title =
      "Linux, " + std::to_string(machine.vcpus.size()) + " vCPUs, timers " + to_string(mode);
  const ObservedRun observed(observer, run.loop, platform.observation(), mode, title);
  return run_xen_domain(host, machine, platform, mode, devices, run);
}

Result<bool> run_as_kvm_guest(const Host& host, Machine& machine, std::span<Devices* const> devices,
                              DomainRun& run) {
  VMM_TRY(signal, kvm_ioctls::KickSignal::install());
  VcpuThreads threads(machine.vcpus, signal);
  if (run.from != nullptr) {
    VMM_CHECK(restore_kvm_guest(host, machine, *run.from, run.later));
  }
  run.at_rest = [&](const SnapshotUse& use) {
    return with_vcpus_at_rest(threads, run, machine, {}, [&](Snapshot& snapshot) {
      return with_kvm_guest_at_rest(host, machine, snapshot, use);
    });
  };
  return run_vcpus(threads, run, [&](XenVcpuId id, VcpuRunner& vcpu) {
    run_vcpu(
        vcpu, NoCalls{}, *devices[id.value], [&] { return threads.serve(id); },
        run.states[id.value]);
  });
}

struct KernelFiles {
  std::optional<linux_loader::MappedFile> kernel, initramfs;
};

// An empty string, or what failed.
std::string open_file(const std::string& path, std::optional<linux_loader::MappedFile>& file) {
  if (path.empty()) return "";
  auto opened = linux_loader::MappedFile::open(path.c_str());
  if (!opened) return cannot_read(path, opened.error());
  file.emplace(std::move(opened).assume_value());
  return "";
}

// Puts the kernel and what it looks for into memory, and the first vCPU at its entry. An empty
// string, or what failed.
std::string load(Machine& machine, const KernelFiles& files, const Options& options, bool has_pci) {
  const bool pvh = options.boot == Boot::pvh;
  std::vector<linux_loader::AcpiCpu> cpus;
  for (std::uint32_t id = 0; id < machine.vcpus.size(); ++id) cpus.push_back({XenVcpuId{id}, {id}});
  // A PVH guest has its time from Xen.
  linux_loader::AcpiConfig acpi{.cpus = cpus, .cmos_rtc = !pvh};
  if (has_pci) acpi.pci_root = pci_window;
  auto tables = linux_loader::write_acpi_tables(machine.memory, acpi);
  if (!tables) return tables.error().message();
  auto state = linux_loader::load_linux(
      machine.memory,
      {.kernel = files.kernel->bytes(),
       .initramfs = files.initramfs ? files.initramfs->bytes() : std::span<const std::byte>{},
       .cmdline = options.cmdline,
       .memory_map = machine.memory_map,
       .rsdp = linux_loader::rsdp_gpa,
       .entry = pvh ? linux_loader::Entry::pvh : linux_loader::Entry::linux64});
  if (!state) return cannot_load(options, state.error());
  auto set = set_state(machine.vcpus[0], state.value());
  return set ? "" : set.error().message();
}

// Writes a snapshot to where it is to go, and says so.
void take_snapshot(DomainRun& run, PcPorts& pc, const Options& options) {
  const char* const end = ::isatty(STDERR_FILENO) != 0 ? "\r\n" : "\n";
  if (options.snapshot_to.empty() || !run.at_rest) {
    std::fprintf(stderr, "%svmm-reference: no snapshot: there is no --snapshot-to%s", end, end);
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  std::uint64_t size = 0;
  std::optional<ByteProgress> progress(std::in_place, "saving to " + options.snapshot_to);
  const auto write = [&](Snapshot& snapshot) {
    snapshot.boot = options.boot;
    snapshot.ports = pc.save();
    return replace_file(options.snapshot_to, [&](const ByteSink& file) {
      return write_snapshot(snapshot, [&](std::span<const std::byte> bytes) {
        size += bytes.size();
        progress->done(bytes.size());
        return file(bytes);
      });
    });
  };
  const auto done = or_no_memory([&] { return run.at_rest(write); });
  progress.reset();
  if (!done) {
    std::fprintf(stderr, "%svmm-reference: no snapshot: %s: %s%s", end, options.snapshot_to.c_str(),
                 done.error().message().c_str(), end);
    return;
  }
  const std::chrono::duration<double, std::milli> took = std::chrono::steady_clock::now() - start;
  std::fprintf(
      stderr, "%svmm-reference: snapshot in %s: %.1f MiB; the guest stood still for %.0f ms%s", end,
      options.snapshot_to.c_str(), static_cast<double>(size) / (1 << 20), took.count(), end);
}

}  // namespace

std::variant<LinuxRun, std::string> run_linux(const Host& host, TimerMode mode,
                                              const Options& options, Observer* observer,
                                              const SavedGuest* saved) {
  const bool xen = options.boot != Boot::native;
  const std::uint32_t vcpus = options.vcpus.front();
  auto created =
      create_machine(host, {.ram_size = saved != nullptr ? saved->snapshot().ram_size
                                                         : std::uint64_t{options.memory_mib} << 20,
                            .vcpu_count = vcpus,
                            .xen = xen,
                            .xen_ids = xen && keeps_timers_in_kernel(mode)});
  if (!created) return created.error().message();
  Machine machine = std::move(created).assume_value();

  IrqRoutes routes(machine.vm);
  std::unique_ptr<VfioDevices> vfio;
  if (!options.vfio.empty()) {
    const BlockingProgress progress("letting --vfio reach the guest's memory");
    auto opened = VfioDevices::open(options.vfio, machine, routes);
    if (auto* message = std::get_if<std::string>(&opened)) return std::move(*message);
    vfio = std::get<std::unique_ptr<VfioDevices>>(std::move(opened));
  }
  KernelFiles files;
  if (auto failed = open_file(options.kernel, files.kernel); !failed.empty()) return failed;
  if (auto failed = open_file(options.initramfs, files.initramfs); !failed.empty()) return failed;
  // All files are open, and none of a kernel's bytes was looked at.
  if (options.sandbox) {
    unsigned also = 0;
    if (saved != nullptr || !options.snapshot_to.empty()) also |= sandbox::snapshots;
    if (!options.metrics.empty()) also |= sandbox::metrics;
    if (auto entered = sandbox::enter(also); !entered) {
      return sandbox::why_not(entered.error());
    }
  }
  if (saved == nullptr) {
    const BlockingProgress progress("unpacking " + options.kernel);
    if (auto failed = load(machine, files, options, vfio != nullptr); !failed.empty()) {
      return failed;
    }
    files = {};  // a kernel and an initramfs are more than all else that is resident
  }

  DomainRun run(vcpus);
  run.timeout = options.timeout.value_or(std::chrono::seconds(0));
  run.is_last = true;
  FirstEnding ending(run.loop);
  std::function<void()> snapshot;
  Console console(
      run.loop, [&] { ending.is(Ending::left); }, [&] { snapshot(); });
  PcPorts pc(machine.vm, console, run.errors, [&](Ending how) { ending.is(how); });
  snapshot = [&] { take_snapshot(run, pc, options); };
  if (saved != nullptr) {
    run.from = &saved->snapshot();
    if (options.real_time) run.later = saved->age();
    if (!run.from->ports) return options.restore + ": not of a Linux guest";
    // Before the interrupt controllers: these then are as they were with the line as it was.
    auto restored = pc.restore(*run.from->ports);
    if (!restored) return options.restore + ": " + restored.error().message();
  }
  console.connect([&](std::span<const std::uint8_t> typed) { return pc.type(typed); });
  LinuxDevices all(pc, vfio ? &vfio->root() : nullptr);
  const std::vector<Devices*> devices(vcpus, &all);
  auto in_time = xen ? run_as_xen_guest(host, machine, routes, mode, devices, run, ending, observer)
                     : run_as_kvm_guest(host, machine, devices, run);
  if (!in_time) return in_time.error().message();
  if (console.failure()) return console.failure()->message();

  LinuxRun result{.ending =
                      ending.get().value_or(in_time.value() ? Ending::crash : Ending::timeout)};
  const auto remark = [&result](const std::string& where, const HostErrors& of) {
    if (const auto text = of.message(); !text.empty()) result.remarks.push_back(where + text);
  };
  for (std::uint32_t id = 0; id < vcpus; ++id) {
    const VcpuState& vcpu = run.states[id];
    const std::string name = "vCPU " + std::to_string(id) + ": ";
    if (!vcpu.fault.empty() && result.fault.empty()) result.fault = name + vcpu.fault;
    remark(name, vcpu.host_errors);
    result.punted += vcpu.punted;
  }
  remark("", run.errors);
  if (vfio) remark("--vfio: ", vfio->errors());
  return result;
}

}  // namespace vmm_reference
