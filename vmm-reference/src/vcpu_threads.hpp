// SPDX-License-Identifier: BSD-3-Clause
//
// A thread for each vCPU, and work on it. KVM's ioctls of a vCPU wait while that vCPU runs, so what
// one vCPU's hypercall does to another is done by the other's thread.
//
//   VcpuThreads threads(machine.vcpus);
//   threads.start([&](XenVcpuId id) { run_vcpu(...); },   // calls serve() when it is interrupted
//                 [&] { loop.stop(); });                  // once all have ended
//   threads.run_on(XenVcpuId{1}, [&] { ... });            // from any thread
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <csignal>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "vmm_base/ids.hpp"

namespace vmm_reference {

using vmm_base::XenVcpuId;

// Vcpu has request_exit(bool): make KVM_RUN return at once, also if it is yet to come.
template <class Vcpu>
class VcpuThreads {
 public:
  // `vcpus` by Xen vCPU id; they must outlive it. Takes SIGUSR1 for the kick.
  explicit VcpuThreads(std::span<Vcpu> vcpus) : vcpus_(vcpus), slots_(vcpus.size()) {
    struct sigaction action {};
    action.sa_handler = [](int) {};  // only to interrupt KVM_RUN
    ::sigaction(kick_signal, &action, nullptr);
  }
  VcpuThreads(const VcpuThreads&) = delete;
  VcpuThreads& operator=(const VcpuThreads&) = delete;
  ~VcpuThreads() { stop(); }

  // Calls body(id) on a thread for each vCPU. It has to call serve(id) whenever KVM_RUN was
  // interrupted, and to return when that says so. The last thread to end calls all_ended().
  void start(std::function<void(XenVcpuId)> body, std::function<void()> all_ended) {
    const std::scoped_lock lock(mutex_);
    body_ = std::move(body);
    all_ended_ = std::move(all_ended);
    running_ = slots_.size();
    for (std::uint32_t index = 0; index < slots_.size(); ++index) {
      slots_[index].running = true;
      slots_[index].thread = std::thread([this, index] {
        self_ = &slots_[index];
        body_(XenVcpuId{index});
        std::unique_lock guard(mutex_);
        do_asked(guard, slots_[index]);
        slots_[index].running = false;
        const bool last = --running_ == 0;
        guard.unlock();
        if (last) all_ended_();
      });
    }
  }

  // On the vCPU's thread: does what others have asked for; false if it is to end.
  [[nodiscard]] bool serve(XenVcpuId id) {
    // First: who asks after this will interrupt again.
    vcpus_[id.value].request_exit(false);
    std::unique_lock lock(mutex_);
    do_asked(lock, slots_[id.value]);
    return !stopping_;
  }

  // Calls work() on the vCPU's thread, while the vCPU isn't running, and returns what that does.
  // Right here if this is that thread, or if it has none. Two vCPUs may ask each other.
  template <class Work>
  auto run_on(XenVcpuId id, Work&& work) {
    using Value = std::invoke_result_t<Work&>;
    std::optional<Value> value;
    const std::function<void()> call = [&] { value.emplace(work()); };
    Slot& target = slots_[id.value];
    if (self_ == &target) {
      call();
      return std::move(*value);
    }
    std::unique_lock lock(mutex_);
    if (!target.running) {
      call();
      return std::move(*value);
    }
    Asked asked{&call};
    target.asked.push_back(&asked);
    kick(id);
    Slot* self = own_slot();
    while (!asked.done) {
      if (self != nullptr && !self->asked.empty()) {
        do_asked(lock, *self);
      } else {
        changed_.wait(lock);
      }
    }
    return std::move(*value);
  }

  // Interrupts all, so that each calls serve().
  void kick_all() {
    const std::scoped_lock lock(mutex_);
    for (std::uint32_t index = 0; index < slots_.size(); ++index) {
      if (slots_[index].running) kick(XenVcpuId{index});
    }
  }

  // Ends all threads, and waits for them.
  void stop() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    kick_all();
    for (Slot& slot : slots_) {
      if (slot.thread.joinable()) slot.thread.join();
    }
  }

 private:
  static constexpr int kick_signal = SIGUSR1;

  struct Asked {
    const std::function<void()>* work;
    bool done = false;
  };
  struct Slot {
    std::thread thread;
    bool running = false;
    std::vector<Asked*> asked;
  };

  // immediate_exit for a vCPU on its way into KVM_RUN, the signal for one inside.
  void kick(XenVcpuId id) {
    vcpus_[id.value].request_exit(true);
    ::pthread_kill(slots_[id.value].thread.native_handle(), kick_signal);
  }
  void do_asked(std::unique_lock<std::mutex>& lock, Slot& slot) {
    while (!slot.asked.empty()) {
      Asked* asked = slot.asked.back();
      slot.asked.pop_back();
      lock.unlock();
      (*asked->work)();
      lock.lock();
      asked->done = true;
      changed_.notify_all();
    }
  }
  Slot* own_slot() {
    for (Slot& slot : slots_) {
      if (&slot == self_) return self_;
    }
    return nullptr;
  }

  static inline thread_local Slot* self_ = nullptr;

  std::span<Vcpu> vcpus_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;  // by Xen vCPU id
  std::function<void(XenVcpuId)> body_;
  std::function<void()> all_ended_;
  std::size_t running_ = 0;
  bool stopping_ = false;
};

}  // namespace vmm_reference
