// SPDX-License-Identifier: BSD-3-Clause
//
// Routes a hypercall to the handler that knows it. Compose it of the handlers one wants:
//
//   xen_hcall::Dispatcher dispatcher{memory, hvm, events, timer};
//   xen_abi::Answer answer = dispatcher(vcpu, call);
//   exit.set_result(answer.guest.rax());
#pragma once

#include <concepts>
#include <optional>
#include <tuple>

#include "vmm_base/ids.hpp"
#include "xen_abi/hypercall.hpp"

namespace xen_hcall {

using vmm_base::XenVcpuId;

// Answers the calls it knows, and says nullopt to all others, without a side effect.
template <class H>
concept Handler = requires(H& handler, XenVcpuId vcpu, const xen_abi::Hypercall& call) {
  { handler.handle(vcpu, call) } -> std::same_as<std::optional<xen_abi::Answer>>;
};

// Keeps references to the handlers. Thread-safe if they are: it has no state of its own. A handler
// itself, so that several can be one.
template <Handler... Handlers>
class Dispatcher {
 public:
  explicit Dispatcher(Handlers&... handlers) noexcept : handlers_(handlers...) {}

  // The first handler that knows the call answers. -EPERM for a caller outside ring 0, before
  // anything is decoded (xen/arch/x86/hvm/hypercall.c); -ENOSYS if nobody knows it.
  [[nodiscard]] xen_abi::Answer operator()(XenVcpuId vcpu, const xen_abi::Hypercall& call) const {
    if (call.cpl != 0) return {xen_abi::Errno::perm};
    const std::optional<xen_abi::Answer> answer = handle(vcpu, call);
    return answer ? *answer : xen_abi::Answer{xen_abi::Errno::nosys};
  }

  // The same without the last word: nullopt if no handler knows it.
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) const {
    std::optional<xen_abi::Answer> answer;
    std::apply(
        [&](Handlers&... handlers) {
          (void)((answer = handlers.handle(vcpu, call)).has_value() || ...);
        },
        handlers_);
    return answer;
  }

 private:
  std::tuple<Handlers&...> handlers_;
};

}  // namespace xen_hcall
