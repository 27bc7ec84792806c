// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// All that a guest, its VMM and time can do, one step after another, for each way of keeping single
// shots, against an independent model of Xen (xen_model.hpp): every RAX, every event with its port
// and its moment on the guest's clock, and after each step what would be saved. For the property
// test and the fuzz target.
#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "double_vmm.hpp"
#include "model_op.hpp"
#include "xen_model.hpp"

namespace xen_timer {

__extension__ using Int128 = __int128;

inline constexpr std::int64_t ms = xen_model::ms;

// Guest clocks that go `ppm` faster than the host's.
struct Clocks {
  std::vector<std::int64_t> base;  // at `epoch`, by vCPU
  std::int64_t epoch = 0;          // host time
  std::int64_t ppm = 0;

  [[nodiscard]] std::int64_t at(std::uint32_t vcpu, std::int64_t host) const {
    const Int128 passed = host - epoch;
    return base[vcpu] + static_cast<std::int64_t>(passed + passed * ppm / 1'000'000);
  }
  // The first host time when the vCPU's clock reads `time` or later; far ones are just far.
  [[nodiscard]] std::int64_t when(std::uint32_t vcpu, std::int64_t time) const {
    constexpr Int128 far = Int128{1} << 61;
    const Int128 left = Int128{time} - base[vcpu];
    if (left > far) return INT64_MAX;
    auto host = static_cast<std::int64_t>(epoch + left * 1'000'000 / (1'000'000 + ppm));
    while (at(vcpu, host) >= time) --host;
    while (at(vcpu, host) < time) ++host;
    return host;
  }
};

template <class Path>
class World {
 public:
  // `ppm`: how much faster than the host's the guests' clocks are; `start`: what they read at
  // first. With a log, what is thrown says all that was done.
  World(std::uint32_t vcpus, std::int64_t ppm, std::int64_t start, bool logs = true)
      : model_(vcpus), logs_(logs) {
    for (std::uint32_t id = 0; id < vcpus; ++id) clocks_.base.push_back(start + id * 12'345'678);
    clocks_.ppm = ppm;
    tolerance_ = ppm == 0 ? 0 : 200'000;
    host_ = std::make_unique<Host>(vmm_, vcpus);
    set_clocks();
  }

  // Throws where the handler isn't as the model is.
  void run(const Op& op) {
    if (logs_) log_ << op;
    const std::uint32_t vcpu = op.vcpu % count();
    switch (op.what) {
      case Do::set_singleshot:
      case Do::stop_singleshot:
      case Do::set_timer_op:
      case Do::set_periodic:
      case Do::stop_periodic:
        hypercall(op, vcpu);  // also while it is paused, as one that was made before
        break;
      case Do::bind:
        must(host_->timer.bind(XenVcpuId{vcpu}, EventPort{op.port}));
        model_.bind(vcpu, op.port, now(vcpu));
        break;
      case Do::unbind:
        must(host_->timer.unbind(XenVcpuId{vcpu}));
        model_.bind(vcpu, 0, now(vcpu));
        break;
      case Do::step:
        step(positive(op.value), model_.paused && op.flag);
        break;
      case Do::late_step:
        late_step(positive(op.value));
        // It may have looked in vain at a deadline less than the least wait ahead.
        if (!model_.paused) {
          tolerance_ += near_enough;
          step(4 * near_enough, false);
          settle();
          tolerance_ -= near_enough;
        }
        break;
      case Do::step_to_next:
        if (const std::int64_t next = next_due(); next != INT64_MAX) {
          step(std::clamp<std::int64_t>(next - host_now() + Op::off_by(op), 0, day), false);
        }
        break;
      case Do::pause:
        must(host_->timer.pause());
        model_.paused = true;
        break;
      case Do::resume:
        must(host_->timer.resume());
        model_.paused = false;
        break;
      case Do::migrate:
        migrate(positive(op.value));
        break;
      case Do::fail:
        stop_failing();
        if (op.flag) {
          vmm_.failing_vcpu = vcpu;
          model_.vcpus[vcpu].failing = true;
        }
        break;
      case Do::hand_over:
        if constexpr (!std::same_as<Path, NoKernelPath>) {
          must(host_->timer.hand_over(XenVcpuId{vcpu}, op.flag));
          model_.bind(vcpu, model_.vcpus[vcpu].port, now(vcpu));
        }
        break;
    }
    serve();
    settle();
    compare_states();
  }

