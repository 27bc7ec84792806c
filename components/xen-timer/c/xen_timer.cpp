// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// xen_timer.h over xen_timer/*.hpp. Handler is two references, so one is made for each call.
#include "xen_timer.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <utility>
#include <variant>

#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"
#include "xen_timer/irqfd_backend.hpp"
#include "xen_timer/spinning_backend.hpp"
#include "xen_timer/timerfd_backend.hpp"
#include "xen_timer/virtual_backend.hpp"

namespace {

using vmm_base::Error;
using xen_timer::EventPort;
using xen_timer::GuestTime;
using xen_timer::Result;
using xen_timer::XenVcpuId;

static_assert(XEN_TIMER_MAX_VCPUS == xen_timer::max_vcpus);
static_assert(XEN_TIMER_STATE_SIZE == xen_timer::encoded_size);
static_assert(XEN_TIMER_KVM_XEN_ID_UNSET == xen_timer::detail::unset_xen_id);

// The concepts Vmm, KernelTimer and EventRouter, answered by a C VMM.
class CallbackVmm {
 public:
  explicit CallbackVmm(const xen_timer_callbacks& calls) noexcept : calls_(calls) {}

  bool copy_from_guest(XenVcpuId vcpu, xen_timer::Gva from, std::span<std::byte> to) {
    return calls_.copy_from_guest(calls_.context, vcpu.value, from.value, to.data(), to.size()) ==
           0;
  }
  GuestTime guest_now(XenVcpuId vcpu) {
    return xen_clock::guest_time(
        static_cast<std::int64_t>(calls_.guest_now(calls_.context, vcpu.value)));
  }
  Result<void> raise_event(XenVcpuId vcpu, EventPort port) {
    return result("raise_event", calls_.raise_event(calls_.context, vcpu.value, port.value), vcpu);
  }

  Result<void> set_timer(XenVcpuId vcpu, EventPort port, std::optional<GuestTime> deadline) {
    const auto expires = deadline ? deadline->time_since_epoch().count() : 0;
    return result("set_timer",
                  calls_.set_timer(calls_.context, vcpu.value, port.value,
                                   static_cast<std::uint64_t>(expires)),
                  vcpu);
  }
  Result<std::optional<GuestTime>> timer(XenVcpuId vcpu) {
    std::uint64_t expires = 0;
    VMM_CHECK(result("get_timer", calls_.get_timer(calls_.context, vcpu.value, &expires), vcpu));
    if (expires == 0) return std::optional<GuestTime>{};
    return std::optional(xen_clock::guest_time(static_cast<std::int64_t>(expires)));
  }

  Result<void> route_event(XenVcpuId vcpu, EventPort port, int eventfd) {
    return result("route_event",
                  calls_.route_event(calls_.context, vcpu.value, port.value, eventfd), vcpu);
  }

 private:
  static Result<void> result(const char* operation, int returned, XenVcpuId vcpu) {
    if (returned == 0) return vmm_base::success();
    constexpr int max_errno = 4095;
    const bool is_errno = returned < 0 && returned >= -max_errno;
    return Error{operation, is_errno ? -returned : EINVAL, vcpu.value};
  }
  xen_timer_callbacks calls_;
};

using Timerfd = xen_timer::TimerfdBackend;
using Irqfd = xen_timer::IrqfdBackend<CallbackVmm>;
using Delegated = xen_timer::DelegatedBackend<CallbackVmm>;
using Virtual = xen_timer::VirtualBackend;
using Spinning = xen_timer::SpinningBackend;

int fail(xen_timer_error* to, const Error& error) noexcept {
  if (to != nullptr) *to = {error.operation, error.operand, error.code};
  return -error.code;
}
int report(xen_timer_error* to, const Result<void>& result) noexcept {
  return result ? 0 : fail(to, result.error());
}

}  // namespace

struct xen_timer_handler {
  std::unique_ptr<CallbackVmm> vmm;  // the back end keeps its address
  // In the order of XEN_TIMER_…
  std::variant<Timerfd, Irqfd, Delegated, Virtual, Spinning> back_end;

  [[nodiscard]] std::uint64_t number() const noexcept { return back_end.index() + 1; }
};

