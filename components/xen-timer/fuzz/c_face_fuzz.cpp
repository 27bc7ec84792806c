// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Any sequence of calls of xen_timer.h with any arguments, NULL among them, over each back end but
// IRQFD, by
// a VMM whose callbacks answer anything. Every return value and error is one that the header names,
// an event comes on the port that its vCPU's VIRQ_TIMER has, and what is saved can be restored.
#include <fuzzer/FuzzedDataProvider.h>
#include <xen_timer.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <vector>

#include "must.hpp"

namespace {

constexpr std::uint32_t max_vcpus = 4;

class Sequence {
 public:
  explicit Sequence(FuzzedDataProvider& input) : input_(input) {}
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence() { xen_timer_destroy(timer_); }

  void create() {
    const auto back_end = input_.PickValueInArray<std::uint32_t>(
        {XEN_TIMER_VIRTUAL, XEN_TIMER_VIRTUAL, XEN_TIMER_DELEGATED, XEN_TIMER_TIMERFD,
         XEN_TIMER_IRQFD, XEN_TIMER_SPINNING, 0, 6});
    vcpus_ = input_.ConsumeIntegralInRange<std::uint32_t>(0, max_vcpus);
    xen_timer_callbacks calls{};
    calls.size = sizeof(calls);
    calls.context = this;
    calls.copy_from_guest = copy_from_guest;
    calls.guest_now = guest_now;
    calls.raise_event = raise_event;
    calls.set_timer = set_timer;
    calls.get_timer = get_timer;
    calls.route_event = route_event;
    const auto missing = input_.ConsumeIntegral<std::uint8_t>();
    if (missing == 1) calls.copy_from_guest = nullptr;
    if (missing == 2) calls.guest_now = nullptr;
    if (missing == 3) calls.raise_event = nullptr;
    if (missing == 4) calls.set_timer = nullptr;
    if (missing == 5) calls.get_timer = nullptr;
    if (missing == 6) calls.route_event = nullptr;
    if (missing == 7) calls.size = input_.ConsumeIntegral<std::size_t>() % sizeof(calls);
    if (missing == 8) calls.size = 4097;
    xen_timer_error error{};
    back_end_ = back_end;
    const int created = xen_timer_create(missing == 9 ? nullptr : &calls, back_end, vcpus_,
                                         missing == 10 ? nullptr : &timer_, &error);
    check(created, error);
    MUST((created == 0) == (timer_ != nullptr));
    if (created != 0) vcpus_ = 0;
  }

  void step() {
    xen_timer_error error{};
    xen_timer_error* told = rarely() ? nullptr : &error;
    xen_timer_handler* timer = rarely() ? nullptr : timer_;
    const std::uint32_t vcpu = any_vcpu();
    const bool is_known = timer != nullptr && vcpu < vcpus_;
    int returned = 0;
    switch (input_.ConsumeIntegralInRange(0, 13)) {
      case 0:
      case 1:
      case 2:
        return handle(timer, vcpu, told, error);
      case 3: {
        const std::uint32_t port = input_.ConsumeBool()
                                       ? input_.ConsumeIntegralInRange<std::uint32_t>(0, 4096)
                                       : input_.ConsumeIntegral<std::uint32_t>();
        const bool is_port = port != 0 && port < 4096;
        // An error may be met on the way, with the port bound all the same.
        if (is_known && is_port) allow(vcpu, port);
        returned = xen_timer_bind(timer, vcpu, port, told);
        MUST((is_known && is_port) || returned == -EINVAL);
        if (is_known && is_port) now_at(vcpu, port);
        break;
      }
      case 4:
        returned = xen_timer_unbind(timer, vcpu, told);
        MUST(is_known || returned == -EINVAL);
        if (is_known) now_at(vcpu, 0);
        break;
      case 5: {
        const int fd = xen_timer_fd(timer, told);
        MUST(fd >= 0 || fd == -EINVAL || (fd == -ENOTSUP && back_end_ >= XEN_TIMER_VIRTUAL));
        returned = std::min(fd, 0);
        break;
      }
      case 6:
        returned = xen_timer_expire(timer, told);
        break;
      case 7:
        returned = xen_timer_hand_over(timer, vcpu, input_.ConsumeIntegral<std::uint8_t>(), told);
        MUST(is_known || returned == -EINVAL);
        break;
      case 8:
        returned =
            input_.ConsumeBool() ? xen_timer_pause(timer, told) : xen_timer_resume(timer, told);
        break;
      case 9:
        return save_and_restore(timer, vcpu);
      case 10:
        return restore_any(timer, vcpu, told, error);
      case 11:
        returned = xen_timer_attach(timer, vcpu, SIGURG, nullptr, told);  // which is ignored
        MUST(is_known == (returned == 0));
        break;
      case 12:
        returned = xen_timer_expire_vcpu(timer, vcpu, told);
        MUST(is_known || returned == -EINVAL);
        break;
      default:
        return pass_time(timer, told, error);
    }
    if (told != nullptr) check(returned, error);
    MUST(returned <= 0);
  }

