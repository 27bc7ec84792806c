// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What a call on the host returns: a value, or an Error that names the call, its operand and the
// errno. Nothing here throws, and an error is a plain value that costs nothing until it happens.
//
//   vmm_base::Result<Vm> make() {
//     VMM_TRY(kvm, Kvm::open());          // declares kvm, or returns the error
//     VMM_CHECK(kvm.check_api());         // the same for Result<void>
//     return kvm.create_vm();
//   }
//   if (auto vm = make(); !vm) puts(vm.error().message().c_str());
#pragma once

#include <boost/outcome/basic_result.hpp>
#include <boost/outcome/policy/all_narrow.hpp>
#include <boost/outcome/try.hpp>
#include <boost/version.hpp>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

namespace vmm_base {

// A failed call on the host. Trivially copyable.
struct Error {
  const char* operation = "";  // What failed, by its kernel name: "KVM_CREATE_VCPU". A literal.
  int code = 0;                // errno as the call left it, captured once.
  std::uint64_t operand = 0;   // On what: a vCPU id, an address, a size; see `operation`.

  // "KVM_CREATE_VCPU(0x3): File exists"
  [[nodiscard]] std::string message() const {
    static constexpr char digits[] = "0123456789abcdef";
    std::string hex;
    for (std::uint64_t rest = operand; rest != 0 || hex.empty(); rest >>= 4) {
      hex.insert(hex.begin(), digits[rest & 0xf]);
    }
    const char* reason = strerrordesc_np(code);
    return std::string(operation) + "(0x" + hex +
           "): " + (reason != nullptr ? reason : "errno " + std::to_string(code));
  }

  friend bool operator==(const Error& a, const Error& b) {
    return std::strcmp(a.operation, b.operation) == 0 && a.code == b.code && a.operand == b.operand;
  }
};

// Narrow contracts: value() of an error, or error() of a value, is undefined behaviour, not a
// throw.
template <class T>
using Result = boost::outcome_v2::basic_result<T, Error, boost::outcome_v2::policy::all_narrow>;

using boost::outcome_v2::success;

// The error of a system call that has just failed; reads errno.
inline Error last_error(const char* operation, std::uint64_t operand = 0) noexcept {
  return Error{operation, errno, operand};
}

}  // namespace vmm_base

// Outcome's TRY took a bare name up to Boost 1.75 and takes a declaration since.
#if BOOST_VERSION >= 107600
#define VMM_TRY(name, ...) BOOST_OUTCOME_TRY(auto&& name, __VA_ARGS__)
#else
#define VMM_TRY(name, ...) BOOST_OUTCOME_TRY(name, __VA_ARGS__)
#endif
#define VMM_CHECK(...) BOOST_OUTCOME_TRYV(__VA_ARGS__)
