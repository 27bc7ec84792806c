// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "report.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>

namespace vmm_reference {
namespace {

struct Report : testing::Test {
  RunReport run{.mode = TimerMode::userspace, .vcpus = std::vector<VcpuReport>(1)};
  TimerReport& guest = run.vcpus[0].guest;

  void SetUp() override {
    guest.magic = report_magic;
    guest.armed = guest.fired = 100;
    for (int i = 0; i < 100; ++i) guest.lateness_ns[i] = 1000 * (i + 1);
    run.vcpus[0].punted = 101;
  }
  bool good() {
    printed.clear();
    char* text = nullptr;
    std::size_t size = 0;
    std::FILE* out = ::open_memstream(&text, &size);
    const Verdict verdict = judge(run, 100);
    EXPECT_TRUE(print_rows(out, run, verdict));
    std::fclose(out);
    printed.assign(text, size);
    std::free(text);  // NOLINT: open_memstream's
    return verdict.good;
  }
  std::string printed;
};

TEST_F(Report, AllFiredIsGood) {
  EXPECT_TRUE(good()) << printed;
  const Summary s = summarise(guest);
  EXPECT_EQ(s.lost, 0u);
  EXPECT_EQ(s.early, 0u);
  EXPECT_EQ(s.min, 1000);
  EXPECT_EQ(s.p50, 50'000);
  EXPECT_EQ(s.p99, 99'000);
  EXPECT_EQ(s.max, 100'000);
}

TEST_F(Report, ALostTimerIsBad) {
  guest.fired = 99;
  EXPECT_EQ(summarise(guest).lost, 1u);
  EXPECT_FALSE(good());
}

TEST_F(Report, AnEarlyTimerIsBadIfWeServedIt) {
  guest.lateness_ns[7] = -1;
  EXPECT_EQ(summarise(guest).early, 1u);
  EXPECT_FALSE(good());
  EXPECT_NE(printed.find("timer 8 of 100"), std::string::npos) << printed;
  run.mode = TimerMode::kernel;
  run.vcpus[0].punted = 0;
  EXPECT_TRUE(good()) << "the kernel's own is not ours to answer for";
}

TEST_F(Report, CallsServedByAnotherThanClaimedAreBad) {
  run.mode = TimerMode::kernel;
  EXPECT_FALSE(good());
  run.mode = TimerMode::delegated;
  EXPECT_TRUE(good());
  run.vcpus[0].punted = 0;
  EXPECT_FALSE(good());
}

TEST_F(Report, RefusedUnaskedFewerFaultyOrHungIsBad) {
  guest.refused = 1;
  EXPECT_FALSE(good());
  guest.refused = 0;
  guest.unasked = 1;
  guest.fired = 101;
  EXPECT_FALSE(good());
  guest.unasked = 0;
  guest.fired = 100;
  EXPECT_TRUE(good());
  guest.back = 1;
  EXPECT_FALSE(good());
  guest.back = 0;
  guest.fired = guest.armed = 99;
  run.vcpus[0].punted = 100;
  EXPECT_FALSE(good());
  SetUp();
  run.faults = {"vCPU 0: the guest crashed"};
  EXPECT_FALSE(good());
  run.faults.clear();
  run.timed_out = true;
  EXPECT_FALSE(good());
}

TEST_F(Report, AHostileReportIsReadWithinItsBounds) {
  guest.armed = max_timers;
  guest.fired = ~0u;
  guest.unasked = 0;
  guest.refused = ~0u;
  guest.lateness_ns[0] = -1;
  EXPECT_EQ(summarise(guest).lost, 0u);
  EXPECT_FALSE(good());
}

TEST_F(Report, ARowThatCannotBeWrittenIsSaid) {
  std::FILE* full = std::fopen("/dev/full", "w");
  ASSERT_NE(full, nullptr);
  EXPECT_FALSE(print_rows(full, run, judge(run, 100)));
  EXPECT_EQ(errno, ENOSPC);
  std::fclose(full);
}

TEST_F(Report, AsJsonHasWhatTheTableHas) {
  guest.lateness_ns[7] = -1500;
  run.faults = {"vCPU 0: \"quoted\"\n"};
  EXPECT_EQ(
      to_json(run, judge(run, 100)),
      R"({"served_by": "userspace", "vcpu_count": 1, "good": false, "timed_out": false, )"
      R"("remarks": ["vCPU 0: \"quoted\"\u000a"], "vcpus": [)"
      "\n    "
      R"({"vcpu": 0, "punted": 101, "armed": 100, "fired": 100, "lost": 0, "early": 1, )"
      R"("refused": 0, "unasked": 0, "clock_back": 0, "lateness_min_ns": -1500, "lateness_p50_ns": 50000, )"
      R"("lateness_p99_ns": 99000, "lateness_max_ns": 100000, )"
      R"("remarks": ["timer 8 of 100 came 1.5 us early"]}]})");
}

TEST_F(Report, WhereNothingFiredJsonHasNoLateness) {
  guest.fired = 0;
  const std::string json = to_json(run, judge(run, 100));
  EXPECT_NE(json.find(R"("lost": 100, )"), std::string::npos) << json;
  EXPECT_NE(json.find(R"("lateness_min_ns": null, "lateness_p50_ns": null)"), std::string::npos)
      << json;
}

TEST(LinuxJson, HasWhatIsSaidAtTheEnd) {
  LinuxRun run{.ending = Ending::crash, .fault = "vCPU 1: \"shutdown\"", .punted = 3};
  run.remarks = {"vCPU 0: it failed"};
  RunCounts counts{TimerMode::irqfd, std::vector<VcpuCounts>(2)};
  counts.vcpus[1].armed = 7;
  const std::string none =
      R"("cancelled": 0, "fired": 0, "late_sum_ns": 0, "late": [{"up_to_ns": 1000, "count": 0}, )"
      R"({"up_to_ns": 10000, "count": 0}, {"up_to_ns": 100000, "count": 0}, )"
      R"({"up_to_ns": 1000000, "count": 0}, {"up_to_ns": 10000000, "count": 0}, )"
      R"({"up_to_ns": 100000000, "count": 0}, {"up_to_ns": null, "count": 0}], "hypercalls": {}}})";
  EXPECT_EQ(
      to_json({.linux_release = "7.3.4", .run = run, .mode = TimerMode::irqfd, .counts = &counts}),
      R"({"linux": "7.3.4", "ending": "crash", "fault": "vCPU 1: \"shutdown\"", )"
      R"("remarks": ["vCPU 0: it failed"], "served_by": "irqfd", "punted": 3, "vcpus": [)"
      R"({"vcpu": 0, "stats": {"armed": 0, )" +
          none + R"(, {"vcpu": 1, "stats": {"armed": 7, )" + none + "]}\n");
}

TEST(LinuxJson, OfAGuestOfKvmsOwnHasNothingOfXen) {
  const LinuxRun run{.ending = Ending::poweroff};
  EXPECT_EQ(to_json({.linux_release = "6.1", .run = run}),
            R"({"linux": "6.1", "ending": "poweroff", "fault": null, "remarks": [], )"
            R"("served_by": null, "punted": null})"
            "\n");
}

TEST(Quoted, IsAJsonString) {
  EXPECT_EQ(json_string("a\"b\\c\t\x7f"), "\"a\\\"b\\\\c\\u0009\x7f\"");
  EXPECT_EQ(json_string(std::string_view("\0", 1)), "\"\\u0000\"");
  EXPECT_EQ(json_string("\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"),
            "\"\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"");
}

TEST(Quoted, WhatIsNotUtf8IsReplacedByteByByte) {
  const std::string_view bad[] = {"\xff", "\x80", "\xc0", "\xc3", "\xe2", "\xf5"};
  for (const std::string_view text : bad) EXPECT_EQ(json_string(text), "\"\xef\xbf\xbd\"");
  const std::string two = "\"\xef\xbf\xbd\xef\xbf\xbd\"";
  EXPECT_EQ(json_string("\xc0\xaf"), two) << "overlong";
  EXPECT_EQ(json_string("\xe2\x82"), two) << "cut off";
  const std::string three = "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"";
  EXPECT_EQ(json_string("\xed\xa0\x80"), three) << "a surrogate";
  EXPECT_EQ(json_string("\xe0\x9f\xbf"), three) << "overlong";
}

}  // namespace
}  // namespace vmm_reference
