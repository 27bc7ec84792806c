// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a case of the semantics guest is written in: hypercalls, the wait for events, and words for
// both, which make the case's line. Of time it says only what must be so whoever serves the timers:
//
//   run({"set, past", [](Script& s) { s.set(s.past()).event(); }});
//
// leaves "set, past: set=0 pending upcall quiet". Interrupts are off but while it waits for events.
#pragma once

#include "callers.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hypercall_numbers.hpp"
#include "xen_abi/vcpu.hpp"

namespace guest {

using SharedInfo = xen_abi::SharedInfo<std::uint64_t>;
using VcpuInfo = xen_abi::VcpuInfo<std::uint64_t>;

constexpr std::int64_t ms = 1'000'000;  // in ns, as all times here

alignas(4096) inline std::uint8_t shared_info_page[4096];
alignas(4096) inline VcpuInfo vcpu_infos[max_vcpus];
inline constinit Segments segments[max_vcpus];
inline vmm_reference::TextReport reports[max_vcpus];
inline std::uint32_t xen_ids[max_vcpus];

inline SharedInfo& shared_info() { return *reinterpret_cast<SharedInfo*>(shared_info_page); }

// Where vCPUs wait for each other.
class Meeting {
 public:
  // Returns when `count` vCPUs have come as often as this one.
  void meet(unsigned count, unsigned& times) {
    ++times;
    __atomic_fetch_add(&came_, 1u, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&came_, __ATOMIC_SEQ_CST) < times * count) asm volatile("pause");
  }

 private:
  unsigned came_ = 0;
};

class Script;
struct Case {
  const char* name;
  void (*run)(Script&);
};

class Script {
 public:
  // Runs a case until it was quick enough, each time with longer times.
  void run(const Case& c) {
    for (scale_ = 1;; scale_ *= 2) {
      begin(c);
      c.run(*this);
      if (!slow_ || scale_ == slowest) break;
    }
    end(c);
  }
  // The same with all vCPUs at once; a nullptr for one that only waits for the others.
  void run_together(const Case* c) {
    static bool slow = false;
    for (scale_ = 1;; scale_ *= 2) {
      if (c != nullptr) begin(*c);
      meet_all();
      if (c != nullptr) c->run(*this);
      if (c != nullptr && slow_) __atomic_store_n(&slow, true, __ATOMIC_SEQ_CST);
      meet_all();
      const bool again = __atomic_load_n(&slow, __ATOMIC_SEQ_CST) && scale_ != slowest;
      meet_all();
      __atomic_store_n(&slow, false, __ATOMIC_SEQ_CST);
      meet_all();
      if (!again) break;
    }
    if (c != nullptr) end(*c);
  }

  // --- time, on this vCPU's own clock ---

  [[nodiscard]] std::int64_t now() const { return pvclock(vcpu_infos[index_].time); }
  [[nodiscard]] std::int64_t in(std::int64_t milliseconds) const {
    return now() + milliseconds * ms * scale_;
  }
  [[nodiscard]] std::int64_t past() const { return now() / 2; }
  [[nodiscard]] std::int64_t soon() const { return in(6); }
  [[nodiscard]] std::int64_t later() const { return in(40); }
  // A period; returns when the last tick there may have been is longer ago.
  std::int64_t tickless(std::int64_t milliseconds = 20) {
    const std::int64_t until = in(milliseconds);
    while (now() < until) asm volatile("pause");
    return milliseconds * ms * scale_;
  }
  // What this case has done so far had to be done before then; else it is run again.
  Script& before(std::int64_t time) {
    slow_ = slow_ || now() >= time;
    return *this;
  }

  // --- calls: each says what it was answered, and "pending" if its event was there on return ---

