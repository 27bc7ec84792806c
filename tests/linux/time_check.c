// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Runs inside a Linux guest: measures its sleeps by its own clock and by the clock outside, which
// is the seconds register of the VMM's CMOS clock, read at the moment it changes.
//
//   time_check                 prints "NAME VALUE" lines
#include <stdio.h>
#include <sys/io.h>
#include <time.h>

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static int outside_second(void) {
  outb(0, 0x70);  // the register of seconds, in BCD as PCs have it
  const int bcd = inb(0x71);
  return bcd / 16 * 10 + bcd % 16;
}

// Our clock when the outside's second changes; that second in *second.
static double next_second(int* second) {
  const int before = outside_second();
  while ((*second = outside_second()) == before) {
  }
  return now();
}

// How long a sleep took by our clock.
static double slept(double seconds) {
  struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
  const double start = now();
  clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
  return now() - start;
}

int main(void) {
  if (ioperm(0x70, 2, 1) != 0) {
    perror("ioperm");
    return 1;
  }
  int first;
  int last;
  const double start = next_second(&first);
  const double ten = slept(10);
  const double end = next_second(&last);
  const double outside = (last - first + 60) % 60;
  printf("sleep-10-inside %.4f\n", ten);
  printf("sleep-10-outside %.4f\n", ten * outside / (end - start));

  int early = 0;
  double longest = 0;
  for (int i = 0; i < 1000; ++i) {
    const double took = slept(0.001);
    early += took < 0.001;
    if (took > longest) longest = took;
  }
  printf("early-sleeps %d of 1000, longest %.4f s\n", early, longest);
  return 0;
}