namespace {

// call(handler, back end) on whichever back end it is. std::visit() could throw.
template <class Call>
auto with(xen_timer_handler& timer, Call&& call) {
  const auto on = [&](auto* back_end) {
    xen_timer::Handler handler(*timer.vmm, *back_end);
    return call(handler, *back_end);
  };
  if (auto* timerfd = std::get_if<Timerfd>(&timer.back_end)) return on(timerfd);
  if (auto* irqfd = std::get_if<Irqfd>(&timer.back_end)) return on(irqfd);
  if (auto* delegated = std::get_if<Delegated>(&timer.back_end)) return on(delegated);
  if (auto* spinning = std::get_if<Spinning>(&timer.back_end)) return on(spinning);
  return on(std::get_if<Virtual>(&timer.back_end));
}

// What a function does whose only pointer is `timer`.
template <class Call>
int call_with(const char* null_operation, xen_timer_handler* timer, xen_timer_error* error,
              Call&& call) {
  if (timer == nullptr) return fail(error, {null_operation, EINVAL});
  return report(error, with(*timer, call));
}

// The back end's own functions don't look at an id.
template <class BackEnd, class Call>
Result<void> with_vcpu(const char* operation, const BackEnd& back_end, std::uint32_t vcpu,
                       const Call& call) {
  if (vcpu >= back_end.vcpu_count()) return Error{operation, EINVAL, vcpu};
  return call();
}

// The callbacks as this version knows them.
Result<xen_timer_callbacks> read_callbacks(const xen_timer_callbacks* from) {
  if (from == nullptr) return Error{"xen_timer create: callbacks", EINVAL};
  xen_timer_callbacks calls{};
  if (from->size < sizeof(calls)) {
    return Error{"xen_timer create: callbacks.size", EINVAL, from->size};
  }
  // A later version's may be longer. We serve it if it uses nothing that is new; what is longer
  // than any will be isn't even looked at.
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  constexpr std::size_t longest = 4096;
  if (from->size > longest ||
      std::any_of(bytes + sizeof(calls), bytes + from->size, [](auto byte) { return byte != 0; })) {
    return Error{"xen_timer create: callbacks.size", E2BIG, from->size};
  }
  calls = *from;
  return calls;
}

Result<void> check_callbacks(const xen_timer_callbacks& calls, std::uint32_t back_end) {
  const char* missing = nullptr;
  if (back_end == XEN_TIMER_IRQFD && calls.route_event == nullptr) {
    missing = "xen_timer create: route_event";
  }
  if (back_end == XEN_TIMER_DELEGATED && calls.get_timer == nullptr) {
    missing = "xen_timer create: get_timer";
  }
  if (back_end == XEN_TIMER_DELEGATED && calls.set_timer == nullptr) {
    missing = "xen_timer create: set_timer";
  }
  if (calls.raise_event == nullptr) missing = "xen_timer create: raise_event";
  if (calls.guest_now == nullptr) missing = "xen_timer create: guest_now";
  if (calls.copy_from_guest == nullptr) missing = "xen_timer create: copy_from_guest";
  if (missing != nullptr) return Error{missing, EINVAL};
  return vmm_base::success();
}

Result<std::unique_ptr<xen_timer_handler>> create(const xen_timer_callbacks* callbacks,
                                                  std::uint32_t back_end,
                                                  std::uint32_t vcpu_count) {
  VMM_TRY(calls, read_callbacks(callbacks));
  VMM_CHECK(check_callbacks(calls, back_end));
  VMM_CHECK(xen_timer::check_vcpu_count(vcpu_count));
  auto vmm = std::make_unique<CallbackVmm>(calls);
  const auto over = [&vmm](auto created) -> Result<std::unique_ptr<xen_timer_handler>> {
    if (!created) return created.error();
    return std::unique_ptr<xen_timer_handler>(
        new xen_timer_handler{std::move(vmm), std::move(created).assume_value()});
  };
  switch (back_end) {
    case XEN_TIMER_TIMERFD:
      return over(Timerfd::create(vcpu_count));
    case XEN_TIMER_IRQFD:
      return over(Irqfd::create(*vmm, vcpu_count));
    case XEN_TIMER_DELEGATED:
      return over(Delegated::create(*vmm, vcpu_count));
    case XEN_TIMER_VIRTUAL:
      return over(Result<Virtual>(Virtual(vcpu_count)));
    case XEN_TIMER_SPINNING:
      return over(Spinning::create(vcpu_count));
    default:
      return Error{"xen_timer create: back_end", EINVAL, back_end};
  }
}

}  // namespace

std::uint32_t xen_timer_version() noexcept {
  return XEN_TIMER_VERSION_MAJOR << 16 | XEN_TIMER_VERSION_MINOR << 8 | XEN_TIMER_VERSION_PATCH;
}

