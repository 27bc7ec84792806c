// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Taking a vCPU out of KVM_RUN, from any thread.
//
//   VMM_TRY(signal, KickSignal::install());   // once a process
//   Kicker kicker = vcpu.kicker(signal);      // any time; copies go to whoever kicks
//   std::thread thread([&] {
//     Runner runner(vcpu, signal);            // on the thread that runs the vCPU, as long as it
//     does for (bool go_on = true; go_on;) {
//       VMM_TRY(exit, runner.run());
//       match(exit, [&](Interrupted&) { go_on = !stop; }, …);
//     }
//   });
//   stop = true;
//   kicker.kick();                            // stop is looked at, whatever the vCPU was doing
//
// What kick() promises: the run() that is under way, or else the next one, returns Interrupted, and
// what was written before kick() is seen after that run(). No kick is lost: not before the thread
// has begun, not on the way into KVM_RUN or out of it, not beside another kick, a signal or another
// exit. Kicks that come together are one. Interrupted may come without a kick, too. Linux 4.11 and
// later: KVM_CAP_IMMEDIATE_EXIT.
//
// How: kick() sets kvm_run.immediate_exit and then signals the thread. KVM_RUN reads the flag after
// it has entered the kernel, where a signal that came before it is still seen; the flag stands for
// a kick that the signal missed, and the signal for one that the flag missed. run() takes the flag
// back before it returns Interrupted, and so before its caller looks at what the kick was for; what
// is asked for after that sets it again.
#pragma once

#include <pthread.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <variant>

#include "kvm_ioctls/exit.hpp"
#include "kvm_ioctls/uapi.hpp"
#include "vmm_base/result.hpp"

namespace kvm_ioctls {

namespace detail {

// A vCPU's kvm_run mapping, and the thread that runs it, 0 for none.
struct RunPage {
  explicit RunPage(std::size_t its_size) noexcept : size(its_size) {}
  RunPage(const RunPage&) = delete;
  RunPage& operator=(const RunPage&) = delete;
  ~RunPage() {
    if (run != nullptr) ::munmap(run, size);
  }

  kvm_run* run = nullptr;
  std::size_t size;  // bytes
  std::atomic<pid_t> thread = 0;
};

}  // namespace detail

// A signal that does nothing but interrupt. A timer may send it as well (timer_create(2),
// SIGEV_THREAD_ID), or pthread_sigqueue(): the thread's Runner, the one made last on it, then
// returns Interrupted as after a kick.
class KickSignal {
 public:
  // Gives `number` a handler that does no more, in the whole process and for good, as a kick under
  // way may still deliver it. Other system calls that it meets are restarted. EINVAL for a realtime
  // signal, whose queue can be full; EBUSY if the process handles it already: then from_handled().
  static vmm_base::Result<KickSignal> install(int number = SIGUSR1) noexcept {
    struct sigaction old {};
    if (number >= SIGRTMIN) return vmm_base::Error{"sigaction", EINVAL, as_operand(number)};
    if (::sigaction(number, nullptr, &old) != 0) {
      return vmm_base::last_error("sigaction", as_operand(number));
    }
    if ((old.sa_flags & SA_SIGINFO) != 0 && old.sa_sigaction == &interrupt) {
      return KickSignal(number);
    }
    if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) {
      return vmm_base::Error{"sigaction", EBUSY, as_operand(number)};
    }
    struct sigaction action {};
    action.sa_sigaction = &interrupt;
    action.sa_flags = SA_RESTART | SA_SIGINFO;
    if (::sigaction(number, &action, nullptr) != 0) {
      return vmm_base::last_error("sigaction", as_operand(number));
    }
    return KickSignal(number);
  }
  // A signal that the process has a handler for, and keeps. If others than Kickers send it, that
  // handler has to set kvm_run.immediate_exit.
  static KickSignal from_handled(int number) noexcept { return KickSignal(number); }

  [[nodiscard]] int number() const noexcept { return number_; }

