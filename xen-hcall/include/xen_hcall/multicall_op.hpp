// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// __HYPERVISOR_multicall: several hypercalls in one. It goes in front of the handlers it may call:
//
//   xen_hcall::Dispatcher calls(timer, memory, events);
//   xen_hcall::MulticallOp multicall(vmm, calls);
//   xen_hcall::Dispatcher dispatcher(multicall, calls);
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "xen_abi/domain.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_hcall/answer.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_hcall/guest_copy.hpp"

namespace xen_hcall {

template <class V, Handler Calls>
requires GuestReader<V> && GuestWriter<V>
class MulticallOp {
 public:
  MulticallOp(V& vmm, Calls& calls) noexcept : vmm_(vmm), calls_(calls) {}

  static constexpr bool serves(std::uint64_t number) noexcept {
    return number == xen_abi::hypercall::multicall;
  }
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) {
    if (!serves(call.number)) return std::nullopt;
    return call.long_mode ? multicall<std::uint64_t>(vcpu, call)
                          : multicall<std::uint32_t>(vcpu, call);
  }

 private:
  // Xen takes any number, and pauses for interrupts; Linux makes 32 at most.
  static constexpr std::uint64_t most = 1024;

  // 0 when all have been called, whatever they answered; that is in their entries.
  template <class Word>
  xen_abi::Answer multicall(XenVcpuId vcpu, const xen_abi::Hypercall& call) {
    using Entry = xen_abi::MulticallEntry<Word>;
    if (call.params[1] > most) return {xen_abi::Errno::too_big};
    xen_abi::Answer answer = ok();
    for (std::uint64_t at = 0; at < call.params[1]; ++at) {
      const std::uint64_t place = call.params[0] + at * sizeof(Entry);
      const auto entry = read_guest<Entry>(vmm_, vcpu, place);
      if (!entry) return {xen_abi::Errno::fault, answer.host};
      const xen_abi::Answer one = single(vcpu, *entry, call.long_mode);
      if (!one.host && answer.host) answer.host = one.host;
      const auto result = static_cast<Word>(one.guest.rax());
      if (!write_guest(vmm_, vcpu, place + offsetof(Entry, result), result)) {
        return {xen_abi::Errno::fault, answer.host};
      }
    }
    return answer;
  }

  template <class Word>
  xen_abi::Answer single(XenVcpuId vcpu, const xen_abi::MulticallEntry<Word>& entry,
                         bool long_mode) {
    if (entry.op == xen_abi::hypercall::multicall) return {xen_abi::Errno::inval};
    xen_abi::Hypercall call{entry.op, {}, long_mode, 0};
    std::copy(std::begin(entry.args), std::end(entry.args), call.params.begin());
    const auto answer = calls_.handle(vcpu, call);
    return answer ? *answer : xen_abi::Answer{xen_abi::Errno::nosys};
  }

  V& vmm_;
  Calls& calls_;
};

}  // namespace xen_hcall
