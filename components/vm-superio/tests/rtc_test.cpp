// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "vm_superio/rtc.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace vm_superio {
namespace {

struct FixedClock {
  const std::time_t* now;
  std::time_t operator()() const { return *now; }
};

class RtcTest : public ::testing::Test {
 protected:
  std::uint8_t get(std::uint8_t index) {
    rtc_.write(0, index);
    return rtc_.read(1);
  }
  void set(std::uint8_t index, std::uint8_t value) {
    rtc_.write(0, index);
    rtc_.write(1, value);
  }
  // Century, year, month, day, weekday, hours, minutes, seconds.
  std::vector<int> time() {
    std::vector<int> all;
    for (const int index : {0x32, 9, 8, 7, 6, 4, 2, 0}) {
      all.push_back(get(static_cast<std::uint8_t>(index)));
    }
    return all;
  }

  std::time_t now_ = 1795526999;  // Tuesday, 2026-11-24 13:29:59
  Rtc<FixedClock> rtc_{FixedClock{&now_}};
};

TEST_F(RtcTest, TellsTheTimeInBcd) {
  EXPECT_EQ(time(), (std::vector<int>{0x20, 0x26, 0x11, 0x24, 3, 0x13, 0x29, 0x59}));
}

TEST_F(RtcTest, TellsTheTimeInBinaryWhereTheGuestWantsIt) {
  set(11, 0x06);
  EXPECT_EQ(time(), (std::vector<int>{20, 26, 11, 24, 3, 13, 29, 59}));
}

TEST_F(RtcTest, CountsTwelveHoursWhereTheGuestWantsIt) {
  set(11, 0x04);
  for (const auto& [hour, told] : std::vector<std::pair<int, int>>{
           {0, 12}, {1, 1}, {11, 11}, {12, 12 | 0x80}, {13, 1 | 0x80}, {23, 11 | 0x80}}) {
    now_ = hour * 3600;
    EXPECT_EQ(get(4), told) << hour;
  }
}

TEST_F(RtcTest, FollowsTheClock) {
  ++now_;
  EXPECT_EQ(get(0), 0x00);
  EXPECT_EQ(get(2), 0x30);
  now_ = 951782400;  // 2000-02-29
  EXPECT_EQ(time(), (std::vector<int>{0x20, 0x00, 0x02, 0x29, 3, 0, 0, 0}));
  now_ = -1;  // 1969-12-31
  EXPECT_EQ(get(0x32), 0x19);
  EXPECT_EQ(get(9), 0x69);
}

// Linux reads twice until no update is in progress, and doubts a clock whose battery is dead.
TEST_F(RtcTest, IsNeverInAnUpdateAndAlwaysValid) {
  set(10, 0xa6);
  EXPECT_EQ(get(10), 0x26);
  set(13, 0);
  EXPECT_EQ(get(13), 0x80);
  set(12, 0xff);
  EXPECT_EQ(get(12), 0);
}

TEST_F(RtcTest, CantBeSet) {
  const auto before = time();
  for (const int index : {0, 2, 4, 6, 7, 8, 9, 0x32}) set(static_cast<std::uint8_t>(index), 1);
  EXPECT_EQ(time(), before);
}

TEST_F(RtcTest, KeepsTheRestAsRamAndIgnoresTheNmiBit) {
  for (int index = 14; index < 128; ++index) {
    if (index != 0x32) set(static_cast<std::uint8_t>(index), static_cast<std::uint8_t>(index + 1));
  }
  for (int index = 14; index < 128; ++index) {
    if (index == 0x32) continue;
    EXPECT_EQ(get(static_cast<std::uint8_t>(index | 0x80)), index + 1);
  }
}

TEST_F(RtcTest, GoesOnWhereItWasSaved) {
  set(0x70, 0x55);
  set(11, 0x06);
  rtc_.write(0, 0x70);
  Rtc<FixedClock> other{FixedClock{&now_}};
  other.restore(rtc_.state());
  EXPECT_EQ(other.read(1), 0x55);
  EXPECT_EQ(other.state(), rtc_.state());

  RtcState hostile;
  hostile.index = 0xff;
  other.restore(hostile);
  EXPECT_EQ(other.read(1), 0);
}

TEST_F(RtcTest, AnswersWhateverTheGuestWritesAndWheneverItIs) {
  for (const std::time_t now : {std::numeric_limits<std::time_t>::min(),
                                std::numeric_limits<std::time_t>::max(), std::time_t{-1}}) {
    now_ = now;
    for (unsigned control = 0; control < 256; ++control) {
      set(11, static_cast<std::uint8_t>(control));
      for (unsigned index = 0; index < 256; ++index) {
        (void)get(static_cast<std::uint8_t>(index));
      }
    }
  }
}

}  // namespace
}  // namespace vm_superio
