// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// xen_timer_create() with the first allocation failing, the second …, until there are no more: each
// time ENOMEM, and nothing is left behind. malloc() and its kin stand in for glibc's, and count.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "xen_timer.h"

void* __libc_malloc(size_t size);
void* __libc_memalign(size_t alignment, size_t size);
void __libc_free(void* block);

static int counting, left, in_use;

static int refused(void) { return counting && left-- <= 0; }
static void* counted(void* block) {
  if (counting && block != NULL) ++in_use;
  return block;
}
void* malloc(size_t size) { return refused() ? NULL : counted(__libc_malloc(size)); }
void* aligned_alloc(size_t alignment, size_t size) {
  return refused() ? NULL : counted(__libc_memalign(alignment, size));
}
void free(void* block) {
  if (counting && block != NULL) --in_use;
  __libc_free(block);
}

static int copy_from_guest(void* context, uint32_t vcpu, uint64_t from, void* to, size_t size) {
  (void)context, (void)vcpu, (void)from, (void)to, (void)size;
  return -EFAULT;
}
static uint64_t guest_now(void* context, uint32_t vcpu) {
  (void)context, (void)vcpu;
  return 0;
}
static int raise_event(void* context, uint32_t vcpu, uint32_t port) {
  (void)context, (void)vcpu, (void)port;
  return 0;
}
static int route_event(void* context, uint32_t vcpu, uint32_t port, int eventfd) {
  (void)context, (void)vcpu, (void)port, (void)eventfd;
  return 0;
}

static int next_fd(void) {
  const int fd = dup(0);
  close(fd);
  return fd;
}

int main(void) {
  const struct xen_timer_callbacks calls = {
      sizeof(calls), NULL, copy_from_guest, guest_now, raise_event, NULL, NULL, route_event};
  const int fd = next_fd();
  for (int allowed = 0;; ++allowed) {
    struct xen_timer_handler* timer;
    struct xen_timer_error error = {NULL, 0, 0};
    counting = 1;
    left = allowed;
    const int created = xen_timer_create(&calls, XEN_TIMER_IRQFD, 4, &timer, &error);
    left = 1;  // should destroying need one
    xen_timer_destroy(timer);
    counting = 0;
    if (in_use != 0 || next_fd() != fd || (created != 0 && created != -ENOMEM)) {
      printf("after %d allocations: returned %d, left behind: %d blocks, %d fds\n", allowed,
             created, in_use, next_fd() - fd);
      return 1;
    }
    if (created == 0) return allowed < 5;  // fewer than there are vectors in it: not counted
  }
}
