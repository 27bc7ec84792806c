// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// To be preloaded into vmm-reference: the thread that VIOLATE names behaves as if a guest had taken
// it over, and opens a file. set-up: as the back end makes its timerfd.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>

static void violate_as(const char* who) {
  const char* wanted = getenv("VIOLATE");
  // What KVM makes of the file's number can't matter: there is none.
  if (wanted && strcmp(wanted, who) == 0) (void)!open("/etc/passwd", O_RDONLY | O_CLOEXEC);
}

int ioctl(int fd, unsigned long request, ...) {
  int (*next)(int, unsigned long, void*);
  *(void**)&next = dlsym(RTLD_NEXT, "ioctl");
  va_list arguments;
  va_start(arguments, request);
  void* argument = va_arg(arguments, void*);
  va_end(arguments);
  const int result = next(fd, request, argument);
  if (request == KVM_RUN) violate_as("vcpu");
  return result;
}

int poll(struct pollfd* fds, nfds_t count, int timeout) {
  int (*next)(struct pollfd*, nfds_t, int);
  *(void**)&next = dlsym(RTLD_NEXT, "poll");
  const int result = next(fds, count, timeout);
  violate_as("timers");
  return result;
}

int epoll_wait(int fd, struct epoll_event* events, int count, int timeout) {
  int (*next)(int, struct epoll_event*, int, int);
  *(void**)&next = dlsym(RTLD_NEXT, "epoll_wait");
  violate_as("loop");
  return next(fd, events, count, timeout);
}

int timerfd_create(int clock, int flags) {
  int (*next)(int, int);
  *(void**)&next = dlsym(RTLD_NEXT, "timerfd_create");
  violate_as("set-up");
  return next(clock, flags);
}
