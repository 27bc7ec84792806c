// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// An io_uring that can do nothing but time out, and signals an eventfd as it does so, in the
// timer's interrupt: no thread and no kernel worker comes between. Linux 6.1 and later.
#pragma once

#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

#include "vmm_base/result.hpp"
#include "vmm_base/unique_fd.hpp"

namespace xen_timer {

using vmm_base::Result;

class TimeoutRing {
 public:
  // It keeps `eventfd`'s file, not the number, and is muted. Errors of io_uring_setup: ENOSYS,
  // EPERM where kernel.io_uring_disabled or a seccomp filter says so, EINVAL before Linux 6.1,
  // EMFILE, ENFILE, ENOMEM; of mmap; of io_uring_register.
  static Result<TimeoutRing> create(int eventfd) noexcept {
    io_uring_params made{};
    // What has timed out is told of at once, and completed when submit() comes by.
    made.flags = IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG;
    vmm_base::UniqueFd fd(static_cast<int>(::syscall(SYS_io_uring_setup, requests, &made)));
    if (!fd) return vmm_base::last_error("io_uring_setup");
    VMM_TRY(rings, map(fd.get(), IORING_OFF_SQ_RING,
                       std::max(made.sq_off.array + made.sq_entries * sizeof(std::uint32_t),
                                made.cq_off.cqes + made.cq_entries * sizeof(io_uring_cqe))));
    VMM_TRY(entries, map(fd.get(), IORING_OFF_SQES, made.sq_entries * sizeof(io_uring_sqe)));
    TimeoutRing ring(std::move(fd), std::move(rings), std::move(entries), made);
    ring.mute(true);
    VMM_CHECK(ring.register_op(IORING_REGISTER_EVENTFD, &eventfd, 1));
    // Whoever takes this process over could do with a ring what its seccomp filter forbids.
    io_uring_restriction only[3]{};
    only[0].opcode = only[1].opcode = IORING_RESTRICTION_SQE_OP;
    only[0].sqe_op = IORING_OP_TIMEOUT;
    only[1].sqe_op = IORING_OP_TIMEOUT_REMOVE;
    only[2].opcode = IORING_RESTRICTION_REGISTER_OP;
    only[2].register_op = IORING_REGISTER_ENABLE_RINGS;
    VMM_CHECK(ring.register_op(IORING_REGISTER_RESTRICTIONS, only, std::size(only)));
    return ring;
  }
  TimeoutRing(TimeoutRing&&) noexcept = default;
  TimeoutRing& operator=(TimeoutRing&&) noexcept = default;
  ~TimeoutRing() {
    if (rings_) mute(true);  // a timeout that is cancelled would be told of, too
  }

  // From now on the calling thread submits, and no other can. Once.
  Result<void> start() noexcept { return register_op(IORING_REGISTER_ENABLE_RINGS, nullptr, 0); }

  // Whether anything has timed out since submit() was called, which may have completed it. Until it
  // has nothing more is told of.
  [[nodiscard]] bool woken() const noexcept {
    return (__atomic_load_n(at(made_.sq_off.flags), __ATOMIC_ACQUIRE) & IORING_SQ_TASKRUN) != 0;
  }
  // Whether the eventfd is left alone; any thread.
  void mute(bool on) noexcept {
    __atomic_store_n(at(made_.cq_off.flags), on ? IORING_CQ_EVENTFD_DISABLED : 0u,
                     __ATOMIC_SEQ_CST);
  }

