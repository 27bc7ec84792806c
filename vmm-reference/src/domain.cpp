// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "domain.hpp"

#include <algorithm>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "linux_loader/elf.hpp"
#include "long_mode.hpp"
#include "observer.hpp"
#include "progress.hpp"
#include "test_ports.hpp"
#include "xen_domain.hpp"

namespace vmm_reference {

namespace {

constexpr std::uint64_t ram_size = 64 << 20;
constexpr std::chrono::seconds default_timeout{60};

Result<void> set_entry(Machine& machine, Gpa entry, const Options& options) {
  VMM_CHECK(write_page_tables(machine.memory));
  for (std::size_t index = 0; index < machine.vcpus.size(); ++index) {
    kvm_regs regs{};
    regs.rip = entry.value;
    regs.rdi = index;
    regs.rsi = machine.vcpus.size();
    regs.rdx = options.count;
    regs.rcx = static_cast<std::uint64_t>(options.load.count());
    VMM_CHECK(enter_long_mode(machine.vcpus[index], regs));
  }
  return vmm_base::success();
}

// What the guest left at `gpa`, 0 if it never said where. False if that is no report.
bool read_report(const vm_memory::GuestMemory& memory, Gpa gpa, VcpuReport& vcpu) {
  if (gpa == Gpa{}) return false;
  auto text = std::make_unique<TextReport>();
  if (memory.read(gpa, std::as_writable_bytes(std::span(text.get(), 1))) &&
      text->magic == text_magic && text->length <= sizeof(text->text)) {
    std::copy_if(text->text, text->text + text->length, std::back_inserter(vcpu.text), is_text);
    return true;
  }
  if (memory.read(gpa, std::as_writable_bytes(std::span(&vcpu.guest, 1))) &&
      vcpu.guest.magic == report_magic) {
    return true;
  }
  vcpu.guest = {};
  return false;
}

}  // namespace

std::variant<RunReport, std::string> run_domain(const Host& host, std::span<const std::byte> guest,
                                                TimerMode mode, std::uint32_t vcpu_count,
                                                const Options& options, const std::string& title,
                                                Observer* observer) {
  auto created = create_machine(host, {.ram_size = ram_size,
                                       .vcpu_count = vcpu_count,
                                       .all_running = true,
                                       .xen_ids = keeps_timers_in_kernel(mode)});
  if (!created) return created.error().message();
  Machine machine = std::move(created).assume_value();

  auto image = linux_loader::load_elf(guest, machine.memory);
  if (!image) return options.guest + ": " + image.error().message();
  if (auto set = set_entry(machine, image.value().entry, options); !set) {
    return set.error().message();
  }

  IrqRoutes routes(machine.vm);
  std::vector<TestPorts> ports(vcpu_count);
  DomainRun run(vcpu_count);
  run.timeout = options.timeout.value_or(default_timeout);
  XenPlatform platform(host, machine.vm, routes, machine.memory, machine.vcpus, run.errors);
  std::vector<Devices*> devices;
  devices.reserve(ports.size());
  for (TestPorts& each : ports) devices.push_back(&each);
  std::optional<Progress> progress;
  if (observer == nullptr || !observer->is_live()) progress.emplace(run.loop, title);
  std::optional<ObservedRun> observed(std::in_place, observer, run.loop, platform.observation(),
                                      mode, title);
  auto done = run_xen_domain(host, machine, platform, mode, devices, run);
  observed.reset();
  progress.reset();
  if (!done) return done.error().message();

  RunReport report{.mode = mode, .vcpus = std::vector<VcpuReport>(vcpu_count)};
  report.timed_out = !done.value();
  report.spun = run.spun;
  report.exact_clock = platform.clock_was_exact();
  for (std::uint32_t index = 0; index < vcpu_count; ++index) {
    const std::string name = "vCPU " + std::to_string(index) + ": ";
    const VcpuState& state = run.states[index];
    VcpuReport& vcpu = report.vcpus[index];
    vcpu.punted = state.punted;
    if (options.stats) vcpu.counts = platform.observation()[index].counts();
    if (const auto errors = state.host_errors.message(); !errors.empty()) {
      report.faults.push_back(name + errors);
    }
    if (!state.fault.empty()) report.faults.push_back(name + state.fault);
    if (ports[index].gave_up()) report.faults.push_back(name + "the guest gave up");
    if (!read_report(machine.memory, Gpa{ports[index].report_gpa()}, vcpu)) {
      report.faults.push_back(name + "the guest left no report");
    }
  }
  if (const auto errors = run.errors.message(); !errors.empty()) {
    report.faults.push_back(errors);
  }
  return report;
}

}  // namespace vmm_reference
