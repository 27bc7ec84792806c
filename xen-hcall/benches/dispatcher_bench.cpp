// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A hypercall from its decoded form to the answer through a Dispatcher of 40 handlers, beside one
// switch over the same.
#include "xen_hcall/dispatcher.hpp"

#include <benchmark/benchmark.h>

#include <array>
#include <random>
#include <utility>
#include <vector>

#include "xen_hcall/answer.hpp"

namespace {

using xen_abi::Answer;
using xen_abi::Errno;
using xen_abi::Hypercall;
using xen_hcall::XenVcpuId;

constexpr std::uint64_t count = 40;

struct Domain {
  std::array<std::uint64_t, count> calls{};
};

// What a handler does for its call: two sub-ops, one of them with an error.
template <std::uint64_t number>
Answer serve(Domain& domain, XenVcpuId vcpu, const Hypercall& call) {
  switch (call.params[0]) {
    case 0:
      domain.calls[number] += vcpu.value + number;
      return xen_hcall::ok(static_cast<std::int64_t>(domain.calls[number] & 7));
    case 1:
      if (call.params[1] > number) return {Errno::inval};
      domain.calls[number] += call.params[1];
      return xen_hcall::ok();
    default:
      return {Errno::nosys};
  }
}

template <std::uint64_t number>
struct Op {
  Domain& domain;
  static constexpr bool serves(std::uint64_t n) { return n == number; }
  std::optional<Answer> handle(XenVcpuId vcpu, const Hypercall& call) {
    if (call.number != number) return std::nullopt;
    return serve<number>(domain, vcpu, call);
  }
};

template <class Numbers>
struct AllOps;
template <std::uint64_t... numbers>
struct AllOps<std::integer_sequence<std::uint64_t, numbers...>> {
  Domain domain;
  std::tuple<Op<numbers>...> ops{Op<numbers>{domain}...};
  xen_hcall::Dispatcher<Op<numbers>...> dispatcher{std::get<Op<numbers>>(ops)...};
};
using Ops = AllOps<std::make_integer_sequence<std::uint64_t, count>>;

Answer by_switch(Domain& domain, XenVcpuId vcpu, const Hypercall& call) {
  if (call.cpl != 0) return {Errno::perm};
  switch (call.number) {
#define ONE(n) \
  case n:      \
    return serve<n>(domain, vcpu, call);
#define FIVE(n) ONE(n) ONE(n + 1) ONE(n + 2) ONE(n + 3) ONE(n + 4)
    FIVE(0)
    FIVE(5) FIVE(10) FIVE(15) FIVE(20) FIVE(25) FIVE(30) FIVE(35) default : return {Errno::nosys};
  }
}

std::vector<Hypercall> some_calls(bool only_one) {
  std::mt19937_64 random(1);
  std::vector<Hypercall> calls(1024);
  for (Hypercall& call : calls) {
    call.number = only_one ? 24 : random() % count;
    call.params = {random() % 2, random() % 8};
  }
  return calls;
}

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
