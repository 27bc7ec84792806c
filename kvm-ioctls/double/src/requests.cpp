// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the double does by itself, request by request.
#include <linux/kvm.h>

#include <cerrno>
#include <map>

#include "capabilities.hpp"
#include "request.hpp"

namespace kvm_ioctls::double_detail {

int check_extension(const Context& context) {
  const auto cap = static_cast<unsigned>(context.word);
  const auto said = context.state.caps.find(cap);
  return said == context.state.caps.end() ? usual_capability(cap) : said->second;
}

namespace {

int get_api_version(const Context&) { return KVM_API_VERSION; }
int get_vcpu_mmap_size(const Context&) { return run_size; }

int set_signal_mask(const Context& context) {
  context.fake.signal_mask.reset();
  if (context.word == 0) return 0;
  std::uint64_t mask = 0;
  if (context.as<SignalMaskHeader>().len != sizeof(mask)) return -EINVAL;
  std::memcpy(&mask, context.argument() + sizeof(SignalMaskHeader), sizeof(mask));
  context.fake.signal_mask = mask;
  return 0;
}

int get_tsc_khz(const Context& context) { return static_cast<int>(context.fake.tsc_khz); }
int set_tsc_khz(const Context& context) {
  context.fake.tsc_khz = static_cast<std::uint32_t>(context.word);
  return 0;
}

int translate(const Context& context) {
  auto& translation = context.as<kvm_translation>();
  translation.physical_address = translation.linear_address;
  translation.valid = 1;
  translation.writeable = 1;
  translation.usermode = 0;
  return 0;
}

// --- all of them ---

constexpr unsigned system = 1;
constexpr unsigned vm = 2;
constexpr unsigned vcpu = 4;
constexpr unsigned device = 8;

struct Known {
  const char* name;
  unsigned kinds;
  int (*answer)(const Context&);
};

#define KNOWN(request, kinds, answer)    \
  {                                      \
    request, { #request, kinds, answer } \
  }

const std::map<unsigned long, Known>& all_known() {
  static const std::map<unsigned long, Known> known{
      KNOWN(KVM_GET_API_VERSION, system, get_api_version),
      KNOWN(KVM_CREATE_VM, system, create_vm),
      KNOWN(KVM_GET_MSR_INDEX_LIST, system, no_msr_list),
      KNOWN(KVM_CHECK_EXTENSION, system | vm, check_extension),
      KNOWN(KVM_GET_VCPU_MMAP_SIZE, system, get_vcpu_mmap_size),
      KNOWN(KVM_GET_SUPPORTED_CPUID, system, get_supported_cpuid),
      KNOWN(KVM_GET_EMULATED_CPUID, system, no_cpuid),
      KNOWN(KVM_GET_SUPPORTED_HV_CPUID, system | vcpu, no_cpuid),
      KNOWN(KVM_GET_MSR_FEATURE_INDEX_LIST, system, no_msr_list),
      KNOWN(KVM_X86_GET_MCE_CAP_SUPPORTED, system, get<0>),

      KNOWN(KVM_CREATE_VCPU, vm, create_vcpu),
      KNOWN(KVM_GET_DIRTY_LOG, vm, get_dirty_log),
      KNOWN(KVM_CLEAR_DIRTY_LOG, vm, nothing),
      KNOWN(KVM_RESET_DIRTY_RINGS, vm, reset_dirty_rings),
      KNOWN(KVM_SET_NR_MMU_PAGES, vm, nothing),
      KNOWN(KVM_GET_NR_MMU_PAGES, vm, nothing),
      KNOWN(KVM_SET_USER_MEMORY_REGION, vm, set_user_memory_region),
      KNOWN(KVM_SET_USER_MEMORY_REGION2, vm, set_user_memory_region),
      KNOWN(KVM_SET_MEMORY_ATTRIBUTES, vm, nothing),
      KNOWN(KVM_CREATE_GUEST_MEMFD, vm, create_guest_memfd),
      KNOWN(KVM_SET_TSS_ADDR, vm, nothing),
      KNOWN(KVM_SET_IDENTITY_MAP_ADDR, vm, nothing),
      KNOWN(KVM_CREATE_IRQCHIP, vm, create_irqchip),
      KNOWN(KVM_IRQ_LINE, vm, nothing),
      KNOWN(KVM_IRQ_LINE_STATUS, vm, nothing),
      KNOWN(KVM_GET_IRQCHIP, vm, (get_keyed<KVM_SET_IRQCHIP, __u32>)),
      KNOWN(KVM_SET_IRQCHIP, vm, set_keyed<__u32>),
      KNOWN(KVM_CREATE_PIT, vm, nothing),
      KNOWN(KVM_GET_PIT, vm, get<KVM_SET_PIT>),
      KNOWN(KVM_SET_PIT, vm, set),
      KNOWN(KVM_CREATE_PIT2, vm, nothing),
      KNOWN(KVM_GET_PIT2, vm, get<KVM_SET_PIT2>),
      KNOWN(KVM_SET_PIT2, vm, set),
      KNOWN(KVM_REINJECT_CONTROL, vm, nothing),
      KNOWN(KVM_REGISTER_COALESCED_MMIO, vm, nothing),
      KNOWN(KVM_UNREGISTER_COALESCED_MMIO, vm, nothing),
      KNOWN(KVM_SET_GSI_ROUTING, vm, nothing),
      KNOWN(KVM_IRQFD, vm, nothing),
      KNOWN(KVM_IOEVENTFD, vm, nothing),
      KNOWN(KVM_SIGNAL_MSI, vm, nothing),
      KNOWN(KVM_SET_BOOT_CPU_ID, vm, nothing),
      KNOWN(KVM_SET_CLOCK, vm, set),
      KNOWN(KVM_GET_CLOCK, vm, get<KVM_SET_CLOCK>),
      KNOWN(KVM_SET_PMU_EVENT_FILTER, vm, nothing),
      KNOWN(KVM_X86_SET_MSR_FILTER, vm, nothing),
      KNOWN(KVM_HYPERV_EVENTFD, vm, nothing),
      KNOWN(KVM_MEMORY_ENCRYPT_OP, vm | vcpu, nothing),
      KNOWN(KVM_MEMORY_ENCRYPT_REG_REGION, vm, nothing),
      KNOWN(KVM_MEMORY_ENCRYPT_UNREG_REGION, vm, nothing),
      KNOWN(KVM_CREATE_DEVICE, vm, create_device),
      KNOWN(KVM_XEN_HVM_CONFIG, vm, nothing),
      KNOWN(KVM_XEN_HVM_GET_ATTR, vm, get_xen_hvm_attr),
      KNOWN(KVM_XEN_HVM_SET_ATTR, vm, set_keyed<__u16>),
      KNOWN(KVM_XEN_HVM_EVTCHN_SEND, vm, nothing),

      KNOWN(KVM_ENABLE_CAP, vm | vcpu, enable_cap),
      KNOWN(KVM_GET_TSC_KHZ, vm | vcpu, get_tsc_khz),
      KNOWN(KVM_SET_TSC_KHZ, vm | vcpu, set_tsc_khz),
      KNOWN(KVM_GET_STATS_FD, vm | vcpu, get_stats_fd),
      KNOWN(KVM_HAS_DEVICE_ATTR, system | vm | vcpu | device, has_device_attr),
      KNOWN(KVM_GET_DEVICE_ATTR, system | vm | vcpu | device, get_device_attr),
      KNOWN(KVM_SET_DEVICE_ATTR, vm | vcpu | device, set_device_attr),

      KNOWN(KVM_RUN, vcpu, nothing),  // run() has it
      KNOWN(KVM_GET_REGS, vcpu, get<KVM_SET_REGS>),
      KNOWN(KVM_SET_REGS, vcpu, set),
      KNOWN(KVM_GET_SREGS, vcpu, get<KVM_SET_SREGS>),
      KNOWN(KVM_SET_SREGS, vcpu, set),
      KNOWN(KVM_GET_SREGS2, vcpu, get<KVM_SET_SREGS2>),
      KNOWN(KVM_SET_SREGS2, vcpu, set),
      KNOWN(KVM_GET_FPU, vcpu, get<KVM_SET_FPU>),
      KNOWN(KVM_SET_FPU, vcpu, set),
      KNOWN(KVM_GET_LAPIC, vcpu, get<KVM_SET_LAPIC>),
      KNOWN(KVM_SET_LAPIC, vcpu, set),
      KNOWN(KVM_GET_XSAVE, vcpu, get_xsave),
      KNOWN(KVM_GET_XSAVE2, vcpu, get_xsave2),
      KNOWN(KVM_SET_XSAVE, vcpu, set_xsave),
      KNOWN(KVM_GET_XCRS, vcpu, get<KVM_SET_XCRS>),
      KNOWN(KVM_SET_XCRS, vcpu, set),
      KNOWN(KVM_GET_DEBUGREGS, vcpu, get<KVM_SET_DEBUGREGS>),
      KNOWN(KVM_SET_DEBUGREGS, vcpu, set),
      KNOWN(KVM_GET_VCPU_EVENTS, vcpu, get<KVM_SET_VCPU_EVENTS>),
      KNOWN(KVM_SET_VCPU_EVENTS, vcpu, set),
      KNOWN(KVM_GET_MP_STATE, vcpu, get<KVM_SET_MP_STATE>),
      KNOWN(KVM_SET_MP_STATE, vcpu, set),
      KNOWN(KVM_GET_MSRS, system | vcpu, get_msrs),
      KNOWN(KVM_SET_MSRS, vcpu, set_msrs),
      KNOWN(KVM_GET_ONE_REG, vcpu, get_one_reg),
      KNOWN(KVM_SET_ONE_REG, vcpu, set_one_reg),
      KNOWN(KVM_GET_REG_LIST, vcpu, no_reg_list),
      KNOWN(KVM_GET_CPUID2, vcpu, get_cpuid2),
      KNOWN(KVM_SET_CPUID2, vcpu, set_cpuid2),
      KNOWN(KVM_GET_NESTED_STATE, vcpu, get_nested_state),
      KNOWN(KVM_SET_NESTED_STATE, vcpu, set_nested_state),
      KNOWN(KVM_TRANSLATE, vcpu, translate),
      KNOWN(KVM_INTERRUPT, vcpu, nothing),
      KNOWN(KVM_NMI, vcpu, nothing),
      KNOWN(KVM_SMI, vcpu, nothing),
      KNOWN(KVM_SET_SIGNAL_MASK, vcpu, set_signal_mask),
      KNOWN(KVM_TPR_ACCESS_REPORTING, vcpu, nothing),
      KNOWN(KVM_SET_VAPIC_ADDR, vcpu, nothing),
      KNOWN(KVM_SET_GUEST_DEBUG, vcpu, nothing),
      KNOWN(KVM_X86_SETUP_MCE, vcpu, nothing),
      KNOWN(KVM_X86_SET_MCE, vcpu, nothing),
      KNOWN(KVM_KVMCLOCK_CTRL, vcpu, nothing),
      KNOWN(KVM_PRE_FAULT_MEMORY, vcpu, nothing),
      KNOWN(KVM_XEN_VCPU_GET_ATTR, vcpu, get_xen_vcpu_attr),
      KNOWN(KVM_XEN_VCPU_SET_ATTR, vcpu, set_keyed<__u16>),
  };
  return known;
}
#undef KNOWN

const Known* find(unsigned long request) {
  const auto found = all_known().find(request);
  return found == all_known().end() ? nullptr : &found->second;
}

unsigned bit_of(Fake::Kind kind) {
  switch (kind) {
    case Fake::Kind::system:
      return system;
    case Fake::Kind::vm:
      return vm;
    case Fake::Kind::vcpu:
      return vcpu;
    case Fake::Kind::device:
      return device;
    default:
      return 0;
  }
}

}  // namespace

const char* name_of(unsigned long request) {
  const Known* known = find(request);
  return known == nullptr ? "?" : known->name;
}

int answer_as_usual(State& state, Fake& fake, unsigned long request, std::uint64_t word) {
  const Known* known = find(request);
  if (known == nullptr || (known->kinds & bit_of(fake.kind)) == 0) return -ENOTTY;
  const bool may_be_null = request == KVM_SET_SIGNAL_MASK || request == KVM_MEMORY_ENCRYPT_OP;
  if (_IOC_SIZE(request) != 0 && word == 0 && !may_be_null) return -EFAULT;
  return known->answer({state, fake, request, word});
}

}  // namespace kvm_ioctls::double_detail
