// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Random sequences of what model_world.hpp can do: it says what is compared.
//
// RC_PARAMS="max_success=100000" runs more of them, "reproduce=…" what has failed before.
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <cstdlib>

#include "model_world.hpp"

namespace xen_timer {
namespace {

rc::Gen<std::int64_t> interesting_value() {
  constexpr std::int64_t p50 = std::int64_t{1} << 50;
  return rc::gen::weightedOneOf<std::int64_t>(
      {{6, rc::gen::inRange<std::int64_t>(0, 60 * ms)},
       {2, rc::gen::map(rc::gen::inRange<std::int64_t>(0, 50), [](auto n) { return n * ms; })},
       {1, rc::gen::inRange<std::int64_t>(-2 * ms, 2000 * ms)},
       {2, rc::gen::element<std::int64_t>(0, 1, -1, 999'999, ms, 32 * ms, 32 * ms + 1, 125 * ms,
                                          125 * ms + 1, 1000 * ms, p50 - 1, p50, p50 + 1,
                                          xen_model::longest_period, xen_model::longest_period + 1,
                                          INT64_MAX, INT64_MIN, -5)}});
}

rc::Gen<Op> any_op() {
  using rc::gen::inRange;
  using rc::gen::set;
  const auto rarely = rc::gen::map(inRange(0, 16), [](int n) { return n == 15; });
  return rc::gen::build<Op>(
      set(&Op::what, rc::gen::weightedElement<Do>({{6, Do::set_singleshot},
                                                   {2, Do::stop_singleshot},
                                                   {5, Do::set_timer_op},
                                                   {4, Do::set_periodic},
                                                   {2, Do::stop_periodic},
                                                   {3, Do::bind},
                                                   {2, Do::unbind},
                                                   {7, Do::step},
                                                   {3, Do::late_step},
                                                   {7, Do::step_to_next},
                                                   {2, Do::pause},
                                                   {3, Do::resume},
                                                   {1, Do::migrate},
                                                   {3, Do::fail},
                                                   {2, Do::hand_over}})),
      set(&Op::vcpu, inRange(0u, 4u)), set(&Op::target, inRange(0u, 6u)),
      set(&Op::relative, rc::gen::map(inRange(0, 8), [](int n) { return n != 7; })),
      set(&Op::value, interesting_value()), set(&Op::port, inRange(1u, 4096u)), set(&Op::flag),
      set(&Op::bad, rarely),
      set(&Op::cpl, rc::gen::map(rarely, [](bool user) { return std::uint8_t(user ? 3 : 0); })),
      set(&Op::long_mode));
}

template <class Path>
struct Model : testing::Test {};
TYPED_TEST_SUITE(Model, Paths, PathName);

template <class Path>
bool holds(std::int64_t ppm) {
  return rc::check([ppm] {
    const auto vcpus = *rc::gen::inRange(1u, 5u).as("vCPUs");
    const auto start = *rc::gen::element<std::int64_t>(1, 1000 * ms, std::int64_t{1} << 53);
    const auto ops = *rc::gen::container<std::vector<Op>>(any_op()).as("operations");
    World<Path> world(vcpus, ppm, start);
    for (std::uint32_t id = 0; id < vcpus; ++id) {
      world.run({.what = Do::bind, .vcpu = id, .port = 10 + id});
    }
    for (const Op& op : ops) world.run(op);
  });
}

TYPED_TEST(Model, BehavesAsXen) { EXPECT_TRUE(holds<TypeParam>(0)); }
TYPED_TEST(Model, BehavesAsXenWhereTheGuestsClockIsFaster) { EXPECT_TRUE(holds<TypeParam>(500)); }
TYPED_TEST(Model, BehavesAsXenWhereTheGuestsClockIsSlower) { EXPECT_TRUE(holds<TypeParam>(-500)); }

// Unless the user says otherwise; read before the first property.
const int more_than_by_default = ::setenv("RC_PARAMS", "max_success=2000 max_size=100", 0);

}  // namespace
}  // namespace xen_timer
