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
      memory_(platform, e820(machine.memory_map)) {
  platform_.on_soft_reset([this] { return soft_reset(); });
}

std::optional<xen_abi::Answer> XenHandlers::handle(XenVcpuId vcpu, const xen_abi::Hypercall& call) {
  return calls_.handle(vcpu, call);
}

// Nothing is left of what the guest has set. All of it is tried; the first error.
Result<void> XenHandlers::soft_reset() {
  Result<void> first = events_.close_all();  // first of all, so that nothing raises an event
  const auto also = [&first](const Result<void>& next) {
    if (first) first = next;
  };
  for (std::uint32_t id = 0; id < vcpu_count_; ++id) also(platform_.reset_vcpu(XenVcpuId{id}));
  vcpus_.reset();
  also(platform_.reset_domain());
  hvm_.reset();
  also(sched_.reset());
  shutdown_.reset();
  return first;
}

}  // namespace vmm_reference