 private:
  static constexpr std::int64_t day = 86'400'000 * ms;
  static constexpr std::int64_t longest_retry = 1100 * ms;
  static constexpr std::int64_t near_enough = 2000;
  using Kept = decltype(make_backend<Path>(std::declval<DoubleKernel&>(), 0));

  // What a migration replaces.
  struct Host {
    DoubleKernel kernel;
    Kept backend;
    Handler<DoubleVmm, Kept> timer;
    Host(DoubleVmm& vmm, std::uint32_t vcpus)
        : kernel{vmm}, backend(make_backend<Path>(kernel, vcpus)), timer(vmm, backend) {}
  };

  [[nodiscard]] std::uint32_t count() const {
    return static_cast<std::uint32_t>(model_.vcpus.size());
  }
  std::int64_t host_now() { return host_->backend.alarm().now().time_since_epoch().count(); }
  std::int64_t now(std::uint32_t vcpu) { return clocks_.at(vcpu, host_now()); }
  void set_clocks() {
    vmm_.clocks.clear();
    for (std::uint32_t id = 0; id < count(); ++id) {
      vmm_.clocks.push_back(xen_clock::guest_time(now(id)));
    }
  }
  static std::int64_t positive(std::int64_t value) {
    return value < 0 ? -(value + 1) % ms : value % day;
  }

  // --- failures ---

  [[noreturn]] void wrong(const std::string& what) {
    throw std::logic_error(what + "; what was done:" + log_.str());
  }
  void must(const Result<void>& result) {
    if (!result) wrong(result.error().message());
  }
  static std::string text(std::uint32_t vcpu, std::int64_t time) {
    return "vCPU " + std::to_string(vcpu) + " at " + std::to_string(time);
  }

  // --- hypercalls ---

