// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// timer_cycles GUEST CYCLES [TIMERS]: saves the timer guest with its timers armed, and goes on from
// the snapshot's bytes in a new VM with the next way of keeping timers, CYCLES times for each
// number of vCPUs; then every timer of each vCPU must have fired, once, and none early that we
// served, and no vCPU's clock, which some read incessantly, have gone back.
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "domain.hpp"
#include "host.hpp"
#include "linux_loader/elf.hpp"
#include "long_mode.hpp"
#include "machine.hpp"
#include "snapshot_format.hpp"
#include "test_ports.hpp"
#include "xen_domain.hpp"

namespace {

using namespace vmm_reference;

constexpr std::uint64_t ram_size = 64 << 20;

template <class T>
T must(Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "timer_cycles: %s\n", result.error().message().c_str());
    std::exit(1);
  }
  if constexpr (!std::is_void_v<T>) return std::move(result).assume_value();
}

void load(Machine& machine, std::span<const std::byte> guest, std::uint32_t timers) {
  auto image = linux_loader::load_elf(guest, machine.memory);
  if (!image) std::exit(1);
  must(write_page_tables(machine.memory));
  for (std::size_t index = 0; index < machine.vcpus.size(); ++index) {
    kvm_regs regs{};
    regs.rip = image.value().entry.value;
    regs.rdi = index;
    regs.rsi = machine.vcpus.size();
    regs.rdx = timers;
    regs.r8 = 1;
    must(enter_long_mode(machine.vcpus[index], regs));
  }
}

struct Cycles {
  const Host& host;
  std::vector<std::byte> guest;
  std::uint32_t timers;
  std::vector<std::byte> saved{};
  unsigned pending = 0;  // deadlines in all snapshots

  // Until the guest is done; true if it was saved before.
  bool run(std::vector<TestPorts>& ports, TimerMode mode, bool save,
           std::vector<std::string>& wrong) {
    const auto count = static_cast<std::uint32_t>(ports.size());
    Machine machine = must(create_machine(host, {.ram_size = ram_size,
                                                 .vcpu_count = count,
                                                 .all_running = true,
                                                 .xen_ids = keeps_timers_in_kernel(mode)}));
    DomainRun run(count);
    run.timeout = std::chrono::seconds(60);
    const std::vector<std::byte> bytes = std::move(saved);
    std::optional<Snapshot> from;
    if (bytes.empty()) {
      load(machine, guest, timers);
    } else {
      auto read = read_snapshot(bytes);
      if (!read) {
        wrong.push_back(read.error().message());
        return false;
      }
      from.emplace(std::move(read).assume_value());
      run.from = &*from;
    }
    IrqRoutes routes(machine.vm);
    XenPlatform platform(host, machine.vm, routes, machine.memory, machine.vcpus, run.errors);
    std::vector<Devices*> devices;
    for (TestPorts& each : ports) devices.push_back(&each);
    saved.clear();
    boost::asio::steady_timer timer(run.loop, std::chrono::milliseconds(60));
    if (save) {
      timer.async_wait([&](boost::system::error_code) {
        must(run.at_rest([&](Snapshot& snapshot) {
          for (const auto& vcpu : snapshot.xen->vcpus) pending += vcpu.timers.deadline ? 1u : 0u;
          look_for_lost_events(machine, snapshot, wrong);
          return write_snapshot(snapshot, [&](std::span<const std::byte> piece) {
            saved.insert(saved.end(), piece.begin(), piece.end());
            return Result<void>(vmm_base::success());
          });
        }));
        run.loop.stop();
      });
    }
    if (!must(run_xen_domain(host, machine, platform, mode, devices, run))) {
      wrong.emplace_back("the time was out");
    }
    for (std::uint32_t id = 0; id < count; ++id) {
      const VcpuState& state = run.states[id];
      if (!state.fault.empty()) wrong.push_back(state.fault);
      if (const auto said = state.host_errors.message(); !said.empty()) wrong.push_back(said);
    }
    if (!saved.empty()) return true;
    for (std::uint32_t id = 0; id < count; ++id) check(machine, ports[id], wrong);
    return false;
  }

