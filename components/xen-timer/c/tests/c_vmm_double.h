// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VMM whose clock, memory and failures a test sets, for tests of xen_timer.h in C; a test is a
// function that main() runs by RUN().
#ifndef XEN_TIMER_TESTS_C_VMM_H
#define XEN_TIMER_TESTS_C_VMM_H

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <xen_timer.h>

static const char* test;
static int failures;

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      ++failures;                                                              \
      printf("%s, %s:%d: not so: %s\n", test, __FILE__, __LINE__, #condition); \
    }                                                                          \
  } while (0)

enum { vcpus = 2, gva = 0x1000, port = 10, vcpu_op = 24, set_timer_op = 15 };
enum { set_periodic = 6, stop_periodic, set_singleshot, stop_singleshot };

static struct vmm {
  uint64_t clock, argument, expires;
  uint32_t event_vcpu, event_port, routed_port;
  unsigned events, kernel_calls;
  int eventfd;
  int raise_result, kernel_result;  // what raise_event and the kernel's callbacks return
} vmm;

static int copy_from_guest(void* context, uint32_t vcpu, uint64_t from, void* to, size_t size) {
  const struct vmm* of = context;
  (void)vcpu;
  memset(to, 0, size);
  memcpy(to, &of->argument, sizeof(of->argument));
  return from == gva ? 0 : -EFAULT;
}
static uint64_t guest_now(void* context, uint32_t vcpu) {
  (void)vcpu;
  return ((const struct vmm*)context)->clock;
}
static int raise_event(void* context, uint32_t vcpu, uint32_t to) {
  struct vmm* of = context;
  if (of->raise_result != 0) return of->raise_result;
  of->event_vcpu = vcpu;
  of->event_port = to;
  ++of->events;
  return 0;
}
static int set_timer(void* context, uint32_t vcpu, uint32_t to, uint64_t expires) {
  struct vmm* of = context;
  (void)vcpu;
  ++of->kernel_calls;
  of->routed_port = to;
  of->expires = expires;
  return of->kernel_result;
}
static int get_timer(void* context, uint32_t vcpu, uint64_t* expires) {
  const struct vmm* of = context;
  (void)vcpu;
  *expires = of->expires;
  return of->kernel_result;
}
static int route_event(void* context, uint32_t vcpu, uint32_t to, int eventfd) {
  struct vmm* of = context;
  (void)vcpu;
  ++of->kernel_calls;
  of->routed_port = to;
  of->eventfd = eventfd;
  return of->kernel_result;
}

static const struct xen_timer_callbacks all_calls = {
    sizeof(all_calls), &vmm,      copy_from_guest, guest_now,
    raise_event,       set_timer, get_timer,       route_event};

static struct xen_timer_handler* timer;
static struct xen_timer_error error;
static struct xen_timer_answer answer;

// Whether `returned` and `error` are both this error.
static inline int is_error(int returned, int code, const char* operation, uint64_t operand) {
  const int is = returned == -code && error.code == code && error.operand == operand &&
                 error.operation != NULL && strcmp(error.operation, operation) == 0;
  if (!is) {
    printf("%s: returned %d, error %s(0x%llx): %d\n", test, returned,
           error.operation != NULL ? error.operation : "NULL", (unsigned long long)error.operand,
           (int)error.code);
  }
  memset(&error, 0, sizeof(error));
  return is;
}

// A new domain at 1 s, VIRQ_TIMER of vCPU n bound to port 10 + n.
static inline void start(uint32_t back_end) {
  memset(&vmm, 0, sizeof(vmm));
  vmm.clock = 1000000000;
  CHECK(xen_timer_create(&all_calls, back_end, vcpus, &timer, &error) == 0);
  for (uint32_t vcpu = 0; vcpu < vcpus; ++vcpu) {
    CHECK(xen_timer_bind(timer, vcpu, port + vcpu, &error) == 0);
  }
}
static inline void stop(void) {
  xen_timer_destroy(timer);
  timer = NULL;
}

static inline int call(uint64_t number, uint64_t a, uint64_t b, uint64_t c) {
  const struct xen_timer_hypercall made = {number, {a, b, c, 0, 0, 0}, 1, 0};
  return xen_timer_handle(timer, 0, &made, &answer, &error);
}
// Of vCPU 0; returns what the host is told.
static inline int arm(uint64_t deadline) {
  vmm.argument = deadline;
  return call(vcpu_op, set_singleshot, 0, gva);
}
// Both clocks, and whatever is due.
static inline int pass(uint64_t ns) {
  vmm.clock += ns;
  const int readable = xen_timer_virtual_advance(timer, ns, &error);
  return readable < 0 ? readable : xen_timer_expire(timer, &error);
}
static inline uint64_t next_due(void) {
  uint64_t ns = 0;
  CHECK(xen_timer_virtual_due(timer, &ns, &error) == 0);
  return ns;
}

static inline uint64_t minus(int code) { return (uint64_t) - (int64_t)code; }

#define RUN(name) \
  do {            \
    test = #name; \
    name();       \
  } while (0)

#endif  // XEN_TIMER_TESTS_C_VMM_H