  void hypercall(const Op& op, std::uint32_t vcpu) {
    namespace vcpuop = xen_abi::vcpuop;
    const bool is_period = op.what == Do::set_periodic;
    std::int64_t value = op.value;
    if (op.relative && !is_period) value = static_cast<std::int64_t>(unsigned_now(vcpu, value));
    const xen_model::Call call{.caller = vcpu,
                               .target = op.what == Do::set_timer_op ? vcpu : op.target,
                               .argument = static_cast<std::uint64_t>(value),
                               .readable = !op.bad,
                               .ring0 = op.cpl == 0};
    std::memcpy(vmm_.memory.data(), &value, sizeof(value));
    xen_abi::Hypercall made{.number = xen_abi::hypercall::vcpu_op,
                            .params = {0, op.target, call.readable ? DoubleVmm::memory_base : 0},
                            .long_mode = op.long_mode,
                            .cpl = op.cpl};
    xen_model::Answer expected;
    switch (op.what) {
      case Do::set_singleshot:
        made.params[0] = vcpuop::set_singleshot_timer;
        expected = model_.set_singleshot(call, now(vcpu));
        break;
      case Do::stop_singleshot:
        made.params[0] = vcpuop::stop_singleshot_timer;
        expected = model_.stop_singleshot(call);
        break;
      case Do::set_periodic:
        made.params[0] = vcpuop::set_periodic_timer;
        expected = model_.set_periodic(call, op.target < count() ? now(op.target) : 0);
        break;
      case Do::stop_periodic:
        made.params[0] = vcpuop::stop_periodic_timer;
        expected = model_.stop_periodic(call);
        break;
      default:
        made.number = xen_abi::hypercall::set_timer_op;
        made.params = {call.argument};
        if (!op.long_mode) made.params = {call.argument & 0xffff'ffff, call.argument >> 32};
        expected = model_.set_timer_op(call, now(vcpu));
        break;
    }
    vmm_.forget_events();
    const auto answer = host_->timer.handle(XenVcpuId{vcpu}, made);
    if (!answer) return wrong("not answered");
    if (logs_) log_ << " = " << static_cast<std::int64_t>(answer->guest.rax());
    if (answer->guest.rax() != expected.rax) {
      return wrong("it should be " + std::to_string(static_cast<std::int64_t>(expected.rax)));
    }
    if (answer->host.has_value() == expected.failed) return wrong("the host's part is wrong");
    Events events;
    if (const auto of = expected.event_of) events.push_back({*of, model_.vcpus[*of].port});
    if (vmm_.events != events) return wrong("an event before it returned, or none");
    if (logs_ && !events.empty()) log_ << ", event at once";
    vmm_.forget_events();
  }
  std::uint64_t unsigned_now(std::uint32_t vcpu, std::int64_t ahead) {
    return static_cast<std::uint64_t>(now(vcpu)) + static_cast<std::uint64_t>(ahead);
  }

  // --- time ---

  // The host time of the next thing that is due in the model, or in the kernel.
  std::int64_t next_due() {
    std::int64_t next = INT64_MAX;
    for (std::uint32_t id = 0; id < count(); ++id) {
      if (const auto due = model_.vcpus[id].next_due(now(id))) {
        next = std::min(next, clocks_.when(id, *due));
      }
    }
    return std::min(next, next_of_kernel());
  }
  std::int64_t next_of_kernel() {
    std::int64_t next = INT64_MAX;
    for (std::uint32_t id = 0; id < count(); ++id) {
      if (const auto due = host_->kernel.timers[id].deadline) {
        next = std::min(next, clocks_.when(id, due->time_since_epoch().count()));
      }
    }
    return next;
  }
  void move_to(std::int64_t host) {
    const std::int64_t by = host - host_now();
    host_->backend.alarm().advance(Duration(by));
    set_clocks();
    host_->kernel.fire();
  }

  // From one thing that happens to the next; not too many of them.
  void step(std::int64_t ns, bool still) {
    if (still) {
      clocks_.epoch += ns;
      move_to(host_now() + ns);
      return observe(false);
    }
    const std::int64_t end = host_now() + ns;
    for (int moments = 0; moments < 200; ++moments) {
      const std::int64_t alarm = host_->backend.alarm().due().time_since_epoch().count();
      const std::int64_t next = std::max(std::min({end, alarm, next_due()}), host_now());
      move_to(next);
      serve();
      if (next == end) return;
    }
  }
  void late_step(std::int64_t ns) {
    const std::int64_t end = host_now() + ns;
    for (int moments = 0; moments < 200 && host_now() < end; ++moments) {
      move_to(std::max(std::min(end, next_of_kernel()), host_now()));
      observe(false);
    }
  }
  // Wakes the VMM where it would be, and compares.
  void serve() {
    host_->kernel.fire();
    auto& alarm = host_->backend.alarm();
    for (int turns = 0; alarm.due() <= alarm.now(); ++turns) {
      if (turns == 8) return wrong("it doesn't stop waking up");
      const auto expired = host_->timer.expire();
      const bool may_fail = vmm_.failing_vcpu && expired.has_error() && expired.error().code == EIO;
      if (!expired && !may_fail) return wrong(expired.error().message());
    }
    observe(true);
  }
  // Where the clocks go apart, until all that is due has been seen: what follows is certain then.
  void settle() {
    for (std::int64_t due = 0; tolerance_ != 0 && !model_.paused;) {
      due = INT64_MIN;
      for (std::uint32_t id = 0; id < count(); ++id) {
        const xen_model::Vcpu& vcpu = model_.vcpus[id];
        if (vcpu.failing && vcpu.port != 0) continue;
        if (vcpu.single_is_due(now(id))) due = std::max(due, *vcpu.deadline - now(id));
        if (vcpu.tick_is_due(now(id))) due = std::max(due, vcpu.next - now(id));
      }
      if (due == INT64_MIN) return;
      const std::int64_t alarm = host_->backend.alarm().due().time_since_epoch().count();
      move_to(std::clamp(alarm, host_now() + 1, host_now() + tolerance_));
      serve();
    }
  }

  // --- events ---

  // What was seen must have been due. If `all`, what is due must have been seen.
  void observe(bool all) {
    std::vector<unsigned> seen(count());
    for (const Event& event : vmm_.events) {
      if (logs_) {
        log_ << "\n    event of " << text(event.vcpu, now(event.vcpu)) << ", port " << event.port;
      }
      if (model_.paused) wrong("it is paused");
      if (event.port != model_.vcpus[event.vcpu].port) wrong("that isn't its port");
      ++seen[event.vcpu];
    }
    vmm_.forget_events();
    for (std::uint32_t id = 0; id < count(); ++id) {
      consume(id, seen[id]);
      if (all && !model_.paused) miss(id);
    }
  }
  void consume(std::uint32_t id, unsigned seen) {
    xen_model::Vcpu& vcpu = model_.vcpus[id];
    bool single = vcpu.single_is_due(now(id));
    bool tick = vcpu.tick_is_due(now(id));
    if (seen > unsigned{single} + unsigned{tick}) wrong("nothing is due of " + text(id, now(id)));
    if (seen == 0) return;
    if (single && tick && seen == 1) {  // both would look the same
      tick = host_->timer.save(XenVcpuId{id}).value().deadline.has_value();
      single = !tick;
    }
    if (single) vcpu.deadline.reset();
    if (tick) vcpu.tick(now(id));
  }
  void miss(std::uint32_t id) {
    const xen_model::Vcpu& vcpu = model_.vcpus[id];
    const std::int64_t late = now(id) - tolerance_;
    if (vcpu.port == 0) return model_.lose(id, late, late);
    if (vcpu.failing || recovering_ == id) return;
    if (vcpu.single_is_due(late)) wrong("the single shot has not fired of " + text(id, now(id)));
    if (vcpu.tick_is_due(late)) wrong("no tick has come of " + text(id, now(id)));
  }

  // Events can be raised again: what is pending is, within the longest time between two tries.
  void stop_failing() {
    if (!vmm_.failing_vcpu) return;
    const std::uint32_t id = *vmm_.failing_vcpu;
    xen_model::Vcpu& vcpu = model_.vcpus[id];
    vmm_.failing_vcpu.reset();
    vcpu.failing = false;
    if (model_.paused) return;  // then resume() tries at once
    recovering_ = id;
    const auto pending = [&] {
      return vcpu.port != 0 && (vcpu.single_is_due(now(id)) || vcpu.tick_is_due(now(id)));
    };
    for (std::int64_t left = longest_retry; pending() && left > 0;) {
      const std::int64_t alarm = host_->backend.alarm().due().time_since_epoch().count();
      const std::int64_t next = std::min({alarm, next_due(), host_now() + left});
      left -= next - host_now();
      move_to(next);
      serve();
    }
    recovering_.reset();
    observe(true);
  }

  // --- states ---

  // Into a fresh handler on another host, `gap` later on the guest's clock.
  void migrate(std::int64_t gap) {
    must(host_->timer.pause());
    observe(false);
    auto there = std::make_unique<Host>(vmm_, count());
    std::vector<VcpuTimers> sent;
    for (std::uint32_t id = 0; id < count(); ++id) {
      const auto received = decode(encode(host_->timer.save(XenVcpuId{id}).value()));
      if (!received) return wrong(received.error().message());
      sent.push_back(received.value());
      clocks_.base[id] = now(id) + gap;
    }
    host_ = std::move(there);
    host_->backend.alarm().advance(Duration(clocks_.base[0] % (777 * ms)));
    clocks_.epoch = host_now();
    set_clocks();
    for (std::uint32_t id = 0; id < count(); ++id) {
      must(host_->timer.restore(XenVcpuId{id}, sent[id]));
    }
    model_.restore();
    model_.paused = false;
  }
  void compare_states() {
    for (std::uint32_t id = 0; id < count(); ++id) {
      const xen_model::Vcpu& vcpu = model_.vcpus[id];
      const auto saved = host_->timer.save(XenVcpuId{id});
      if (!saved) return wrong(saved.error().message());
      const VcpuTimers& s = saved.value();
      const auto ns = [](GuestTime time) { return time.time_since_epoch().count(); };
      const std::int64_t deadline = s.deadline ? ns(*s.deadline) : -1;
      const char* other = s.port.value != vcpu.port                ? "port"
                          : deadline != vcpu.deadline.value_or(-1) ? "deadline"
                          : s.period.count() != vcpu.period        ? "period"
                          : ns(s.last_tick) != vcpu.last_event     ? "last tick"
                                                                   : nullptr;
      if (other)
        return wrong(std::string("another ") + other + " is saved of " + text(id, now(id)));
    }
  }

  DoubleVmm vmm_;
  xen_model::Domain model_;
  Clocks clocks_;
  std::int64_t tolerance_ = 0;  // how late on the guest's clock is on time
  std::unique_ptr<Host> host_;
  std::optional<std::uint32_t> recovering_;
  std::ostringstream log_;
  bool logs_;
};

}  // namespace xen_timer