  Script& set(std::int64_t timeout, std::uint32_t flags = 0) {
    argument = {static_cast<std::uint64_t>(timeout), flags};
    return set_at(address(&argument), id(), timeout);
  }
  // For timeouts whose event may come before the call returns or just after: doesn't say which.
  Script& set_at_once(std::uint64_t timeout) {
    argument = {timeout, 0};
    either_ = true;
    set_at(address(&argument), id(), 0);
    either_ = false;
    return *this;
  }
  // An event before `due` will be called early, if the call is answered with 0.
  Script& set_at(std::uint64_t pointer, std::uint64_t vcpu, std::int64_t due = 0) {
    return vcpu_op("set", xen_abi::vcpuop::set_singleshot_timer, vcpu, pointer, due);
  }
  Script& set_of(std::uint64_t vcpu) { return set_at(address(&argument), vcpu); }
  Script& stop() { return stop_of(id()); }
  Script& stop_of(std::uint64_t vcpu) {
    return vcpu_op("stop", xen_abi::vcpuop::stop_singleshot_timer, vcpu, 0, due_);
  }
  Script& set_periodic_of(std::uint64_t vcpu, std::int64_t period) {
    argument.timeout_abs_ns = static_cast<std::uint64_t>(period);
    return set_periodic_at(address(&argument), vcpu);
  }
  Script& set_periodic_at(std::uint64_t pointer, std::uint64_t vcpu) {
    return vcpu_op("set_periodic", xen_abi::vcpuop::set_periodic_timer, vcpu, pointer, 0);
  }
  Script& stop_periodic_of(std::uint64_t vcpu) {
    return vcpu_op("stop_periodic", xen_abi::vcpuop::stop_periodic_timer, vcpu, 0, due_);
  }
  Script& vcpu_op(const char* name, std::uint64_t command, std::uint64_t vcpu,
                  std::uint64_t pointer, std::int64_t due) {
    return call(name, xen_abi::hypercall::vcpu_op, command, vcpu, pointer, due);
  }
  Script& timer_op(std::int64_t timeout) { return timer_op(timeout, timeout); }
  // For timeouts that Xen takes for mistakes.
  Script& timer_op_in_100_ms(std::int64_t timeout) { return timer_op(timeout, now() + 100 * ms); }

  Script& bind() {
    xen_abi::EvtchnBindVirq bind{xen_abi::virq::timer, id(), 0};
    say_result("bind", channel_op(xen_abi::evtchnop::bind_virq, &bind));
    if (bind.port != 0) port_ = bind.port;
    return *this;
  }
  Script& close() {
    const xen_abi::EvtchnClose close{port_};
    say_result("close", channel_op(xen_abi::evtchnop::close, &close));
    closed_ = port_;
    port_ = 0;
    return *this;
  }
  // Gives the port just closed to another VIRQ, until the case ends.
  Script& give_port_away() {
    xen_abi::EvtchnBindVirq bind{xen_abi::virq::timer + 1, id(), 0};
    if (channel_op(xen_abi::evtchnop::bind_virq, &bind) == 0) given_ = bind.port;
    if (given_ != closed_) say("port-not-reused");
    return *this;
  }
  Script& mask() {
    __atomic_fetch_or(&mask_word(), bit(), __ATOMIC_SEQ_CST);
    return *this;
  }
  Script& unmask() {
    __atomic_fetch_and(&mask_word(), ~bit(), __ATOMIC_SEQ_CST);
    return *this;
  }

  // --- what comes ---