 private:
  explicit KickSignal(int number) noexcept : number_(number) {}
  template <class Vcpu>
  friend class Runner;

  // kick() has set the flag before it sent the signal; whoever else sends it hasn't.
  static void interrupt(int, siginfo_t* info, void*) noexcept {
    if (info->si_code == SI_TKILL || running_ == nullptr) return;
    std::atomic_ref(running_->immediate_exit).store(1, std::memory_order_seq_cst);
  }
  static std::uint64_t as_operand(int number) noexcept { return static_cast<unsigned>(number); }
  // Of this thread's Runner. At a fixed place even in a library that is loaded later, where its
  // first use on a thread would else allocate, in the handler.
  [[gnu::tls_model("initial-exec")]] static inline thread_local kvm_run* running_ = nullptr;
  int number_;
};

// From Vcpu::kicker(). Any thread may use it, and a signal handler. It keeps the vCPU's page
// mapped, and with it the vCPU in the kernel, so it never dangles. One that was moved from does
// nothing.
class Kicker {
 public:
  Kicker(std::shared_ptr<detail::RunPage> page, KickSignal signal) noexcept
      : page_(std::move(page)), signal_(signal) {}

  void kick() const noexcept {
    if (page_ == nullptr) return;
    // An exchange: run() synchronizes with every kick whose flag it takes, not only with the last.
    std::atomic_ref(page_->run->immediate_exit).exchange(1, std::memory_order_seq_cst);
    // Either this sees the thread, or its Runner's first KVM_RUN sees the flag.
    const pid_t thread = page_->thread.load(std::memory_order_seq_cst);
    // Should that thread have ended, and its number be another's of this process by now, that one
    // is interrupted to no harm.
    if (thread != 0) (void)::tgkill(::getpid(), thread, signal_.number());
  }

 private:
  std::shared_ptr<detail::RunPage> page_;
  KickSignal signal_;
};

// A vCPU on the thread that runs it: to be made, used and destroyed there. One at a time a vCPU; it
// must not outlive the vCPU nor see it moved. Vcpu::run() may not be used beside it.
template <class Vcpu>
class Runner {
 public:
  // Unblocks `signal`, the Kickers', for this thread.
  Runner(Vcpu& vcpu, KickSignal signal) noexcept : vcpu_(vcpu), page_(vcpu.run_page()) {
    if (page_ != nullptr) KickSignal::running_ = page_->run;
    ::sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, signal.number());
    ::pthread_sigmask(SIG_UNBLOCK, &kick, nullptr);
    if (page_ != nullptr) page_->thread.store(::gettid(), std::memory_order_seq_cst);
  }
  Runner(const Runner&) = delete;
  Runner& operator=(const Runner&) = delete;
  ~Runner() {
    KickSignal::running_ = nullptr;
    if (page_ != nullptr) page_->thread.store(0, std::memory_order_seq_cst);
  }

  // Vcpu::run(); takes the kicks back that Interrupted answers.
  [[nodiscard]] vmm_base::Result<Exit> run() noexcept {
    vmm_base::Result<Exit> result = vcpu_.run();
    if (result && std::holds_alternative<Interrupted>(result.assume_value())) {
      std::atomic_ref(vcpu_.page().immediate_exit).exchange(0, std::memory_order_seq_cst);
    }
    return result;
  }
  // Vcpu::run(cases...), likewise.
  template <class... Cases>
  requires(sizeof...(Cases) != 0)
      [[nodiscard, gnu::always_inline]] inline auto run(Cases&&... cases) {
    detail::Overloaded<std::remove_cvref_t<Cases>...> visit{std::forward<Cases>(cases)...};
    return vcpu_.run(
        [&](Interrupted& exit) {
          std::atomic_ref(vcpu_.page().immediate_exit).exchange(0, std::memory_order_seq_cst);
          return visit(exit);
        },
        [&](auto& exit) { return visit(exit); });
  }

 private:
  Vcpu& vcpu_;
  std::shared_ptr<detail::RunPage> page_;
};

}  // namespace kvm_ioctls
