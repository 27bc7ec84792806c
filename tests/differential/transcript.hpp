// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Transcripts of the semantics guest, what they should be, and where one mode may differ.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace differential {

// "case: what came of it".
struct Line {
  std::string name;
  std::string trace;             // words with one space between them
  bool by_kvm_exit_xen = false;  // only where hypercalls are KVM_EXIT_XEN
  bool several_vcpus = false;    // only with several vCPUs
};

// Where some modes do something else, and may.
struct Difference {
  std::string name;                // of the case
  std::vector<std::string> modes;  // their names, or "all"
  std::string trace;               // what they do there, exactly; "a|b" is either word
  std::string why;
};

// One run of the guest.
struct Run {
  std::string mode;
  bool by_kvm_exit_xen;
  std::vector<std::string> transcripts;  // one a vCPU, in the form of expected.txt
};

// The form of expected.txt: lines; "#" begins a comment, and "[KVM_EXIT_XEN]" or "[several vCPUs]"
// the lines for those. The error is a sentence.
[[nodiscard]] std::variant<std::vector<Line>, std::string> parse_lines(std::string_view text);

// The form of differences.txt: paragraphs of "case: …", "modes: a, b", "does: …", "why: …"; an
// indented line goes on with the one before. Each is of a case of `expected`.
[[nodiscard]] std::variant<std::vector<Difference>, std::string> parse_differences(
    std::string_view text, const std::vector<Line>& expected);

[[nodiscard]] bool belongs_in(const Line& line, const Run& run);

// What is wrong with a run, a paragraph each. Nothing if every case that belongs in it was left by
// some vCPU, no other was, and all are as the mode's difference says, or else as expected.
[[nodiscard]] std::vector<std::string> compare(const std::vector<Line>& expected,
                                               const std::vector<Difference>& differences,
                                               const Run& run);

}  // namespace differential
