// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The queue of deadlines, beside other structures and what a user would take instead, by how many
// timers are pending. rearm: moves one to another deadline. cancel: takes one out and puts it in
// again. expire: serves one of n that are all due.
#include <benchmark/benchmark.h>

#include <chrono>

#include "queues.hpp"

namespace {

using namespace bench;

template <class Queue>
void fill(Queue& queue, std::uint32_t n, std::uint64_t& seed) {
  if constexpr (std::is_same_v<Queue, SortedList>) {
    queue.make_due();
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

template <class Queue>
void expire(benchmark::State& state) {
  const auto n = static_cast<std::uint32_t>(state.range(0));
  // Enough of them in a turn to be measured.
  std::uint32_t turns = 1'000 / n + 1;
  Queue queue(n);
  for (auto _ : state) {
    std::chrono::duration<double> time{};
    for (std::uint32_t turn = 0; turn < turns; ++turn) {
      queue.make_due();
      const auto start = std::chrono::steady_clock::now();
      const std::uint32_t served = queue.drain();
      time += std::chrono::steady_clock::now() - start;
      if (served != n) state.SkipWithError("not all were served");
    }
    state.SetIterationTime(time.count() / n / turns);
  }
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (const int n : {1, 1'000, 100'000, 1'000'000}) bench->Arg(n);
}
void drains(benchmark::internal::Benchmark* bench) {
  sizes(bench);
  bench->UseManualTime()->Iterations(3);
}

#define QUEUE(name)                      \
  BENCHMARK(rearm<name>)->Apply(sizes);  \
  BENCHMARK(cancel<name>)->Apply(sizes); \
  BENCHMARK(expire<name>)->Apply(drains)

using Heap4 = Simulated<WideHeap<4>>;
using Heap8 = Simulated<WideHeap<8>>;
using HierarchicalWheel = Simulated<Wheel>;

QUEUE(Ours);
QUEUE(Heap4);
QUEUE(Heap8);
QUEUE(HierarchicalWheel);
QUEUE(PriorityQueue);
QUEUE(SortedList);
QUEUE(Asio);
QUEUE(Libevent);
QUEUE(Libuv);

}  // namespace
