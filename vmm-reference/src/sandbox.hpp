// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What is left to a VMM that its guest has taken over: no file, no program, no other process, no
// network; of the system calls and ioctls those in system_calls.hpp, thread by thread.
//
//   sandbox::note_inherited_files();   // first of all
//   …                                  // open what is to be opened
//   VMM_CHECK(sandbox::enter());       // before the guest's bytes are looked at
//   std::thread([] { sandbox::confine(sandbox::vcpu); … });
//
// A call that isn't allowed ends the process by SIGSYS, with a sentence on stderr. It isn't made,
// not even if the guest had changed that handler.
#pragma once

#include <string>

#include "vmm_base/result.hpp"

namespace vmm_reference::sandbox {

enum Thread : unsigned {
  set_up = 0,  // the main thread, while it makes machines: whatever the others may, and more
  loop = 1,    // the main thread, from when its last guest runs to the end
  vcpu = 2,
  timers = 4,
  snapshots = 8,  // loop, where a guest may be saved or goes on from a file
  metrics = 16,   // loop, where it writes counters to a file
};

// What is open now isn't ours, and enter() closes it: all but 0, 1 and 2.
void note_inherited_files();

// Once a process, and for good. No capabilities, and no way to get one; no core is dumped, and no
// process of the same user may look inside. The calling thread, and those that it starts, may do
// what is needed to set a machine up and to run it. Error: what failed; of seccomp EINVAL or ENOSYS
// where the kernel has no filters. `also`: `snapshots`, by which the main thread may also open and
// replace files, and have all of a vCPU's state; `metrics`.
[[nodiscard]] vmm_base::Result<void> enter(unsigned also = 0);
// Its error, for the user.
[[nodiscard]] std::string why_not(const vmm_base::Error& error);

// From here on the calling thread may do no more than such a thread needs. Nothing if the process
// isn't in the sandbox; ends it if that fails, for which only memory can lack.
void confine(Thread who) noexcept;

}  // namespace vmm_reference::sandbox
