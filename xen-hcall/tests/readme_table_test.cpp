// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The README's table of hypercalls, held against the handlers: each row does what it says, and
// what is in no row isn't there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <regex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "double_vmm.hpp"
#include "xen_abi/domain.hpp"
#include "xen_hcall/console_op.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/event_channel_op.hpp"
#include "xen_hcall/grant_table_op.hpp"
#include "xen_hcall/hvm_op.hpp"
#include "xen_hcall/memory_op.hpp"
#include "xen_hcall/multicall_op.hpp"
#include "xen_hcall/physdev_op.hpp"
#include "xen_hcall/sched_op.hpp"
#include "xen_hcall/vcpu_op.hpp"
#include "xen_hcall/version_op.hpp"
#include "xen_hcall/vm_assist_op.hpp"

namespace xen_hcall {
namespace {

// A VMM's, with all handlers but the timers'.
struct All {
  DoubleVmm vmm;
  xen_evtchn::Channels channels{64, 1};
  Shutdown<DoubleVmm> shutdown{vmm};
  VersionOp<DoubleVmm> version{vmm, {}};
  MemoryOp<DoubleVmm> memory{vmm, {{0, memory_size, xen_abi::e820_ram}}};
  VcpuOp<DoubleVmm> vcpus{vmm, 1, shutdown};
  HvmOp<DoubleVmm> hvm{vmm, 1};
  EventChannelOp<DoubleVmm> events{vmm, channels};
  SchedOp<DoubleVmm> sched{vmm, channels, shutdown};
  GrantTableOp<DoubleVmm> grants{vmm};
  ConsoleOp<DoubleVmm> console{vmm};
  PhysdevOp<DoubleVmm> physdev{vmm};
  VmAssistOp<DoubleVmm> vm_assist{vmm};
};

constexpr std::uint64_t whole_call =
    ~std::uint64_t{0};  // in place of a sub-op, where there is none

GuestResult ask(std::uint64_t number, std::uint64_t op) {
  All all;
  std::memcpy(all.vmm.memory.data(), &xen_abi::domid_self, sizeof(xen_abi::domid_self));
  Dispatcher calls(all.version, all.memory, all.vcpus, all.hvm, all.events, all.sched, all.grants,
                   all.console, all.physdev, all.vm_assist);
  MulticallOp multicall(all.vmm, calls);
  Dispatcher dispatcher(multicall, calls);
  Hypercall call{number, {op, base, base}, true, 0};
  if (op == whole_call) call.params = {base, 0};
  switch (number) {
    case xen_abi::hypercall::vcpu_op:
      call.params[1] = 0;  // the vCPU
      break;
    case xen_abi::hypercall::console_io:
      call.params[1] = 1;  // a character
      break;
    case xen_abi::hypercall::grant_table_op:
      call.params[2] = 1;  // operation
      break;
    case xen_abi::hypercall::vm_assist:
      call.params[1] = xen_abi::vm_assist::runstate_update_flag;
      break;
    default:
      break;
  }
  return dispatcher({0}, call).guest;
}

struct Row {
  std::uint64_t number;
  std::uint64_t op;
  std::string name;
  std::string here;
  std::string qemu;
};

std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  for (std::size_t at = line.find('|'); at != std::string::npos;) {
    const std::size_t next = line.find('|', at + 1);
    if (next == std::string::npos) break;
    std::string cell = line.substr(at + 1, next - at - 1);
    cell.erase(0, cell.find_first_not_of(' '));
    cell.erase(cell.find_last_not_of(' ') + 1);
    cells.push_back(cell);
    at = next;
  }
  return cells;
}

// One for each sub-op that has its number there.
std::vector<Row> read_table() {
  std::vector<Row> rows;
  std::ifstream readme(XEN_HCALL_README);
  const std::regex named(R"(([a-z_0-9]+) ([0-9]+))");
  std::uint64_t number = 0;
  bool within = false;
  for (std::string line; std::getline(readme, line);) {
    if (line.rfind("| hypercall | sub-op |", 0) == 0) within = true;
    if (!within || line.rfind("|---", 0) == 0) continue;
    if (line.empty()) break;
    const auto cells = cells_of(line);
    if (cells.size() != 4) continue;
    std::smatch match;
    if (std::regex_search(cells[0], match, named)) number = std::stoull(match[2]);
    if (cells[1].empty() && !cells[0].empty() && match.size() != 0) {
      rows.push_back({number, whole_call, cells[0], cells[2], cells[3]});
    }
    for (std::sregex_iterator at(cells[1].begin(), cells[1].end(), named), end; at != end; ++at) {
      rows.push_back({number, std::stoull((*at)[2]), (*at)[1], cells[2], cells[3]});
    }
  }
  return rows;
}

const std::map<std::string, Errno> names{
    {"-EPERM", Errno::perm},   {"-ESRCH", Errno::srch},           {"-EINVAL", Errno::inval},
    {"-ENOSYS", Errno::nosys}, {"-EOPNOTSUPP", Errno::opnotsupp}, {"-EFAULT", Errno::fault}};

std::vector<GuestResult> errnos_in(const std::string& cell) {
  std::vector<GuestResult> errnos;
  for (const auto& [name, value] : names) {
    if (cell.find(name) != std::string::npos) errnos.push_back(GuestResult(value));
  }
  return errnos;
}

bool is_there(const std::string& cell) { return cell.rfind("yes", 0) == 0; }
bool is_refused(const std::string& cell) { return cell.rfind("refused", 0) == 0; }
bool is_others(const std::string& cell) { return cell == "xen-timer"; }

TEST(ReadmeTable, EachRowDoesWhatItSays) {
  const auto rows = read_table();
  EXPECT_GE(rows.size(), 80u);
  for (const Row& row : rows) {
    SCOPED_TRACE(std::to_string(row.number) + ", " + row.name + " " + std::to_string(row.op));
    const GuestResult result = ask(row.number, row.op);
    const auto errnos = errnos_in(row.here);
    if (is_there(row.here)) {
      EXPECT_NE(result, GuestResult(Errno::nosys));
    } else if (is_refused(row.here) && row.here.find('"') == std::string::npos) {
      EXPECT_NE(std::find(errnos.begin(), errnos.end(), result), errnos.end()) << result.rax();
    } else if (!is_refused(row.here)) {
      EXPECT_TRUE(row.here == "-" || is_others(row.here)) << row.here;
      EXPECT_EQ(result, GuestResult(Errno::nosys));
    }
  }
}

TEST(ReadmeTable, WhatIsInNoRowIsntThere) {
  std::set<std::pair<std::uint64_t, std::uint64_t>> told;
  std::set<std::uint64_t> numbers;
  for (const Row& row : read_table()) {
    told.insert({row.number, row.op});
    numbers.insert(row.number);
  }
  const auto has_sub_ops = [&](std::uint64_t number) {
    return numbers.contains(number) && !told.contains({number, whole_call});
  };
  for (std::uint64_t number = 0; number < 64; ++number) {
    for (std::uint64_t op = 0; op < 64; ++op) {
      if (told.contains({number, op}) || told.contains({number, whole_call})) continue;
      EXPECT_EQ(ask(number, op), GuestResult(Errno::nosys))
          << number << ", " << op << (has_sub_ops(number) ? "" : ", of which there is no row");
    }
  }
}

// QEMU has nothing that isn't here, but for PIRQs, which this isn't to
// have; XENFEAT_hvm_pirqs says so to guests.
TEST(ReadmeTable, QemuHandlesNothingThatIsntHereButPirqs) {
  for (const Row& row : read_table()) {
    const bool qemu_has_it = row.qemu != "-" && row.qemu.rfind("-E", 0) != 0;
    if (!qemu_has_it) continue;
    const bool pirq = row.number == xen_abi::hypercall::physdev_op || row.name == "bind_pirq";
    EXPECT_TRUE(is_there(row.here) || is_others(row.here) || pirq) << row.name << ": " << row.here;
  }
}

}  // namespace
}  // namespace xen_hcall
