// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "transcript.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <sstream>

namespace differential {

namespace {

std::vector<std::string> words(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> words;
  for (std::string word; stream >> word;) words.push_back(word);
  return words;
}

// One space between words, none around them.
std::string tidy(std::string_view text) {
  std::string tidied;
  for (const std::string& word : words(text)) tidied += (tidied.empty() ? "" : " ") + word;
  return tidied;
}

struct Field {
  bool goes_on = false;  // with the one before; then all is value
  std::string key;       // up to the first colon
  std::string value;
};

// Empty lines and comments left out. A line without a colon has no key.
std::vector<Field> fields_of(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<Field> fields;
  for (std::string line; std::getline(stream, line);) {
    const std::string tidied = tidy(line);
    if (tidied.empty() || tidied.front() == '#') continue;
    const bool goes_on = line.front() == ' ';
    const std::size_t colon = goes_on ? std::string::npos : tidied.find(':');
    if (colon == std::string::npos) {
      fields.push_back({goes_on, "", tidied});
    } else {
      fields.push_back({false, tidied.substr(0, colon), tidy(tidied.substr(colon + 1))});
    }
  }
  return fields;
}

const Difference* find(const std::vector<Difference>& differences, const std::string& name,
                       const std::string& mode) {
  for (const Difference& difference : differences) {
    if (difference.name != name) continue;
    for (const std::string& its : difference.modes) {
      if (its == mode || its == "all") return &difference;
    }
  }
  return nullptr;
}

// Word by word; "a|b" among those that should be is either.
bool matches(const std::string& got, const std::string& should) {
  const auto is_either = [](const std::string& word, const std::string& either) {
    return word.find('|') == std::string::npos &&
           ("|" + either + "|").find("|" + word + "|") != std::string::npos;
  };
  const std::vector<std::string> left = words(got);
  const std::vector<std::string> right = words(should);
  return std::equal(left.begin(), left.end(), right.begin(), right.end(), is_either);
}

}  // namespace

std::variant<std::vector<Line>, std::string> parse_lines(std::string_view text) {
  std::vector<Line> lines;
  std::set<std::string> names;
  Line section;
  for (const Field& field : fields_of(text)) {
    if (field.value == "[KVM_EXIT_XEN]" || field.value == "[several vCPUs]") {
      section = {};
      section.by_kvm_exit_xen = field.value == "[KVM_EXIT_XEN]";
      section.several_vcpus = !section.by_kvm_exit_xen;
      continue;
    }
    if (field.key.empty()) return "no case in \"" + field.value + "\"";
    if (!names.insert(field.key).second) return "two lines of the case \"" + field.key + "\"";
    lines.push_back(section);
    lines.back().name = field.key;
    lines.back().trace = field.value;
  }
  return lines;
}

std::variant<std::vector<Difference>, std::string> parse_differences(
    std::string_view text, const std::vector<Line>& expected) {
  std::vector<Difference> differences;
  std::string* last = nullptr;
  for (const Field& field : fields_of(text)) {
    if (field.goes_on && last != nullptr) {
      *last += " " + field.value;
      continue;
    }
    if (field.key == "case") differences.push_back({});
    if (differences.empty()) return "no case before \"" + field.key + field.value + "\"";
    Difference& difference = differences.back();
    if (field.key == "modes") {
      std::string list = field.value;
      std::replace(list.begin(), list.end(), ',', ' ');
      difference.modes = words(list);
      last = nullptr;
      continue;
    }
    last = field.key == "case"   ? &difference.name
           : field.key == "does" ? &difference.trace
           : field.key == "why"  ? &difference.why
                                 : nullptr;
    if (last == nullptr) return "what is \"" + field.key + field.value + "\"?";
    *last = field.value;
  }
  for (const Difference& d : differences) {
    if (d.modes.empty() || d.trace.empty() || d.why.empty()) {
      return "case \"" + d.name + "\" lacks one of modes, does and why";
    }
    if (std::none_of(expected.begin(), expected.end(),
                     [&](const Line& line) { return line.name == d.name; })) {
      return "there is no case \"" + d.name + "\"";
    }
  }
  return differences;
}

bool belongs_in(const Line& line, const Run& run) {
  return (!line.several_vcpus || run.transcripts.size() > 1) &&
         (!line.by_kvm_exit_xen || run.by_kvm_exit_xen);
}

std::vector<std::string> compare(const std::vector<Line>& expected,
                                 const std::vector<Difference>& differences, const Run& run) {
  const std::size_t vcpus = run.transcripts.size();
  std::vector<std::string> wrong;
  std::map<std::string, std::string> traces;
  for (const Line& line : expected) {
    if (!belongs_in(line, run)) continue;
    const Difference* difference = find(differences, line.name, run.mode);
    traces[line.name] = difference != nullptr ? difference->trace : line.trace;
  }

  std::set<std::string> left;
  for (std::size_t vcpu = 0; vcpu < vcpus; ++vcpu) {
    const auto differs = [&](const std::string& name, const std::string& should,
                             const std::string& got) {
      wrong.push_back(name + "\n  mode:     " + run.mode + ", vCPU " + std::to_string(vcpu) +
                      " of " + std::to_string(vcpus) + "\n  expected: " + should +
                      "\n  got:      " + got);
    };
    auto parsed = parse_lines(run.transcripts[vcpu]);
    if (const auto* error = std::get_if<std::string>(&parsed)) {
      differs("the transcript", "one line a case", *error);
      continue;
    }
    for (const Line& got : std::get<std::vector<Line>>(parsed)) {
      left.insert(got.name);
      const auto known = traces.find(got.name);
      if (known == traces.end()) {
        differs(got.name, "no such case", got.trace);
      } else if (!matches(got.trace, known->second)) {
        differs(got.name, known->second, got.trace);
      }
    }
  }
  for (const auto& [name, trace] : traces) {
    if (left.count(name) != 0) continue;
    wrong.push_back(name + "\n  mode:     " + run.mode + ", " + std::to_string(vcpus) +
                    " vCPUs\n  expected: " + trace + "\n  got:      no line of it");
  }
  return wrong;
}

}  // namespace differential
