// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// KVM_RUN.
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <iterator>

#include "state.hpp"

namespace kvm_ioctls::double_detail {

namespace {

constexpr std::uint64_t register_sets =
    KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS | KVM_SYNC_X86_EVENTS;

template <class T>
void load(const Fake& vcpu, unsigned long set_by, T& to) {
  const auto found = vcpu.set.find({set_by, 0});
  to = T{};
  if (found != vcpu.set.end()) std::memcpy(&to, found->second.data(), sizeof(to));
}
template <class T>
void store(Fake& vcpu, unsigned long set_by, const T& from) {
  const auto bytes = std::as_bytes(std::span(&from, 1));
  vcpu.set[{set_by, 0}] = {bytes.begin(), bytes.end()};
}

void store_registers(Fake& vcpu, std::uint64_t sets) {
  const kvm_sync_regs& from = vcpu.page().s.regs;
  if ((sets & KVM_SYNC_X86_REGS) != 0) store(vcpu, KVM_SET_REGS, from.regs);
  if ((sets & KVM_SYNC_X86_SREGS) != 0) store(vcpu, KVM_SET_SREGS, from.sregs);
  if ((sets & KVM_SYNC_X86_EVENTS) != 0) store(vcpu, KVM_SET_VCPU_EVENTS, from.events);
}
void load_registers(Fake& vcpu) {
  kvm_sync_regs& to = vcpu.page().s.regs;
  load(vcpu, KVM_SET_REGS, to.regs);
  load(vcpu, KVM_SET_SREGS, to.sregs);
  load(vcpu, KVM_SET_VCPU_EVENTS, to.events);
}
// What the VMM hasn't asked for isn't there.
void hide_registers(kvm_run& page) {
  kvm_sync_regs& regs = page.s.regs;
  if ((page.kvm_valid_regs & KVM_SYNC_X86_REGS) == 0) regs.regs = {};
  if ((page.kvm_valid_regs & KVM_SYNC_X86_SREGS) == 0) regs.sregs = {};
  if ((page.kvm_valid_regs & KVM_SYNC_X86_EVENTS) == 0) regs.events = {};
}

std::uint64_t number_of(const Bytes& data) {
  std::uint64_t value = 0;
  std::memcpy(&value, data.data(), std::min(data.size(), sizeof(value)));
  return value;
}

Answer answer_on(kvm_run& page) {
  Answer answer;
  answer.reason = page.exit_reason;
  answer.page = page;
  switch (page.exit_reason) {
    case KVM_EXIT_IO: {
      const std::size_t length =
          std::min(std::size_t{page.io.size} * page.io.count, guest::io_data_size);
      answer.data.assign(guest::io_data(page), guest::io_data(page) + length);
      answer.value = number_of(answer.data);
      break;
    }
    case KVM_EXIT_MMIO: {
      const auto data = std::as_bytes(std::span(page.mmio.data))
                            .first(std::min<std::size_t>(page.mmio.len, sizeof(page.mmio.data)));
      answer.data.assign(data.begin(), data.end());
      answer.value = number_of(answer.data);
      break;
    }
    case KVM_EXIT_X86_RDMSR:
    case KVM_EXIT_X86_WRMSR:
      answer.value = page.msr.data;
      answer.fault = page.msr.error != 0;
      break;
    case KVM_EXIT_XEN:
      answer.value = page.xen.u.hcall.result;
      break;
    case KVM_EXIT_HYPERCALL:
      answer.value = page.hypercall.ret;
      break;
    case KVM_EXIT_HYPERV:
      if (page.hyperv.type == KVM_EXIT_HYPERV_HCALL) answer.value = page.hyperv.u.hcall.result;
      if (page.hyperv.type == KVM_EXIT_HYPERV_SYNDBG) answer.value = page.hyperv.u.syndbg.status;
      break;
    case KVM_EXIT_TDX:
      answer.value = reinterpret_cast<const TdxPayload*>(page.padding)->data[0];
      break;
    case KVM_EXIT_SNP_REQ_CERTS:
      answer.value = reinterpret_cast<const SnpReqCertsPayload*>(page.padding)->ret;
      break;
    default:
      break;
  }
  return answer;
}

bool immediate_exit(kvm_run& page) {
  return std::atomic_ref(page.immediate_exit).load(std::memory_order_seq_cst) != 0;
}

// Holds the thread's signals back, as the kernel does in KVM_RUN: they end it, and are taken after.
class Signals {
 public:
  explicit Signals(std::optional<std::uint64_t> blocked_inside) {
    sigset_t all;
    sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, &own_);
    inside_ = waiting_ = own_;
    if (!blocked_inside) return;
    // Those that only KVM_SET_SIGNAL_MASK lets in are never taken.
    sigset_t let_in;
    sigemptyset(&let_in);
    for (int signal = 1; signal <= last_signal; ++signal) {
      if ((*blocked_inside >> (signal - 1) & 1) != 0) {
        sigaddset(&inside_, signal);
        sigaddset(&waiting_, signal);
      } else if (sigismember(&own_, signal) == 1) {
        sigdelset(&inside_, signal);
        sigaddset(&let_in, signal);
      }
    }
    let_in_ = vmm_base::UniqueFd(::signalfd(-1, &let_in, SFD_CLOEXEC));
  }
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  ~Signals() { ::pthread_sigmask(SIG_SETMASK, &own_, nullptr); }