 private:
  bool rarely() { return input_.ConsumeIntegral<std::uint8_t>() == 0xff; }
  std::uint32_t any_vcpu() {
    return rarely() ? input_.ConsumeIntegral<std::uint32_t>()
                    : input_.ConsumeIntegralInRange<std::uint32_t>(0, max_vcpus);
  }
  // What a function returned, and what it said.
  static void check(int returned, const xen_timer_error& error) {
    MUST(returned >= -4095);
    if (returned >= 0) return;
    MUST(error.code == -returned && error.operation != nullptr && error.operation[0] != '\0');
  }

  void handle(xen_timer_handler* timer, std::uint32_t vcpu, xen_timer_error* told,
              const xen_timer_error& error) {
    xen_timer_hypercall call{};
    call.number = input_.PickValueInArray<std::uint64_t>({15, 24, 24, 24, 29, ~std::uint64_t{0}});
    call.params[0] = input_.ConsumeBool() ? input_.ConsumeIntegralInRange<std::uint64_t>(5, 10)
                                          : input_.ConsumeIntegral<std::uint64_t>();
    call.params[1] = any_vcpu();
    call.params[2] = input_.ConsumeIntegral<std::uint64_t>();
    call.long_mode = input_.ConsumeIntegral<std::uint8_t>() & 3;
    if (rarely()) call.cpl = input_.ConsumeIntegral<std::uint32_t>();
    xen_timer_answer answer;
    std::memset(&answer, 0xee, sizeof answer);
    const bool asked = !rarely();
    caller_ = vcpu;
    const int returned = xen_timer_handle(timer, vcpu, &call, asked ? &answer : nullptr, told);
    if (told != nullptr) check(returned, error);
    MUST(returned <= 0);
    if (!asked) {
      MUST(returned == -EINVAL);
      return;
    }
    MUST(answer.handled <= 1);
    if (call.cpl > 3) MUST(returned == -EINVAL && answer.handled == 0);
    if (call.cpl != 0 && answer.handled == 1 && vcpu < vcpus_) {
      MUST(static_cast<std::int64_t>(answer.rax) == -EPERM);
    }
    if (answer.handled == 0) {
      MUST(answer.rax == 0);
    } else {
      const auto rax = static_cast<std::int64_t>(answer.rax);
      MUST(rax == 0 || rax == -EPERM || rax == -ENOENT || rax == -EINVAL || rax == -EFAULT);
      MUST(call.number == 15 || call.number == 24);
    }
  }

  // What save() wrote is what restore() takes, and it changes nothing.
  void save_and_restore(xen_timer_handler* timer, std::uint32_t vcpu) {
    std::array<std::uint8_t, XEN_TIMER_STATE_SIZE + 1> state{};
    state.back() = 0xee;
    const auto id = input_.ConsumeIntegral<std::uint32_t>();
    if (xen_timer_save(timer, vcpu, id, state.data(), XEN_TIMER_STATE_SIZE, nullptr) != 0) return;
    MUST(state.back() == 0xee);
    std::uint32_t restored_id = ~id;
    std::uint32_t port = 0;
    std::memcpy(&port, &state[8], sizeof port);
    MUST(port == ports_[vcpu]);
    xen_timer_error error{};
    const int restored =
        xen_timer_restore(timer, vcpu, state.data(), XEN_TIMER_STATE_SIZE, &restored_id, &error);
    check(restored, error);
    MUST(restored == 0 ? restored_id == id : may_fail_);
  }

  void restore_any(xen_timer_handler* timer, std::uint32_t vcpu, xen_timer_error* told,
                   const xen_timer_error& error) {
    std::vector<std::uint8_t> state;
    if (input_.ConsumeBool()) {
      struct {
        std::uint32_t magic = 0x524d5458;
        std::uint16_t version = 1;
        std::uint16_t size = XEN_TIMER_STATE_SIZE;
        std::uint32_t port = 0;
        std::uint32_t id = 0;
        std::int64_t deadline = 0, period = 0, last_tick = 0;
      } bytes;
      bytes.port = input_.ConsumeIntegralInRange<std::uint32_t>(0, 4096);
      bytes.deadline = input_.ConsumeIntegral<std::int64_t>();
      bytes.period = input_.ConsumeBool() ? input_.ConsumeIntegral<std::int64_t>() : 1'000'000;
      bytes.last_tick = input_.ConsumeIntegral<std::int64_t>();
      state.resize(sizeof bytes);
      std::memcpy(state.data(), &bytes, sizeof bytes);
    } else {
      state = input_.ConsumeBytes<std::uint8_t>(input_.ConsumeIntegralInRange<std::size_t>(0, 48));
    }
    std::uint32_t port = 0;
    if (state.size() >= 12) std::memcpy(&port, &state[8], sizeof port);
    const bool is_known = timer != nullptr && vcpu < vcpus_;
    if (is_known) allow(vcpu, port);
    const int returned = xen_timer_restore(timer, vcpu, state.empty() ? nullptr : state.data(),
                                           state.size(), nullptr, told);
    if (told != nullptr) check(returned, error);
    MUST(is_known || returned == -EINVAL || returned == -ENOTSUP);
    if (!is_known) return;
    // After an error of a callback it may have been restored all the same: that is what save()
    // says.
    std::array<std::uint8_t, XEN_TIMER_STATE_SIZE> now{};
    if (xen_timer_save(timer, vcpu, 0, now.data(), now.size(), nullptr) != 0) return;
    std::uint32_t is = 0;
    std::memcpy(&is, &now[8], sizeof is);
    MUST(is == ports_[vcpu] || is == port);
    MUST(returned != 0 || is == port);
    now_at(vcpu, is);
  }

