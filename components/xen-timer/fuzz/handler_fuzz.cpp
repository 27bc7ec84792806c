// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Any sequence of timer calls of several vCPUs, with all that the VMM and time do meanwhile, for
// each way of keeping single shots: as the model of Xen says, at every step.
#include <fuzzer/FuzzedDataProvider.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "../tests/model_world.hpp"

namespace xen_timer {
namespace {

std::int64_t value(FuzzedDataProvider& input) {
  constexpr std::int64_t p50 = std::int64_t{1} << 50;
  switch (input.ConsumeIntegralInRange(0, 3)) {
    case 0:
      return input.ConsumeIntegralInRange<std::int64_t>(-2 * ms, 60 * ms);
    case 1:
      return input.ConsumeIntegralInRange<std::int64_t>(0, 2000) * ms;
    case 2:
      return input.PickValueInArray<std::int64_t>(
          {0, 1, -1, 999'999, ms, 32 * ms, 32 * ms + 1, 125 * ms, 125 * ms + 1, 1000 * ms, p50 - 1,
           p50, p50 + 1, xen_model::longest_period, xen_model::longest_period + 1, INT64_MAX,
           INT64_MIN, -5});
    default:
      return input.ConsumeIntegral<std::int64_t>();
  }
}

Op any_op(FuzzedDataProvider& input) {
  Op op;
  op.what = static_cast<Do>(input.ConsumeIntegralInRange(0, static_cast<int>(Do::hand_over)));
  const auto who = input.ConsumeIntegral<std::uint8_t>();
  op.vcpu = who & 3;
  op.target = who >> 2 & 3;
  if ((who & 0xc0) == 0xc0) op.target = input.ConsumeIntegral<std::uint32_t>();
  const auto how = input.ConsumeIntegral<std::uint8_t>();
  op.relative = (how & 7) != 0;
  op.flag = (how & 8) != 0;
  op.long_mode = (how & 0x10) != 0;
  op.bad = (how & 0xe0) == 0xe0;
  op.cpl = (how & 0xe0) == 0xc0 ? std::uint8_t{3} : std::uint8_t{0};
  op.value = value(input);
  op.port = input.ConsumeIntegralInRange<std::uint32_t>(1, xen_abi::event_ports_64 - 1);
  return op;
}

template <class Path>
void run(FuzzedDataProvider& input, bool logs) {
  const auto vcpus = input.ConsumeIntegralInRange<std::uint32_t>(1, 4);
  const auto ppm = input.PickValueInArray<std::int64_t>({0, 500, -500});
  const auto start = input.PickValueInArray<std::int64_t>({1, 1000 * ms, std::int64_t{1} << 53});
  World<Path> world(vcpus, ppm, start, logs);
  for (std::uint32_t id = 0; id < vcpus; ++id) {
    world.run({.what = Do::bind, .vcpu = id, .port = 10 + id});
  }
  for (int steps = 0; steps < 100 && input.remaining_bytes() > 0; ++steps) {
    world.run(any_op(input));
  }
}

void run(const std::uint8_t* data, std::size_t size, bool logs) {
  FuzzedDataProvider input(data, size);
  switch (input.ConsumeIntegralInRange(0, 2)) {
    case 0:
      return run<NoKernelPath>(input, logs);
    case 1:
      return run<DelegatedPath<DoubleKernel>>(input, logs);
    default:
      return run<NearPath>(input, logs);
  }
}

}  // namespace
}  // namespace xen_timer

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  GTEST_FLAG_SET(break_on_failure, true);
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    xen_timer::run(data, size, false);
    return 0;
  } catch (const std::exception&) {  // Once more, and say what was done.
  }
  try {
    xen_timer::run(data, size, true);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  std::abort();
}
