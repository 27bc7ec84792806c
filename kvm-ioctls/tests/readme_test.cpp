// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The README's table of ioctls, held against the headers: a row for each ioctl of each handle, with
// the methods that call it, and the capability and the kernel that their comment names. That a test
// calls it: handles_test.cpp without a kernel; kvm_device_test's own end, on one.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <map>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "readme_table.hpp"

namespace kvm_ioctls {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// In which order a row's methods stand, and whose row they are in.
struct Header {
  const char* name;
  std::map<std::string, std::string> handle;  // of a class
};
const std::vector<Header> headers = {
    {"kvm", {{"Kvm", "Kvm"}}},
    {"vm", {{"Vm", "Vm"}}},
    {"vm_memory", {{"VmMemory", "Vm"}}},
    {"vm_interrupts", {{"VmInterrupts", "Vm"}}},
    {"registration",
     {{"IrqFd", "Vm"}, {"IoEventFd", "Vm"}, {"HypervEventFd", "Vm"}, {"CoalescedMmioZone", "Vm"}}},
    {"vcpu", {{"Vcpu", "Vcpu"}}},
    {"vcpu_registers", {{"VcpuRegisters", "Vcpu"}}},
    {"vcpu_events", {{"VcpuEvents", "Vcpu"}}},
    {"device_attr", {{"DeviceAttributes", "Device"}}},
};

// An ioctl of a handle.
struct Wrapped {
  std::vector<std::string> methods;
  std::string capabilities;
  std::string since;
  std::string needs;
  bool has_comment = false;
};
using Key = std::pair<std::string, std::string>;  // handle, ioctl

// As the README names the method: what a class is a part of, but for the owners.
std::string shown(const std::string& name, const std::string& handle, const std::string& method) {
  if (name == "DeviceAttributes") return "Kvm, Vm, Vcpu, Device::" + method;
  const bool is_part = name == handle + "Memory" || name == handle + "Interrupts" ||
                       name == handle + "Registers" || name == handle + "Events";
  return (is_part ? handle : name) + "::" + method;
}

// "[KVM_CAP_A; B, 4.19; 5.8 on AMD, needs SEV or TDX]" without the brackets.
void read_bracket(const std::string& bracket, Wrapped& wrapped) {
  static const std::regex form(R"(([^,]*), ([^,]*)(?:, needs (.*))?)");
  std::smatch parts;
  ASSERT_TRUE(std::regex_match(bracket, parts, form)) << bracket;
  EXPECT_FALSE(wrapped.has_comment) << bracket << " is a second comment of the same ioctl";
  wrapped.has_comment = true;
  wrapped.capabilities = std::regex_replace(parts.str(1), std::regex("^KVM_CAP_"), "");
  wrapped.since = parts.str(2);
  wrapped.needs = parts.str(3);
}

void read_header(const Header& header, std::map<Key, Wrapped>& all) {
  std::istringstream lines(
      text_of(std::string(KVM_IOCTLS_SOURCE) + "/include/kvm_ioctls/" + header.name + ".hpp"));
  static const std::regex class_line(R"(^class (\w+).*)");
  static const std::regex comment_line(R"(^  // (.*))");
  static const std::regex documented(R"(((?:KVM_\w+, )*KVM_\w+) \[([^\]]*)\])");
  static const std::regex function_line(R"(^  (?!requires)[^ /].*?(\w+)\(.*)");
  static const std::regex call(
      R"((?:KVM_IOCTLS_(?:CALL|GET|SET)|::ioctl)\((?:(?!KVM_)[^;])*?(KVM_\w+))");
  std::string name;
  std::string handle;
  std::string method;
  std::string comment;
  std::string body;
  const auto take_comment = [&] {
    for (std::sregex_iterator at(comment.begin(), comment.end(), documented), end; at != end;
         ++at) {
      static const std::regex ioctl_name("KVM_\\w+");
      const std::string names = at->str(1);
      for (std::sregex_iterator one(names.begin(), names.end(), ioctl_name); one != end; ++one) {
        read_bracket(at->str(2), all[{handle, one->str()}]);
      }
    }
    comment.clear();
  };
  const auto take_body = [&] {
    for (std::sregex_iterator at(body.begin(), body.end(), call), end; at != end; ++at) {
      auto& methods = all[{handle, at->str(1)}].methods;
      const std::string as_shown = shown(name, handle, method);
      if (std::find(methods.begin(), methods.end(), as_shown) == methods.end()) {
        methods.push_back(as_shown);
      }
    }
    body.clear();
  };
  std::string line;
  while (std::getline(lines, line)) {
    std::smatch match;
    if (std::regex_match(line, match, class_line)) {
      take_body();
      name = match.str(1);
      const auto found = header.handle.find(name);
      handle = found == header.handle.end() ? "" : found->second;
    } else if (handle.empty()) {
      continue;
    } else if (std::regex_match(line, match, comment_line)) {
      take_body();
      comment += match.str(1) + " ";
    } else {
      take_comment();
      if (std::regex_match(line, match, function_line)) {
        take_body();
        method = match.str(1);
      }
      body += line + " ";
    }
  }
  take_body();
}

std::map<Key, Wrapped> read_headers() {
  std::map<Key, Wrapped> all;
  for (const Header& header : headers) read_header(header, all);
  return all;
}

// The row as it should be, but for where it was called.
Row expected(const Key& key, const Wrapped& wrapped) {
  Row row{key.second, {}, wrapped.capabilities, wrapped.since, {}};
  for (const std::string& method : wrapped.methods) {
    row.methods += (row.methods.empty() ? "`" : ", `") + method + "`";
  }
  return row;
}

TEST(ReadmeTable, HasARowForEachIoctlOfEachHandleAndNoOther) {
  const auto all = read_headers();
  EXPECT_GE(all.size(), 110u);
  std::vector<Row> rows = read_table();
  std::ostringstream table;  // as it should be
  bool same = true;
  for (const auto& [key, wrapped] : all) {
    EXPECT_TRUE(wrapped.has_comment) << key.first << " " << key.second << " has no comment";
    EXPECT_FALSE(wrapped.methods.empty()) << key.second << " is in a comment and not called";
    Row row = expected(key, wrapped);
    const auto at = std::find_if(rows.begin(), rows.end(), [&](const Row& other) {
      return other.ioctl == row.ioctl && other.methods == row.methods;
    });
    row.where = at == rows.end() ? "unit" : at->where;
    table << row << '\n';
    same = same && at != rows.end() && *at == row;
    if (at == rows.end()) continue;
    EXPECT_EQ(row.where.rfind("unit", 0), 0u) << row;
    EXPECT_EQ(row.where.find("needs ") != std::string::npos, !wrapped.needs.empty()) << row.ioctl;
    if (!wrapped.needs.empty()) {
      EXPECT_EQ(row.where, "unit; needs " + wrapped.needs);
    }
    rows.erase(at);
  }
  for (const Row& row : rows) ADD_FAILURE() << "no such ioctl or method: " << row;
  EXPECT_TRUE(same) << "the rows should be:\n" << table.str();
}

TEST(ReadmeTable, EachIsCalledWithoutAKernel) {
  const std::string test = text_of(std::string(KVM_IOCTLS_SOURCE) + "/tests/handles_test.cpp");
  std::set<Key> called;
  static const std::regex call(R"(CALL(?:_AS)?\((\w+), (KVM_\w+),)");
  for (std::sregex_iterator at(test.begin(), test.end(), call), end; at != end; ++at) {
    std::string handle = at->str(1);
    handle[0] = static_cast<char>(std::toupper(handle[0]));
    if (at->str(2).find("_DEVICE_ATTR") != std::string::npos) handle = "Device";  // of any handle
    called.insert({handle, at->str(2)});
  }
  for (const auto& [key, wrapped] : read_headers()) {
    EXPECT_TRUE(called.erase(key) != 0) << key.first << " " << key.second << " in handles_test.cpp";
  }
  for (const Key& key : called) ADD_FAILURE() << key.first << " " << key.second << " isn't wrapped";
}

}  // namespace
}  // namespace kvm_ioctls
