// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// KVM_CAP_SYNC_REGS: registers that come with every exit and go back with the next run(), in the
// kvm_run page, with no ioctl.
//
//   vcpu.sync_regs().request(SyncRegs::regs_set);   // once
//   VMM_TRY(exit, vcpu.run());
//   vcpu.sync_regs().edit_regs().rax = 1;           // with the next run()
#pragma once

#include <cstdint>

#include "kvm_ioctls/uapi.hpp"

namespace kvm_ioctls {

// A view of a vCPU's page; valid as long as the vCPU. What an exit left is valid until the next
// run(), and only for the sets that were requested before it.
class SyncRegs {
 public:
  // Sets; or them. Which there are: check_extension(KVM_CAP_SYNC_REGS), 7 since Linux 4.17.
  static constexpr std::uint64_t regs_set = KVM_SYNC_X86_REGS;
  static constexpr std::uint64_t sregs_set = KVM_SYNC_X86_SREGS;
  static constexpr std::uint64_t events_set = KVM_SYNC_X86_EVENTS;

  explicit SyncRegs(kvm_run& run) noexcept : run_(&run) {}

  // From now on every exit leaves these sets here; 0 for none. One that the kernel doesn't have
  // makes run() fail with EINVAL.
  void request(std::uint64_t sets) noexcept { run_->kvm_valid_regs = sets; }

  [[nodiscard]] const kvm_regs& regs() const noexcept { return run_->s.regs.regs; }
  [[nodiscard]] const kvm_sregs& sregs() const noexcept { return run_->s.regs.sregs; }
  [[nodiscard]] const kvm_vcpu_events& events() const noexcept { return run_->s.regs.events; }

  // To change: the whole set goes into the vCPU with the next run().
  [[nodiscard]] kvm_regs& edit_regs() noexcept {
    run_->kvm_dirty_regs |= regs_set;
    return run_->s.regs.regs;
  }
  [[nodiscard]] kvm_sregs& edit_sregs() noexcept {
    run_->kvm_dirty_regs |= sregs_set;
    return run_->s.regs.sregs;
  }
  [[nodiscard]] kvm_vcpu_events& edit_events() noexcept {
    run_->kvm_dirty_regs |= events_set;
    return run_->s.regs.events;
  }

 private:
  kvm_run* run_;
};

}  // namespace kvm_ioctls
