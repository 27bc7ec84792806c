// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "failing_calls.hpp"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <new>

namespace failing {

namespace {

std::atomic<std::size_t> nth = 0;  // 0: none
std::atomic<Of> of = Of::calls;
std::atomic<int> code = 0;
std::atomic<std::size_t> seen = 0;
std::atomic<const char*> failed = nullptr;
std::atomic<std::size_t> blocks = 0;
std::atomic<std::size_t> mapped = 0;
thread_local int unseen = 0;

bool fails(const char* name, Of kind = Of::calls) noexcept {
  if (nth == 0 || of != kind || unseen != 0) return false;
  if (++seen != nth) return false;
  failed = name;
  errno = code;
  return true;
}

long raw(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
         long f = 0) noexcept {
  long result = 0;
  register long r10 asm("r10") = d;
  register long r8 asm("r8") = e;
  register long r9 asm("r9") = f;
  asm volatile("syscall"
               : "=a"(result)
               : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
               : "rcx", "r11", "memory");
  if (result >= 0 || result < -4095) return result;
  errno = static_cast<int>(-result);
  return -1;
}
long word(const void* pointer) noexcept { return reinterpret_cast<long>(pointer); }

}  // namespace

void next(std::size_t which, int error, Of kind) noexcept {
  nth = 0;
  seen = 0;
  failed = nullptr;
  code = error;
  of = kind;
  nth = which;
}
Seen none() noexcept {
  nth = 0;
  return {seen, failed};
}

Held held() noexcept { return {blocks, mapped}; }

Unseen::Unseen() noexcept { ++unseen; }
Unseen::~Unseen() { --unseen; }

namespace {

void* allocate(std::size_t size, std::size_t alignment) noexcept {
  if (fails("operator new", Of::allocations)) return nullptr;
  void* memory = nullptr;
  if (::posix_memalign(&memory, alignment, size) != 0) return nullptr;
  ++blocks;
  return memory;
}
void* allocate_or_throw(std::size_t size, std::size_t alignment) {
  void* memory = allocate(size, alignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
void release(void* memory) noexcept {
  if (memory != nullptr) --blocks;
  std::free(memory);
}

}  // namespace

}  // namespace failing

// --- the language's: all others of it go through these ---

void* operator new(std::size_t size) {
  return failing::allocate_or_throw(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  return failing::allocate_or_throw(size, static_cast<std::size_t>(alignment));
}
void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
  return failing::allocate(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__);
}
void* operator new(std::size_t size, std::align_val_t alignment, const std::nothrow_t&) noexcept {
  return failing::allocate(size, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { failing::release(memory); }
void operator delete(void* memory, std::size_t) noexcept { failing::release(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { failing::release(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  failing::release(memory);
}

// --- the C library's ---

extern "C" {

int eventfd(unsigned count, int flags) noexcept {
  if (failing::fails("eventfd")) return -1;
  return static_cast<int>(failing::raw(SYS_eventfd2, count, flags));
}
int timerfd_create(int clock, int flags) noexcept {
  if (failing::fails("timerfd_create")) return -1;
  return static_cast<int>(failing::raw(SYS_timerfd_create, clock, flags));
}
int timerfd_settime(int fd, int flags, const itimerspec* to, itimerspec* was) noexcept {
  if (failing::fails("timerfd_settime")) return -1;
  return static_cast<int>(
      failing::raw(SYS_timerfd_settime, fd, flags, failing::word(to), failing::word(was)));
}
int timer_create(clockid_t clock, sigevent* event, timer_t* timer) noexcept {
  if (failing::fails("timer_create")) return -1;
  int id = 0;  // the kernel's timer_t, which the C library keeps in a pointer
  const long result =
      failing::raw(SYS_timer_create, clock, failing::word(event), failing::word(&id));
  *timer = reinterpret_cast<timer_t>(static_cast<std::intptr_t>(id));
  return static_cast<int>(result);
}
int timer_settime(timer_t timer, int flags, const itimerspec* to, itimerspec* was) noexcept {
  if (failing::fails("timer_settime")) return -1;
  return static_cast<int>(failing::raw(SYS_timer_settime, failing::word(timer), flags,
                                       failing::word(to), failing::word(was)));
}
int epoll_create1(int flags) noexcept {
  if (failing::fails("epoll_create1")) return -1;
  return static_cast<int>(failing::raw(SYS_epoll_create1, flags));
}
int signalfd(int fd, const sigset_t* signals, int flags) noexcept {
  if (failing::fails("signalfd")) return -1;
  constexpr long size = 8;  // the kernel's sigset_t
  return static_cast<int>(failing::raw(SYS_signalfd4, fd, failing::word(signals), size, flags));
}
int pipe(int* ends) noexcept {
  if (failing::fails("pipe")) return -1;
  return static_cast<int>(failing::raw(SYS_pipe, failing::word(ends)));
}
int madvise(void* at, std::size_t size, int advice) noexcept {
  if (failing::fails("madvise")) return -1;
  return static_cast<int>(
      failing::raw(SYS_madvise, failing::word(at), static_cast<long>(size), advice));
}
void* mmap(void* at, std::size_t size, int protection, int flags, int fd, off_t offset) noexcept {
  if (failing::fails("mmap")) return MAP_FAILED;
  const long mapping = failing::raw(SYS_mmap, failing::word(at), static_cast<long>(size),
                                    protection, flags, fd, offset);
  if (mapping != -1) failing::mapped += size;
  return reinterpret_cast<void*>(mapping);
}
int munmap(void* at, std::size_t size) noexcept {
  const long result = failing::raw(SYS_munmap, failing::word(at), static_cast<long>(size));
  if (result == 0) failing::mapped -= size;
  return static_cast<int>(result);
}
// io_uring's; what undoes a thing doesn't fail.
long syscall(long number, ...) noexcept {
  va_list list;
  va_start(list, number);
  long arguments[6];
  for (long& argument : arguments) argument = va_arg(list, long);
  va_end(list);
  const char* name = number == SYS_io_uring_setup      ? "io_uring_setup"
                     : number == SYS_io_uring_register ? "io_uring_register"
                     : number == SYS_io_uring_enter    ? "io_uring_enter"
                                                       : nullptr;
  if (name != nullptr && failing::fails(name)) return -1;
  return failing::raw(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4],
                      arguments[5]);
}

// A sanitizer's, where there is one.
__attribute__((weak)) int __interceptor_pthread_create(pthread_t*, const pthread_attr_t*,
                                                       void* (*)(void*), void*);
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*body)(void*),
                   void* argument) noexcept {
  if (failing::fails("pthread_create")) return EAGAIN;
  auto* create = __interceptor_pthread_create;
  if (create == nullptr) {
    create = reinterpret_cast<decltype(create)>(::dlsym(RTLD_NEXT, "pthread_create"));
  }
  return create(thread, attributes, body, argument);
}

}  // extern "C"
