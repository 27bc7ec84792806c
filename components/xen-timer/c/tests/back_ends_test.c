// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What each back end of xen_timer.h does that the others don't, in C, on the host's own clock.
#define _POSIX_C_SOURCE 200809L  // sigaction()
#include <dirent.h>
#include <poll.h>
#include <signal.h>

#include "c_vmm_double.h"

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

int main(void) {
  RUN(a_timerfd_wakes_whoever_polls_it);
  RUN(an_irqfd_is_signalled);
  RUN(kvm_is_given_the_timer_and_gives_it_back);
  RUN(a_vcpus_own_thread_is_signalled_and_spins);
  RUN(destroy_closes_all);
  return failures != 0;
}
