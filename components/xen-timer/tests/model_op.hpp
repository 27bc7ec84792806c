// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// One step of model_world.hpp.
#pragma once

#include <cstdint>
#include <ostream>
#include <string>

namespace xen_timer {

enum class Do {
  set_singleshot,
  stop_singleshot,
  set_timer_op,
  set_periodic,
  stop_periodic,
  bind,
  unbind,
  step,       // time passes, and the VMM is punctual
  late_step,  // it wakes up only at the end
  step_to_next,
  pause,
  resume,
  migrate,
  fail,
  hand_over,
};

struct Op {
  Do what{};
  std::uint32_t vcpu = 0;    // who calls, or whom it's about
  std::uint32_t target = 0;  // of a vcpu_op
  bool relative = true;      // value counts from now
  std::int64_t value = 0;    // timeout, period or time step
  std::uint32_t port = 1;
  bool flag = false;     // a clock that stands still; to the kernel
  bool bad = false;      // the argument is unreadable
  std::uint8_t cpl = 0;  // of the caller
  bool long_mode = true;

  static std::int64_t off_by(const Op& op) { return op.value % 3 - 1; }
  friend std::ostream& operator<<(std::ostream& out, const Op& op) {
    const auto when = [&] {
      return (op.relative ? "now + " : "") + std::to_string(op.value) + (op.bad ? ", bad" : "");
    };
    const auto ns = [&] { return std::to_string(op.value) + " ns"; };
    out << "\n  ";
    if (op.what <= Do::stop_periodic) {
      out << "vCPU " << op.vcpu << (op.long_mode ? " 64" : " 32") << "-bit, CPL " << int{op.cpl}
          << ": ";
    }
    const std::string of = "vCPU " + std::to_string(op.vcpu);
    const std::string whose = "vCPU " + std::to_string(op.target);
    switch (op.what) {
      case Do::set_singleshot:
        return out << "set_singleshot_timer(" << whose << ", " << when() << ")";
      case Do::stop_singleshot:
        return out << "stop_singleshot_timer(" << whose << ")";
      case Do::set_timer_op:
        return out << "set_timer_op(" << when() << ")";
      case Do::set_periodic:
        return out << "set_periodic_timer(" << whose << ", " << ns() << (op.bad ? ", bad)" : ")");
      case Do::stop_periodic:
        return out << "stop_periodic_timer(" << whose << ")";
      case Do::bind:
        return out << "bind " << of << " to port " << op.port;
      case Do::unbind:
        return out << "unbind " << of;
      case Do::step:
        return out << "after " << ns() << (op.flag ? ", the guest's clock still if paused" : "");
      case Do::late_step:
        return out << "after " << ns() << ", late";
      case Do::step_to_next:
        return out << "until " << off_by(op) << " ns after the next deadline";
      case Do::pause:
        return out << "pause";
      case Do::resume:
        return out << "resume";
      case Do::migrate:
        return out << "save all, and restore it " << ns() << " later";
      case Do::fail:
        return out << (op.flag ? "events fail, of " + of : "no events fail");
      case Do::hand_over:
        return out << "hand over " << of << (op.flag ? " to the kernel" : " from the kernel");
    }
    return out;
  }
};

}  // namespace xen_timer
