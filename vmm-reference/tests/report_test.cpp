// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "report.hpp"

#include <gtest/gtest.h>

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
    const bool verdict = print_rows(out, run, 100);
    std::fclose(out);
    printed.assign(text, size);
    std::free(text);  // NOLINT: open_memstream's
    return verdict;
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

}  // namespace
}  // namespace vmm_reference
