// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// c_vmm GUEST [timerfd|irqfd|delegated|spinning]: a VMM in C on nothing but KVM's ioctls and
// libxen_timer. Runs tests/guests/timer_guest.cpp as a Xen guest with one vCPU, on Linux 5.19 or
// later with KVM_XEN, and tells how its timers fared. What libxen_timer asks is below "callbacks";
// how it is called, at xen_timer_. Ports and report:
// vmm-reference/include/vmm_reference/guest_protocol.hpp.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include <xen_timer.h>

enum { page_size = 4096, ram_size = 64 << 20, page_tables = 0x1000, timers = 1000 };
enum { port_text = 0x500, port_report = 0x504, port_done = 0x508, timeout_ms = 60000 };
enum { memory_op = 12, vcpu_op = 24, event_channel_op = 32, hvm_op = 34 };  // Xen's numbers
enum { xen_leaf = 0x40000100, hypercall_msr = 0x40000000, timer_port = 1, timer_gsi = 24 };
static const uint32_t two_level = KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL;

struct pvclock {  // at byte 0x20 of Xen's vcpu_info
  uint32_t version, pad;
  uint64_t tsc_timestamp, system_time;
  uint32_t mul;
  int8_t shift;
  uint8_t flags, pad1[2];
};
struct report {
  uint32_t magic, armed, refused, fired, unasked, xen_vcpu_id;
  int64_t lateness[4096];
};
struct vm {
  int fd, vcpu, ended;  // ended: an eventfd
  uint8_t* ram;
  struct kvm_run* run;
  struct xen_timer_handler* timer;
  const volatile struct pvclock* _Atomic clock;  // in guest memory; NULL at first
  uint64_t tsc_add, report;                      // what to add to the host's TSC; guest physical
  unsigned served, spins;                        // timer calls; whether the vCPU's thread expires
};

// MUST ends the program; TRY, for what a guest can bring about, is 0 or a negative errno.
#define MUST(fd, request, argument) must(ioctl(fd, request, argument), #request)
#define TRY(fd, request, argument) (ioctl(fd, request, argument) < 0 ? -errno : 0)
static int must(int result, const char* what) {
  if (result >= 0) return result;
  fprintf(stderr, "c_vmm: %s: %s\n", what, strerror(errno));
  exit(1);
}
// Some a guest can bring about: a VMM with others to serve would say so once, and go on.
static void check(int result, const struct xen_timer_error* error) {
  if (result < 0) errno = error->code, must(result, error->operation);
}

static void* map(size_t size, int flags, int fd) {
  void* at = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  return must(at == MAP_FAILED ? -1 : 0, "mmap"), at;
}
static void* ram_at(struct vm* vm, uint64_t gpa, uint64_t size) {
  return gpa <= ram_size && size <= ram_size - gpa ? vm->ram + gpa : NULL;
}
// At a virtual address, on the vCPU's thread; a page at a time, for each may lie elsewhere.
static int copy(struct vm* vm, uint64_t gva, void* data, size_t size, int to_guest) {
  for (size_t part; size > 0; gva += part, data = (char*)data + part, size -= part) {
    struct kvm_translation page = {.linear_address = gva};
    part = page_size - gva % page_size < size ? page_size - gva % page_size : size;
    if (TRY(vm->vcpu, KVM_TRANSLATE, &page) != 0 || !page.valid) return -EFAULT;
    void* ram = ram_at(vm, page.physical_address, part);
    if (ram == NULL) return -EFAULT;
    memcpy(to_guest ? ram : data, to_guest ? data : ram, part);
  }
  return 0;
}

