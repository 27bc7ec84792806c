// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Attributes of Xen's and of devices, and statistics.
#include <unistd.h>

#include <cerrno>
#include <string>

#include "request.hpp"

namespace kvm_ioctls::double_detail {

int get_xen_hvm_attr(const Context& context) {
  auto& attr = context.as<kvm_xen_hvm_attr>();
  const auto type = attr.type;
  if (context.fake.set.contains({KVM_XEN_HVM_SET_ATTR, type})) {
    return get_keyed<KVM_XEN_HVM_SET_ATTR, __u16>(context);
  }
  attr = {};
  attr.type = type;
  if (type == KVM_XEN_ATTR_TYPE_SHARED_INFO) attr.u.shared_info.gfn = xen_invalid_gpa;
  return 0;
}
int get_xen_vcpu_attr(const Context& context) {
  auto& attr = context.as<kvm_xen_vcpu_attr>();
  const auto type = attr.type;
  if (context.fake.set.contains({KVM_XEN_VCPU_SET_ATTR, type})) {
    return get_keyed<KVM_XEN_VCPU_SET_ATTR, __u16>(context);
  }
  attr = {};
  attr.type = type;
  switch (type) {
    case KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO:
    case KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO:
    case KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR:
      attr.u.gpa = xen_invalid_gpa;
      break;
    case KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID:
      attr.u.vcpu_id = xen_vcpu_id_invalid;
      break;
    default:
      break;
  }
  return 0;
}

namespace {

// The one of a vCPU; a device has every one.
bool is_tsc_offset(const Context& context) {
  const auto& attr = context.as<kvm_device_attr>();
  return context.fake.kind == Fake::Kind::vcpu && attr.group == KVM_VCPU_TSC_CTRL &&
         attr.attr == KVM_VCPU_TSC_OFFSET;
}

}  // namespace

int has_device_attr(const Context& context) {
  return context.fake.kind == Fake::Kind::device || is_tsc_offset(context) ? 0 : -ENXIO;
}
namespace {

constexpr std::uint64_t tsc_offset = ~std::uint64_t{0};  // no register has this id

}  // namespace

int set_device_attr(const Context& context) {
  if (is_tsc_offset(context)) {
    std::memcpy(&context.fake.numbers[tsc_offset], at(context.as<kvm_device_attr>().addr),
                sizeof(std::uint64_t));
  }
  return has_device_attr(context);
}
int get_device_attr(const Context& context) {
  // Nobody says of what size another is.
  if (!is_tsc_offset(context)) return -ENXIO;
  std::memcpy(at(context.as<kvm_device_attr>().addr), &context.fake.numbers[tsc_offset],
              sizeof(std::uint64_t));
  return 0;
}

int get_stats_fd(const Context& context) {
  constexpr std::uint32_t name_size = 48;
  // struct kvm_stats_desc without its name.
  struct Descriptor {
    std::uint32_t flags;
    std::int16_t exponent;
    std::uint16_t size;
    std::uint32_t offset;
    std::uint32_t bucket_size;
  };
  const auto& stats = context.state.stats;
  const auto count = static_cast<std::uint32_t>(stats.size());
  kvm_stats_header header{};
  header.name_size = name_size;
  header.num_desc = count;
  header.id_offset = sizeof(header);
  header.desc_offset = header.id_offset + name_size;
  header.data_offset =
      header.desc_offset + count * (static_cast<std::uint32_t>(sizeof(Descriptor)) + name_size);
  Bytes file(header.data_offset + count * sizeof(std::uint64_t));
  std::memcpy(file.data(), &header, sizeof(header));
  std::string id = "kvm-" + std::to_string(::getpid());
  if (context.fake.kind == Fake::Kind::vcpu) id += "/vcpu-" + std::to_string(context.fake.id);
  std::memcpy(&file[header.id_offset], id.data(), std::min<std::size_t>(id.size(), name_size));
  for (std::uint32_t i = 0; i != count; ++i) {
    const auto& [name, value] = stats[i];
    const Descriptor descriptor{
        KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE | KVM_STATS_BASE_POW10, 0, 1,
        i * static_cast<std::uint32_t>(sizeof(value)), 0};
    std::byte* to = &file[header.desc_offset + i * (sizeof(descriptor) + name_size)];
    std::memcpy(to, &descriptor, sizeof(descriptor));
    std::memcpy(to + sizeof(descriptor), name.data(),
                std::min<std::size_t>(name.size(), name_size));
    std::memcpy(&file[header.data_offset + i * sizeof(value)], &value, sizeof(value));
  }
  Fake* made = context.state.make(Fake::Kind::statistics, context.fake.id, file.size());
  if (made == nullptr || ::pwrite(made->file.get(), file.data(), file.size(), 0) < 0) return -errno;
  return hand_out(*made);
}

}  // namespace kvm_ioctls::double_detail
