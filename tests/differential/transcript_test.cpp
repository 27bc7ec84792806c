// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "transcript.hpp"

#include <gtest/gtest.h>

namespace differential {
namespace {

constexpr std::string_view expected_text = R"(# a comment
one:      set=0   upcall
two:      stop=0
[KVM_EXIT_XEN]
ring:     set=-EPERM
[several vCPUs]
both:     set=0 quiet
)";
constexpr std::string_view differences_text = R"(
case: two
modes: kernel, other
does: stop=-EINVAL
why: it is so
  and has been so
)";

std::vector<Line> lines(std::string_view text = expected_text) {
  return std::get<std::vector<Line>>(parse_lines(text));
}
std::vector<std::string> wrong(const Run& run) {
  return compare(lines(),
                 std::get<std::vector<Difference>>(parse_differences(differences_text, lines())),
                 run);
}
std::string error_of(std::string_view differences) {
  const auto parsed = parse_differences(differences, lines());
  const auto* error = std::get_if<std::string>(&parsed);
  return error != nullptr ? *error : "none";
}

TEST(Transcript, IsReadWithItsSections) {
  const auto read = lines();
  ASSERT_EQ(read.size(), 4u);
  EXPECT_EQ(read[0].name, "one");
  EXPECT_EQ(read[0].trace, "set=0 upcall");
  EXPECT_FALSE(read[1].by_kvm_exit_xen || read[1].several_vcpus);
  EXPECT_TRUE(read[2].by_kvm_exit_xen && !read[2].several_vcpus);
  EXPECT_TRUE(read[3].several_vcpus && !read[3].by_kvm_exit_xen);
  EXPECT_TRUE(std::holds_alternative<std::string>(parse_lines("one: a\none: b\n")));
  EXPECT_TRUE(std::holds_alternative<std::string>(parse_lines("no case here\n")));
}

TEST(Transcript, ADifferenceIsWholeAndOfACaseThereIs) {
  EXPECT_EQ(error_of(differences_text), "none");
  EXPECT_NE(error_of("case: three\nmodes: a\ndoes: b\nwhy: c\n"), "none");
  EXPECT_NE(error_of("case: two\nmodes: a\ndoes: b\n"), "none");
  EXPECT_NE(error_of("case: two\nmodes: a\nwhy: c\n"), "none");
  EXPECT_NE(error_of("case: two\ndoes: b\nwhy: c\n"), "none");
  EXPECT_NE(error_of("modes: a\n"), "none");
  EXPECT_NE(error_of("case: two\nmode: a\n"), "none");
  const auto read = std::get<std::vector<Difference>>(parse_differences(differences_text, lines()));
  EXPECT_EQ(read[0].modes, (std::vector<std::string>{"kernel", "other"}));
  EXPECT_EQ(read[0].why, "it is so and has been so");
}

TEST(Transcript, AllAsExpectedIsRight) {
  EXPECT_EQ(wrong({"userspace", false, {"one: set=0 upcall\ntwo: stop=0\n"}}).size(), 0u);
  EXPECT_EQ(
      wrong({"userspace", true, {"one: set=0 upcall\ntwo: stop=0\nring: set=-EPERM\n"}}).size(),
      0u);
  // Which vCPU leaves a line is its own business; both may.
  EXPECT_EQ(wrong({"userspace",
                   false,
                   {"both: set=0 quiet\n# 2 cases run again\n",
                    "one: set=0 upcall\ntwo: stop=0\nboth: set=0 quiet\n"}})
                .size(),
            0u);
}

TEST(Transcript, ADeviationIsToldByCaseAndMode) {
  const auto told = wrong({"userspace", false, {"one: set=0\ntwo: stop=0\n"}});
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(told[0],
            "one\n  mode:     userspace, vCPU 0 of 1\n  expected: set=0 upcall\n"
            "  got:      set=0");
}

TEST(Transcript, MissingUnknownAndUnreadableLinesAreWrong) {
  EXPECT_EQ(wrong({"userspace", false, {"one: set=0 upcall\n"}}).size(), 1u);
  EXPECT_EQ(wrong({"userspace", false, {"one: set=0 upcall\ntwo: stop=0\nthree: set=0\n"}}).size(),
            1u);
  // Two are missing and one can't be read.
  EXPECT_EQ(wrong({"userspace", false, {"garbage\n"}}).size(), 3u);
  EXPECT_EQ(wrong({"userspace", false, {"one: set=0 upcall\ntwo: stop=0\n", ""}}).size(), 1u);
}

TEST(Transcript, ADifferenceHoldsForItsModesAndExactly) {
  const std::string as_xen = "one: set=0 upcall\ntwo: stop=0\n";
  const std::string differing = "one: set=0 upcall\ntwo: stop=-EINVAL\n";
  EXPECT_EQ(wrong({"kernel", false, {differing}}).size(), 0u);
  EXPECT_EQ(wrong({"userspace", false, {differing}}).size(), 1u);
  EXPECT_EQ(wrong({"kernel", false, {as_xen}}).size(), 1u) << "it is gone, and should be struck";
  EXPECT_EQ(wrong({"kernel", false, {"one: set=0 upcall\ntwo: stop=-EPERM\n"}}).size(), 1u);
}

TEST(Transcript, ADifferenceMayLeaveAWordOpen) {
  const auto parsed = parse_differences("case: two\nmodes: all\ndoes: a b|c\nwhy: y\n", lines());
  const auto& open = std::get<std::vector<Difference>>(parsed);
  const auto count = [&](const std::string& trace) {
    return compare(lines(), open, {"any", false, {"one: set=0 upcall\ntwo: " + trace + "\n"}})
        .size();
  };
  EXPECT_EQ(count("a b"), 0u);
  EXPECT_EQ(count("a c"), 0u);
  EXPECT_EQ(count("a b|c"), 1u);
  EXPECT_EQ(count("a b c"), 1u);
  EXPECT_EQ(count("a"), 1u);
  EXPECT_EQ(count("b"), 1u);
}

TEST(Transcript, ADifferenceOfAllModesHoldsForAny) {
  const auto all = parse_differences("case: two\nmodes: all\ndoes: x\nwhy: y\n", lines());
  EXPECT_TRUE(compare(lines(), std::get<std::vector<Difference>>(all),
                      {"any", false, {"one: set=0 upcall\ntwo: x\n"}})
                  .empty());
}

}  // namespace
}  // namespace differential
