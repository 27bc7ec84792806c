// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "call_kind.hpp"

#include <array>

namespace vmm_reference {

std::string call_name(std::size_t kind) {
  namespace numbers = xen_abi::hypercall;
  static constexpr std::array<const char*, vcpu_ops> commands = {"initialise",
                                                                 "up",
                                                                 "down",
                                                                 "is_up",
                                                                 "get_runstate_info",
                                                                 "register_runstate_memory_area",
                                                                 "set_periodic_timer",
                                                                 "stop_periodic_timer",
                                                                 "set_singleshot_timer",
                                                                 "stop_singleshot_timer",
                                                                 "register_vcpu_info",
                                                                 "send_nmi",
                                                                 "get_physid",
                                                                 "register_vcpu_time_memory_area",
                                                                 "register_runstate_phys_area",
                                                                 "register_vcpu_time_phys_area"};
  if (kind >= other_call) return "other";
  if (kind >= plain_calls) return std::string("VCPUOP_") + commands[kind - plain_calls];
  switch (kind) {
    case numbers::memory_op:
      return "memory_op";
    case numbers::multicall:
      return "multicall";
    case numbers::set_timer_op:
      return "set_timer_op";
    case numbers::xen_version:
      return "xen_version";
    case numbers::console_io:
      return "console_io";
    case numbers::grant_table_op:
      return "grant_table_op";
    case numbers::vm_assist:
      return "vm_assist";
    case numbers::sched_op:
      return "sched_op";
    case numbers::event_channel_op:
      return "event_channel_op";
    case numbers::physdev_op:
      return "physdev_op";
    case numbers::hvm_op:
      return "hvm_op";
    default:  // none that we serve
      return "hypercall_" + std::to_string(kind);
  }
}

}  // namespace vmm_reference
