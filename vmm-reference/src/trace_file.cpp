// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "trace_file.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <string_view>
#include <utility>
#include <vector>

#include "call_kind.hpp"
#include "report.hpp"

namespace vmm_reference {

using vmm_base::Result;

namespace {

// As the format has times, us; to the ns.
std::string in_us(std::int64_t ns) {
  char text[32];
  std::snprintf(text, sizeof(text), "%lld.%03d", static_cast<long long>(ns / 1000),
                static_cast<int>(ns % 1000));
  return text;
}

std::vector<TraceEvent> in_order(const VcpuTrace& trace) {
  std::vector<TraceEvent> events;
  const auto add = [&](const TraceEvent& event) { events.push_back(event); };
  trace.own.each(add);
  for (const TraceRing& ring : trace.timers) ring.each(add);
  std::stable_sort(events.begin(), events.end(),
                   [](const TraceEvent& a, const TraceEvent& b) { return a.at < b.at; });
  return events;
}

std::string what(const TraceEvent& event) {
  const auto instant = [](const char* name, const std::string& args) {
    return std::string(R"("ph":"i","s":"t","cat":"timer","name":")") + name + R"(","args":{)" +
           args + "}";
  };
  switch (event.kind) {
    case TraceEvent::Kind::hypercall:
      return R"("ph":"X","cat":"hypercall","name":)" + json_string(call_name(event.call)) +
             R"(,"dur":)" + in_us(event.value);
    case TraceEvent::Kind::armed:
      return instant("armed", R"("ahead_us":)" + in_us(event.value));
    case TraceEvent::Kind::cancelled:
      return instant("cancelled", "");
    case TraceEvent::Kind::expired:
      return instant("expired", R"("late_us":)" + in_us(event.value));
    case TraceEvent::Kind::raised:
      return instant("raised", R"("late_us":)" + in_us(event.value));
  }
  return "";
}

}  // namespace

Result<TraceFile> TraceFile::open(const std::string& path) {
  vmm_base::UniqueFd file(
      ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, S_IRUSR | S_IWUSR));
  if (!file) return vmm_base::last_error("open");
  return TraceFile(std::move(file));
}

void TraceFile::put(const std::string& event) {
  text_ += begun_ ? ",\n{" : "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n{";
  begun_ = true;
  text_ += event;
  text_ += '}';
}

Result<void> TraceFile::flush() {
  const std::string text = std::exchange(text_, {});
  for (std::string_view rest = text; !rest.empty();) {
    const ssize_t size = ::write(file_.get(), rest.data(), rest.size());
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) return vmm_base::last_error("write", rest.size());
    rest.remove_prefix(static_cast<std::size_t>(size));
  }
  return vmm_base::success();
}

Result<void> TraceFile::add(const std::string& title, const Observation& observation) {
  const std::string pid = "\"pid\":" + std::to_string(++runs_);
  put(R"("ph":"M","name":"process_name",)" + pid + R"(,"args":{"name":)" + json_string(title) +
      "}");
  for (std::size_t id = 0; id < observation.size(); ++id) {
    const VcpuTrace* trace = observation[id].trace();
    if (trace == nullptr) continue;
    // From 1: to the viewer 0 is none, and its events the main thread's.
    const std::string track = pid + ",\"tid\":" + std::to_string(id + 1);
    put(R"("ph":"M","name":"thread_name",)" + track + R"(,"args":{"name":"vCPU )" +
        std::to_string(id) + R"("})");
    put(R"("ph":"M","name":"thread_sort_index",)" + track + R"(,"args":{"sort_index":)" +
        std::to_string(id) + "}");
    for (const TraceEvent& event : in_order(*trace)) {
      put(what(event) + ",\"ts\":" + in_us(std::max<std::int64_t>(event.at - start_, 0)) + "," +
          track);
    }
    overwritten_ += trace->own.overwritten();
    for (const TraceRing& ring : trace->timers) overwritten_ += ring.overwritten();
    VMM_CHECK(flush());
  }
  return flush();
}

Result<void> TraceFile::end() {
  if (!file_) return vmm_base::success();
  text_ = begun_ ? "" : R"({"displayTimeUnit":"ns","traceEvents":[)";
  // No line end: Perfetto takes nothing that it reads once the document is over.
  text_ += "\n],\"otherData\":{\"overwritten\":\"" + std::to_string(overwritten_) + "\"}}";
  auto written = flush();
  file_ = {};
  return written;
}

}  // namespace vmm_reference
