// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What --stats, --metrics and --trace ask for: shows and writes what the runs' counters say.
//
//   auto observer = Observer::open(options);              // before the sandbox is entered
//   …
//   const ObservedRun observed(&observer, loop, platform.observation(), mode, title);
//   …                                                     // each second, on the loop's thread
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "counts.hpp"
#include "observation.hpp"
#include "options.hpp"
#include "trace_file.hpp"
#include "vmm_base/unique_fd.hpp"

namespace vmm_reference {

class Observer {
 public:
  // Error: a sentence, of a file that can't be had.
  static std::variant<Observer, std::string> open(const Options& options);

  // Whether what runs now is shown in place, on standard error.
  [[nodiscard]] bool is_live() const noexcept { return show_ == Show::live; }
  // Of all runs so far.
  [[nodiscard]] std::span<const RunCounts> runs() const noexcept { return runs_; }
  // After the last. False if something couldn't be written; it has been said.
  [[nodiscard]] bool end();

 private:
  friend class ObservedRun;
  enum class Show { nothing, lines, live };

  Observer() = default;
  vmm_base::Result<void> write_metrics();
  void say_of(const std::string& path, const vmm_base::Result<void>& written);

  Show show_ = Show::nothing;
  bool raw_ = false;  // the guest has the terminal, on which a line then ends by "\r\n"
  std::string metrics_path_;
  std::string trace_path_;
  vmm_base::UniqueFd metrics_;
  std::optional<TraceFile> trace_;
  std::vector<RunCounts> runs_;
  bool failed_ = false;
};

// From before the vCPUs run until after the last thread that counts has ended.
class ObservedRun {
 public:
  // Null: nothing.
  ObservedRun(Observer* observer, boost::asio::io_context& loop, Observation& observation,
              TimerMode mode, std::string title);
  ~ObservedRun();
  ObservedRun(const ObservedRun&) = delete;
  ObservedRun& operator=(const ObservedRun&) = delete;

 private:
  void wait();
  void look();
  void show();

  Observer* observer_;
  const Observation& observation_;
  boost::asio::steady_timer tick_;
  std::string title_;
  std::chrono::seconds passed_{0};
  bool shown_ = false;
};

}  // namespace vmm_reference
