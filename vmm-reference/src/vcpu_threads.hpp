// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A thread for each vCPU, and work on it. KVM's ioctls of a vCPU wait while that vCPU runs, so what
// one vCPU's hypercall does to another is done by the other's thread.
//
//   VMM_TRY(signal, KickSignal::install());
//   VcpuThreads threads(machine.vcpus, signal);
//   VMM_CHECK(threads.start(
//       [&](XenVcpuId id, VcpuRunner& vcpu) {             // on each thread
//         run_vcpu(vcpu, ...);                            // calls serve() when it is interrupted
//       },
//       [&] { loop.stop(); }));                           // once all have ended
//   threads.run_on(XenVcpuId{1}, [&] { ... });            // from any thread
//   threads.pause(); ...; threads.resume();               // from a thread that is no vCPU's
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "kvm_ioctls/kicker.hpp"
#include "kvm_ioctls/vcpu.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

using vmm_base::XenVcpuId;
using VcpuRunner = kvm_ioctls::Runner<kvm_ioctls::Vcpu>;

class VcpuThreads {
 public:
  // `vcpus` by Xen vCPU id; they must outlive it.
  VcpuThreads(std::span<kvm_ioctls::Vcpu> vcpus, kvm_ioctls::KickSignal signal)
      : vcpus_(vcpus), signal_(signal), slots_(vcpus.size()) {
    for (const kvm_ioctls::Vcpu& vcpu : vcpus) kickers_.push_back(vcpu.kicker(signal));
  }
  VcpuThreads(const VcpuThreads&) = delete;
  VcpuThreads& operator=(const VcpuThreads&) = delete;
  ~VcpuThreads() { stop(); }

  // Calls body(id, vcpu) on a thread for each vCPU. It has to call serve(id) whenever vcpu.run()
  // was interrupted, and to return when that says so. The last thread to end calls all_ended().
  // Error: a thread couldn't be had, operand the vCPU; those that could run until stop().
  using Body = std::function<void(XenVcpuId, VcpuRunner&)>;
  vmm_base::Result<void> start(Body body, std::function<void()> all_ended) {
    const std::scoped_lock lock(mutex_);
    body_ = std::move(body);
    all_ended_ = std::move(all_ended);
    for (std::uint32_t index = 0; index < slots_.size(); ++index) {
      try {
        slots_[index].thread = std::thread([this, index] { run(index); });
      } catch (const std::system_error& error) {
        return vmm_base::Error{"pthread_create", error.code().value(), index};
      }
      // Else nobody may wait for it.
      slots_[index].running = true;
      ++running_;
    }
    return vmm_base::success();
  }

  // On the vCPU's thread: does what others have asked for, and waits here as long as all are
  // paused; false if it is to end.
  [[nodiscard]] bool serve(XenVcpuId id) {
    std::unique_lock lock(mutex_);
    do_asked(lock, slots_[id.value]);
    if (paused_ && !stopping_) {
      ++at_rest_;
      changed_.notify_all();
      while (paused_ && !stopping_) {
        changed_.wait(lock);
        do_asked(lock, slots_[id.value]);
      }
      --at_rest_;
    }
    return !stopping_;
  }

  // Returns when every vCPU is out of KVM_RUN, with its last exit completed, and stays there until
  // resume(). Meanwhile run_on() is served as ever.
  void pause() {
    std::unique_lock lock(mutex_);
    paused_ = true;
    kick_all();
    changed_.wait(lock, [this] { return at_rest_ == running_; });
  }
  void resume() {
    const std::scoped_lock lock(mutex_);
    paused_ = false;
    changed_.notify_all();
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
    kickers_[id.value].kick();
    changed_.notify_all();  // should it be paused
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

  // Interrupts one, so that it calls serve().
  void kick(XenVcpuId id) { kickers_[id.value].kick(); }
  // Interrupts all, so that each calls serve().
  void kick_all() {
    for (const kvm_ioctls::Kicker& kicker : kickers_) kicker.kick();
  }

  // Ends all threads, and waits for them.
  void stop() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
      changed_.notify_all();
    }
    kick_all();
    for (Slot& slot : slots_) {
      if (slot.thread.joinable()) slot.thread.join();
    }
  }

 private:
  void run(std::uint32_t index) {
    self_ = &slots_[index];
    VcpuRunner vcpu(vcpus_[index], signal_);
    body_(XenVcpuId{index}, vcpu);
    std::unique_lock guard(mutex_);
    do_asked(guard, slots_[index]);
    slots_[index].running = false;
    const bool last = --running_ == 0;
    changed_.notify_all();  // pause() waits for one less
    guard.unlock();
    if (last) all_ended_();
  }

  struct Asked {
    const std::function<void()>* work;
    bool done = false;
  };
  struct Slot {
    std::thread thread;
    bool running = false;
    std::vector<Asked*> asked;
  };

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

  std::span<kvm_ioctls::Vcpu> vcpus_;
  kvm_ioctls::KickSignal signal_;
  std::vector<kvm_ioctls::Kicker> kickers_;  // by Xen vCPU id
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Slot> slots_;  // by Xen vCPU id
  Body body_;
  std::function<void()> all_ended_;
  std::size_t running_ = 0;
  std::size_t at_rest_ = 0;  // of those, that wait in serve()
  bool paused_ = false;
  bool stopping_ = false;
};

}  // namespace vmm_reference
