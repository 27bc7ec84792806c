// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The system calls that each thread may make once the sandbox is entered (sandbox.hpp), by who
// needs them. A component's README says the same of its own.
#pragma once

#include <linux/vfio.h>
#include <seccomp.h>
#include <sys/ioctl.h>

#include "kvm_ioctls/uapi.hpp"
#include "sandbox.hpp"

namespace vmm_reference::sandbox {

inline constexpr unsigned all = loop | vcpu | timers;

enum class Only {
  anything,
  data,         // mmap, mprotect: no PROT_EXEC
  own_process,  // tgkill: the first argument
  own_files,    // fcntl: flags, and duplicates; no signals to others
  threads,      // clone: no new process
  not_sigsys,   // rt_sigaction: nobody takes our handler away
  own_rings,    // io_uring_register: what xen-timer's timeout_ring.hpp does
};

struct SystemCall {
  int number;
  unsigned who;  // Threads; set_up for that one alone, which may do everything that is here
  Only only = Only::anything;
};

inline constexpr SystemCall system_calls[] = {
    // --- glibc and libstdc++: heap, locks, signals, time without a vDSO, the end ---
    {SCMP_SYS(brk), all},
    {SCMP_SYS(mmap), all, Only::data},
    {SCMP_SYS(mprotect), all, Only::data},
    {SCMP_SYS(mremap), all},
    {SCMP_SYS(munmap), all},
    {SCMP_SYS(madvise), all},
    {SCMP_SYS(futex), all},
    {SCMP_SYS(clock_gettime), all},
    {SCMP_SYS(rt_sigprocmask), all},
    {SCMP_SYS(rt_sigreturn), all},
    {SCMP_SYS(restart_syscall), all},
    {SCMP_SYS(getpid), all},
    {SCMP_SYS(gettid), all},
    {SCMP_SYS(tgkill), all, Only::own_process},
    {SCMP_SYS(exit), all},
    {SCMP_SYS(exit_group), all},
    // A thread begins, and takes a filter of its own.
    {SCMP_SYS(clone), set_up, Only::threads},
    {SCMP_SYS(set_robust_list), set_up},
    {SCMP_SYS(rseq), set_up},
    {SCMP_SYS(sched_getaffinity), set_up},
    {SCMP_SYS(seccomp), set_up},
    // stderr, stdout; signal handlers, and whoever posts to the loop, write as well.
    {SCMP_SYS(write), all},
    {SCMP_SYS(writev), all},  // what glibc says before it aborts

    // --- Boost.Asio: the main thread's loop, which others stop and post to ---
    {SCMP_SYS(epoll_create1), set_up},
    {SCMP_SYS(eventfd2), vcpu},  // vfio_function.cpp, too, as the guest turns MSI on
    {SCMP_SYS(pipe2), set_up},
    {SCMP_SYS(pipe), set_up},
    {SCMP_SYS(epoll_ctl), loop | vcpu},
    {SCMP_SYS(epoll_wait), loop},
    {SCMP_SYS(fcntl), loop | vcpu, Only::own_files},  // kvm-ioctls' IrqFd, too
    {SCMP_SYS(rt_sigaction), loop, Only::not_sigsys},
    {SCMP_SYS(read), loop},
    {SCMP_SYS(close), loop | vcpu},

    // --- xen_platform_calls.cpp: a vCPU that yields ---
    {SCMP_SYS(sched_yield), vcpu},

    // --- signal_file.hpp ---
    {SCMP_SYS(signalfd4), set_up},

    // --- xen-timer's back ends, and timer_thread.hpp ---
    {SCMP_SYS(timerfd_create), set_up},
    {SCMP_SYS(timerfd_settime), all},
    {SCMP_SYS(timer_create), vcpu},
    {SCMP_SYS(timer_settime), loop | vcpu},
    {SCMP_SYS(timer_delete), loop},
    {SCMP_SYS(poll), timers},
    {SCMP_SYS(io_uring_setup), set_up},
    {SCMP_SYS(io_uring_register), vcpu, Only::own_rings},
    {SCMP_SYS(io_uring_enter), vcpu},  // a ring that does nothing but time out
    {SCMP_SYS(membarrier), vcpu},

    // --- vfio-ioctls: configuration space, and BARs that aren't mapped ---
    {SCMP_SYS(pread64), vcpu},
    {SCMP_SYS(pwrite64), vcpu | metrics},  // observer.cpp, too

    // --- snapshot_file.hpp ---
    {SCMP_SYS(openat), snapshots},
    {SCMP_SYS(flock), snapshots},
    {SCMP_SYS(fstat), snapshots},
    {SCMP_SYS(newfstatat), snapshots},
    {SCMP_SYS(lseek), snapshots},
    {SCMP_SYS(ftruncate), snapshots},
    {SCMP_SYS(fsync), snapshots},
    {SCMP_SYS(rename), snapshots},
    {SCMP_SYS(unlink), snapshots},
};

struct Ioctl {
  unsigned long request;
  unsigned who;
};

inline constexpr Ioctl ioctls[] = {
    {KVM_RUN, vcpu | snapshots},  // machine_state.cpp: at once out again

    // --- kvm-ioctls: a machine is made ---
    {KVM_CHECK_EXTENSION, loop},
    {KVM_CREATE_VM, set_up},
    {KVM_CREATE_IRQCHIP, set_up},
    {KVM_CREATE_VCPU, set_up},
    {KVM_ENABLE_CAP, set_up},
    {KVM_GET_SUPPORTED_CPUID, set_up},
    {KVM_GET_VCPU_MMAP_SIZE, set_up},
    {KVM_SET_CPUID2, set_up},
    {KVM_SET_IDENTITY_MAP_ADDR, set_up},
    {KVM_SET_TSS_ADDR, set_up},
    {KVM_XEN_HVM_CONFIG, set_up},

    // --- what a hypercall makes of the vCPU that makes it, or of another ---
    {KVM_GET_REGS, vcpu},
    {KVM_SET_REGS, vcpu},
    {KVM_GET_SREGS, vcpu},
    {KVM_SET_SREGS, vcpu},
    {KVM_GET_MP_STATE, vcpu},
    {KVM_SET_MP_STATE, vcpu},
    {KVM_SET_MSRS, vcpu},
    {KVM_TRANSLATE, vcpu},
    {KVM_XEN_VCPU_SET_ATTR, vcpu},
    {KVM_XEN_VCPU_GET_ATTR, vcpu},

    // --- and of the machine: shared_info, grant frames, BARs, MSIs ---
    {KVM_XEN_HVM_SET_ATTR, vcpu},
    {KVM_SET_USER_MEMORY_REGION, vcpu},
    {KVM_SET_GSI_ROUTING, vcpu},
    {KVM_IRQFD, vcpu | loop},
    {VFIO_DEVICE_SET_IRQS, vcpu | loop},

    // --- clocks, and interrupts ---
    {KVM_GET_TSC_KHZ, vcpu},
    {KVM_GET_DEVICE_ATTR, vcpu},  // the TSC's offset
    {KVM_GET_CLOCK, vcpu | timers},
    {KVM_XEN_HVM_EVTCHN_SEND, vcpu | timers},
    {KVM_SIGNAL_MSI, vcpu | timers},
    {KVM_IRQ_LINE, vcpu | loop},  // the serial port's

    // --- machine_state.cpp and xen_state.cpp: what else a vCPU and a machine are, out and in ---
    {KVM_GET_MSR_INDEX_LIST, snapshots},
    {KVM_GET_MSRS, snapshots},
    {KVM_GET_DEBUGREGS, snapshots},
    {KVM_SET_DEBUGREGS, snapshots},
    {KVM_GET_XCRS, snapshots},
    {KVM_SET_XCRS, snapshots},
    {KVM_GET_VCPU_EVENTS, snapshots},
    {KVM_SET_VCPU_EVENTS, snapshots},
    {KVM_GET_LAPIC, snapshots},
    {KVM_SET_LAPIC, snapshots},
    {KVM_GET_CPUID2, snapshots},
    {KVM_GET_XSAVE, snapshots},
    {KVM_GET_XSAVE2, snapshots},
    {KVM_SET_XSAVE, snapshots},
    {KVM_GET_NESTED_STATE, snapshots},
    {KVM_SET_NESTED_STATE, snapshots},
    {KVM_GET_IRQCHIP, snapshots},
    {KVM_SET_IRQCHIP, snapshots},
    {KVM_SET_CLOCK, snapshots},
    {KVM_KVMCLOCK_CTRL, snapshots},
    {KVM_SET_TSC_KHZ, snapshots},
    {KVM_SET_DEVICE_ATTR, snapshots},
    {KVM_XEN_HVM_GET_ATTR, snapshots},

    // --- the main thread: pipes, the terminal, and the end of VFIO ---
    {FIONBIO, loop},
    {TCGETS, loop},
    {TCSETS, all},  // given back by a signal handler, on whatever thread
    {TCSETSW, loop},
    {TCSETSF, loop},
    {VFIO_IOMMU_UNMAP_DMA, loop},
    {VFIO_GROUP_UNSET_CONTAINER, loop},
};

}  // namespace vmm_reference::sandbox
