// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_handlers.hpp"

#include <span>
#include <vector>

#include "xen_abi/memory.hpp"

namespace vmm_reference {

namespace {

// As XENMEM_memory_map tells it.
std::vector<xen_abi::E820Entry> e820(std::span<const linux_loader::MemoryRange> map) {
  std::vector<xen_abi::E820Entry> entries;
  for (const auto& range : map) {
    entries.push_back({range.start.value, range.size, static_cast<std::uint32_t>(range.type)});
  }
  return entries;
}

}  // namespace

XenHandlers::XenHandlers(XenPlatform& platform, const Machine& machine)
    : platform_(platform),
      vcpu_count_(static_cast<std::uint32_t>(machine.vcpus.size())),
      memory_(platform, e820(machine.memory_map)) {}

std::optional<xen_abi::Answer> XenHandlers::handle(XenVcpuId vcpu, const xen_abi::Hypercall& call) {
  return calls_.handle(vcpu, call);
}

}  // namespace vmm_reference
