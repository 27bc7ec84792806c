// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A trace that Perfetto's viewer and chrome://tracing open: the "JSON Object Format" of Chrome's
// trace events. A process a run, a track a vCPU.
#pragma once

#include <cstdint>
#include <string>

#include "observation.hpp"
#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {

class TraceFile {
 public:
  // Empties the file, or makes it.
  static vmm_base::Result<TraceFile> open(const std::string& path);
  TraceFile(TraceFile&&) = default;
  TraceFile& operator=(TraceFile&&) = delete;
  ~TraceFile() { (void)end(); }

  // What happened in a run; its threads have ended.
  vmm_base::Result<void> add(const std::string& title, const Observation& observation);
  // What makes it a whole document; nothing is added any more. The destructor's, where nobody asks
  // whether that went well.
  vmm_base::Result<void> end();
  // Of all runs, those that were no longer there.
  [[nodiscard]] std::uint64_t overwritten() const noexcept { return overwritten_; }

 private:
  explicit TraceFile(vmm_base::UniqueFd file) : file_(std::move(file)), start_(trace_now()) {}
  void put(const std::string& event);
  vmm_base::Result<void> flush();

  vmm_base::UniqueFd file_;
  std::int64_t start_;
  std::string text_;  // not yet written
  std::uint64_t overwritten_ = 0;
  int runs_ = 0;
  bool begun_ = false;  // there is an event
};

}  // namespace vmm_reference
