// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The README's table of ioctls. The README is compiled in, as it isn't where the lab runs a test.
#pragma once

#include <ostream>
#include <sstream>
#include <string>
#include <vector>

#include "readme_text.hpp"  // made by CMake

namespace kvm_ioctls {

struct Row {
  std::string ioctl;
  std::string methods;
  std::string capabilities;
  std::string since;
  std::string where;
  friend bool operator==(const Row&, const Row&) = default;
  friend std::ostream& operator<<(std::ostream& to, const Row& row) {
    return to << "| `" << row.ioctl << "` | " << row.methods << " | " << row.capabilities << " | "
              << row.since << " | " << row.where << " |";
  }
};

// Every line of the README that begins with an ioctl in a cell.
inline std::vector<Row> read_table() {
  std::istringstream readme(readme_text);
  std::vector<Row> rows;
  std::string line;
  while (std::getline(readme, line)) {
    if (line.rfind("| `KVM_", 0) != 0) continue;
    std::vector<std::string> cells;
    std::istringstream rest(line.substr(1));
    for (std::string cell; std::getline(rest, cell, '|');) {
      const auto begin = cell.find_first_not_of(' ');
      const auto end = cell.find_last_not_of(' ');
      cells.push_back(begin == std::string::npos ? "" : cell.substr(begin, end - begin + 1));
    }
    cells.resize(5);
    if (cells[0].size() > 2) cells[0] = cells[0].substr(1, cells[0].size() - 2);
    rows.push_back({cells[0], cells[1], cells[2], cells[3], cells[4]});
  }
  return rows;
}

}  // namespace kvm_ioctls
