// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Routes a hypercall to the handler that knows it. Compose it of the handlers one wants:
//
//   xen_hcall::Dispatcher dispatcher{memory, hvm, events, timer};
//   xen_abi::Answer answer = dispatcher(vcpu, call);
//   exit.set_result(answer.guest.rax());
#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <optional>
#include <tuple>
#include <type_traits>
#include <utility>

#include "vmm_base/ids.hpp"
#include "xen_abi/hypercall.hpp"

namespace xen_hcall {

using vmm_base::XenVcpuId;

// Answers the calls it knows, and says nullopt to all others, without a side effect. One that has
// `static constexpr bool serves(std::uint64_t number)` is asked only for those hypercalls.
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

  static constexpr bool serves(std::uint64_t number) noexcept {
    return (may_know<Handlers>(number) || ...);
  }

  // The first handler that knows the call answers. -EPERM for a caller outside ring 0, before
  // anything is decoded (xen/arch/x86/hvm/hypercall.c); -ENOSYS if nobody knows it.
  [[nodiscard]] xen_abi::Answer operator()(XenVcpuId vcpu, const xen_abi::Hypercall& call) const {
    if (call.cpl != 0) return {xen_abi::Errno::perm};
    return route<xen_abi::Answer>(vcpu, call);
  }

  // The same without the last word: nullopt if no handler knows it.
  [[nodiscard]] std::optional<xen_abi::Answer> handle(XenVcpuId vcpu,
                                                      const xen_abi::Hypercall& call) const {
    return route<std::optional<xen_abi::Answer>>(vcpu, call);
  }

 private:
  template <class H>
  static constexpr bool may_know(std::uint64_t number) noexcept {
    if constexpr (requires { H::serves(number); }) {
      return H::serves(number);
    } else {
      return true;
    }
  }
  // The first handler from `index` on that may know a call of that number.
  static constexpr std::size_t next(std::uint64_t number, std::size_t index) noexcept {
    constexpr std::array may{&may_know<Handlers>...};
    while (index < may.size() && !may[index](number)) ++index;
    return index;
  }
  static xen_abi::Answer last_word(xen_abi::Answer*) { return {xen_abi::Errno::nosys}; }
  static std::optional<xen_abi::Answer> last_word(std::optional<xen_abi::Answer>*) { return {}; }

  template <class Out, std::uint64_t number, std::size_t from = 0>
  [[nodiscard]] Out ask(XenVcpuId vcpu, const xen_abi::Hypercall& call) const {
    constexpr std::size_t index = next(number, from);
    if constexpr (index == sizeof...(Handlers)) {
      return last_word(static_cast<Out*>(nullptr));
    } else {
      const auto answer = std::get<index>(handlers_).handle(vcpu, call);
      if (answer && answer->host) return xen_abi::Answer{answer->guest};  // less to copy
      if (answer) return *answer;
      return ask<Out, number, index + 1>(vcpu, call);
    }
  }
  template <class Out, std::size_t index = 0>
  [[nodiscard]] Out ask_all(XenVcpuId vcpu, const xen_abi::Hypercall& call) const {
    if constexpr (index == sizeof...(Handlers)) {
      return last_word(static_cast<Out*>(nullptr));
    } else {
      using H = std::tuple_element_t<index, std::tuple<Handlers...>>;
      if (may_know<H>(call.number)) {
        if (const auto answer = std::get<index>(handlers_).handle(vcpu, call)) return *answer;
      }
      return ask_all<Out, index + 1>(vcpu, call);
    }
  }

  // One switch over Xen's numbers, of which 55 is the last: no search, and all of it inline.
  template <class Out>
  [[nodiscard, gnu::always_inline]] Out route(XenVcpuId vcpu,
                                              const xen_abi::Hypercall& call) const {
    // clang-format off
#define XEN_HCALL_ASK(n) case (n): return ask<Out, (n)>(vcpu, call);
#define XEN_HCALL_ASK_8(n) \
  XEN_HCALL_ASK(n) XEN_HCALL_ASK((n) + 1) XEN_HCALL_ASK((n) + 2) XEN_HCALL_ASK((n) + 3) \
  XEN_HCALL_ASK((n) + 4) XEN_HCALL_ASK((n) + 5) XEN_HCALL_ASK((n) + 6) XEN_HCALL_ASK((n) + 7)
    switch (call.number) {
      XEN_HCALL_ASK_8(0) XEN_HCALL_ASK_8(8) XEN_HCALL_ASK_8(16) XEN_HCALL_ASK_8(24)
      XEN_HCALL_ASK_8(32) XEN_HCALL_ASK_8(40) XEN_HCALL_ASK_8(48)
      default: return ask_all<Out>(vcpu, call);
    }
#undef XEN_HCALL_ASK_8
#undef XEN_HCALL_ASK
    // clang-format on
  }

  std::tuple<Handlers&...> handlers_;
};

}  // namespace xen_hcall