int xen_timer_create(const xen_timer_callbacks* callbacks, std::uint32_t back_end,
                     std::uint32_t vcpu_count, xen_timer_handler** timer,
                     xen_timer_error* error) noexcept {
  if (timer == nullptr) return fail(error, {"xen_timer create: timer", EINVAL});
  *timer = nullptr;
  try {
    auto created = create(callbacks, back_end, vcpu_count);
    if (!created) return fail(error, created.error());
    *timer = created.value().release();
    return 0;
  } catch (const std::bad_alloc&) {  // Nothing else throws, and nothing allocates after this.
    return fail(error, {"xen_timer create: memory", ENOMEM, vcpu_count});
  }
}

void xen_timer_destroy(xen_timer_handler* timer) noexcept { delete timer; }

int xen_timer_attach(xen_timer_handler* timer, std::uint32_t vcpu, int signal, void* value,
                     xen_timer_error* error) noexcept {
  return call_with("xen_timer attach: timer", timer, error, [&](auto&, auto& back_end) {
    return with_vcpu("xen_timer attach", back_end, vcpu, [&]() -> Result<void> {
      if constexpr (requires { back_end.attach({vcpu}); }) return back_end.attach({vcpu});
      if constexpr (requires { back_end.attach({vcpu}, signal, value); }) {
        return back_end.attach({vcpu}, signal, value);
      }
      return vmm_base::success();
    });
  });
}

int xen_timer_handle(xen_timer_handler* timer, std::uint32_t vcpu, const xen_timer_hypercall* call,
                     xen_timer_answer* answer, xen_timer_error* error) noexcept {
  if (answer == nullptr) return fail(error, {"xen_timer handle: answer", EINVAL});
  *answer = {};
  if (timer == nullptr) return fail(error, {"xen_timer handle: timer", EINVAL});
  if (call == nullptr) return fail(error, {"xen_timer handle: call", EINVAL});
  if (call->cpl > 3) return fail(error, {"xen_timer handle: cpl", EINVAL, call->cpl});
  xen_abi::Hypercall decoded{.number = call->number,
                             .long_mode = call->long_mode != 0,
                             .cpl = static_cast<std::uint8_t>(call->cpl)};
  std::copy(std::begin(call->params), std::end(call->params), decoded.params.begin());
  const std::optional<xen_abi::Answer> given =
      with(*timer, [&](auto& handler, auto&) { return handler.handle({vcpu}, decoded); });
  if (!given) return 0;
  *answer = {given->guest.rax(), 1};
  return report(error, given->host);
}

int xen_timer_bind(xen_timer_handler* timer, std::uint32_t vcpu, std::uint32_t port,
                   xen_timer_error* error) noexcept {
  return call_with("xen_timer bind: timer", timer, error,
                   [&](auto& handler, auto&) { return handler.bind({vcpu}, {port}); });
}

int xen_timer_unbind(xen_timer_handler* timer, std::uint32_t vcpu,
                     xen_timer_error* error) noexcept {
  return call_with("xen_timer unbind: timer", timer, error,
                   [&](auto& handler, auto&) { return handler.unbind({vcpu}); });
}

int xen_timer_fd(xen_timer_handler* timer, xen_timer_error* error) noexcept {
  if (timer == nullptr) return fail(error, {"xen_timer fd: timer", EINVAL});
  const int fd = with(*timer, [](auto&, auto& back_end) { return back_end.fd(); });
  return fd >= 0 ? fd : fail(error, {"xen_timer fd: back end", ENOTSUP, timer->number()});
}

int xen_timer_expire(xen_timer_handler* timer, xen_timer_error* error) noexcept {
  return call_with("xen_timer expire: timer", timer, error,
                   [](auto& handler, auto&) { return handler.expire(); });
}

int xen_timer_expire_vcpu(xen_timer_handler* timer, std::uint32_t vcpu,
                          xen_timer_error* error) noexcept {
  return call_with(
      "xen_timer expire_vcpu: timer", timer, error, [&](auto& handler, auto& back_end) {
        return with_vcpu("xen_timer expire_vcpu", back_end, vcpu, [&]() -> Result<void> {
          if constexpr (requires { handler.expire(XenVcpuId{vcpu}); }) {
            return handler.expire(XenVcpuId{vcpu});
          } else {
            return Error{"xen_timer expire_vcpu: back end", ENOTSUP, timer->number()};
          }
        });
      });
}