  // An event before then will be called early.
  Script& due(std::int64_t time) {
    due_ = time;
    return *this;
  }
  // Waits for the next event; even a busy machine comes to it within that time.
  Script& upcall(std::int64_t time = patience) {
    const unsigned seen = events_;
    const std::int64_t limit = now() + time;
    interrupts_on_until([&] { return events_ != seen || now() >= limit; });
    if (events_ == seen) say("nothing");
    return *this;
  }
  // The same in hlt. If none comes, the guest hangs, and its last line says where.
  Script& asleep() {
    const unsigned seen = events_;
    while (events_ == seen) halt();
    return *this;
  }
  // Says "quiet" if nothing comes until then.
  Script& quiet_until(std::int64_t time) {
    const unsigned seen = events_;
    interrupts_on_until([&] { return now() >= time; });
    if (events_ == seen) say("quiet");
    return *this;
  }
  Script& quiet_past(std::int64_t time) { return quiet_until(time + settling * scale_); }
  Script& quiet() { return quiet_past(now()); }
  // One event, and no more.
  Script& event() { return upcall().quiet(); }
  // With interrupts off, so that nothing is taken: until its event must have come, or been lost.
  Script& let_pass(std::int64_t deadline) {
    while (now() < deadline + latest) asm volatile("pause");
    return *this;
  }
  Script& wait_pending() {
    const std::int64_t limit = now() + patience;
    while (!pending() && now() < limit) asm volatile("pause");
    return say(!pending() ? "nothing" : now() < due_ ? "early" : "pending");
  }
  Script& look() { return say(pending() ? "pending" : "clear"); }
  Script& take_by_hand() {
    __atomic_fetch_and(&pending_word(), ~bit(), __ATOMIC_SEQ_CST);
    return *this;
  }

  void on_upcall() {
    VcpuInfo& info = vcpu_infos[index_];
    if (__atomic_exchange_n(&info.upcall_pending, std::uint8_t{0}, __ATOMIC_SEQ_CST) == 0) {
      return;  // another vCPU has woken us
    }
    __atomic_exchange_n(&info.pending_sel, 0, __ATOMIC_SEQ_CST);
    const bool masked = (__atomic_load_n(&mask_word(), __ATOMIC_SEQ_CST) & bit()) != 0;
    if (!pending() || masked) return came("empty-upcall");
    // Not before pending() was seen.
    const std::int64_t time = now();
    take_by_hand();
    came(time < due_ ? "early-upcall" : "upcall");
  }

  // --- other vCPUs ---

  [[nodiscard]] std::uint32_t id() const { return xen_ids[index_]; }
  // As another vCPU of the same case.
  Script& meet_other() {
    static Meeting meeting;
    meeting.meet(2, met_other_);
    return *this;
  }
  void meet_all() {
    static Meeting meeting;
    meeting.meet(count_, met_all_);
  }

  // --- around the cases ---

  void start(unsigned index, unsigned count) {
    index_ = index;
    count_ = count;
    report_ = &reports[index];
    report_->magic = vmm_reference::text_magic;
  }
  void bind_silently() {
    const bool was_silent = silent_;
    silent_ = true;
    bind();
    silent_ = was_silent;
  }
  void close_silently() {
    silent_ = true;
    stop().close();
    silent_ = false;
  }

  Caller caller = Caller::kernel;
  xen_abi::SetSingleshotTimer argument{};

 private:
  static constexpr std::int64_t patience = 5000 * ms;
  static constexpr std::int64_t latest = 100 * ms;
  static constexpr std::int64_t settling = 5 * ms;
  static constexpr std::int64_t slowest = 64;

  [[nodiscard]] std::uint64_t bit() const { return std::uint64_t{1} << port_ % 64; }
  [[nodiscard]] std::uint64_t& pending_word() const {
    return shared_info().evtchn_pending[port_ / 64];
  }
  [[nodiscard]] std::uint64_t& mask_word() const { return shared_info().evtchn_mask[port_ / 64]; }
  [[nodiscard]] bool pending() const {
    return port_ != 0 && (__atomic_load_n(&pending_word(), __ATOMIC_SEQ_CST) & bit()) != 0;
  }

  template <class Done>
  static void interrupts_on_until(Done&& done) {
    asm volatile("sti" ::: "memory");
    while (!done()) asm volatile("pause" ::: "memory");
    asm volatile("cli" ::: "memory");
  }

