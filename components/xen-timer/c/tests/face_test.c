// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Every function of xen_timer.h and every error it can return, in C. What the timers do in all
// other respects is tested in C++, on the same code.
#define _POSIX_C_SOURCE 200809L  // sigaction()
#include "xen_timer.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char* test;
static int failures;

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      ++failures;                                                              \
      printf("%s, %s:%d: not so: %s\n", test, __FILE__, __LINE__, #condition); \
    }                                                                          \
  } while (0)

// --- a VMM whose clock, memory and failures a test sets ---

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
static int is_error(int returned, int code, const char* operation, uint64_t operand) {
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
static void start(uint32_t back_end) {
  memset(&vmm, 0, sizeof(vmm));
  vmm.clock = 1000000000;
  CHECK(xen_timer_create(&all_calls, back_end, vcpus, &timer, &error) == 0);
  for (uint32_t vcpu = 0; vcpu < vcpus; ++vcpu) {
    CHECK(xen_timer_bind(timer, vcpu, port + vcpu, &error) == 0);
  }
}
static void stop(void) {
  xen_timer_destroy(timer);
  timer = NULL;
}

static int call(uint64_t number, uint64_t a, uint64_t b, uint64_t c) {
  const struct xen_timer_hypercall made = {number, {a, b, c, 0, 0, 0}, 1, 0};
  return xen_timer_handle(timer, 0, &made, &answer, &error);
}
// Of vCPU 0; returns what the host is told.
static int arm(uint64_t deadline) {
  vmm.argument = deadline;
  return call(vcpu_op, set_singleshot, 0, gva);
}
// Both clocks, and whatever is due.
static int pass(uint64_t ns) {
  vmm.clock += ns;
  const int readable = xen_timer_virtual_advance(timer, ns, &error);
  return readable < 0 ? readable : xen_timer_expire(timer, &error);
}
static uint64_t next_due(void) {
  uint64_t ns = 0;
  CHECK(xen_timer_virtual_due(timer, &ns, &error) == 0);
  return ns;
}

static uint64_t minus(int code) { return (uint64_t) - (int64_t)code; }

// --- the tests ---

static void version(void) {
  char text[32];
  const uint32_t v = xen_timer_version();
  snprintf(text, sizeof(text), "%u.%u.%u", v >> 16, v >> 8 & 0xff, v & 0xff);
  CHECK(strcmp(text, PROJECT_VERSION) == 0);
  snprintf(text, sizeof(text), "%d.%d.%d", XEN_TIMER_VERSION_MAJOR, XEN_TIMER_VERSION_MINOR,
           XEN_TIMER_VERSION_PATCH);
  CHECK(strcmp(text, PROJECT_VERSION) == 0);
}

static int create(const struct xen_timer_callbacks* calls, uint32_t back_end, uint32_t count) {
  timer = (struct xen_timer_handler*)&vmm;
  const int created = xen_timer_create(calls, back_end, count, &timer, &error);
  CHECK(created == 0 ? timer != NULL : timer == NULL);
  stop();
  return created;
}

static void create_refuses_what_it_cant_use(void) {
  CHECK(is_error(xen_timer_create(&all_calls, XEN_TIMER_VIRTUAL, 1, NULL, &error), EINVAL,
                 "xen_timer create: timer", 0));
  CHECK(is_error(create(NULL, XEN_TIMER_VIRTUAL, 1), EINVAL, "xen_timer create: callbacks", 0));
  CHECK(is_error(create(&all_calls, 0, 1), EINVAL, "xen_timer create: back_end", 0));
  CHECK(is_error(create(&all_calls, 6, 1), EINVAL, "xen_timer create: back_end", 6));
  CHECK(is_error(create(&all_calls, XEN_TIMER_VIRTUAL, 0), EINVAL, "xen_timer create: vcpu_count",
                 0));
  CHECK(is_error(create(&all_calls, XEN_TIMER_VIRTUAL, XEN_TIMER_MAX_VCPUS + 1), EINVAL,
                 "xen_timer create: vcpu_count", XEN_TIMER_MAX_VCPUS + 1));
  CHECK(create(&all_calls, XEN_TIMER_VIRTUAL, XEN_TIMER_MAX_VCPUS) == 0);
  CHECK(xen_timer_create(NULL, 0, 0, &timer, NULL) == -EINVAL);  // nobody wants to know why
}

static void create_refuses_callbacks_of_another_size(void) {
  struct {
    struct xen_timer_callbacks known;
    void* later[2];
  } calls = {all_calls, {NULL, NULL}};
  calls.known.size = sizeof(calls.known) - 1;
  CHECK(is_error(create(&calls.known, XEN_TIMER_VIRTUAL, 1), EINVAL,
                 "xen_timer create: callbacks.size", sizeof(calls.known) - 1));
  calls.known.size = sizeof(calls);
  CHECK(create(&calls.known, XEN_TIMER_VIRTUAL, 1) == 0);
  calls.later[1] = &vmm;
  CHECK(is_error(create(&calls.known, XEN_TIMER_VIRTUAL, 1), E2BIG,
                 "xen_timer create: callbacks.size", sizeof(calls)));
  calls.known.size = SIZE_MAX;
  CHECK(is_error(create(&calls.known, XEN_TIMER_VIRTUAL, 1), E2BIG,
                 "xen_timer create: callbacks.size", SIZE_MAX));
}

static void create_asks_for_the_callbacks_that_the_back_end_needs(void) {
  struct xen_timer_callbacks calls = all_calls;
  calls.copy_from_guest = NULL;
  CHECK(is_error(create(&calls, XEN_TIMER_VIRTUAL, 1), EINVAL, "xen_timer create: copy_from_guest",
                 0));
  calls = all_calls;
  calls.guest_now = NULL;
  CHECK(is_error(create(&calls, XEN_TIMER_TIMERFD, 1), EINVAL, "xen_timer create: guest_now", 0));
  calls = all_calls;
  calls.raise_event = NULL;
  CHECK(is_error(create(&calls, XEN_TIMER_IRQFD, 1), EINVAL, "xen_timer create: raise_event", 0));

  calls = all_calls;
  calls.set_timer = NULL;
  CHECK(is_error(create(&calls, XEN_TIMER_DELEGATED, 1), EINVAL, "xen_timer create: set_timer", 0));
  calls.set_timer = set_timer;
  calls.get_timer = NULL;
  CHECK(is_error(create(&calls, XEN_TIMER_DELEGATED, 1), EINVAL, "xen_timer create: get_timer", 0));
  calls.set_timer = NULL;
  CHECK(create(&calls, XEN_TIMER_IRQFD, 1) == 0);
  calls.route_event = NULL;
  CHECK(is_error(create(&calls, XEN_TIMER_IRQFD, 1), EINVAL, "xen_timer create: route_event", 0));
  CHECK(create(&calls, XEN_TIMER_TIMERFD, 1) == 0);
}

static void timer_is_asked_for(void) {
  const struct xen_timer_hypercall made = {set_timer_op, {0}, 1, 0};
  uint8_t state[XEN_TIMER_STATE_SIZE] = {0};
  uint64_t ns;
  timer = NULL;
  xen_timer_destroy(NULL);
  CHECK(is_error(xen_timer_handle(timer, 0, &made, &answer, &error), EINVAL,
                 "xen_timer handle: timer", 0));
  CHECK(is_error(xen_timer_bind(timer, 0, 1, &error), EINVAL, "xen_timer bind: timer", 0));
  CHECK(is_error(xen_timer_unbind(timer, 0, &error), EINVAL, "xen_timer unbind: timer", 0));
  CHECK(
      is_error(xen_timer_attach(timer, 0, 0, NULL, &error), EINVAL, "xen_timer attach: timer", 0));
  CHECK(is_error(xen_timer_fd(timer, &error), EINVAL, "xen_timer fd: timer", 0));
  CHECK(is_error(xen_timer_expire(timer, &error), EINVAL, "xen_timer expire: timer", 0));
  CHECK(
      is_error(xen_timer_expire_vcpu(timer, 0, &error), EINVAL, "xen_timer expire_vcpu: timer", 0));
  uint64_t spun;
  CHECK(is_error(xen_timer_spun(timer, &spun, &error), EINVAL, "xen_timer spun: timer", 0));
  CHECK(
      is_error(xen_timer_hand_over(timer, 0, 0, &error), EINVAL, "xen_timer hand_over: timer", 0));
  CHECK(is_error(xen_timer_pause(timer, &error), EINVAL, "xen_timer pause: timer", 0));
  CHECK(is_error(xen_timer_resume(timer, &error), EINVAL, "xen_timer resume: timer", 0));
  CHECK(is_error(xen_timer_save(timer, 0, 0, state, sizeof(state), &error), EINVAL,
                 "xen_timer save: timer", 0));
  CHECK(is_error(xen_timer_restore(timer, 0, state, sizeof(state), NULL, &error), EINVAL,
                 "xen_timer restore: timer", 0));
  CHECK(is_error(xen_timer_virtual_advance(timer, 0, &error), EINVAL,
                 "xen_timer virtual_advance: timer", 0));
  CHECK(is_error(xen_timer_virtual_due(timer, &ns, &error), EINVAL, "xen_timer virtual_due: timer",
                 0));
}

static void vcpu_is_checked(void) {
  const struct xen_timer_hypercall made = {set_timer_op, {0}, 1, 0};
  uint8_t state[XEN_TIMER_STATE_SIZE];
  start(XEN_TIMER_DELEGATED);
  CHECK(is_error(xen_timer_handle(timer, vcpus, &made, &answer, &error), EINVAL, "xen_timer handle",
                 vcpus));
  CHECK(answer.handled == 1 && answer.rax == minus(ENOENT));
  CHECK(is_error(xen_timer_bind(timer, vcpus, 1, &error), EINVAL, "xen_timer bind", vcpus));
  CHECK(is_error(xen_timer_unbind(timer, vcpus, &error), EINVAL, "xen_timer unbind", vcpus));
  CHECK(
      is_error(xen_timer_attach(timer, vcpus, 0, NULL, &error), EINVAL, "xen_timer attach", vcpus));
  CHECK(xen_timer_attach(timer, 0, 0, NULL, &error) == 0);  // nothing, of this back end
  CHECK(
      is_error(xen_timer_hand_over(timer, vcpus, 0, &error), EINVAL, "xen_timer hand_over", vcpus));
  CHECK(is_error(xen_timer_save(timer, vcpus, 0, state, sizeof(state), &error), EINVAL,
                 "xen_timer save", vcpus));
  CHECK(xen_timer_save(timer, 0, 0, state, sizeof(state), &error) == 0);
  CHECK(is_error(xen_timer_restore(timer, vcpus, state, sizeof(state), NULL, &error), EINVAL,
                 "xen_timer restore", vcpus));
  stop();
}

static void handle_answers_timer_calls_only(void) {
  start(XEN_TIMER_VIRTUAL);
  memset(&answer, 0xff, sizeof(answer));
  CHECK(call(29, 0, 0, 0) == 0 && answer.handled == 0 && answer.rax == 0);  // sched_op
  CHECK(call(vcpu_op, stop_periodic, 0, 0) == 0 && answer.handled == 1 && answer.rax == 0);
  CHECK(call(vcpu_op, stop_singleshot, 0, 0) == 0 && answer.handled == 1 && answer.rax == 0);
  CHECK(call(vcpu_op, stop_singleshot, 1, 0) == 0 && answer.rax == minus(EINVAL));
  CHECK(call(vcpu_op, set_singleshot, 0, gva + 1) == 0 && answer.rax == minus(EFAULT));
  stop();
}

static void handle_passes_every_field(void) {
  struct xen_timer_hypercall made = {set_timer_op, {2000000000, 1, 0, 0, 0, 0}, 1, 0};
  start(XEN_TIMER_VIRTUAL);
  CHECK(xen_timer_handle(timer, 1, &made, &answer, &error) == 0 && answer.rax == 0);
  CHECK(next_due() <= 1000000000);  // it looks earlier at far deadlines
  CHECK(call(set_timer_op, 0, 0, 0) == 0);
  CHECK(next_due() <= 1000000000);  // vCPU 0 has none to stop
  made.params[0] = 0;
  made.long_mode = 0;  // 2^32 ns, 3.3 s from now
  CHECK(xen_timer_handle(timer, 1, &made, &answer, &error) == 0 && answer.rax == 0);
  CHECK(pass((UINT64_C(1) << 32) - 1 - vmm.clock) == 0 && vmm.events == 0);
  CHECK(pass(1000) == 0 && vmm.events == 1 && vmm.event_vcpu == 1 && vmm.event_port == port + 1);
  made.cpl = 3;
  CHECK(xen_timer_handle(timer, 1, &made, &answer, &error) == 0 && answer.rax == minus(EPERM));
  made.cpl = 0x100;  // 0, were it cut to a byte
  CHECK(is_error(xen_timer_handle(timer, 1, &made, &answer, &error), EINVAL,
                 "xen_timer handle: cpl", 0x100));
  CHECK(answer.handled == 0);
  CHECK(is_error(xen_timer_handle(timer, 0, NULL, &answer, &error), EINVAL,
                 "xen_timer handle: call", 0));
  CHECK(is_error(xen_timer_handle(timer, 0, &made, NULL, &error), EINVAL,
                 "xen_timer handle: answer", 0));
  stop();
}

static void a_single_shot_comes_when_it_is_due(void) {
  start(XEN_TIMER_VIRTUAL);
  CHECK(next_due() == XEN_TIMER_NEVER);
  CHECK(arm(vmm.clock + 5000) == 0 && answer.handled == 1 && answer.rax == 0);
  CHECK(next_due() == 5000);
  CHECK(pass(4999) == 0 && vmm.events == 0 && next_due() == 1);
  CHECK(xen_timer_virtual_advance(timer, 1, &error) == 1 && next_due() == 0);
  ++vmm.clock;
  CHECK(xen_timer_expire(timer, &error) == 0);
  CHECK(vmm.events == 1 && vmm.event_vcpu == 0 && vmm.event_port == port);
  CHECK(next_due() == XEN_TIMER_NEVER);

  CHECK(arm(vmm.clock - 1) == 0 && vmm.events == 2);  // passed: before the call returns
  stop();
}

static void ticks_come_until_they_are_stopped(void) {
  start(XEN_TIMER_VIRTUAL);
  vmm.argument = 1000000;
  CHECK(call(vcpu_op, set_periodic, 0, gva) == 0 && answer.rax == 0 && vmm.events == 1);
  CHECK(pass(1000000) == 0 && vmm.events == 2);
  CHECK(call(vcpu_op, stop_periodic, 0, 0) == 0);
  CHECK(pass(1000000) == 0 && vmm.events == 2);
  stop();
}

static void bind_moves_and_unbind_loses_the_event(void) {
  start(XEN_TIMER_VIRTUAL);
  CHECK(is_error(xen_timer_bind(timer, 0, 0, &error), EINVAL, "xen_timer bind: port", 0));
  CHECK(is_error(xen_timer_bind(timer, 0, 4096, &error), EINVAL, "xen_timer bind: port", 4096));
  CHECK(arm(vmm.clock + 10) == 0);
  CHECK(xen_timer_bind(timer, 0, 4095, &error) == 0);
  CHECK(pass(10) == 0 && vmm.events == 1 && vmm.event_port == 4095);
  CHECK(xen_timer_unbind(timer, 0, &error) == 0);
  CHECK(arm(vmm.clock + 10) == 0);
  CHECK(pass(10) == 0 && vmm.events == 1);
  stop();
}

static void an_event_that_cant_be_raised_is_an_error_and_comes_later(void) {
  start(XEN_TIMER_VIRTUAL);
  vmm.raise_result = -EIO;
  CHECK(is_error(arm(vmm.clock - 1), EIO, "raise_event", 0));
  CHECK(answer.handled == 1 && answer.rax == 0);
  CHECK(is_error(pass(1), EIO, "raise_event", 0));
  vmm.raise_result = 1;  // neither 0 nor an errno
  CHECK(is_error(pass(1000000), EINVAL, "raise_event", 0));
  vmm.raise_result = -4096;
  CHECK(is_error(pass(1000000), EINVAL, "raise_event", 0));
  vmm.raise_result = 0;
  CHECK(pass(1000000) == 0 && vmm.events == 1);
  CHECK(pass(1000000) == 0 && vmm.events == 1);
  stop();
}

static void nothing_comes_between_pause_and_resume(void) {
  start(XEN_TIMER_VIRTUAL);
  CHECK(arm(vmm.clock + 10) == 0);
  CHECK(xen_timer_pause(timer, &error) == 0);
  CHECK(pass(10) == 0 && vmm.events == 0);
  CHECK(xen_timer_resume(timer, &error) == 0);
  CHECK(pass(0) == 0 && vmm.events == 1);
  stop();
}

static void what_is_saved_can_be_restored(void) {
  uint8_t state[XEN_TIMER_STATE_SIZE + 1], again[XEN_TIMER_STATE_SIZE];
  uint32_t id = 7;
  start(XEN_TIMER_VIRTUAL);
  CHECK(arm(vmm.clock + 10) == 0);
  memset(state, 0xee, sizeof(state));
  CHECK(xen_timer_save(timer, 0, XEN_TIMER_KVM_XEN_ID_UNSET, state, sizeof(state), &error) == 0);
  CHECK(memcmp(state, "XTMR", 4) == 0 && state[XEN_TIMER_STATE_SIZE] == 0xee);
  stop();

  start(XEN_TIMER_VIRTUAL);
  CHECK(xen_timer_restore(timer, 1, state, sizeof(state), &id, &error) == 0);
  CHECK(id == XEN_TIMER_KVM_XEN_ID_UNSET);
  CHECK(xen_timer_restore(timer, 1, state, sizeof(state), NULL, &error) == 0);
  CHECK(xen_timer_save(timer, 1, id, again, sizeof(again), &error) == 0);
  CHECK(memcmp(state, again, sizeof(again)) == 0);
  CHECK(pass(10) == 0 && vmm.events == 1 && vmm.event_vcpu == 1 && vmm.event_port == port);
  stop();
}

static void what_isnt_a_state_is_refused(void) {
  uint8_t state[XEN_TIMER_STATE_SIZE];
  uint32_t id = 7;
  const size_t size = sizeof(state);
  start(XEN_TIMER_VIRTUAL);
  CHECK(is_error(xen_timer_save(timer, 0, 3, NULL, size, &error), EINVAL, "xen_timer save: state",
                 0));
  CHECK(is_error(xen_timer_save(timer, 0, 3, state, size - 1, &error), EINVAL,
                 "xen_timer save: size", size - 1));
  CHECK(xen_timer_save(timer, 0, 3, state, size, &error) == 0);
  CHECK(is_error(xen_timer_restore(timer, 0, NULL, size, &id, &error), EINVAL,
                 "xen_timer restore: state", 0));
  CHECK(is_error(xen_timer_restore(timer, 0, state, size - 1, &id, &error), EINVAL,
                 "timer state: size", size - 1));
  state[4] = 2;
  CHECK(is_error(xen_timer_restore(timer, 0, state, size, &id, &error), ENOTSUP,
                 "timer state: version", 2));
  state[4] = 1;
  state[9] = 0x10;
  CHECK(is_error(xen_timer_restore(timer, 0, state, size, &id, &error), EINVAL, "timer state: port",
                 0x1000 + port));
  CHECK(id == 7);
  state[9] = 0;
  CHECK(xen_timer_restore(timer, 0, state, size, &id, &error) == 0 && id == 3);
  stop();
}

static void virtual_time_is_checked(void) {
  uint64_t ns = 7;
  start(XEN_TIMER_VIRTUAL);
  CHECK(
      is_error(xen_timer_fd(timer, &error), ENOTSUP, "xen_timer fd: back end", XEN_TIMER_VIRTUAL));
  CHECK(is_error(xen_timer_hand_over(timer, 0, 1, &error), ENOTSUP,
                 "xen_timer hand_over: no timer in the kernel", 0));
  CHECK(
      is_error(xen_timer_virtual_due(timer, NULL, &error), EINVAL, "xen_timer virtual_due: ns", 0));
  CHECK(xen_timer_virtual_advance(timer, 1, &error) == 0);
  CHECK(is_error(xen_timer_virtual_advance(timer, INT64_MAX, &error), EINVAL,
                 "xen_timer virtual_advance: ns", INT64_MAX));
  CHECK(xen_timer_virtual_advance(timer, INT64_MAX - 1, &error) >= 0);
  stop();
  start(XEN_TIMER_TIMERFD);
  CHECK(is_error(xen_timer_virtual_advance(timer, 1, &error), ENOTSUP,
                 "xen_timer virtual_advance: back end", XEN_TIMER_TIMERFD));
  CHECK(is_error(xen_timer_virtual_due(timer, &ns, &error), ENOTSUP,
                 "xen_timer virtual_due: back end", XEN_TIMER_TIMERFD));
  CHECK(ns == 7);
  stop();
}

static void wait_for(int fd) {
  struct pollfd wait = {fd, POLLIN, 0};
  CHECK(poll(&wait, 1, -1) == 1 && wait.revents == POLLIN);
}

static void a_timerfd_wakes_whoever_polls_it(void) {
  start(XEN_TIMER_TIMERFD);
  CHECK(arm(vmm.clock + 1000) == 0);
  wait_for(xen_timer_fd(timer, &error));
  vmm.clock += 1000;
  CHECK(xen_timer_expire(timer, &error) == 0 && vmm.events == 1);
  CHECK(is_error(xen_timer_expire_vcpu(timer, 0, &error), ENOTSUP,
                 "xen_timer expire_vcpu: back end", XEN_TIMER_TIMERFD));
  uint64_t ns;
  CHECK(is_error(xen_timer_spun(timer, &ns, &error), ENOTSUP, "xen_timer spun: back end",
                 XEN_TIMER_TIMERFD));
  CHECK(is_error(xen_timer_hand_over(timer, 0, 1, &error), ENOTSUP,
                 "xen_timer hand_over: no timer in the kernel", 0));
  stop();
}

static void an_irqfd_is_signalled(void) {
  start(XEN_TIMER_IRQFD);
  CHECK(xen_timer_attach(timer, 0, 0, NULL, &error) == 0);
  CHECK(vmm.kernel_calls == vcpus && vmm.routed_port == port + 1);
  CHECK(xen_timer_bind(timer, 0, port, &error) == 0 && vmm.routed_port == port);
  CHECK(arm(vmm.clock + 1000) == 0);
  wait_for(vmm.eventfd);
  CHECK(vmm.events == 0);
  vmm.kernel_result = -ENOSPC;
  CHECK(is_error(xen_timer_bind(timer, 0, 20, &error), ENOSPC, "route_event", 0));
  stop();
}

static void kvm_is_given_the_timer_and_gives_it_back(void) {
  start(XEN_TIMER_DELEGATED);
  CHECK(arm(vmm.clock + 1000) == 0 && vmm.expires == vmm.clock + 1000 && vmm.routed_port == port);
  CHECK(xen_timer_hand_over(timer, 0, 0, &error) == 0);
  CHECK(vmm.expires == 0 && vmm.routed_port == 0);
  wait_for(xen_timer_fd(timer, &error));
  CHECK(xen_timer_hand_over(timer, 0, 2, &error) == 0);  // anything but 0
  CHECK(vmm.expires == vmm.clock + 1000 && vmm.routed_port == port);
  CHECK(call(vcpu_op, stop_singleshot, 0, 0) == 0 && vmm.expires == 0);

  uint8_t state[XEN_TIMER_STATE_SIZE];
  int64_t deadline;
  CHECK(xen_timer_save(timer, 0, 0, state, sizeof(state), &error) == 0);
  memcpy(&deadline, state + 16, sizeof(deadline));
  CHECK(deadline == -1);  // 0 from KVM is none
  vmm.kernel_result = -EBUSY;
  CHECK(is_error(xen_timer_save(timer, 0, 0, state, sizeof(state), &error), EBUSY, "get_timer", 0));
  CHECK(is_error(arm(vmm.clock + 1000), EBUSY, "set_timer", 0));
  CHECK(answer.handled == 1 && answer.rax == 0);
  wait_for(xen_timer_fd(timer, &error));  // kept here instead
  stop();
}

static volatile sig_atomic_t signals;
static void* volatile signalled_with;
static void on_signal(int number, siginfo_t* info, void* context) {
  (void)number, (void)context;
  if (info->si_code == SI_TIMER) signalled_with = info->si_value.sival_ptr, ++signals;
}

static void a_vcpus_own_thread_is_signalled_and_spins(void) {
  start(XEN_TIMER_SPINNING);
  struct sigaction action = {.sa_flags = SA_SIGINFO};
  action.sa_sigaction = on_signal;
  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  CHECK(is_error(xen_timer_attach(timer, 0, 4711, NULL, &error), EINVAL, "timer_create", 4711));
  CHECK(xen_timer_attach(timer, 0, SIGUSR1, &vmm, &error) == 0);
  CHECK(
      is_error(xen_timer_fd(timer, &error), ENOTSUP, "xen_timer fd: back end", XEN_TIMER_SPINNING));
  CHECK(arm(vmm.clock + 1000000) == 0);
  while (signals == 0) poll(NULL, 0, 1);
  CHECK(signalled_with == &vmm && vmm.events == 0);
  vmm.clock += 1000000;
  CHECK(xen_timer_expire_vcpu(timer, 0, &error) == 0 && vmm.events == 1);
  CHECK(is_error(xen_timer_expire_vcpu(timer, vcpus, &error), EINVAL, "xen_timer expire_vcpu",
                 vcpus));
  uint64_t spun = UINT64_MAX;
  CHECK(xen_timer_spun(timer, &spun, &error) == 0 && spun < 1000000);
  CHECK(is_error(xen_timer_spun(timer, NULL, &error), EINVAL, "xen_timer spun: ns", 0));
  stop();
}

static int open_fds(void) {
  int count = 0;
  DIR* fds = opendir("/proc/self/fd");
  while (fds != NULL && readdir(fds) != NULL) ++count;
  if (fds != NULL) closedir(fds);
  return count;
}

static void destroy_closes_all(void) {
  const int before = open_fds();
  for (uint32_t back_end = XEN_TIMER_TIMERFD; back_end <= XEN_TIMER_SPINNING; ++back_end) {
    start(back_end);
    CHECK(open_fds() - before == (back_end >= XEN_TIMER_VIRTUAL ? 0
                                  : back_end == XEN_TIMER_IRQFD ? 1 + 2 * vcpus
                                                                : 1));
    stop();
    CHECK(open_fds() == before);
  }
}

#define RUN(name) \
  do {            \
    test = #name; \
    name();       \
  } while (0)

int main(void) {
  RUN(version);
  RUN(create_refuses_what_it_cant_use);
  RUN(create_refuses_callbacks_of_another_size);
  RUN(create_asks_for_the_callbacks_that_the_back_end_needs);
  RUN(timer_is_asked_for);
  RUN(vcpu_is_checked);
  RUN(handle_answers_timer_calls_only);
  RUN(handle_passes_every_field);
  RUN(a_single_shot_comes_when_it_is_due);
  RUN(ticks_come_until_they_are_stopped);
  RUN(bind_moves_and_unbind_loses_the_event);
  RUN(an_event_that_cant_be_raised_is_an_error_and_comes_later);
  RUN(nothing_comes_between_pause_and_resume);
  RUN(what_is_saved_can_be_restored);
  RUN(what_isnt_a_state_is_refused);
  RUN(virtual_time_is_checked);
  RUN(a_timerfd_wakes_whoever_polls_it);
  RUN(an_irqfd_is_signalled);
  RUN(kvm_is_given_the_timer_and_gives_it_back);
  RUN(a_vcpus_own_thread_is_signalled_and_spins);
  RUN(destroy_closes_all);
  return failures != 0;
}
