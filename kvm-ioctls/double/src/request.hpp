// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// One call of the VMM's, and what the double does by itself for those that need more than to be
// remembered: each returns what the ioctl does, or -errno.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "state.hpp"

namespace kvm_ioctls::double_detail {

inline std::byte* at(std::uint64_t address) {
  return reinterpret_cast<std::byte*>(address);  // NOLINT(performance-no-int-to-ptr): the VMM's
}

struct Context {
  State& state;
  Fake& fake;
  unsigned long request;
  std::uint64_t word;

  [[nodiscard]] std::byte* argument() const { return at(word); }
  template <class T>
  [[nodiscard]] T& as() const {
    return *reinterpret_cast<T*>(argument());
  }
  [[nodiscard]] std::size_t size() const { return _IOC_SIZE(request); }
};

// --- what is set, and got again ---

inline int nothing(const Context&) { return 0; }

inline void load(const Context& context, unsigned long set_by, std::uint64_t key,
                 std::size_t size) {
  std::memset(context.argument(), 0, size);
  const auto found = context.fake.set.find({set_by, key});
  if (found == context.fake.set.end()) return;
  std::memcpy(context.argument(), found->second.data(), std::min(size, found->second.size()));
}
inline void store(const Context& context, std::uint64_t key, std::size_t size) {
  context.fake.set[{context.request, key}] = {context.argument(), context.argument() + size};
}

template <unsigned long Set>
int get(const Context& context) {
  load(context, Set, 0, context.size());
  return 0;
}
inline int set(const Context& context) {
  store(context, 0, context.size());
  return 0;
}
// Those whose first member says which.
template <unsigned long Set, class Key>
int get_keyed(const Context& context) {
  const Key key = context.as<Key>();
  load(context, Set, key, context.size());
  context.as<Key>() = key;
  return 0;
}
template <class Key>
int set_keyed(const Context& context) {
  store(context, context.as<Key>(), context.size());
  return 0;
}

// request_lists.cpp
int get_supported_cpuid(const Context& context);
int no_cpuid(const Context& context);
int set_cpuid2(const Context& context);
int get_cpuid2(const Context& context);
int no_msr_list(const Context& context);
int no_reg_list(const Context& context);
int get_xsave(const Context& context);
int get_xsave2(const Context& context);
int set_xsave(const Context& context);
int get_nested_state(const Context& context);
int set_nested_state(const Context& context);
int get_msrs(const Context& context);
int set_msrs(const Context& context);
int get_one_reg(const Context& context);
int set_one_reg(const Context& context);

// request_objects.cpp
int create_vm(const Context& context);
int create_vcpu(const Context& context);
int create_irqchip(const Context& context);
int create_device(const Context& context);
int create_guest_memfd(const Context& context);
int enable_cap(const Context& context);
int reset_dirty_rings(const Context& context);
int set_user_memory_region(const Context& context);
int get_dirty_log(const Context& context);

// request_attributes.cpp
int get_xen_hvm_attr(const Context& context);
int get_xen_vcpu_attr(const Context& context);
int has_device_attr(const Context& context);
int set_device_attr(const Context& context);
int get_device_attr(const Context& context);
int get_stats_fd(const Context& context);

// requests.cpp
int check_extension(const Context& context);

}  // namespace kvm_ioctls::double_detail
