// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A system call that fails, for as long as a test wants it to: by a seccomp filter on a thread of
// its own, so that nothing else notices.
#pragma once

#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <cstddef>
#include <thread>
#include <vector>

namespace xen_timer {

// Where seccomp may not be used, says so by GTEST_SKIP() in the caller: check IsSkipped().
template <class F>
void with_failing_syscall(long number, int code, F&& f) {
  bool filtered = false;
  std::thread([&] {
    sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<std::uint32_t>(number), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(code)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog filter{.len = 4, .filter = program};
    filtered = ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
               ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
    if (filtered) f();
  }).join();
  if (!filtered) GTEST_SKIP() << "no seccomp filter may be set here";
}

}  // namespace xen_timer
