// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Every function of xen_timer.h and every error it can return, in C. What the timers do in all
// other respects is tested in C++, on the same code.
#include "c_vmm_double.h"

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
  return failures != 0;
}