  // A case begins with nothing armed, pending or masked.
  void begin(const Case& c) {
    report_->length = line_;
    caller = Caller::kernel;
    due_ = 0;
    slow_ = false;
    began_ = now();
    silent_ = true;
    if (port_ != 0) stop().stop_periodic_of(id()).unmask().take_by_hand();
    if (given_ != 0) {
      const xen_abi::EvtchnClose taken{given_};
      channel_op(xen_abi::evtchnop::close, &taken);
      given_ = 0;
      close().bind();  // to the lowest port again
    }
    const volatile std::uint8_t& undelivered = vcpu_infos[index_].upcall_pending;
    const std::int64_t limit = now() + patience;
    interrupts_on_until([&] { return undelivered == 0 || now() >= limit; });
    silent_ = false;
    put(c.name);
    put(":");
  }
  void end(const Case& c) {
    if (slow_) say("too-slow");
    put("\n");
    if (scale_ != 1) {
      put("# run again, for the machine was too slow: ");
      put(c.name);
      put("\n");
    }
    line_ = report_->length;
    silent_ = true;
  }

  Script& timer_op(std::int64_t timeout, std::int64_t due) {
    const auto value = static_cast<std::uint64_t>(timeout);
    const bool halves = caller == Caller::compat;
    return call("timer_op", xen_abi::hypercall::set_timer_op, halves ? value & 0xffffffff : value,
                halves ? value >> 32 : 0, 0, due);
  }
  Script& call(const char* name, unsigned number, std::uint64_t a, std::uint64_t b, std::uint64_t c,
               std::int64_t due) {
    const bool was_pending = pending();
    const std::int64_t called = now();
    const std::int64_t result = segments[index_].hypercall(caller, number, a, b, c);
    say_result(name, result);
    // A deadline of this case's own was to be ahead.
    if (due != due_ && due >= began_ && called >= due) slow_ = true;
    if (result == 0) due_ = due;
    if (either_ || was_pending || !pending()) return *this;
    if (due_ < began_) say("pending");
    // Else the deadline has passed meanwhile, or it should not have come.
    if (now() < due_) say("early");
    return *this;
  }
  std::int64_t channel_op(std::uint32_t command, const void* argument_of_it) {
    return guest::hypercall(xen_abi::hypercall::event_channel_op, command, address(argument_of_it));
  }

  void came(const char* word) {
    if (silent_) return;
    events_ = events_ + 1;
    say(word);
  }

  // --- words ---

  Script& say(const char* word) {
    put(" ");
    put(word);
    return *this;
  }
  void say_result(const char* name, std::int64_t result) {
    say(name);
    put("=");
    switch (result) {
      case -1:
        return put("-EPERM");
      case -2:
        return put("-ENOENT");
      case -14:
        return put("-EFAULT");
      case -17:
        return put("-EEXIST");
      case -22:
        return put("-EINVAL");
      case -38:
        return put("-ENOSYS");
      case -62:
        return put("-ETIME");
      default:
        break;
    }
    if (result < 0) put("-");
    const auto magnitude = static_cast<std::uint64_t>(result);
    put_number(result < 0 ? -magnitude : magnitude);
  }
  void put_number(std::uint64_t number) {
    if (number >= 10) put_number(number / 10);
    const char digit[] = {static_cast<char>('0' + number % 10), 0};
    put(digit);
  }
  void put(const char* text) {
    for (; *text != 0 && !silent_ && report_->length < sizeof(report_->text); ++text) {
      report_->text[report_->length] = *text;
      report_->length = report_->length + 1;
    }
  }

  unsigned index_ = 0;
  unsigned count_ = 0;
  vmm_reference::TextReport* report_ = nullptr;
  std::uint32_t line_ = 0;  // where the current one begins
  std::uint32_t port_ = 0;
  std::uint32_t closed_ = 0;
  std::uint32_t given_ = 0;
  std::int64_t scale_ = 1;
  std::int64_t began_ = 0;
  std::int64_t due_ = 0;  // before then, an event is early
  volatile unsigned events_ = 0;
  unsigned met_all_ = 0;
  unsigned met_other_ = 0;
  bool either_ = false;
  volatile bool silent_ = true;  // while no case runs
  bool slow_ = false;
};

}  // namespace guest
