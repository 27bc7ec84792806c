// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Xen's timer hypercalls for a VMM in C, or in any language that calls C: the handler of
// xen_timer/handler.hpp and its back ends, as functions of libxen_timer.so. C99 is enough.
//
//   struct xen_timer_callbacks calls = {.size = sizeof(calls), .context = &vmm, …};
//   struct xen_timer_handler *timer;
//   if (xen_timer_create(&calls, XEN_TIMER_TIMERFD, vcpus, &timer, &error) < 0) …
//   …
//   xen_timer_handle(timer, vcpu, &call, &answer, &error);  // in the vCPU's run loop
//   if (answer.handled) run->xen.u.hcall.result = answer.rax;
//   …
//   xen_timer_expire(timer, &error);  // whenever xen_timer_fd() is readable
//
// Functions that return an int return 0 or more, or a negative errno; then they also fill *error,
// unless that is NULL. Bad arguments are -EINVAL, and nothing is done: a NULL pointer, a vCPU id
// that isn't below the count, a size that is too small. No exception, signal or message comes out.
//
// Times are in ns. Guest times are those of the vCPU's Xen clock, that is, since the domain was
// started; vCPU ids are Xen's, 0 to n - 1.
#ifndef XEN_TIMER_H
#define XEN_TIMER_H

#include <stddef.h>
#include <stdint.h>

#define XEN_TIMER_VERSION_MAJOR 0  // of this header; of the library: xen_timer_version()
#define XEN_TIMER_VERSION_MINOR 5  // the same
#define XEN_TIMER_VERSION_PATCH 0  // the same

