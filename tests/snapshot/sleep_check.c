// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Runs inside a Linux guest that is saved and restored meanwhile: a thread on each CPU sleeps and
// looks at the clocks, all the time. Says twice a second what there was so far, and goes on until a
// line is typed. Then it sleeps for ten seconds with nothing else awake: a timer that is lost there
// is made good by nobody.
//
//   sleep_check                 prints "NAME VALUE" lines
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { most_cpus = 8 };
static const clockid_t clocks[] = {CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_BOOTTIME};
enum { clock_count = sizeof(clocks) / sizeof(clocks[0]) };

static atomic_ulong sleeps[most_cpus];
static atomic_ulong early;
static atomic_ulong back;
static atomic_long longest;  // ns beyond what was asked for
static atomic_long lately;   // the same, since the last line
static atomic_bool over;

static long long ns_of(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void* sleep_and_look(void* cpu) {
  const long index = (long)cpu;
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET((size_t)index, &here);
  pthread_setaffinity_np(pthread_self(), sizeof(here), &here);
  long long last[clock_count] = {0};
  for (long round = 0; !over; ++round) {
    // From 1 to 40 ms.
    const long wanted = 1000000L + (round * 7919 % 40) * 975000L;
    const struct timespec t = {0, wanted};
    const long long start = ns_of(CLOCK_MONOTONIC);
    clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
    const long late = (long)(ns_of(CLOCK_MONOTONIC) - start - wanted);
    if (late < 0) ++early;
    if (late > longest) longest = late;
    if (late > lately) lately = late;
    ++sleeps[index];
    for (int look = 0; look < 100; ++look) {
      for (int i = 0; i < clock_count; ++i) {
        const long long now = ns_of(clocks[i]);
        if (now < last[i]) ++back;
        last[i] = now;
      }
    }
  }
  return NULL;
}

int main(void) {
  const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
  setvbuf(stdout, NULL, _IOLBF, 0);
  pthread_t threads[most_cpus];
  for (long cpu = 0; cpu < cpus; ++cpu) {
    if (pthread_create(&threads[cpu], NULL, sleep_and_look, (void*)cpu) != 0) return 1;
  }
  struct pollfd typed = {STDIN_FILENO, POLLIN, 0};
  unsigned long before[most_cpus] = {0};
  int stuck = 0;
  int line = 0;
  do {
    printf("sleeps");
    for (long cpu = 0; cpu < cpus; ++cpu) {
      printf(" %lu", sleeps[cpu]);
      // The first moments are the threads' own.
      if (line > 5 && sleeps[cpu] == before[cpu]) ++stuck;
      before[cpu] = sleeps[cpu];
    }
    printf(", up to %.4f s over\n", (double)atomic_exchange(&lately, 0) / 1e9);
    ++line;
  } while (poll(&typed, 1, 500) == 0);
  over = true;
  for (long cpu = 0; cpu < cpus; ++cpu) pthread_join(threads[cpu], NULL);
  printf("steps-back %lu\n", back);
  printf("early-sleeps %lu\n", early);
  printf("stuck %d\n", stuck);
  printf("longest-over %.4f s\n", (double)longest / 1e9);
  printf("ten begins\n");
  const struct timespec ten = {10, 0};
  const long long start = ns_of(CLOCK_MONOTONIC);
  clock_nanosleep(CLOCK_MONOTONIC, 0, &ten, NULL);
  const long long slept = ns_of(CLOCK_MONOTONIC) - start;
  printf("ten is over\n");
  printf("ten-inside %.4f s\n", (double)slept / 1e9);
  return 0;
}
