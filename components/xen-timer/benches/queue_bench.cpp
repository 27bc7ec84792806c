// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The queue of deadlines, beside other structures and what a user would take instead, by how many
// timers are pending. rearm: moves one to another deadline. cancel: takes one out and puts it in
// again. expire: serves one of n that are all due.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <ctime>

#include "queues.hpp"

namespace {

using namespace bench;

template <class Queue>
void fill(Queue& queue, std::uint32_t n, std::uint64_t& seed) {
  if constexpr (std::is_same_v<Queue, SortedList>) {
    queue.fill();
  } else {
    for (std::uint32_t id = 0; id < n; ++id) queue.arm(id, random_due(seed));
  }
}

template <class Queue>
void rearm(benchmark::State& state) {
  const auto n = static_cast<std::uint32_t>(state.range(0));
  std::uint64_t seed = 42;
  Queue queue(n);
  fill(queue, n, seed);
  for (auto _ : state) {
    const auto id = static_cast<std::uint32_t>((next_random(seed) >> 32) % n);
    queue.arm(id, random_due(seed));
  }
}

template <class Queue>
void cancel(benchmark::State& state) {
  const auto n = static_cast<std::uint32_t>(state.range(0));
  std::uint64_t seed = 42;
  Queue queue(n);
  fill(queue, n, seed);
  for (auto _ : state) {
    const auto id = static_cast<std::uint32_t>((next_random(seed) >> 32) % n);
    queue.cancel(id);
    queue.arm(id, random_due(seed));
  }
}

double cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Queue>
void expire(benchmark::State& state) {
  constexpr bool waits = requires { Queue::wait(); };
  const auto n = static_cast<std::uint32_t>(state.range(0));
  // Enough of them in a turn to be measured; what waits does so for 10 ms each time.
  const std::uint32_t turns = (waits ? 20 : 100'000) / n + 1;
  double clock = 1;  // what reading it twice takes
  for (int i = 0; i < 1000; ++i) clock = std::min(clock, -cpu_seconds() + cpu_seconds());
  Queue queue(n);
  for (auto _ : state) {
    double time = -cpu_seconds() - clock;
    for (std::uint32_t turn = 0; turn < turns; ++turn) {
      queue.make_due();
      if constexpr (waits) {
        time += cpu_seconds();
        Queue::wait();
        time -= cpu_seconds() + clock;
      }
      if (queue.drain() != n) state.SkipWithError("not all were served");
    }
    time += cpu_seconds();
    state.SetIterationTime(std::max(time, 0.0) / n / turns);
  }
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (const int n : {1, 1'000, 100'000, 1'000'000}) bench->Arg(n);
}
void few(benchmark::internal::Benchmark* bench) { bench->Arg(1)->Arg(1'000); }
// A million in a list would take days to be armed.
template <class Queue>
void drains(benchmark::internal::Benchmark* bench) {
  std::is_same_v<Queue, SortedList> ? few(bench) : sizes(bench);
  bench->UseManualTime()->Iterations(3);
}
// What is dead is thrown out once in n calls, and is to be paid for.
template <int n>
void four_times(benchmark::internal::Benchmark* bench) {
  bench->Arg(n)->Iterations(4 * n);
}

#define QUEUE(name)                      \
  BENCHMARK(rearm<name>)->Apply(sizes);  \
  BENCHMARK(cancel<name>)->Apply(sizes); \
  BENCHMARK(expire<name>)->Apply(drains<name>)

using Heap4 = Simulated<WideHeap<4>>;
using Heap8 = Simulated<WideHeap<8>>;
using HierarchicalWheel = Simulated<Wheel>;

QUEUE(Ours);
QUEUE(Heap4);
QUEUE(Heap8);
QUEUE(HierarchicalWheel);
QUEUE(SortedList);
QUEUE(Asio);
QUEUE(Libevent);
QUEUE(Libuv);
BENCHMARK(rearm<PriorityQueue>)->Apply(few);
BENCHMARK(rearm<PriorityQueue>)->Apply(four_times<100'000>);
BENCHMARK(rearm<PriorityQueue>)->Apply(four_times<1'000'000>);
BENCHMARK(cancel<PriorityQueue>)->Apply(few);
BENCHMARK(cancel<PriorityQueue>)->Apply(four_times<100'000>);
BENCHMARK(cancel<PriorityQueue>)->Apply(four_times<1'000'000>);
BENCHMARK(expire<PriorityQueue>)->Apply(drains<PriorityQueue>);

}  // namespace
