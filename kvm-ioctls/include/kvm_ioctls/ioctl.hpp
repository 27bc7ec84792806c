// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// The one place where ioctl(2) is called; also the typed way to one that isn't wrapped yet:
//
//   constexpr Request<kvm_memory_region> set_memory_region{"KVM_SET_MEMORY_REGION",
//                                                          _IOW(KVMIO, 0x40, kvm_memory_region)};
//   VMM_CHECK(kvm_ioctls::call(vm.fd(), set_memory_region, region));
#pragma once

#include <sys/ioctl.h>

#include <cstdint>
#include <type_traits>

#include "vmm_base/result.hpp"

namespace kvm_ioctls {

// Returns the call's own non-negative result. `name` is a literal and `operand` goes into the
// error, with the errno as the call left it. EBADF for the fd of a handle that was moved from.
template <class Argument>
inline vmm_base::Result<int> ioctl(int fd, const char* name, unsigned long request,
                                   Argument argument, std::uint64_t operand = 0) noexcept {
  const int result = ::ioctl(fd, request, argument);
  if (result < 0) return vmm_base::last_error(name, operand);
  return result;
}

// An ioctl whose argument is a T. That the number says a T of this size is checked by the compiler.
template <class T>
struct Request {
  static_assert(std::is_trivially_copyable_v<T>);
  consteval Request(const char* its_name, unsigned long its_number)
      : name(its_name), number(its_number) {
    if (_IOC_SIZE(its_number) != sizeof(T)) wrong_size_for_this_ioctl();
  }
  const char* name;
  unsigned long number;

 private:
  static void wrong_size_for_this_ioctl() {}  // not constexpr: a call of it doesn't compile
};

// Calls it; returns its own non-negative result.
template <class T>
inline vmm_base::Result<int> call(int fd, const Request<T>& request, T& argument,
                                  std::uint64_t operand = 0) noexcept {
  return ioctl(fd, request.name, request.number, &argument, operand);
}
template <class T>
inline vmm_base::Result<int> call(int fd, const Request<T>& request, const T& argument,
                                  std::uint64_t operand = 0) noexcept {
  return ioctl(fd, request.name, request.number, &argument, operand);
}

namespace detail {

// Makes a structure in its place by the call that fills it from end to end: zeroing or copying it
// would cost more than the call's own code.
struct Filled {
  template <class T>
  operator T() const noexcept {
    T value;
    if (::ioctl(fd, request, &value) < 0) [[unlikely]] {
      error = errno;
    }
    return value;
  }
  int fd;
  unsigned long request;
  int& error;  // stays negative if there is none
};

// `operand` is called for an error only: what it costs is the error's.
template <class Argument, class Operand>
inline vmm_base::Result<int> call(int fd, const char* name, unsigned long request,
                                  Argument argument, Operand operand) noexcept {
  const int result = ::ioctl(fd, request, argument);
  if (result < 0) [[unlikely]] {
    return vmm_base::last_error(name, operand());
  }
  return result;
}

template <class T, class Operand>
inline vmm_base::Result<T> get(int fd, const char* name, unsigned long request,
                               Operand operand) noexcept {
  static_assert(std::is_trivially_copyable_v<T> && std::is_class_v<T>);
  int error = -1;
  vmm_base::Result<T> result(boost::outcome_v2::in_place_type<T>, Filled{fd, request, error});
  if (error >= 0) [[unlikely]] {
    result = vmm_base::Error{name, error, operand()};
  }
  return result;
}

template <class Argument, class Operand>
inline vmm_base::Result<void> set(int fd, const char* name, unsigned long request,
                                  Argument argument, Operand operand) noexcept {
  if (::ioctl(fd, request, argument) < 0) [[unlikely]] {
    return vmm_base::last_error(name, operand());
  }
  return vmm_base::success();
}

}  // namespace detail
}  // namespace kvm_ioctls

// For the wrappers: the request's name is said once. CALL returns the ioctl's own result, GET a
// structure that the kernel fills, SET nothing.
#define KVM_IOCTLS_CALL(fd, request, argument, operand)           \
  ::kvm_ioctls::detail::call((fd), #request, request, (argument), \
                             [&] { return static_cast<std::uint64_t>(operand); })
#define KVM_IOCTLS_GET(type, fd, request, operand)         \
  ::kvm_ioctls::detail::get<type>((fd), #request, request, \
                                  [&] { return static_cast<std::uint64_t>(operand); })
#define KVM_IOCTLS_SET(fd, request, argument, operand)           \
  ::kvm_ioctls::detail::set((fd), #request, request, (argument), \
                            [&] { return static_cast<std::uint64_t>(operand); })
