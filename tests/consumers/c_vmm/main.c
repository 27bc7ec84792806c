// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// c_vmm GUEST: runs the timer guest in C, on KVM's ioctls and libxen_timer.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <xen_timer.h>
enum { page_size = 4096, ram_size = 64 << 20, page_tables = 0x1000, timers = 1000 };
enum { port_text = 0x500, port_report = 0x504, port_done = 0x508, timeout_ms = 60000 };
enum { memory_op = 12, vcpu_op = 24, event_channel_op = 32, hvm_op = 34 };  // Xen's numbers
enum { xen_leaf = 0x40000100, hypercall_msr = 0x40000000, timer_port = 1 };

struct report {
  uint32_t magic, armed, refused, fired, unasked, xen_vcpu_id;
  int64_t lateness[4096];
};
struct vm {
  int fd, vcpu, ended;  // ended: an eventfd
  uint8_t* ram;
  struct kvm_run* run;
  struct xen_timer_handler* timer;
  uint32_t report, served;  // guest physical; timer calls
};

// MUST ends the program; TRY, for what a guest can bring about, is 0 or a negative errno.
#define MUST(fd, request, argument) must(ioctl(fd, request, argument), #request)
#define TRY(fd, request, argument) (ioctl(fd, request, argument) < 0 ? -errno : 0)
static int must(int result, const char* what) {
  if (result >= 0) return result;
  fprintf(stderr, "c_vmm: %s: %s\n", what, strerror(errno));
  exit(1);
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

// --- callbacks; the one vCPU is 0 to KVM, to Xen and to its APIC ---
static int copy_from_guest(void* vm, uint32_t vcpu, uint64_t gva, void* to, size_t size) {
  return copy(vm, gva, to, size, 0);
}
// Also the guest's own clock, as long as its TSC isn't scaled.
static uint64_t guest_now(void* vm, uint32_t vcpu) {
  struct kvm_clock_data data = {0};
  MUST(((struct vm*)vm)->fd, KVM_GET_CLOCK, &data);
  return data.clock;
}
static int raise_event(void* vm, uint32_t vcpu, uint32_t port) {
  struct kvm_irq_routing_xen_evtchn event = {port, vcpu, KVM_IRQ_ROUTING_XEN_EVTCHN_PRIO_2LEVEL};
  return TRY(((struct vm*)vm)->fd, KVM_XEN_HVM_EVTCHN_SEND, &event);
}

// What the guest calls to have a timer: of each hypercall the one command that it knows.
static int other_hypercall(struct vm* vm, const struct xen_timer_hypercall* call) {
  struct kvm_xen_vcpu_attr attr = {.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO};
  struct kvm_xen_hvm_attr shared_info = {.type = KVM_XEN_ATTR_TYPE_SHARED_INFO};
  const uint64_t gva = call->params[call->number == vcpu_op ? 2 : 1];
  uint32_t arg[6];
  if (call->cpl != 0) return -EPERM;
  if (copy(vm, gva, arg, call->number == memory_op ? 24 : 8, 0) != 0) return -EFAULT;
  switch (call->number) {
    case memory_op:  // add_to_physmap of shared_info: word 4 is the frame
      shared_info.u.shared_info.gfn = arg[4];
      return TRY(vm->fd, KVM_XEN_HVM_SET_ATTR, &shared_info);
    case vcpu_op:  // register_vcpu_info: frame; the offset is 0
      attr.u.gpa = (uint64_t)arg[0] * page_size;
      return TRY(vm->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
    case hvm_op:  // set_evtchn_upcall_vector: vCPU, vector
      attr.type = KVM_XEN_VCPU_ATTR_TYPE_UPCALL_VECTOR;
      attr.u.vector = (uint8_t)arg[1];
      return TRY(vm->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
    case event_channel_op:  // bind_virq: VIRQ, vCPU; back: the port
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
  memcpy(call.params, made->params, sizeof(call.params));
  xen_timer_handle(vm->timer, 0, &call, &answer, NULL);  // an error is the host's
  vm->served += answer.handled;
  made->result = answer.handled ? answer.rax : (__u64)other_hypercall(vm, &call);
}
static void* run_vcpu(void* context) {
  struct vm* vm = context;
  const struct kvm_run* run = vm->run;
  for (uint32_t port = 0, value = 0; port != port_done;) {
    while (ioctl(vm->vcpu, KVM_RUN, NULL) < 0) must(errno == EINTR ? 0 : -1, "KVM_RUN");
    if (run->exit_reason == KVM_EXIT_XEN) on_hypercall(vm);
    if (run->exit_reason == KVM_EXIT_XEN) continue;
    must(run->exit_reason == KVM_EXIT_IO ? 0 : -1, "an exit other than hypercalls and ports");
    port = run->io.port;
    memcpy(&value, (const uint8_t*)run + run->io.data_offset, run->io.size);
    if (port == port_text) fputc((int)value, stderr);
    if (port == port_report && ram_at(vm, value, sizeof(struct report))) vm->report = value;
  }
  eventfd_write(vm->ended, 1);
  return NULL;
}

static void create_vm(struct vm* vm, const char* path) {
  // Beside KVM's own CPUID leaves: Xen, its hypercall MSR, vCPU id 0.
  static const struct kvm_cpuid_entry2 leaves[] = {
      {xen_leaf, .eax = xen_leaf + 4, .ebx = 0x566e6558, .ecx = 0x65584d4d, .edx = 0x4d4d566e},
      {xen_leaf + 2, .eax = 1, .ebx = hypercall_msr},
      {xen_leaf + 4, .eax = 1 << 3 | 1 << 6, .ebx = 0}};
  const int kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "/dev/kvm");
  vm->fd = MUST(kvm, KVM_CREATE_VM, 0);
  MUST(vm->fd, KVM_CREATE_IRQCHIP, 0);
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
  vm->ended = must(eventfd(0, EFD_CLOEXEC), "eventfd");
  // The guest, in 64-bit mode with 4 GiB mapped to themselves.
  const int file = must(open(path, O_RDONLY | O_CLOEXEC), path);
  const uint8_t* image = map(ram_size, MAP_PRIVATE, file);
  const Elf64_Ehdr* elf = (const Elf64_Ehdr*)image;
  const Elf64_Phdr* part = (const Elf64_Phdr*)(image + elf->e_phoff);
  for (const Elf64_Phdr* end = part + elf->e_phnum; part != end; ++part) {
    void* to = ram_at(vm, part->p_paddr, part->p_filesz);
    if (part->p_type == PT_LOAD && to) memcpy(to, image + part->p_offset, part->p_filesz);
  }
  uint64_t* tables = ram_at(vm, page_tables, 6 * page_size);
  tables[0] = page_tables + page_size + 3;
  for (uint64_t i = 0; i < 4 * 512; ++i) {
    tables[512 + i / 512] = page_tables + (2 + i / 512) * page_size + 3;
    tables[1024 + i] = i << 21 | 0x83;
  }
  struct kvm_sregs sregs;
  MUST(vm->vcpu, KVM_GET_SREGS, &sregs);
  sregs.cs = (struct kvm_segment){0, ~0u, 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
  sregs.cr0 = 0x80050033, sregs.cr3 = page_tables, sregs.cr4 = 0x20, sregs.efer = 0x500;
  MUST(vm->vcpu, KVM_SET_SREGS, &sregs);
  struct kvm_regs regs = {.rip = elf->e_entry, .rflags = 2, .rdi = 0, .rsi = 1, .rdx = timers};
  MUST(vm->vcpu, KVM_SET_REGS, &regs);
}

int main(int argc, char** argv) {
  if (argc != 2) return fputs("usage: c_vmm GUEST\n", stderr), 2;
  static struct vm vm;
  create_vm(&vm, argv[1]);
  const struct xen_timer_callbacks calls = {
      sizeof(calls), &vm, copy_from_guest, guest_now, raise_event, NULL, NULL, NULL};
  must(xen_timer_create(&calls, XEN_TIMER_TIMERFD, 1, &vm.timer, NULL), "xen_timer_create");
  pthread_t thread;
  must(-(errno = pthread_create(&thread, NULL, run_vcpu, &vm)), "pthread_create");
  struct pollfd wait[] = {{xen_timer_fd(vm.timer, NULL), POLLIN, 0}, {vm.ended, POLLIN, 0}};
  while (wait[1].revents == 0 && poll(wait, 2, timeout_ms) > 0)
    xen_timer_expire(vm.timer, NULL);  // an error is the host's
  must(wait[1].revents == 0 ? -1 : 0, "the guest hangs");
  pthread_join(thread, NULL);
  xen_timer_destroy(vm.timer);
  struct report* r = ram_at(&vm, vm.report, sizeof(*r));
  unsigned early = 0;
  for (int i = 0; i < timers; ++i) early += r->lateness[i] < 0;
  printf("c_vmm: %u timer calls served, %u of %u fired, %u early\n", vm.served, r->fired, timers,
         early);
  return r->fired != timers || vm.served != timers + 1 || early != 0;
}
