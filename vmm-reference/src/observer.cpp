// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "observer.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <new>
#include <utility>

#include "progress.hpp"

namespace vmm_reference {

using vmm_base::Result;

namespace {

constexpr std::chrono::seconds period{1};
constexpr std::chrono::seconds between_lines{10};

VcpuCounts sum(const RunCounts& run) {
  VcpuCounts all;
  for (const VcpuCounts& vcpu : run.vcpus) all += vcpu;
  return all;
}

}  // namespace

std::variant<Observer, std::string> Observer::open(const Options& options) {
  Observer observer;
  const bool has_console = options.guest.empty();
  if (options.stats) {
    // Not in the middle of what the guest writes there.
    const bool shared = has_console && ::isatty(STDOUT_FILENO) != 0;
    if (is_live_terminal() && !shared) {
      observer.show_ = Show::live;
    } else if (!has_console || !options.json) {  // whose document is to be alone there
      observer.show_ = Show::lines;
    }
  }
  observer.raw_ = has_console && ::isatty(STDERR_FILENO) != 0;
  const auto why = [](const std::string& option, const std::string& path, int code) {
    return option + " " + path + ": " + ::strerrordesc_np(code);
  };
  if (!options.metrics.empty()) {
    observer.metrics_path_ = options.metrics;
    observer.metrics_ =
        vmm_base::UniqueFd(::open(options.metrics.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC,
                                  S_IRUSR | S_IWUSR | S_IRGRP | S_IROTH));
    if (!observer.metrics_) return why("--metrics", options.metrics, errno);
    auto written = observer.write_metrics();
    if (!written) return why("--metrics", options.metrics, written.error().code);
    // The rest of what was there before; from now on the text only grows.
    if (::ftruncate(observer.metrics_.get(), static_cast<off_t>(to_openmetrics({}).size())) != 0) {
      return why("--metrics", options.metrics, errno);
    }
  }
  if (!options.trace.empty()) {
    observer.trace_path_ = options.trace;
    auto opened = TraceFile::open(options.trace);
    if (!opened) return why("--trace", options.trace, opened.error().code);
    observer.trace_.emplace(std::move(opened).assume_value());
  }
  return observer;
}

// In one call, and not beside and renamed, which the sandbox forbids: a reader sees a whole text.
Result<void> Observer::write_metrics() {
  const std::string text = to_openmetrics(runs_);
  const ssize_t size = ::pwrite(metrics_.get(), text.data(), text.size(), 0);
  if (size < 0) return vmm_base::last_error("pwrite", text.size());
  if (static_cast<std::size_t>(size) < text.size()) {
    return vmm_base::Error{"pwrite", ENOSPC, text.size()};
  }
  return vmm_base::success();
}

void Observer::say_of(const std::string& path, const Result<void>& written) {
  if (written || std::exchange(failed_, true)) return;
  std::fprintf(stderr, "vmm-reference: can't write to %s: %s%s", path.c_str(),
               ::strerrordesc_np(written.error().code), raw_ ? "\r\n" : "\n");
}

bool Observer::end() {
  if (trace_) {
    say_of(trace_path_, trace_->end());
    if (trace_->overwritten() != 0) {
      std::fprintf(stderr, "vmm-reference: %s: begins late, without %llu events before\n",
                   trace_path_.c_str(), static_cast<unsigned long long>(trace_->overwritten()));
    }
  }
  return !failed_;
}

ObservedRun::ObservedRun(Observer* observer, boost::asio::io_context& loop,
                         Observation& observation, TimerMode mode, std::string title)
    : observer_(observer), observation_(observation), tick_(loop), title_(std::move(title)) {
  if (observer_ == nullptr) return;
  observer_->runs_.push_back({mode, read_counts(observation)});
  if (observer_->trace_) {
    for (VcpuObservation& vcpu : observation) vcpu.record();
  }
  if (observer_->show_ != Observer::Show::nothing || observer_->metrics_) wait();
}

ObservedRun::~ObservedRun() {
  if (observer_ == nullptr) return;
  // Up to where it began, and nothing below.
  if (shown_) std::fprintf(stderr, "\x1b[4A\x1b[J");
  try {
    look();
    if (observer_->trace_) {
      observer_->say_of(observer_->trace_path_, observer_->trace_->add(title_, observation_));
    }
  } catch (const std::bad_alloc&) {
    observer_->say_of("a file", vmm_base::Error{"memory for it", ENOMEM});
  }
}

void ObservedRun::look() {
  observer_->runs_.back().vcpus = read_counts(observation_);
  if (observer_->metrics_) {
    observer_->say_of(observer_->metrics_path_, observer_->write_metrics());
  }
}

void ObservedRun::wait() {
  tick_.expires_after(period);
  tick_.async_wait([this](boost::system::error_code cancelled) {
    if (cancelled) return;
    passed_ += period;
    look();
    show();
    wait();
  });
}

void ObservedRun::show() {
  const RunCounts& run = observer_->runs_.back();
  const VcpuCounts all = sum(run);
  const auto passed = static_cast<long long>(passed_.count());
  if (observer_->show_ == Observer::Show::live) {
    // Lines aren't to wrap, so that they can be found again.
    std::fprintf(
        stderr,
        "%s\x1b[?7l\x1b[K%s: %lld s\r\n\x1b[K%s\r\n\x1b[K%s\r\n\x1b[K            %s\r\n\x1b[?7h",
        std::exchange(shown_, true) ? "\x1b[4A" : "", title_.c_str(), passed, counts_head().c_str(),
        counts_row(run, "all", all).c_str(), calls_text(all).c_str());
  } else if (observer_->show_ == Observer::Show::lines &&
             passed_ % between_lines == passed_.zero()) {
    std::fprintf(stderr, "%s: %lld s: %s%s", title_.c_str(), passed, counts_line(all).c_str(),
                 observer_->raw_ ? "\r\n" : "\n");
  }
}

}  // namespace vmm_reference
