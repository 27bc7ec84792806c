// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A hypercall from its decoded form to the answer through a Dispatcher of 40 handlers, beside one
// switch over the same.
#include <benchmark/benchmark.h>

#include "forty.hpp"

namespace {

using namespace forty;

// 0: any of the 40, so that neither can be predicted. 1: one of them, always, as in a tick.
void dispatcher(benchmark::State& state) {
  Ops ops;
  const auto calls = some_calls(state.range(0) == 1);
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(ops.dispatcher({1}, calls[next++ % 1024]).guest.rax());
  }
}
BENCHMARK(dispatcher)->Arg(0)->Arg(1);

void a_switch(benchmark::State& state) {
  Domain domain;
  const auto calls = some_calls(state.range(0) == 1);
  std::size_t next = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(by_switch(domain, {1}, calls[next++ % 1024]).guest.rax());
  }
}
BENCHMARK(a_switch)->Arg(0)->Arg(1);

}  // namespace
