// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observation.hpp"

#include <gtest/gtest.h>

#include <unistd.h>
#include <limits>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "counts.hpp"
#include "observer.hpp"
#include "trace_file.hpp"
#include "xen_abi/vcpu.hpp"

namespace vmm_reference {
namespace {

using vmm_base::XenVcpuId;
using xen_clock::guest_time;

constexpr XenVcpuId first{0};

xen_timer::Due late_by(std::int64_t ns, bool periodic = false) {
  return {.deadline = guest_time(1'000), .now = guest_time(1'000 + ns), .periodic = periodic};
}
xen_abi::Hypercall vcpu_op(std::uint64_t command) {
  return {xen_abi::hypercall::vcpu_op, {command}};
}

TEST(Observation, AnEventIsCountedInTheBucketOfItsLateness) {
  VcpuObservation vcpu;
  for (std::size_t n = 0; n < late_bounds.size(); ++n) {
    vcpu.raised(first, late_by(late_bounds[n]));
    VcpuCounts counts = vcpu.counts();
    EXPECT_EQ(counts.late[n], n == 0 ? 1u : 2u) << n;
    vcpu.raised(first, late_by(late_bounds[n] + 1, true));
    counts = vcpu.counts();
    EXPECT_EQ(counts.late[n + 1], 1u) << n;
  }
  EXPECT_EQ(vcpu.counts().fired(), 12u);
  EXPECT_EQ(vcpu.counts().late_ns, 2 * 111'111'000u + 6);
}

TEST(Observation, WhatIsNotLateIsInTheFirst) {
  VcpuObservation vcpu;
  vcpu.raised(first, late_by(0));
  vcpu.raised(first, late_by(-5));
  EXPECT_EQ(vcpu.counts().late[0], 2u);
  EXPECT_EQ(vcpu.counts().late_ns, 0u);
}

TEST(Observation, HypercallsAreCountedByNumberAndThoseOfAVcpuByCommand) {
  VcpuObservation vcpu;
  for (const auto& [number, kind] : {std::pair{std::uint64_t{0}, std::size_t{0}},
                                     {32, 32},
                                     {63, 63},
                                     {64, other_call},
                                     {std::uint64_t{1} << 32, other_call}}) {
    { const auto call = vcpu.hypercall(first, {number, {}}); }
    EXPECT_EQ(vcpu.counts().calls[kind], number == std::uint64_t{1} << 32 ? 2u : 1u) << number;
  }
  { const auto call = vcpu.hypercall(first, vcpu_op(xen_abi::vcpuop::set_singleshot_timer)); }
  { const auto call = vcpu.hypercall(first, vcpu_op(16)); }
  EXPECT_EQ(calls_text(vcpu.counts()),
            "hypercall_0 1, event_channel_op 1, hypercall_63 1, VCPUOP_set_singleshot_timer 1, "
            "other 3");
  EXPECT_EQ(vcpu.counts().all_calls(), 7u);
}

TEST(Observation, TheSumOfLatenessOnlyGrows) {
  VcpuObservation vcpu;
  std::uint64_t before = 0;
  for (int n = 0; n < 6; ++n) {
    const std::int64_t most = std::numeric_limits<std::int64_t>::max();
    vcpu.raised(first,
                {.deadline = guest_time(0), .now = guest_time(most), .periodic = n % 2 == 0});
    EXPECT_GE(vcpu.counts().late_ns, before);
    before = vcpu.counts().late_ns;
  }
}

TEST(Observation, WhatIsArmedAndWhatIsCancelledAreCountedApart) {
  VcpuObservation vcpu;
  for (int n = 0; n < 3; ++n) vcpu.armed(first, guest_time(2), guest_time(1));
  vcpu.cancelled();
  vcpu.expired(first, late_by(1));
  EXPECT_EQ(vcpu.counts().armed, 3u);
  EXPECT_EQ(vcpu.counts().cancelled, 1u);
  EXPECT_EQ(vcpu.counts().fired(), 0u) << "it is only about to be raised";
}

// Two threads count, one reads: tsan looks on.
TEST(Observation, IsReadWhileItIsWritten) {
  VcpuObservation vcpu;
  std::atomic<bool> done = false;
  std::thread own([&] {
    for (int n = 0; n < 10'000; ++n) vcpu.armed(first, guest_time(2), guest_time(1));
  });
  std::thread timers([&] {
    for (int n = 0; n < 10'000; ++n) vcpu.raised(first, late_by(1));
    done = true;
  });
  std::uint64_t before = 0;
  while (!done) {
    const std::uint64_t now = vcpu.counts().fired();
    EXPECT_GE(now, before);
    before = now;
  }
  own.join();
  timers.join();
  EXPECT_EQ(vcpu.counts().armed, 10'000u);
  EXPECT_EQ(vcpu.counts().fired(), 10'000u);
}

TEST(Counts, AsOpenMetricsHaveEachBucketUpToItsBound) {
  VcpuCounts counts{.armed = 3, .cancelled = 1, .late_ns = 1'020'000'000};
  counts.late = {1, 0, 0, 0, 0, 0, 1};
  counts.calls[xen_abi::hypercall::xen_version] = 2;
  const RunCounts run{TimerMode::userspace, {counts}};
  const std::string text = to_openmetrics({&run, 1});
  for (const char* line : {
           "# TYPE vmm_timers_armed counter\n",
           R"(vmm_timers_armed_total{run="1",served_by="userspace",vcpu="0"} 3)",
           R"(vmm_timers_fired_total{run="1",served_by="userspace",vcpu="0"} 2)",
           R"(_bucket{run="1",served_by="userspace",vcpu="0",le="0.1"} 1)",
           R"(_bucket{run="1",served_by="userspace",vcpu="0",le="+Inf"} 2)",
           R"(_count{run="1",served_by="userspace",vcpu="0"} 2)",
           R"(_sum{run="1",served_by="userspace",vcpu="0"} 1.020000000)",
           R"(_total{run="1",served_by="userspace",vcpu="0",hypercall="xen_version"} 2)",
       }) {
    EXPECT_NE(text.find(std::string(line)), std::string::npos) << line << "\n" << text;
  }
  EXPECT_TRUE(text.ends_with("\n# EOF\n"));
}

// So that a file which is written over needn't be cut.
TEST(Counts, AsOpenMetricsNeverGetShorter) {
  std::vector<RunCounts> runs;
  std::size_t size = to_openmetrics(runs).size();
  const auto grows = [&] {
    const std::size_t now = to_openmetrics(runs).size();
    EXPECT_GE(now, size);
    size = now;
  };
  runs.push_back({TimerMode::kernel, std::vector<VcpuCounts>(2)});
  grows();
  for (std::uint64_t n = 1; n != 0 && n < std::uint64_t{1} << 62; n *= 3) {
    VcpuCounts& counts = runs[0].vcpus[1];
    counts.armed = counts.late_ns = counts.late[2] = counts.calls[17] = n;
    grows();
  }
  runs.push_back({TimerMode::moving, std::vector<VcpuCounts>(1)});
  grows();
}

std::string content(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string trace_of(const Observation& observation) {
  char path[] = "/tmp/observation_test.XXXXXX";
  const vmm_base::UniqueFd made(::mkstemp(path));
  {
    auto file = TraceFile::open(path);
    EXPECT_TRUE(file);
    EXPECT_TRUE(file.value().add("a \"run\"", observation));
    EXPECT_TRUE(file.value().end());
  }
  std::string text = content(path);
  ::unlink(path);
  return text;
}

std::size_t count(const std::string& text, const std::string& what) {
  std::size_t found = 0;
  for (auto at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

TEST(Trace, HasATrackAVcpuAndWhatHappenedOnIt) {
  Observation observation(2);
  for (VcpuObservation& vcpu : observation) vcpu.record();
  { const auto call = observation[1].hypercall(XenVcpuId{1}, {17, {}}); }
  observation[1].armed(XenVcpuId{1}, guest_time(2'500), guest_time(1'000));
  observation[1].cancelled();
  observation[1].expired(XenVcpuId{1}, late_by(250));
  observation[1].raised(XenVcpuId{1}, late_by(250));
  const std::string text = trace_of(observation);
  for (const char* part :
       {R"("name":"process_name","pid":1,"args":{"name":"a \"run\""})",
        R"("name":"thread_name","pid":1,"tid":2,"args":{"name":"vCPU 1"})",
        R"("ph":"X","cat":"hypercall","name":"xen_version","dur":)",
        R"("name":"armed","args":{"ahead_us":1.500})", R"("name":"cancelled","args":{})",
        R"("name":"expired","args":{"late_us":0.250})",
        R"("name":"raised","args":{"late_us":0.250})", R"("otherData":{"overwritten":"0"})"}) {
    EXPECT_NE(text.find(part), std::string::npos) << part << "\n" << text;
  }
  EXPECT_EQ(count(text, "\"ts\":"), 5u);
  EXPECT_TRUE(text.ends_with("}}")) << "the document alone, without a line end";
}

TEST(Trace, KeepsTheLastAndTellsHowManyWereBefore) {
  Observation observation(1);
  observation[0].record();
  for (std::size_t n = 0; n < TraceRing::capacity + 3; ++n) observation[0].cancelled();
  observation[0].raised(first, late_by(0));
  const std::string text = trace_of(observation);
  EXPECT_EQ(count(text, R"("name":"cancelled")"), TraceRing::capacity);
  EXPECT_EQ(count(text, R"("name":"raised")"), 1u) << "it has a ring of its own";
  EXPECT_NE(text.find(R"("overwritten":"3")"), std::string::npos);
}

TEST(Trace, ThatCannotBeWrittenIsSaid) {
  auto file = TraceFile::open("/dev/full");
  ASSERT_TRUE(file);
  const auto ended = file.value().end();
  ASSERT_FALSE(ended);
  EXPECT_EQ(ended.error().code, ENOSPC);
  EXPECT_EQ(TraceFile::open("/nonexistent/trace").error().code, ENOENT);
}

Options with(const std::string& metrics, const std::string& trace) {
  Options options;
  options.guest = "a guest";
  options.metrics = metrics;
  options.trace = trace;
  return options;
}

TEST(Observer, WritesMetricsEachSecondAndATraceAtTheEnd) {
  char metrics[] = "/tmp/observation_test.XXXXXX";
  char trace[] = "/tmp/observation_test.XXXXXX";
  const vmm_base::UniqueFd made[] = {vmm_base::UniqueFd(::mkstemp(metrics)),
                                     vmm_base::UniqueFd(::mkstemp(trace))};
  std::ofstream(metrics) << std::string(100'000, '#');
  const Options options = with(metrics, trace);
  auto opened = Observer::open(options);
  ASSERT_TRUE(std::holds_alternative<Observer>(opened)) << std::get<std::string>(opened);
  Observer& observer = std::get<Observer>(opened);
  EXPECT_EQ(content(metrics), to_openmetrics({})) << "nothing is left of what was there";

  boost::asio::io_context loop;
  Observation observation(1);
  {
    const ObservedRun run(&observer, loop, observation, TimerMode::userspace, "a run");
    observation[0].armed(first, guest_time(2), guest_time(1));
    loop.run_one();  // a second
    EXPECT_EQ(observer.runs()[0].vcpus[0].armed, 1u);
    EXPECT_EQ(content(metrics), to_openmetrics(observer.runs()));
    observation[0].armed(first, guest_time(2), guest_time(1));
  }
  EXPECT_EQ(observer.runs()[0].vcpus[0].armed, 2u);
  EXPECT_EQ(content(metrics), to_openmetrics(observer.runs()));
  EXPECT_TRUE(observer.end());
  EXPECT_EQ(count(content(trace), R"("name":"armed")"), 2u);
  ::unlink(metrics);
  ::unlink(trace);
}

TEST(Observer, SaysWhatCannotBeHadOrWritten) {
  const auto why = [](const Options& options) {
    return std::get<std::string>(Observer::open(options));
  };
  EXPECT_EQ(why(with("/nonexistent/m", "")), "--metrics /nonexistent/m: No such file or directory");
  EXPECT_EQ(why(with("/dev/full", "")), "--metrics /dev/full: No space left on device");
  EXPECT_EQ(why(with("", "/nonexistent/t")), "--trace /nonexistent/t: No such file or directory");
  auto full = Observer::open(with("", "/dev/full"));
  testing::internal::CaptureStderr();
  EXPECT_FALSE(std::get<Observer>(full).end());
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "vmm-reference: can't write to /dev/full: No space left on device\n");
}

}  // namespace
}  // namespace vmm_reference
