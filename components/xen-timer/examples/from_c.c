// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The same in C: three callbacks, and a VMM has Xen's timers.
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <xen_timer.h>

struct my_vmm {
  unsigned char ram[4096];
  int events;
};

static int copy_from_guest(void* context, uint32_t vcpu, uint64_t gva, void* to, size_t size) {
  const struct my_vmm* vmm = context;
  (void)vcpu;
  if (gva > sizeof(vmm->ram) || size > sizeof(vmm->ram) - gva) return -EFAULT;
  memcpy(to, vmm->ram + gva, size);
  return 0;
}
static uint64_t guest_now(void* context, uint32_t vcpu) {
  struct timespec now;
  (void)context, (void)vcpu;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}
static int raise_event(void* context, uint32_t vcpu, uint32_t port) {
  struct my_vmm* vmm = context;
  printf("vCPU %u: event %d on port %u\n", vcpu, ++vmm->events, port);
  return 0;
}

static int fail(const struct xen_timer_error* error) {
  fprintf(stderr, "%s(0x%llx): %s\n", error->operation, (unsigned long long)error->operand,
          strerror(error->code));
  return 1;
}

int main(void) {
  static struct my_vmm vmm;
  const struct xen_timer_callbacks calls = {.size = sizeof(calls),
                                            .context = &vmm,
                                            .copy_from_guest = copy_from_guest,
                                            .guest_now = guest_now,
                                            .raise_event = raise_event};
  struct xen_timer_error error;
  struct xen_timer_handler* timer;
  if (xen_timer_create(&calls, XEN_TIMER_TIMERFD, 1, &timer, &error) < 0) return fail(&error);
  // The guest bound VIRQ_TIMER to port 3.
  if (xen_timer_bind(timer, 0, 3, &error) < 0) return fail(&error);

  // A hypercall has come out of KVM_RUN: set_timer_op, 1 ms from now.
  const struct xen_timer_hypercall call = {
      .number = 15, .params = {guest_now(&vmm, 0) + 1000000}, .long_mode = 1};
  struct xen_timer_answer answer;
  if (xen_timer_handle(timer, 0, &call, &answer, &error) < 0) return fail(&error);
  if (!answer.handled || answer.rax != 0) return 1;  // not handled: not a timer's call

  struct pollfd wake = {.fd = xen_timer_fd(timer, NULL), .events = POLLIN};
  while (vmm.events == 0) {
    if (poll(&wake, 1, -1) < 0) return 1;
    if (xen_timer_expire(timer, &error) < 0) return fail(&error);
  }
  xen_timer_destroy(timer);
  return 0;
}