  void pass_time(xen_timer_handler* timer, xen_timer_error* told, const xen_timer_error& error) {
    const auto ns = input_.ConsumeBool() ? input_.ConsumeIntegralInRange<std::uint64_t>(0, 1 << 28)
                                         : input_.ConsumeIntegral<std::uint64_t>();
    clock_ += input_.ConsumeBool() ? ns : 0;
    const int advanced = xen_timer_virtual_advance(timer, ns, told);
    if (told != nullptr) check(advanced, error);
    std::uint64_t due = 7;
    const int asked = xen_timer_virtual_due(timer, &due, nullptr);
    MUST(asked == 0 || due == 7);
    MUST(asked == 0 || timer == nullptr || back_end_ != XEN_TIMER_VIRTUAL);
    if (advanced < 0) return;
    MUST((advanced == 1) == (due == 0));
    if (advanced == 1) (void)xen_timer_expire(timer, nullptr);
  }

  // --- which ports may be raised ---

  void allow(std::uint32_t vcpu, std::uint32_t port) { next_[vcpu] = port; }
  void now_at(std::uint32_t vcpu, std::uint32_t port) { ports_[vcpu] = next_[vcpu] = port; }

  // --- the VMM ---

  static Sequence& of(void* context) { return *static_cast<Sequence*>(context); }
  int any_result() {
    const auto choice = input_.ConsumeIntegral<std::uint8_t>();
    if (choice < 0xf0) return 0;
    may_fail_ = true;
    return choice == 0xff ? input_.ConsumeIntegral<int>() : -EIO;
  }
  static int copy_from_guest(void* context, std::uint32_t vcpu, std::uint64_t gva, void* to,
                             std::size_t size) {
    Sequence& self = of(context);
    MUST(vcpu == self.caller_ && vcpu < self.vcpus_);
    MUST(size == 8 || size == 12 || size == 16);
    if (gva >> 63 != 0) return self.any_result() | 1;
    const auto bytes = self.input_.ConsumeBytes<std::uint8_t>(size);
    std::memset(to, 0, size);
    std::copy(bytes.begin(), bytes.end(), static_cast<std::uint8_t*>(to));
    if ((gva & 1) != 0) {  // a deadline near by
      std::uint64_t near = self.clock_ + bytes.size() * 1000;
      std::memcpy(to, &near, sizeof near);
    }
    return 0;
  }
  static std::uint64_t guest_now(void* context, std::uint32_t vcpu) {
    MUST(vcpu < of(context).vcpus_);
    return of(context).clock_;
  }
  static int raise_event(void* context, std::uint32_t vcpu, std::uint32_t port) {
    Sequence& self = of(context);
    MUST(vcpu < self.vcpus_ && port != 0);
    MUST(port == self.ports_[vcpu] || port == self.next_[vcpu]);
    return self.any_result();
  }
  static int set_timer(void* context, std::uint32_t vcpu, std::uint32_t port,
                       std::uint64_t expires) {
    Sequence& self = of(context);
    MUST(vcpu < self.vcpus_ && (port != 0 || expires == 0));
    MUST(port == 0 || port == self.ports_[vcpu] || port == self.next_[vcpu]);
    return self.any_result();
  }
  static int get_timer(void* context, std::uint32_t vcpu, std::uint64_t* expires) {
    MUST(vcpu < of(context).vcpus_);
    *expires = of(context).input_.ConsumeIntegral<std::uint64_t>();
    return of(context).any_result();
  }
  static int route_event(void* context, std::uint32_t vcpu, std::uint32_t port, int eventfd) {
    Sequence& self = of(context);
    MUST(vcpu < self.vcpus_ && eventfd >= 0);
    MUST(port == 0 || port == self.ports_[vcpu] || port == self.next_[vcpu]);
    return self.any_result();
  }

  FuzzedDataProvider& input_;
  xen_timer_handler* timer_ = nullptr;
  std::uint32_t vcpus_ = 0;
  std::uint32_t back_end_ = 0;
  std::uint32_t caller_ = 0;
  std::uint64_t clock_ = 1'000'000'000;
  bool may_fail_ = false;  // a callback has failed
  std::array<std::uint32_t, max_vcpus> ports_{};
  std::array<std::uint32_t, max_vcpus> next_{};  // while it is being bound
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  Sequence sequence(input);
  sequence.create();
  for (int steps = 0; steps < 200 && input.remaining_bytes() > 0; ++steps) sequence.step();
  return 0;
}