// What the library exports.
#if defined(__GNUC__)
#define XEN_TIMER_API __attribute__((visibility("default")))
#else
#define XEN_TIMER_API
#endif
// Nothing is thrown.
#ifdef __cplusplus
#define XEN_TIMER_NOEXCEPT noexcept
extern "C" {
#else
#define XEN_TIMER_NOEXCEPT
#endif

// The version of the library that runs, major << 16 | minor << 8 | patch. Before 1.0 a new minor
// version is a new interface, and the library's name says it: libxen_timer.so.0.5.
XEN_TIMER_API uint32_t xen_timer_version(void) XEN_TIMER_NOEXCEPT;

// What failed, and on what.
struct xen_timer_error {
  const char* operation;  // "timerfd_create", "xen_timer bind: port"; valid as long as the library
  uint64_t operand;       // a vCPU id, a size, a number that was refused …
  int32_t code;           // the errno, positive
};

// What the handler asks of the VMM. Each function is given `context`. None may throw or longjmp;
// those that return an int return 0, or a negative errno, which comes out as the error of the call
// that asked (anything else: EINVAL), `operation` the callback's name, `operand` the vCPU's id.
struct xen_timer_callbacks {
  size_t size;    // sizeof(struct xen_timer_callbacks), so that it can grow
  void* context;  // whatever you like

  // Reads `size` bytes at a virtual address of this vCPU's, on its thread. Not 0: some byte can't
  // be read, and the guest is told -EFAULT.
  int (*copy_from_guest)(void* context, uint32_t vcpu, uint64_t gva, void* to, size_t size);
  // What this vCPU's Xen clock reads now, ns. Any thread; it must not wait for a vCPU, as KVM's
  // vCPU ioctls do for one that runs: a vCPU that stops its timer may be waiting for it.
  uint64_t (*guest_now)(void* context, uint32_t vcpu);
  // Marks the port pending and lets the guest know. Any thread; nor must it wait for a vCPU. An
  // error says that it isn't pending: it is tried again, ever more rarely, until it is or the guest
  // wants it no more.
  int (*raise_event)(void* context, uint32_t vcpu, uint32_t port);

  // XEN_TIMER_DELEGATED needs these two, else NULL. KVM_XEN_VCPU_SET_ATTR and
  // KVM_XEN_VCPU_GET_ATTR of KVM_XEN_VCPU_ATTR_TYPE_TIMER, on the vCPU's thread or while it doesn't
  // run: the port, 0 for none, and the guest time of the deadline, 0 for none.
  int (*set_timer)(void* context, uint32_t vcpu, uint32_t port, uint64_t expires);
  // *expires is the deadline that KVM has, 0 for none.
  int (*get_timer)(void* context, uint32_t vcpu, uint64_t* expires);

  // XEN_TIMER_IRQFD needs this, else NULL. From now on a signal of `eventfd`, always the same of a
  // vCPU, raises `port`; port 0: nothing, and what was signalled before has been raised when this
  // returns, as KVM_IRQFD_FLAG_DEASSIGN sees to. KVM_SET_GSI_ROUTING and KVM_IRQFD; as for the two
  // above.
  int (*route_event)(void* context, uint32_t vcpu, uint32_t port, int eventfd);
};

// What keeps the deadlines.
#define XEN_TIMER_TIMERFD 1u  // a timerfd: Linux 3.15 and later
#define XEN_TIMER_IRQFD 2u    // events are raised inside the kernel, by an io_uring: 6.1 and later
#define XEN_TIMER_DELEGATED 3u  // KVM's own timer of the vCPU: Linux 7.3 and later
#define XEN_TIMER_VIRTUAL 4u    // a clock that you move by hand, for tests: see below
#define XEN_TIMER_SPINNING 5u   // the vCPU's own thread, woken early, which spins for the rest

#define XEN_TIMER_MAX_VCPUS 4096u  // no KVM has more

// All timers of one domain.
struct xen_timer_handler;

// Copies *callbacks; makes *timer, or NULL on error. E2BIG: `callbacks` is a later version's, and
// uses what this library doesn't know. Errors of timerfd_create and eventfd: EMFILE, ENFILE,
// ENOMEM; of XEN_TIMER_IRQFD also io_uring_setup's: ENOSYS, EPERM where io_uring is forbidden,
// EINVAL before Linux 6.1; mmap's, io_uring_register's.
XEN_TIMER_API int xen_timer_create(const struct xen_timer_callbacks* callbacks, uint32_t back_end,
                                   uint32_t vcpu_count, struct xen_timer_handler** timer,
                                   struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;
// NULL is fine. No other call may be under way.
XEN_TIMER_API void xen_timer_destroy(struct xen_timer_handler* timer) XEN_TIMER_NOEXCEPT;

// The calling thread runs this vCPU from now on; again on another that is to run it. Of two back
// ends; of the others nothing is done.
//
// XEN_TIMER_IRQFD: its deadlines are the kernel's; before, and after an error, xen_timer_expire()
// serves what it arms. Errors of io_uring_setup, mmap, io_uring_register, io_uring_enter; ENOTSUP
// in a time namespace before Linux 7.1.
//
// XEN_TIMER_SPINNING: `signal` comes to it, its si_code SI_TIMER, its si_value.sival_ptr `value`,
// whenever it is to call xen_timer_expire_vcpu(); before, nothing is served. Errors of timer_create
// and timer_settime.
XEN_TIMER_API int xen_timer_attach(struct xen_timer_handler* timer, uint32_t vcpu, int signal,
                                   void* value, struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

// One hypercall, as the guest made it; KVM_EXIT_XEN has the same fields.
struct xen_timer_hypercall {
  uint64_t number;     // __HYPERVISOR_vcpu_op and so on: KVM's `input`
  uint64_t params[6];  // in the order of the ABI's registers
  uint32_t long_mode;  // of the caller; 0: 32-bit
  uint32_t cpl;        // of the caller, 0 to 3
};
// What became of it.
struct xen_timer_answer {
  uint64_t rax;      // what the guest is told
  uint32_t handled;  // 0: not a timer's call, ask your next handler
};

// Answers *call, made by `vcpu`, on that vCPU's thread. If `handled` is 1, the answer is final,
// even where an error is returned: that is a host's, met on the way, and the guest isn't told of
// it.
XEN_TIMER_API int xen_timer_handle(struct xen_timer_handler* timer, uint32_t vcpu,
                                   const struct xen_timer_hypercall* call,
                                   struct xen_timer_answer* answer,
                                   struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

// VIRQ_TIMER of `vcpu` is now bound to `port`, 1 to 4095, or to none; on that vCPU's thread. An
// armed deadline stays armed. When it has returned, no event reaches the old port.
XEN_TIMER_API int xen_timer_bind(struct xen_timer_handler* timer, uint32_t vcpu, uint32_t port,
                                 struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;
// The port has been closed: from now on events are lost, as in Xen; on that vCPU's thread.
XEN_TIMER_API int xen_timer_unbind(struct xen_timer_handler* timer, uint32_t vcpu,
                                   struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

// Readable when xen_timer_expire() has something to do, for poll() and its like; not yours to close
// or read. ENOTSUP, operand the back end: the virtual and the spinning one have none.
XEN_TIMER_API int xen_timer_fd(struct xen_timer_handler* timer,
                               struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;
// Raises the events of all deadlines that have passed on their guest's clock. Any one thread; for
// nothing it is harmless. Returns the first host error met; the other deadlines are still served. A
// guest can cause errors at will: say so once, not each time. After an error call it again before
// long, for where the timer of the host couldn't be set, the fd doesn't become readable.
XEN_TIMER_API int xen_timer_expire(struct xen_timer_handler* timer,
                                   struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

// --- XEN_TIMER_SPINNING; ENOTSUP, operand the back end, for another ---

// The same for one vCPU, on its own thread, whenever KVM_RUN was interrupted: by the signal, whose
// handler sets kvm_run's immediate_exit, so that none is lost on the way in, and is installed with
// SA_RESTART. Never early; spins for up to 500 us, and for a fourth of the time at most.
XEN_TIMER_API int xen_timer_expire_vcpu(struct xen_timer_handler* timer, uint32_t vcpu,
                                        struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;
// What spinning has cost so far, all threads together, ns.
XEN_TIMER_API int xen_timer_spun(struct xen_timer_handler* timer, uint64_t* ns,
                                 struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

// Whether KVM may keep this vCPU's single shots (1, as at first) or only this library (0); on the
// vCPU's thread. ENOTSUP, operand the back end: it gives nothing to KVM.
XEN_TIMER_API int xen_timer_hand_over(struct xen_timer_handler* timer, uint32_t vcpu,
                                      uint32_t to_kernel,
                                      struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

// --- while no vCPU runs ---

// No event is raised in between. If the guest's clock stands still meanwhile, every deadline is as
// far ahead as before; if it goes on, what is overdue comes once each. Call the pair round every
// change of a guest's clock.
XEN_TIMER_API int xen_timer_pause(struct xen_timer_handler* timer,
                                  struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;
// Waits for the deadlines again; those that have passed are due at once.
XEN_TIMER_API int xen_timer_resume(struct xen_timer_handler* timer,
                                   struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

#define XEN_TIMER_STATE_SIZE 40u                // bytes, of what save() writes
#define XEN_TIMER_KVM_XEN_ID_UNSET 0xffffffffu  // KVM was told no Xen id of the vCPU

// A vCPU's port, deadline and period, as XEN_TIMER_STATE_SIZE bytes (xen_timer/state.hpp); `size`
// is the room there is. `kvm_xen_id` is what KVM_XEN_VCPU_GET_ATTR says of TYPE_VCPU_ID, and is
// only kept: save() may also be called on the vCPU's own thread while others run.
XEN_TIMER_API int xen_timer_save(struct xen_timer_handler* timer, uint32_t vcpu,
                                 uint32_t kvm_xen_id, void* state, size_t size,
                                 struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;
// Replaces a vCPU's timers, after its clock has been restored. On success *kvm_xen_id, unless NULL,
// is what save() was given: set it by KVM_XEN_VCPU_SET_ATTR unless it is
// XEN_TIMER_KVM_XEN_ID_UNSET. EINVAL: not what save() writes; ENOTSUP, operand the version: a later
// save() wrote it. Nothing is done then.
XEN_TIMER_API int xen_timer_restore(struct xen_timer_handler* timer, uint32_t vcpu,
                                    const void* state, size_t size, uint32_t* kvm_xen_id,
                                    struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

// --- XEN_TIMER_VIRTUAL; ENOTSUP, operand the back end, for another; one thread ---

#define XEN_TIMER_NEVER UINT64_MAX

// Moves the host's clock on, by at most what is left to 2^63 - 1 ns. The guests' clocks are yours.
// Returns 1 if xen_timer_expire() has something to do then, else 0.
XEN_TIMER_API int xen_timer_virtual_advance(struct xen_timer_handler* timer, uint64_t ns,
                                            struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;
// How long it is until then, ns; XEN_TIMER_NEVER if nothing is armed.
XEN_TIMER_API int xen_timer_virtual_due(struct xen_timer_handler* timer, uint64_t* ns,
                                        struct xen_timer_error* error) XEN_TIMER_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif  // XEN_TIMER_H