  // A vCPU that is halted has a deadline in the snapshot, or its event, or is woken already. One
  // that has none of them has lost its timer: its event came after we looked.
  static void look_for_lost_events(const Machine& machine, const Snapshot& snapshot,
                                   std::vector<std::string>& wrong) {
    const XenSnapshot& xen = *snapshot.xen;
    if (!xen.shared_info) return;
    xen_abi::SharedInfo<std::uint64_t> shared{};
    const Gpa page{*xen.shared_info << vmm_base::page_shift};
    if (!machine.memory.read(page, std::as_writable_bytes(std::span(&shared, 1)))) return;
    for (std::uint32_t id = 0; id < xen.vcpus.size(); ++id) {
      const VcpuSnapshot& vcpu = snapshot.vcpus[id];
      const std::uint32_t port = xen.vcpus[id].timers.port.value;
      if (vcpu.mp_state.mp_state != KVM_MP_STATE_HALTED || port == 0) continue;
      const bool is_pending = (shared.evtchn_pending[port / 64] >> port % 64 & 1) != 0;
      if (xen.vcpus[id].timers.deadline || is_pending) continue;
      wrong.push_back("saved with " + std::string(to_string(snapshot.mode)) + ": vCPU " +
                      std::to_string(id) + " waits for nothing");
    }
  }

  void check(const Machine& machine, const TestPorts& port, std::vector<std::string>& wrong) const {
    auto report = std::make_unique<TimerReport>();
    if (!machine.memory.read(Gpa{port.report_gpa()},
                             std::as_writable_bytes(std::span(report.get(), 1)))) {
      wrong.emplace_back("no report");
      return;
    }
    long early = 0;
    for (std::uint32_t at = 0; at < report->armed && at < max_timers; ++at) {
      early += report->lateness_ns[at] < 0 ? 1 : 0;
    }
    char text[160];
    std::snprintf(text, sizeof(text),
                  "armed %u, fired %u, unasked %u, refused %u, early %ld, its clock back %u times",
                  report->armed, report->fired, report->unasked, report->refused, early,
                  report->back);
    const bool good = report->armed == timers && report->fired == timers && report->unasked == 0 &&
                      report->refused == 0 && early == 0 && report->back == 0;
    if (!good) wrong.emplace_back(text);
  }
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  std::ifstream file(argv[1], std::ios::binary);
  const std::vector<char> text{std::istreambuf_iterator<char>(file), {}};
  const auto view = std::as_bytes(std::span(text));
  const unsigned cycles = static_cast<unsigned>(std::atoi(argv[2]));
  auto opened = Host::open("/dev/kvm");
  if (const auto* message = std::get_if<std::string>(&opened)) {
    std::fprintf(stderr, "timer_cycles: %s\n", message->c_str());
    return 1;
  }
  const Host& host = std::get<Host>(opened);
  const std::vector<TimerMode> modes = host.modes();
  Cycles all{.host = host,
             .guest = {view.begin(), view.end()},
             .timers = argc > 3 ? static_cast<std::uint32_t>(std::atoi(argv[3])) : max_timers};
  bool good = true;
  for (const std::uint32_t vcpus : {1u, 2u, 4u}) {
    std::vector<TestPorts> ports(vcpus);
    std::vector<std::string> wrong;
    unsigned done = 0;
    unsigned at = 0;
    all.pending = 0;
    all.saved.clear();
    while (wrong.empty() && all.run(ports, modes[at++ % modes.size()], done < cycles, wrong)) {
      ++done;
    }
    std::printf("%u vCPUs: %u cycles, %u deadlines pending in them, of %u timers a vCPU: %s\n",
                vcpus, done, all.pending, all.timers, wrong.empty() ? "each fired once" : "FAILED");
    for (const std::string& what : wrong) std::printf("  %s\n", what.c_str());
    good = good && wrong.empty() && done > 0 && all.pending > 0;
  }
  std::printf("%s\n", good ? "all timers fired once" : "FAILED");
  return good ? 0 : 1;
}
