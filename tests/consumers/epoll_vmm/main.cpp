// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// epoll_vmm GUEST: runs the timer guest on KVM's ioctls, an epoll loop, and xen_timer alone.
#include <elf.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <algorithm>
#include <cstdio>
#include <cstring>
#include <thread>
#include <xen_timer/handler.hpp>
#include <xen_timer/timerfd_backend.hpp>

using xen_abi::Errno, xen_abi::GuestResult;
constexpr std::size_t page = 4096, ram_size = 64 << 20;
constexpr std::uint32_t timers = 1000, hypercall_msr = 0x40000000, xen_leaf = 0x40000100;
constexpr xen_timer::XenVcpuId vcpu_id{0};  // to KVM, to Xen and to its APIC
constexpr xen_timer::EventPort timer_port{1};

struct Report {  // what the guest leaves
  std::uint32_t magic, armed, refused, fired, unasked, xen_vcpu_id;
  std::int64_t lateness[4096];  // ns; negative is early
};

#define TRY(fd, request, argument) must(::ioctl(fd, request, argument), #request)
int must(int result, const char* what) {
  if (result < 0) std::perror(what), std::_Exit(1);
  return result;
}
template <class T>
T* map(std::size_t size, int flags, int file) {
  void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, file, 0);
  return must(at == MAP_FAILED ? -1 : 0, "mmap"), static_cast<T*>(at);
}

