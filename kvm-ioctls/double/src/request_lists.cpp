// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Structures of variable length, and registers by number.
#include <span>

#include "request.hpp"

namespace kvm_ioctls::double_detail {

namespace {

// Fills in what there is; E2BIG, and how much that is, if there is too little room.
template <class Header, auto Count, class Entry>
int list(const Context& context, std::span<const Entry> entries) {
  auto& header = context.as<Header>();
  const std::size_t room = header.*Count;
  header.*Count = static_cast<std::remove_reference_t<decltype(header.*Count)>>(entries.size());
  if (room < entries.size()) return -E2BIG;
  if (!entries.empty()) {
    std::memcpy(context.argument() + sizeof(Header), entries.data(), entries.size_bytes());
  }
  return 0;
}
int list_cpuid(const Context& context, std::span<const kvm_cpuid_entry2> entries) {
  return list<Cpuid2Header, &Cpuid2Header::nent>(context, entries);
}

}  // namespace

int get_supported_cpuid(const Context& context) {
  return list_cpuid(context, context.state.supported_cpuid);
}
int no_cpuid(const Context& context) { return list_cpuid(context, {}); }
int set_cpuid2(const Context& context) {
  const auto& header = context.as<Cpuid2Header>();
  if (header.nent > 256) return -E2BIG;
  store(context, 0, sizeof(header) + header.nent * sizeof(kvm_cpuid_entry2));
  return 0;
}
int get_cpuid2(const Context& context) {
  const auto found = context.fake.set.find({KVM_SET_CPUID2, 0});
  if (found == context.fake.set.end()) return no_cpuid(context);
  const std::span<const std::byte> entries =
      std::span<const std::byte>(found->second).subspan(sizeof(Cpuid2Header));
  return list_cpuid(context, {reinterpret_cast<const kvm_cpuid_entry2*>(entries.data()),
                              entries.size() / sizeof(kvm_cpuid_entry2)});
}
int no_msr_list(const Context& context) {
  return list<MsrListHeader, &MsrListHeader::nmsrs, __u32>(context, {});
}
int no_reg_list(const Context& context) {
  return list<RegListHeader, &RegListHeader::n, __u64>(context, {});
}

namespace {

std::size_t xsave_size(Context context) {
  context.word = KVM_CAP_XSAVE2;
  const int size = check_extension(context);
  return size < static_cast<int>(sizeof(XsaveHeader)) ? sizeof(XsaveHeader)
                                                      : static_cast<std::size_t>(size);
}

}  // namespace

int get_xsave(const Context& context) {
  load(context, KVM_SET_XSAVE, 0, sizeof(XsaveHeader));
  return 0;
}
int get_xsave2(const Context& context) {
  load(context, KVM_SET_XSAVE, 0, xsave_size(context));
  return 0;
}
int set_xsave(const Context& context) {
  store(context, 0, xsave_size(context));
  return 0;
}
int get_nested_state(const Context& context) {
  auto& header = context.as<NestedStateHeader>();
  const auto found = context.fake.set.find({KVM_SET_NESTED_STATE, 0});
  const std::size_t size =
      found == context.fake.set.end() ? sizeof(NestedStateHeader) : found->second.size();
  if (header.size < size) {
    header.size = static_cast<__u32>(size);
    return -E2BIG;
  }
  load(context, KVM_SET_NESTED_STATE, 0, size);
  header.size = static_cast<__u32>(size);
  return 0;
}
int set_nested_state(const Context& context) {
  const std::size_t size = context.as<NestedStateHeader>().size;
  if (size < sizeof(NestedStateHeader)) return -EINVAL;
  store(context, 0, size);
  return 0;
}

int get_msrs(const Context& context) {
  const auto count = context.as<MsrsHeader>().nmsrs;
  auto* entries = reinterpret_cast<kvm_msr_entry*>(context.argument() + sizeof(MsrsHeader));
  for (auto& entry : std::span(entries, count)) entry.data = context.fake.numbers[entry.index];
  return static_cast<int>(count);
}
int set_msrs(const Context& context) {
  const auto count = context.as<MsrsHeader>().nmsrs;
  const auto* entries =
      reinterpret_cast<const kvm_msr_entry*>(context.argument() + sizeof(MsrsHeader));
  for (const auto& entry : std::span(entries, count)) {
    context.fake.numbers[entry.index] = entry.data;
  }
  return static_cast<int>(count);
}

namespace {

// An MSR by its id is the same as by its index.
std::uint64_t& one_reg(const Context& context) {
  const std::uint64_t id = context.as<kvm_one_reg>().id;
  const bool is_msr = id == Vcpu::x86_msr_reg(static_cast<std::uint32_t>(id));
  return context.fake.numbers[is_msr ? static_cast<std::uint32_t>(id) : id];
}

}  // namespace

int get_one_reg(const Context& context) {
  const std::uint64_t value = one_reg(context);
  std::memcpy(at(context.as<kvm_one_reg>().addr), &value, sizeof(value));
  return 0;
}
int set_one_reg(const Context& context) {
  std::uint64_t value = 0;
  std::memcpy(&value, at(context.as<kvm_one_reg>().addr), sizeof(value));
  one_reg(context) = value;
  return 0;
}

}  // namespace kvm_ioctls::double_detail