  // Whether one has come that isn't blocked inside.
  [[nodiscard]] bool pending() const {
    sigset_t pending;
    ::sigpending(&pending);
    for (int signal = 1; signal <= last_signal; ++signal) {
      if (sigismember(&pending, signal) == 1 && sigismember(&inside_, signal) == 0) return true;
    }
    return false;
  }
  // Waits for one, or for an eventfd; whether it was one.
  [[nodiscard]] bool wait(int wake) const {
    pollfd fds[] = {{wake, POLLIN, 0}, {let_in_.get(), POLLIN, 0}};
    const bool taken = ::ppoll(fds, std::size(fds), nullptr, &waiting_) < 0;
    eventfd_t count = 0;
    if ((fds[0].revents & POLLIN) != 0) (void)::eventfd_read(wake, &count);
    return taken || (fds[1].revents & POLLIN) != 0;
  }

 private:
  static constexpr int last_signal = 64;
  sigset_t own_{};
  sigset_t inside_{};
  sigset_t waiting_{};
  vmm_base::UniqueFd let_in_{};
};

// Waits for a kick or a signal: -EINTR; or, at the script's end, for more to do: 0.
int stay(State& state, Fake& vcpu, const Signals& signals, Lock& lock, bool at_end) {
  Script& script = *vcpu.script;
  ++script.staying;
  state.changed.notify_all();
  int result = 0;
  while (result == 0 && !(at_end && !script.steps.empty())) {
    if (state.over) result = -ENODEV;
    if (immediate_exit(vcpu.page())) result = -EINTR;
    if (result != 0) break;
    lock.unlock();
    const bool signalled = signals.wait(script.wake.get());
    lock.lock();
    if (signalled) result = -EINTR;
  }
  --script.staying;
  return result;
}

// All but what comes before and after.
int run_steps(State& state, Fake& vcpu, Lock& lock) {
  Script& script = *vcpu.script;
  kvm_run& page = vcpu.page();
  const Signals signals(vcpu.signal_mask);
  for (;;) {
    if (immediate_exit(page) || signals.pending()) return -EINTR;
    if (script.steps.empty()) {
      if (!script.stays_at_end) return -ENODATA;
      const int interrupted = stay(state, vcpu, signals, lock, true);
      if (interrupted != 0) return interrupted;
      continue;
    }
    const guest::Step step = std::move(script.steps.front());
    script.steps.pop_front();
    page.exit_reason = KVM_EXIT_UNKNOWN;
    std::memset(page.padding, 0, sizeof(page.padding));
    load_registers(vcpu);
    lock.unlock();
    const int came = step(page);
    lock.lock();
    store_registers(vcpu, register_sets);
    hide_registers(page);
    if (came == guest::goes_on) continue;
    return came == guest::stays_inside ? stay(state, vcpu, signals, lock, false) : came;
  }
}

}  // namespace

int run(State& state, Fake& vcpu, Lock& lock) {
  kvm_run& page = vcpu.page();
  if (std::exchange(vcpu.exited, false)) vcpu.script->answers.push_back(answer_on(page));
  if (((page.kvm_valid_regs | page.kvm_dirty_regs) & ~register_sets) != 0) return -EINVAL;
  store_registers(vcpu, std::exchange(page.kvm_dirty_regs, 0));
  const int came = run_steps(state, vcpu, lock);
  if (came == -EINTR) page.exit_reason = KVM_EXIT_INTR;
  vcpu.exited = came == 0 || page.exit_reason == KVM_EXIT_MEMORY_FAULT;
  return came;
}

}  // namespace kvm_ioctls::double_detail