struct Vm {
  int kvm = must(::open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  int fd = TRY(kvm, KVM_CREATE_VM, 0), ended = must(::eventfd(0, EFD_CLOEXEC), "eventfd"),
      vcpu = -1;
  std::byte* ram = map<std::byte>(ram_size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  kvm_run* run = nullptr;
  std::uint32_t report = 0, served = 0;

  template <class T = std::byte>
  T* at(std::uint64_t gpa, std::size_t size) const {
    return gpa <= ram_size && size <= ram_size - gpa ? reinterpret_cast<T*>(ram + gpa) : nullptr;
  }
  bool copy(std::uint64_t gva, std::byte* data, std::size_t size, bool to_guest) const {
    for (std::size_t part = 0; size > 0; gva += part, data += part, size -= part) {
      part = std::min(size, page - gva % page);  // the next page may lie elsewhere
      kvm_translation found{.linear_address = gva};
      if (::ioctl(vcpu, KVM_TRANSLATE, &found) < 0 || !found.valid) return false;
      std::byte* const here = at(found.physical_address, part);
      if (here == nullptr) return false;
      std::memcpy(to_guest ? here : data, to_guest ? data : here, part);
    }
    return true;
  }
  // --- what xen_timer asks ---
  bool copy_from_guest(xen_timer::XenVcpuId, xen_timer::Gva from, std::span<std::byte> to) const {
    return copy(from.value, to.data(), to.size(), false);
  }
  // Also the guest's own clock, as long as its TSC isn't scaled; else see xen_clock's VcpuClock.
  xen_timer::GuestTime guest_now(xen_timer::XenVcpuId) const {
    kvm_clock_data data{};
    TRY(fd, KVM_GET_CLOCK, &data);
    return xen_clock::guest_time(static_cast<std::int64_t>(data.clock));
  }
  xen_timer::Result<void> raise_event(xen_timer::XenVcpuId, xen_timer::EventPort port) const {
    kvm_irq_routing_xen_evtchn event{port.value, 0, KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL};
    if (::ioctl(fd, KVM_XEN_HVM_EVTCHN_SEND, &event) >= 0) return vmm_base::success();
    return vmm_base::last_error("KVM_XEN_HVM_EVTCHN_SEND", port.value);
  }
};
using Timer = xen_timer::Handler<Vm, xen_timer::TimerfdBackend>;

// The guest, in 64-bit mode with 4 GiB mapped to themselves.
void boot(Vm& vm, const char* path) {
  TRY(vm.fd, KVM_CREATE_IRQCHIP, 0);
  kvm_xen_hvm_config xen{.msr = hypercall_msr};  // needs CONFIG_KVM_XEN, Linux 5.19
  xen.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND;
  TRY(vm.fd, KVM_XEN_HVM_CONFIG, &xen);
  kvm_userspace_memory_region ram{0, 0, 0, ram_size, reinterpret_cast<std::uintptr_t>(vm.ram)};
  TRY(vm.fd, KVM_SET_USER_MEMORY_REGION, &ram);
  vm.vcpu = TRY(vm.fd, KVM_CREATE_VCPU, 0);
  vm.run = map<kvm_run>(std::size_t(TRY(vm.kvm, KVM_GET_VCPU_MMAP_SIZE, 0)), MAP_SHARED, vm.vcpu);
  // Beside KVM's own leaves: Xen, its hypercall MSR, vCPU id 0.
  constexpr kvm_cpuid_entry2 leaves[] = {
      {xen_leaf, 0, 0, xen_leaf + 4, 0x566e6558, 0x65584d4d, 0x4d4d566e, {}},
      {xen_leaf + 2, 0, 0, 1, hypercall_msr, 0, 0, {}},
      {xen_leaf + 4, 0, 0, 1 << 3 | 1 << 6, 0, 0, 0, {}}};
  // As kvm_cpuid2, of which C++ miscounts the header for the kernel's way to have an array in C.
  struct {
    std::uint32_t nent = 256, padding = 0;
    kvm_cpuid_entry2 entries[260];
  } cpuid;
  must(::ioctl(vm.kvm, _IOWR(KVMIO, 0x05, std::uint64_t), &cpuid), "KVM_GET_SUPPORTED_CPUID");
  for (const auto& leaf : leaves) cpuid.entries[cpuid.nent++] = leaf;
  must(::ioctl(vm.vcpu, _IOW(KVMIO, 0x90, std::uint64_t), &cpuid), "KVM_SET_CPUID2");
  auto* const elf =
      map<Elf64_Ehdr>(ram_size, MAP_PRIVATE, must(::open(path, O_RDONLY | O_CLOEXEC), path));
  const auto* const image = reinterpret_cast<const std::byte*>(elf);
  for (Elf64_Off i = 0; i < elf->e_phnum; ++i) {
    const auto& part = reinterpret_cast<const Elf64_Phdr*>(image + elf->e_phoff)[i];
    std::byte* const to = vm.at(part.p_paddr, part.p_filesz);
    if (part.p_type == PT_LOAD && to) std::memcpy(to, image + part.p_offset, part.p_filesz);
  }
  auto* const tables = vm.at<std::uint64_t>(page, 6 * page);
  tables[0] = 2 * page + 3;
  for (std::uint64_t i = 0; i < 4 * 512; ++i) {
    tables[512 + i / 512] = (3 + i / 512) * page + 3, tables[1024 + i] = i << 21 | 0x83;
  }
  kvm_sregs sregs{};
  TRY(vm.vcpu, KVM_GET_SREGS, &sregs);
  sregs.cs = {.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
  sregs.cr0 = 0x80050033, sregs.cr3 = page, sregs.cr4 = 0x20, sregs.efer = 0x500;  // paging, long
  TRY(vm.vcpu, KVM_SET_SREGS, &sregs);
  kvm_regs regs{.rdx = timers, .rsi = 1, .rdi = 0, .rip = elf->e_entry, .rflags = 2};
  TRY(vm.vcpu, KVM_SET_REGS, &regs);
}

// What the guest calls to have a timer, as far as this one needs it.
GuestResult set_up(Vm& vm, Timer& timer, const xen_abi::Hypercall& call) {
  if (call.cpl != 0) return Errno::perm;
  std::uint32_t arg[6] = {};
  auto* const bytes = reinterpret_cast<std::byte*>(arg);
  const std::uint64_t gva = call.params[call.number == xen_abi::hypercall::vcpu_op ? 2 : 1];
  const std::size_t size = call.number == xen_abi::hypercall::memory_op ? 24 : 8;
  if (!vm.copy(gva, bytes, size, false)) return Errno::fault;
  kvm_xen_hvm_attr shared_info{.type = KVM_XEN_ATTR_TYPE_SHARED_INFO};
  kvm_xen_vcpu_attr attr{.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO};
  int result = -1;
  if (call.number == xen_abi::hypercall::memory_op) {  // add_to_physmap: word 4 is the frame
    shared_info.u.shared_info.gfn = arg[4];
    result = ::ioctl(vm.fd, KVM_XEN_HVM_SET_ATTR, &shared_info);
  } else if (call.number == xen_abi::hypercall::vcpu_op) {  // register_vcpu_info: frame, offset 0
    attr.u.gpa = arg[0] * page;
    result = ::ioctl(vm.vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
  } else if (call.number == xen_abi::hypercall::hvm_op) {  // set_evtchn_upcall_vector
    attr.type = KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR, attr.u.vector = arg[1] & 0xff;
    result = ::ioctl(vm.vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
  } else if (call.number == xen_abi::hypercall::event_channel_op) {  // bind_virq; back: the port
    arg[2] = timer_port.value;
    result = vm.copy(gva, bytes, 12, true) && timer.bind(vcpu_id, timer_port) ? 0 : -1;
  }
  return result < 0 ? Errno::inval : GuestResult::ok();
}

void run_vcpu(Vm& vm, Timer& timer) {
  for (std::uint32_t port = 0, value = 0; port != 0x508;) {  // where the guest writes to end
    while (::ioctl(vm.vcpu, KVM_RUN, 0) < 0) must(errno == EINTR ? 0 : -1, "KVM_RUN");
    if (vm.run->exit_reason == KVM_EXIT_XEN) {
      auto& made = vm.run->xen.u.hcall;
      xen_abi::Hypercall call{made.input, {}, made.longmode != 0, std::uint8_t(made.cpl)};
      std::copy_n(made.params, 6, call.params.begin());
      const auto answer = timer.handle(vcpu_id, call);  // nullopt: none of a timer's
      if (answer) ++vm.served;  // answer->host is an error that the host had; the guest's is told
      made.result = (answer ? answer->guest : set_up(vm, timer, call)).rax();
    } else {
      must(vm.run->exit_reason == KVM_EXIT_IO ? 0 : -1, "an exit this guest has no reason for");
      port = vm.run->io.port;
      const auto* data = reinterpret_cast<const std::byte*>(vm.run) + vm.run->io.data_offset;
      std::memcpy(&value, data, vm.run->io.size);
      if (port == 0x500) std::fputc(static_cast<int>(value), stderr);
      if (port == 0x504) vm.report = value;
    }
  }
  ::eventfd_write(vm.ended, 1);
}

int main(int argc, char** argv) {
  if (argc != 2) return std::fputs("usage: epoll_vmm GUEST\n", stderr), 2;
  static Vm vm;
  boot(vm, argv[1]);
  auto backend = xen_timer::TimerfdBackend::create(1);
  if (!backend) return std::puts(backend.error().message().c_str()), 1;
  Timer timer(vm, backend.value());
  const int epoll = must(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
  for (const int fd : {backend.value().fd(), vm.ended}) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    must(::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
  }
  std::thread vcpu(run_vcpu, std::ref(vm), std::ref(timer));
  epoll_event event{};
  while (::epoll_wait(epoll, &event, 1, 60000) > 0 && event.data.fd != vm.ended)
    (void)timer.expire();  // an error is the host's
  must(event.data.fd == vm.ended ? 0 : -1, "the guest hangs");
  vcpu.join();
  auto* const report = vm.at<Report>(vm.report, sizeof(Report));
  std::sort(report->lateness, report->lateness + timers);
  std::printf(
      "epoll_vmm: %u timer calls served, %u of %u fired; the earliest %td ns late, p50 %td\n",
      vm.served, report->fired, timers, report->lateness[0], report->lateness[timers / 2]);
  return report->fired != timers || vm.served != timers + 1 || report->lateness[0] < 0;
}
