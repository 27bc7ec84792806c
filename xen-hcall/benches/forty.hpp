// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// 40 handlers composed by a Dispatcher, and one switch over the same.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#include "xen_hcall/answer.hpp"
#include "xen_hcall/dispatcher.hpp"

namespace forty {

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

inline Answer by_switch(Domain& domain, XenVcpuId vcpu, const Hypercall& call) {
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

inline std::vector<Hypercall> some_calls(bool only_one) {
  std::mt19937_64 random(1);
  std::vector<Hypercall> calls(1024);
  for (Hypercall& call : calls) {
    call.number = only_one ? 24 : random() % count;
    call.params = {random() % 2, random() % 8};
  }
  return calls;
}

}  // namespace forty