  // Requests for submit(), up to two: to time out at `at`, absolute, on CLOCK_BOOTTIME, and to do
  // so with ECANCELED at once. `at` is read by submit(); `name` isn't 0.
  void time_out(std::uint64_t name, const __kernel_timespec& at) noexcept {
    io_uring_sqe& entry = next();
    entry.opcode = IORING_OP_TIMEOUT;
    entry.user_data = name;
    entry.addr = reinterpret_cast<std::uintptr_t>(&at);
    entry.len = 1;
    entry.timeout_flags = IORING_TIMEOUT_ABS | IORING_TIMEOUT_BOOTTIME;
  }
  void remove(std::uint64_t name) noexcept {
    io_uring_sqe& entry = next();
    entry.opcode = IORING_OP_TIMEOUT_REMOVE;
    entry.addr = name;
  }
  // Submits them, and completes what has timed out; `wait`: something, unless a signal comes. On
  // start()'s thread: EEXIST on another. Errors of io_uring_enter, EAGAIN where the kernel has room
  // for one of two; the rest isn't submitted then.
  Result<void> submit(bool wait = false) noexcept {
    // The kernel sets the flag for what it finds while it completes, and leaves it.
    __atomic_and_fetch(at(made_.sq_off.flags), ~IORING_SQ_TASKRUN, __ATOMIC_SEQ_CST);
    std::uint32_t& tail = *at(made_.sq_off.tail);
    const std::uint32_t count = std::exchange(queued_, 0);
    __atomic_store_n(&tail, tail + count, __ATOMIC_RELEASE);
    const long taken = ::syscall(SYS_io_uring_enter, fd_.get(), count, wait ? 1 : 0,
                                 IORING_ENTER_GETEVENTS, nullptr, 0);
    if (taken == static_cast<long>(count) || (taken < 0 && errno == EINTR && count == 0)) {
      return vmm_base::success();
    }
    if (taken >= 0) errno = EAGAIN;
    const vmm_base::Error error = vmm_base::last_error("io_uring_enter", count);
    __atomic_store_n(&tail, tail - (count - static_cast<std::uint32_t>(std::max(taken, 0l))),
                     __ATOMIC_RELEASE);
    return error;
  }
  struct Completion {
    std::uint64_t name;  // 0: of a removal
    int error;           // ETIME, ECANCELED; or why there is no timeout
  };
  std::optional<Completion> completion() noexcept {
    std::uint32_t& head = *at(made_.cq_off.head);
    if (head == __atomic_load_n(at(made_.cq_off.tail), __ATOMIC_ACQUIRE)) return std::nullopt;
    const auto* all = reinterpret_cast<const io_uring_cqe*>(rings_.get() + made_.cq_off.cqes);
    const io_uring_cqe& done = all[head & (made_.cq_entries - 1)];
    const Completion completed{done.user_data, -done.res};
    __atomic_store_n(&head, head + 1, __ATOMIC_RELEASE);
    return completed;
  }

 private:
  static constexpr unsigned requests = 2;

  struct Unmap {
    std::size_t size = 0;
    void operator()(std::byte* at) const noexcept { ::munmap(at, size); }
  };
  using Mapping = std::unique_ptr<std::byte, Unmap>;

  TimeoutRing(vmm_base::UniqueFd fd, Mapping rings, Mapping entries,
              const io_uring_params& made) noexcept
      : fd_(std::move(fd)), rings_(std::move(rings)), entries_(std::move(entries)), made_(made) {}

  static Result<Mapping> map(int fd, off_t what, std::size_t size) noexcept {
    void* at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, what);
    if (at == MAP_FAILED) return vmm_base::last_error("mmap", size);
    return Mapping(static_cast<std::byte*>(at), Unmap{size});
  }
  [[nodiscard]] std::uint32_t* at(std::uint32_t offset) const noexcept {
    return reinterpret_cast<std::uint32_t*>(rings_.get() + offset);
  }
  io_uring_sqe& next() noexcept {
    const std::uint32_t index = (*at(made_.sq_off.tail) + queued_++) & (made_.sq_entries - 1);
    at(made_.sq_off.array)[index] = index;
    io_uring_sqe& entry = reinterpret_cast<io_uring_sqe*>(entries_.get())[index];
    entry = {};
    return entry;
  }
  Result<void> register_op(unsigned op, const void* what, unsigned count) noexcept {
    if (::syscall(SYS_io_uring_register, fd_.get(), op, what, count) == 0) {
      return vmm_base::success();
    }
    return vmm_base::last_error("io_uring_register", op);
  }

  vmm_base::UniqueFd fd_;
  Mapping rings_;
  Mapping entries_;
  io_uring_params made_;
  std::uint32_t queued_ = 0;
};

}  // namespace xen_timer
