// SPDX-License-Identifier: BSD-3-Clause
#include "domain.hpp"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include <condition_variable>
#include <csignal>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "cpuid.hpp"
#include "linux_loader/elf.hpp"
#include "long_mode.hpp"
#include "vcpu_loop.hpp"
#include "vm_memory/guest_memory.hpp"
#include "vmm_base/unique_fd.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/event_channel_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/memory_op.hpp"
#include "xen_hcall/vcpu_info_op.hpp"
#include "xen_platform.hpp"
#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/timerfd_backend.hpp"

namespace vmm_reference {

namespace {

constexpr std::uint64_t ram_size = 64 << 20;
constexpr int kick_signal = SIGUSR1;

// The hardware: a VM with memory and vCPUs, the guest's image in it.
struct Machine {
  vm_memory::GuestMemory memory;
  kvm_ioctls::Vm vm;
  std::vector<kvm_ioctls::Vcpu> vcpus;
};

Result<Machine> create_machine(const Host& host, TimerMode mode, std::uint32_t vcpu_count) {
  VMM_TRY(memory, vm_memory::GuestMemory::create({{Gpa{0}, ram_size}}));
  VMM_TRY(vm, host.kvm.create_vm());
  // Out of the way of RAM and of the APICs' pages.
  VMM_CHECK(vm.set_identity_map_addr(Gpa{0xfffbc000}));
  VMM_CHECK(vm.set_tss_addr(Gpa{0xfffbd000}));
  VMM_CHECK(vm.create_irqchip());
  if (host.xen_exits) {
    std::uint32_t flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL;
    if (host.evtchn_send) flags |= KVM_XEN_HVM_CONFIG_EVTCHN_SEND;
    VMM_CHECK(vm.xen_hvm_config(flags, xen_abi::cpuid::hypercall_msr));
  } else {
    VMM_CHECK(vm.enable_cap(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN |
                                                            KVM_MSR_EXIT_REASON_INVAL |
                                                            KVM_MSR_EXIT_REASON_FILTER));
  }
  std::uint32_t slot = 0;
  for (const auto& region : memory.regions()) {
    VMM_CHECK(vm.set_user_memory_region(slot++, region.gpa(), region.size(), region.host()));
  }
  VMM_CHECK(write_page_tables(memory));

  VMM_TRY(supported, host.kvm.get_supported_cpuid());
  std::vector<kvm_ioctls::Vcpu> vcpus;
  for (std::uint32_t index = 0; index < vcpu_count; ++index) {
    // In this VMM the three ids of a vCPU are one number.
    const vmm_base::KvmVcpuId apic{index};
    const XenVcpuId xen{index};
    VMM_TRY(vcpu, vm.create_vcpu(apic));
    VMM_CHECK(vcpu.set_cpuid2(guest_cpuid(supported, apic, xen)));
    VMM_CHECK(vcpu.set_mp_state({KVM_MP_STATE_RUNNABLE}));
    // The id is what makes KVM answer by itself; left unset, the calls come to us.
    if (mode == TimerMode::kernel) {
      VMM_CHECK(vcpu.xen_vcpu_set_attr(kvm_ioctls::XenVcpuIdAttr{xen}));
    }
    if (!host.xen_exits) vcpu.sync_registers();
    vcpus.push_back(std::move(vcpu));
  }
  return Machine{std::move(memory), std::move(vm), std::move(vcpus)};
}

Result<void> set_entry(Machine& machine, Gpa entry, std::uint32_t timers) {
  for (std::size_t index = 0; index < machine.vcpus.size(); ++index) {
    kvm_regs regs{};
    regs.rip = entry.value;
    regs.rdi = index;
    regs.rsi = machine.vcpus.size();
    regs.rdx = timers;
    VMM_CHECK(enter_long_mode(machine.vcpus[index], regs));
  }
  return vmm_base::success();
}

// Calls handler.expire() whenever the back end is readable, until stopped.
class TimerThread {
 public:
  template <class Handler>
  static Result<TimerThread> start(Handler& handler, int timer_fd) {
    vmm_base::UniqueFd stop(::eventfd(0, EFD_CLOEXEC));
    if (!stop) return vmm_base::last_error("eventfd");
    const int stop_fd = stop.get();
    return TimerThread(std::move(stop), std::thread([&handler, timer_fd, stop_fd] {
                         bool said = false;
                         pollfd fds[] = {{timer_fd, POLLIN, 0}, {stop_fd, POLLIN, 0}};
                         while (fds[1].revents == 0) {
                           if (::poll(fds, std::size(fds), -1) < 0) continue;
                           auto expired = handler.expire();
                           // Once: a guest can cause it at will.
                           if (!expired && !std::exchange(said, true)) {
                             std::fprintf(stderr, "timers: %s\n",
                                          expired.error().message().c_str());
                           }
                         }
                       }));
  }
  TimerThread(TimerThread&&) = default;
  TimerThread& operator=(TimerThread&&) = delete;
  ~TimerThread() {
    if (!thread_.joinable()) return;
    ::eventfd_write(stop_.get(), 1);
    thread_.join();
  }