int xen_timer_spun(xen_timer_handler* timer, std::uint64_t* ns, xen_timer_error* error) noexcept {
  if (timer == nullptr) return fail(error, {"xen_timer spun: timer", EINVAL});
  if (ns == nullptr) return fail(error, {"xen_timer spun: ns", EINVAL});
  auto* back_end = std::get_if<Spinning>(&timer->back_end);
  if (back_end == nullptr)
    return fail(error, {"xen_timer spun: back end", ENOTSUP, timer->number()});
  *ns = static_cast<std::uint64_t>(back_end->spun().count());
  return 0;
}

int xen_timer_hand_over(xen_timer_handler* timer, std::uint32_t vcpu, std::uint32_t to_kernel,
                        xen_timer_error* error) noexcept {
  return call_with("xen_timer hand_over: timer", timer, error,
                   [&](auto& handler, auto&) { return handler.hand_over({vcpu}, to_kernel != 0); });
}

int xen_timer_pause(xen_timer_handler* timer, xen_timer_error* error) noexcept {
  return call_with("xen_timer pause: timer", timer, error,
                   [](auto& handler, auto&) { return handler.pause(); });
}

int xen_timer_resume(xen_timer_handler* timer, xen_timer_error* error) noexcept {
  return call_with("xen_timer resume: timer", timer, error,
                   [](auto& handler, auto&) { return handler.resume(); });
}

int xen_timer_save(xen_timer_handler* timer, std::uint32_t vcpu, std::uint32_t kvm_xen_id,
                   void* state, std::size_t size, xen_timer_error* error) noexcept {
  if (state == nullptr) return fail(error, {"xen_timer save: state", EINVAL});
  if (size < xen_timer::encoded_size) return fail(error, {"xen_timer save: size", EINVAL, size});
  return call_with("xen_timer save: timer", timer, error,
                   [&](auto& handler, auto&) -> Result<void> {
                     VMM_TRY(timers, handler.save({vcpu}));
                     if (kvm_xen_id != XEN_TIMER_KVM_XEN_ID_UNSET)
                       timers.kvm_xen_id = XenVcpuId{kvm_xen_id};
                     const auto bytes = xen_timer::encode(timers);
                     std::memcpy(state, bytes.data(), bytes.size());
                     return vmm_base::success();
                   });
}

int xen_timer_restore(xen_timer_handler* timer, std::uint32_t vcpu, const void* state,
                      std::size_t size, std::uint32_t* kvm_xen_id,
                      xen_timer_error* error) noexcept {
  if (state == nullptr) return fail(error, {"xen_timer restore: state", EINVAL});
  return call_with(
      "xen_timer restore: timer", timer, error, [&](auto& handler, auto&) -> Result<void> {
        VMM_TRY(timers, xen_timer::decode({static_cast<const std::byte*>(state), size}));
        VMM_CHECK(handler.restore({vcpu}, timers));
        if (kvm_xen_id != nullptr) {
          *kvm_xen_id = timers.kvm_xen_id ? timers.kvm_xen_id->value : XEN_TIMER_KVM_XEN_ID_UNSET;
        }
        return vmm_base::success();
      });
}

int xen_timer_virtual_advance(xen_timer_handler* timer, std::uint64_t ns,
                              xen_timer_error* error) noexcept {
  if (timer == nullptr) return fail(error, {"xen_timer virtual_advance: timer", EINVAL});
  auto* back_end = std::get_if<Virtual>(&timer->back_end);
  if (back_end == nullptr) {
    return fail(error, {"xen_timer virtual_advance: back end", ENOTSUP, timer->number()});
  }
  const auto left = xen_clock::HostTime::max() - back_end->alarm().now();
  if (ns > static_cast<std::uint64_t>(left.count())) {
    return fail(error, {"xen_timer virtual_advance: ns", EINVAL, ns});
  }
  return back_end->alarm().advance(xen_clock::Duration(static_cast<std::int64_t>(ns))) ? 1 : 0;
}

int xen_timer_virtual_due(xen_timer_handler* timer, std::uint64_t* ns,
                          xen_timer_error* error) noexcept {
  if (timer == nullptr) return fail(error, {"xen_timer virtual_due: timer", EINVAL});
  if (ns == nullptr) return fail(error, {"xen_timer virtual_due: ns", EINVAL});
  auto* back_end = std::get_if<Virtual>(&timer->back_end);
  if (back_end == nullptr) {
    return fail(error, {"xen_timer virtual_due: back end", ENOTSUP, timer->number()});
  }
  auto& alarm = back_end->alarm();
  const auto rest = std::max(alarm.due() - alarm.now(), xen_clock::Duration::zero());
  *ns = alarm.is_set() ? static_cast<std::uint64_t>(rest.count()) : XEN_TIMER_NEVER;
  return 0;
}