// --- callbacks; there is one vCPU, which is 0 to KVM, to Xen and to its APIC ---
static int copy_from_guest(void* vm, uint32_t vcpu, uint64_t gva, void* to, size_t size) {
  return copy(vm, gva, to, size, 0);
}
// As the guest reckons it; by the VM's clock where that isn't good on every CPU (flag 1).
static uint64_t guest_now(void* context, uint32_t vcpu) {
  struct vm* vm = context;
  const volatile struct pvclock* clock = vm->clock;
  for (int tries = 0; clock != NULL && tries < 16; ++tries) {  // the guest may scribble on it
    const uint32_t version = __atomic_load_n(&clock->version, __ATOMIC_ACQUIRE);
    const struct pvclock now = *clock;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    if (version == 0 || version % 2 != 0 || version != clock->version) continue;
    if ((now.flags & 1) == 0) break;
    uint64_t ticks = __builtin_ia32_rdtsc() + vm->tsc_add - now.tsc_timestamp;
    ticks = now.shift < 0 ? ticks >> (-now.shift & 63) : ticks << (now.shift & 63);
    return now.system_time + (uint64_t)((__extension__(unsigned __int128) ticks * now.mul) >> 32);
  }
  struct kvm_clock_data data = {0};
  MUST(vm->fd, KVM_GET_CLOCK, &data);
  return data.clock;
}
static int raise_event(void* vm, uint32_t vcpu, uint32_t port) {
  struct kvm_irq_routing_xen_evtchn event = {port, vcpu, two_level};
  return TRY(((struct vm*)vm)->fd, KVM_XEN_HVM_EVTCHN_SEND, &event);
}
static int set_timer(void* vm, uint32_t vcpu, uint32_t port, uint64_t expires) {
  struct kvm_xen_vcpu_attr attr = {.type = KVM_XEN_VCPU_ATTR_TYPE_TIMER,
                                   .u.timer = {port, two_level, expires}};
  return TRY(((struct vm*)vm)->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
}
static int get_timer(void* vm, uint32_t vcpu, uint64_t* expires) {
  struct kvm_xen_vcpu_attr attr = {.type = KVM_XEN_VCPU_ATTR_TYPE_TIMER};
  const int result = TRY(((struct vm*)vm)->vcpu, KVM_XEN_VCPU_GET_ATTR, &attr);
  *expires = attr.u.timer.expires_ns;
  return result;
}
// Our route is KVM's whole table: the kernel has no IOAPIC here. DEASSIGN waits for what is due.
static int route_event(void* context, uint32_t vcpu, uint32_t port, int eventfd) {
  struct vm* vm = context;
  struct kvm_irqfd irqfd = {.fd = (uint32_t)eventfd, .gsi = timer_gsi};
  if (port == 0) return irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN, TRY(vm->fd, KVM_IRQFD, &irqfd);
  struct kvm_irq_routing* table = calloc(1, sizeof(*table) + sizeof(table->entries[0]));
  if (table == NULL) return -ENOMEM;
  table->nr = 1;
  table->entries[0] = (struct kvm_irq_routing_entry){timer_gsi, KVM_IRQ_ROUTING_XEN_EVTCHN,
                                                     .u.xen_evtchn = {port, vcpu, two_level}};
  const int routed = TRY(vm->fd, KVM_SET_GSI_ROUTING, table);
  free(table);
  const int added = routed == 0 ? TRY(vm->fd, KVM_IRQFD, &irqfd) : routed;
  return added == -EBUSY ? 0 : added;  // it is one since the last time
}

// --- the vCPU ---
#define CALL(number, command) ((uint64_t)(number) << 32 | (command))
// What the guest calls to have a timer, as far as this guest needs it.
static int other_hypercall(struct vm* vm, const struct xen_timer_hypercall* call) {
  if (call->cpl != 0 || !call->long_mode) return -EPERM;
  if (call->number >> 32 != 0) return -ENOSYS;
  struct kvm_xen_vcpu_attr attr = {.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO};
  struct kvm_xen_hvm_attr shared_info = {.type = KVM_XEN_ATTR_TYPE_SHARED_INFO};
  const uint64_t gva = call->params[call->number == vcpu_op ? 2 : 1];
  uint32_t arg[6];
  switch (CALL(call->number, (uint32_t)call->params[0])) {
    case CALL(memory_op, 7):  // add_to_physmap: domid and size, space, index (64), gfn (64 bits)
      if (copy(vm, gva, arg, 24, 0) != 0) return -EFAULT;
      if (arg[1] != 0 || arg[5] != 0 || arg[4] >= ram_size / page_size) return -EINVAL;
      memset(vm->ram + (size_t)arg[4] * page_size, 0, page_size);
      shared_info.u.shared_info.gfn = arg[4];
      return TRY(vm->fd, KVM_XEN_HVM_SET_ATTR, &shared_info);
    case CALL(vcpu_op, 10):  // register_vcpu_info: gfn (64 bits), offset
      if (copy(vm, gva, arg, 16, 0) != 0) return -EFAULT;
      attr.u.gpa = (uint64_t)arg[0] * page_size + arg[2];
      if (arg[1] != 0 || arg[2] % 8 != 0 || !ram_at(vm, attr.u.gpa, 64)) return -EINVAL;
      vm->clock = (volatile struct pvclock*)(vm->ram + attr.u.gpa + 0x20);
      return TRY(vm->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
    case CALL(hvm_op, 23):  // set_evtchn_upcall_vector: vCPU, vector
      if (copy(vm, gva, arg, 8, 0) != 0) return -EFAULT;
      attr.type = KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR;
      attr.u.vector = (uint8_t)arg[1];
      return arg[0] != 0 ? -EINVAL : TRY(vm->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
    case CALL(event_channel_op, 1):  // bind_virq: VIRQ (the timer's is 0), vCPU; back: port
      if (copy(vm, gva, arg, 8, 0) != 0) return -EFAULT;
      if (arg[0] != 0 || arg[1] != 0) return -EINVAL;
      arg[2] = timer_port;
      if (copy(vm, gva, arg, 12, 1) != 0) return -EFAULT;
      return xen_timer_bind(vm->timer, 0, timer_port, NULL);
    default:
      return -ENOSYS;
  }
}
static void on_hypercall(struct vm* vm) {
  __typeof__(vm->run->xen.u.hcall)* made = &vm->run->xen.u.hcall;
  struct xen_timer_hypercall call = {made->input, {0}, made->longmode, made->cpl};
  struct xen_timer_answer answer;
  struct xen_timer_error error;
  memcpy(call.params, made->params, sizeof(call.params));
  check(xen_timer_handle(vm->timer, 0, &call, &answer, &error), &error);
  vm->served += answer.handled;
  made->result = answer.handled ? answer.rax : (__u64)other_hypercall(vm, &call);
}
// The vCPU's timer is about to expire: not into KVM_RUN, or out of it.
static void interrupt(int signal, siginfo_t* info, void* context) {
  (void)signal, (void)context;
  if (info->si_code == SI_TIMER) ((struct kvm_run*)info->si_value.sival_ptr)->immediate_exit = 1;
}
static void* run_vcpu(void* context) {
  struct vm* vm = context;
  struct kvm_run* run = vm->run;
  struct xen_timer_error error;
  check(xen_timer_attach(vm->timer, 0, SIGUSR1, run, &error), &error);
  for (uint32_t port = 0, value = 0; port != port_done;) {
    while (ioctl(vm->vcpu, KVM_RUN, NULL) < 0) {
      must(errno == EINTR ? 0 : -1, "KVM_RUN");
      run->immediate_exit = 0;  // what is signalled from here on sets it again
      if (vm->spins) check(xen_timer_expire_vcpu(vm->timer, 0, &error), &error);
    }
    if (run->exit_reason == KVM_EXIT_XEN) on_hypercall(vm);
    if (run->exit_reason == KVM_EXIT_XEN) continue;
    errno = EPROTO;
    must(run->exit_reason == KVM_EXIT_IO ? 0 : -1, "an exit other than hypercalls and ports");
    port = run->io.port;
    memcpy(&value, (const uint8_t*)run + run->io.data_offset, run->io.size);
    if (port == port_text) fputc((int)value, stderr);
    if (port == port_report && ram_at(vm, value, sizeof(struct report))) vm->report = value;
  }
  eventfd_write(vm->ended, 1);
  return NULL;
}

// --- the machine ---
static void create_vm(struct vm* vm) {
  // Beside KVM's own CPUID leaves: Xen 4.17, its hypercall MSR, vCPU id 0, upcall vectors.
  static const struct kvm_cpuid_entry2 leaves[] = {
      {xen_leaf, .eax = xen_leaf + 4, .ebx = 0x566e6558, .ecx = 0x65584d4d, .edx = 0x4d4d566e},
      {xen_leaf + 1, .eax = 4 << 16 | 17},
      {xen_leaf + 2, .eax = 1, .ebx = hypercall_msr},
      {xen_leaf + 4, .eax = 1 << 3 | 1 << 6, .ebx = 0}};
  const int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  vm->fd = MUST(kvm, KVM_CREATE_VM, 0);
  // The local APIC is the kernel's; a PIC and an IOAPIC, where a guest needs them, are ours.
  struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {timer_gsi}};
  MUST(vm->fd, KVM_ENABLE_CAP, &split);
  struct kvm_xen_hvm_config xen = {.msr = hypercall_msr};  // needs CONFIG_KVM_XEN, Linux 5.19
  xen.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | KVM_XEN_HVM_CONFIG_EVTCHN_SEND;
  MUST(vm->fd, KVM_XEN_HVM_CONFIG, &xen);
  vm->ram = map(ram_size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  struct kvm_userspace_memory_region ram = {0, 0, 0, ram_size, (uintptr_t)vm->ram};
  MUST(vm->fd, KVM_SET_USER_MEMORY_REGION, &ram);
  vm->vcpu = MUST(vm->fd, KVM_CREATE_VCPU, 0);
  struct kvm_cpuid2* cpuid = map(16 * page_size, MAP_PRIVATE | MAP_ANONYMOUS, -1);
  cpuid->nent = 256;
  MUST(kvm, KVM_GET_SUPPORTED_CPUID, cpuid);
  memcpy(&cpuid->entries[cpuid->nent], leaves, sizeof(leaves));
  cpuid->nent += sizeof(leaves) / sizeof(leaves[0]);
  MUST(vm->vcpu, KVM_SET_CPUID2, cpuid);
  vm->run = map((size_t)MUST(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), MAP_SHARED, vm->vcpu);
  // A guest that writes its TSC changes this; then read it again, on the vCPU's thread.
  struct kvm_device_attr tsc = {0, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, (uintptr_t)&vm->tsc_add};
  MUST(vm->vcpu, KVM_GET_DEVICE_ATTR, &tsc);
  vm->ended = must(eventfd(0, EFD_CLOEXEC), "eventfd");
}
static uint64_t load(struct vm* vm, const char* path) {
  const int fd = must(open(path, O_RDONLY | O_CLOEXEC), path);
  Elf64_Ehdr elf = {.e_phnum = 0};
  Elf64_Phdr part;
  must((int)pread(fd, &elf, sizeof(elf), 0), path);
  for (size_t i = 0; i < elf.e_phnum; ++i) {
    must((int)pread(fd, &part, sizeof(part), (off_t)(elf.e_phoff + i * sizeof(part))), path);
    void* to = ram_at(vm, part.p_paddr, part.p_filesz);
    if (part.p_type == PT_LOAD) must((int)pread(fd, to, part.p_filesz, (off_t)part.p_offset), path);
  }
  close(fd);
  return elf.e_entry;
}
// 64-bit code, 4 GiB mapped to themselves, and in RDI, RSI, RDX what the guest wants to know.
static void set_registers(struct vm* vm, uint64_t entry) {
  uint64_t* tables = ram_at(vm, page_tables, 6 * page_size);
  tables[0] = page_tables + page_size + 3;
  for (uint64_t i = 0; i < 4; ++i) tables[512 + i] = page_tables + (2 + i) * page_size + 3;
  for (uint64_t i = 0; i < 4 * 512; ++i) tables[1024 + i] = i << 21 | 0x83;
  struct kvm_sregs sregs;
  MUST(vm->vcpu, KVM_GET_SREGS, &sregs);
  sregs.cs = (struct kvm_segment){0, ~0u, 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
  sregs.cr0 = 0x80050033, sregs.cr3 = page_tables;  // PG AM WP NE ET MP PE
  sregs.cr4 = 0x20, sregs.efer = 0x500;             // PAE; LMA LME
  MUST(vm->vcpu, KVM_SET_SREGS, &sregs);
  struct kvm_regs regs = {.rip = entry, .rflags = 2, .rdi = 0, .rsi = 1, .rdx = timers};
  MUST(vm->vcpu, KVM_SET_REGS, &regs);
}

// --- the result ---
static int compare(const void* a, const void* b) {
  return *(const int64_t*)a < *(const int64_t*)b ? -1 : *(const int64_t*)a > *(const int64_t*)b;
}
// 0 if each timer came, and none early.
static int print_result(struct vm* vm) {
  struct report* r = ram_at(vm, vm->report, sizeof(*r));
  uint32_t early = 0, lost = r->armed - r->refused - (r->fired - r->unasked);
  for (int i = 0; i < timers; ++i) early += r->lateness[i] < 0;
  qsort(r->lateness, timers, sizeof(r->lateness[0]), compare);
  printf("%u timer calls served, %u armed, %u lost, %u early, p50 %.1f us late\n", vm->served,
         r->armed, lost, early, (double)r->lateness[timers / 2] / 1000);
  return r->fired != timers || vm->served != timers + 1 || lost != 0 || early != 0;
}

int main(int argc, char** argv) {
  if (argc < 2) return fputs("usage: c_vmm GUEST [timerfd|irqfd|delegated|spinning]\n", stderr), 2;
  // In the order of xen_timer.h.
  static const char* const names[] = {"", "timerfd", "irqfd", "delegated", "-", "spinning"};
  uint32_t back_end = argc > 2 ? XEN_TIMER_SPINNING : XEN_TIMER_TIMERFD;
  while (argc > 2 && back_end > 0 && strcmp(argv[2], names[back_end]) != 0) --back_end;
  static struct vm vm;
  vm.spins = back_end == XEN_TIMER_SPINNING;
  struct sigaction action = {.sa_sigaction = interrupt, .sa_flags = SA_SIGINFO | SA_RESTART};
  must(sigaction(SIGUSR1, &action, NULL), "sigaction");
  create_vm(&vm);
  set_registers(&vm, load(&vm, argv[1]));
  const struct xen_timer_callbacks calls = {sizeof(calls), &vm,       copy_from_guest, guest_now,
                                            raise_event,   set_timer, get_timer,       route_event};
  struct xen_timer_error error;
  check(xen_timer_create(&calls, back_end, 1, &vm.timer, &error), &error);
  pthread_t thread;
  errno = pthread_create(&thread, NULL, run_vcpu, &vm);
  must(-errno, "pthread_create");
  struct pollfd wait[] = {{xen_timer_fd(vm.timer, NULL), POLLIN, 0}, {vm.ended, POLLIN, 0}};
  while (wait[1].revents == 0 && poll(wait, 2, timeout_ms) > 0)
    check(xen_timer_expire(vm.timer, &error), &error);
  if (wait[1].revents == 0) return print_result(&vm), 1;  // The guest hangs.
  pthread_join(thread, NULL);
  xen_timer_destroy(vm.timer);
  return print_result(&vm);
}