 private:
  TimerThread(vmm_base::UniqueFd stop, std::thread thread)
      : stop_(std::move(stop)), thread_(std::move(thread)) {}
  vmm_base::UniqueFd stop_;
  std::thread thread_;
};

// Runs every vCPU on a thread of its own; returns whether all ended in time.
template <class Dispatcher>
bool run_vcpus(const Host& host, Machine& machine, XenPlatform& platform, Dispatcher& dispatcher,
               std::vector<VcpuState>& states, std::chrono::seconds timeout) {
  struct sigaction ignore {};
  ignore.sa_handler = [](int) {};
  ::sigaction(kick_signal, &ignore, nullptr);

  std::optional<HypercallPort> hypercall_port;
  if (!host.xen_exits) hypercall_port.emplace(machine.memory);
  std::atomic<bool> stop = false;
  std::mutex mutex;
  std::condition_variable ended;
  std::size_t running = machine.vcpus.size();
  bool faulted = false;
  std::vector<std::thread> threads;
  for (std::uint32_t index = 0; index < machine.vcpus.size(); ++index) {
    threads.emplace_back([&, index] {
      run_vcpu(machine.vcpus[index], XenVcpuId{index}, platform, dispatcher, hypercall_port, stop,
               states[index]);
      const std::scoped_lock lock(mutex);
      --running;
      faulted = faulted || !states[index].fault.empty();
      ended.notify_all();
    });
  }

  bool in_time = false;
  {
    std::unique_lock lock(mutex);
    in_time = ended.wait_for(lock, timeout, [&] { return running == 0 || faulted; });
    // A vCPU may be on its way into KVM_RUN: immediate_exit is for that, the signal for one inside.
    stop = true;
    for (auto& vcpu : machine.vcpus) vcpu.request_exit();
    for (std::size_t index = 0; running > 0 && index < threads.size(); ++index) {
      ::pthread_kill(threads[index].native_handle(), kick_signal);
    }
  }
  for (auto& thread : threads) thread.join();
  return in_time;
}

// Assembles the hypercall handlers round one timer back end, and runs the guest with them.
template <class Backend>
std::variant<RunReport, std::string> run_with(const Host& host, Machine& machine,
                                              XenPlatform& platform, Backend& backend,
                                              TimerMode mode, std::chrono::seconds timeout) {
  const auto count = static_cast<std::uint32_t>(machine.vcpus.size());
  xen_timer::Handler timer(platform, backend, count);
  xen_hcall::MemoryOp memory(platform);
  xen_hcall::VcpuInfoOp vcpu_info(platform, count);
  xen_hcall::HvmOp hvm(platform, count);
  xen_hcall::EventChannelOp events(platform, count);
  xen_hcall::Dispatcher dispatcher(timer, memory, vcpu_info, hvm, events);

  platform.on_timer_bound([&](XenVcpuId vcpu, EventPort port) { return timer.bind(vcpu, port); });

  RunReport report{.mode = mode, .vcpus = std::vector<VcpuReport>(count)};
  std::vector<VcpuState> states(count);
  std::optional<TimerThread> timer_thread;
  if constexpr (requires { timer.expire(); }) {
    auto started = TimerThread::start(timer, backend.fd());
    if (!started) return started.error().message();
    timer_thread.emplace(std::move(started).assume_value());
  }
  report.timed_out = !run_vcpus(host, machine, platform, dispatcher, states, timeout);
  timer_thread.reset();

  report.exact_clock = platform.clock_was_exact();
  for (std::uint32_t index = 0; index < count; ++index) {
    const std::string name = "vCPU " + std::to_string(index) + ": ";
    VcpuReport& vcpu = report.vcpus[index];
    vcpu.punted = states[index].punted;
    if (states[index].host_errors != 0) {
      report.faults.push_back(name + std::to_string(states[index].host_errors) +
                              " host errors, the first: " + states[index].first_host_error);
    }
    if (!states[index].fault.empty()) report.faults.push_back(name + states[index].fault);
    auto read = machine.memory.read(Gpa{states[index].report_gpa},
                                    std::as_writable_bytes(std::span(&vcpu.guest, 1)));
    if (states[index].report_gpa == 0 || !read || vcpu.guest.magic != report_magic ||
        vcpu.guest.armed > max_timers) {
      report.faults.push_back(name + "the guest left no report");
      vcpu.guest = {};
    }
  }
  return report;
}

}  // namespace

std::variant<RunReport, std::string> run_domain(const Host& host, std::span<const std::byte> guest,
                                                TimerMode mode, std::uint32_t vcpu_count,
                                                const Options& options) {
  auto created = create_machine(host, mode, vcpu_count);
  if (!created) return created.error().message();
  Machine machine = std::move(created).assume_value();

  auto image = linux_loader::load_elf(guest, machine.memory);
  if (!image) {
    return options.guest + ": " + image.error().reason + ", at byte " +
           std::to_string(image.error().offset);
  }
  if (auto set = set_entry(machine, image.value().entry, options.count); !set) {
    return set.error().message();
  }

  XenPlatform platform(host, machine.vm, machine.memory, machine.vcpus);
  // In mode kernel the calls come to us, too, until VIRQ_TIMER is bound.
  if (mode != TimerMode::userspace) {
    xen_timer::DelegatedBackend backend(platform, vcpu_count);
    return run_with(host, machine, platform, backend, mode, options.timeout);
  }
  auto backend = xen_timer::TimerfdBackend::create(vcpu_count);
  if (!backend) return backend.error().message();
  return run_with(host, machine, platform, backend.value(), mode, options.timeout);
}

}  // namespace vmm_reference
