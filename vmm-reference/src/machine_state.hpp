// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What KVM and guest memory know of a machine, for a snapshot. All while no vCPU runs, and with the
// vCPUs' last exits completed, but for one's that is down.
#pragma once

#include <cerrno>
#include <chrono>
#include <functional>
#include <new>

#include "host.hpp"
#include "machine.hpp"
#include "snapshot.hpp"
#include "vmm_base/ids.hpp"
#include "vmm_base/result.hpp"

namespace vmm_reference {

// vCPUs and interrupt controllers.
[[nodiscard]] vmm_base::Result<void> save_machine(const Host& host, Machine& machine,
                                                  Snapshot& snapshot);
// Where that has failed: a vCPU that was down may have stayed up, and must not run. Error, operand
// the vCPU: nothing can be done about it.
[[nodiscard]] vmm_base::Result<void> put_down_again(const Machine& machine,
                                                    const Snapshot& snapshot);
// Last of all, once nothing writes to it any more. A view of the machine's.
void save_ram(const Machine& machine, Snapshot& snapshot);
// All of that, into a machine that has just been created from it. EINVAL, operand the MSR's number,
// for one that this host refuses; EPROTO, operand its size, for a FPU that this host's processor
// hasn't.
[[nodiscard]] vmm_base::Result<void> restore_machine(const Host& host, const Machine& machine,
                                                     const Snapshot& snapshot);

// The clocks, for which everything else has to be saved before, and restored after: as they are
// when this is called; then as they were, `later` than that, from which moment they go on. They are
// put back together, so that a pvclock that KVM hasn't written yet is right, too; and with them the
// local APICs' timers. `guest_now` answers with a vCPU's own clock, ns, which
// may be ahead of KVM's: no guest is to see time go back.
[[nodiscard]] vmm_base::Result<void> save_clocks(
    const Machine& machine, const std::function<std::uint64_t(vmm_base::XenVcpuId)>& guest_now,
    Snapshot& snapshot);
[[nodiscard]] vmm_base::Result<void> restore_clocks(
    const Machine& machine, const Snapshot& snapshot,
    std::chrono::nanoseconds later = std::chrono::nanoseconds(0));

// A guest that is at rest goes on, also where memory for its snapshot lacks.
template <class Part>
[[nodiscard]] vmm_base::Result<void> or_no_memory(const Part& part) {
  try {
    return part();
  } catch (const std::bad_alloc&) {
    return vmm_base::Error{"memory for a snapshot", ENOMEM};
  }
}

// Of a guest of KVM's own, which has no other state: fills `snapshot` in, calls use(), and puts the
// clocks back to where they were. Whatever fails, it can go on; the first error.
[[nodiscard]] vmm_base::Result<void> with_kvm_guest_at_rest(
    const Host& host, Machine& machine, Snapshot& snapshot,
    const std::function<vmm_base::Result<void>(Snapshot&)>& use);
[[nodiscard]] vmm_base::Result<void> restore_kvm_guest(const Host& host, const Machine& machine,
                                                       const Snapshot& snapshot,
                                                       std::chrono::nanoseconds later);

}  // namespace vmm_reference
