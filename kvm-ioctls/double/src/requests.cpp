// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the double does by itself, request by request.
#include <linux/kvm.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "capabilities.hpp"
#include "state.hpp"

namespace kvm_ioctls::double_detail {

namespace {

std::byte* at(std::uint64_t address) {
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

int nothing(const Context&) { return 0; }

void load(const Context& context, unsigned long set_by, std::uint64_t key, std::size_t size) {
  std::memset(context.argument(), 0, size);
  const auto found = context.fake.set.find({set_by, key});
  if (found == context.fake.set.end()) return;
  std::memcpy(context.argument(), found->second.data(), std::min(size, found->second.size()));
}
void store(const Context& context, std::uint64_t key, std::size_t size) {
  context.fake.set[{context.request, key}] = {context.argument(), context.argument() + size};
}

template <unsigned long Set>
int get(const Context& context) {
  load(context, Set, 0, context.size());
  return 0;
}
int set(const Context& context) {
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

// --- structures of variable length ---

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
// An MSR by its id is the same as by its index.
std::uint64_t& one_reg(const Context& context) {
  const std::uint64_t id = context.as<kvm_one_reg>().id;
  const bool is_msr = id == Vcpu::x86_msr_reg(static_cast<std::uint32_t>(id));
  return context.fake.numbers[is_msr ? static_cast<std::uint32_t>(id) : id];
}
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

int check_extension(const Context& context) {
  const auto cap = static_cast<unsigned>(context.word);
  const auto said = context.state.caps.find(cap);
  return said == context.state.caps.end() ? usual_capability(cap) : said->second;
}
std::size_t xsave_size(Context context) {
  context.word = KVM_CAP_XSAVE2;
  const int size = check_extension(context);
  return size < static_cast<int>(sizeof(XsaveHeader)) ? sizeof(XsaveHeader)
                                                      : static_cast<std::size_t>(size);
}
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
int set_signal_mask(const Context& context) {
  context.fake.signal_mask.reset();
  if (context.word == 0) return 0;
  std::uint64_t mask = 0;
  if (context.as<SignalMaskHeader>().len != sizeof(mask)) return -EINVAL;
  std::memcpy(&mask, context.argument() + sizeof(SignalMaskHeader), sizeof(mask));
  context.fake.signal_mask = mask;
  return 0;
}

// --- the system ---

int get_api_version(const Context&) { return KVM_API_VERSION; }
int get_vcpu_mmap_size(const Context&) { return run_size; }

int create(const Context& context, Fake::Kind kind, std::uint32_t id, std::size_t size,
           Fake*& made) {
  made = context.state.make(kind, id, size);
  return made == nullptr ? -errno : hand_out(*made);
}
int create_vm(const Context& context) {
  Fake* vm = nullptr;
  const int fd = create(context, Fake::Kind::vm, context.state.vms, 0, vm);
  if (fd >= 0) ++context.state.vms;
  return fd;
}

// --- a VM ---

int create_vcpu(const Context& context) {
  State& state = context.state;
  Fake& vm = context.fake;
  const auto id = static_cast<std::uint32_t>(context.word);
  if (vm.vcpus.contains(id)) return -EEXIST;
  Script& script = state.script(id);
  if (!script.wake) return -EMFILE;
  const std::size_t size = vm.dirty_ring == 0 ? run_size : dirty_ring_offset + vm.dirty_ring;
  Fake* vcpu = state.make(Fake::Kind::vcpu, id, size);
  if (vcpu == nullptr) return -errno;
  void* start = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->file.get(), 0);
  if (start == MAP_FAILED) return -errno;
  vcpu->mapping = Mapping(static_cast<std::byte*>(start), size);
  const int fd = hand_out(*vcpu, !script.refuses_mapping);
  if (fd < 0) return fd;
  vcpu->script = &script;
  vcpu->dirty_ring = vm.dirty_ring;
  vcpu->tsc_khz = vm.tsc_khz;
  if (vm.irqchip && id != 0) {
    const kvm_mp_state waits{KVM_MP_STATE_UNINITIALIZED};
    const auto bytes = std::as_bytes(std::span(&waits, 1));
    vcpu->set[{KVM_SET_MP_STATE, 0}] = {bytes.begin(), bytes.end()};
  }
  vm.vcpus[id] = vcpu;
  return fd;
}
int create_irqchip(const Context& context) {
  if (std::exchange(context.fake.irqchip, true)) return -EEXIST;
  return 0;
}
int create_device(const Context& context) {
  auto& device = context.as<kvm_create_device>();
  if ((device.flags & KVM_CREATE_DEVICE_TEST) != 0) return 0;
  Fake* made = nullptr;
  const int fd = create(context, Fake::Kind::device, device.type, 0, made);
  if (fd < 0) return fd;
  device.fd = static_cast<__u32>(fd);
  return 0;
}
int create_guest_memfd(const Context& context) {
  Fake* made = nullptr;
  return create(context, Fake::Kind::guest_memory, 0, context.as<CreateGuestMemfd>().size, made);
}

int enable_cap(const Context& context) {
  const auto& cap = context.as<kvm_enable_cap>();
  if (cap.cap == KVM_CAP_DIRTY_LOG_RING || cap.cap == KVM_CAP_DIRTY_LOG_RING_ACQ_REL) {
    if (!context.fake.vcpus.empty() || cap.args[0] % page_size != 0) return -EINVAL;
    context.fake.dirty_ring = cap.args[0];
  }
  return 0;
}
int reset_dirty_rings(const Context& context) {
  int reset = 0;
  for (auto& [id, vcpu] : context.fake.vcpus) {
    auto* ring = reinterpret_cast<kvm_dirty_gfn*>(vcpu->mapping.start() + dirty_ring_offset);
    for (auto& gfn : std::span(ring, vcpu->dirty_ring / sizeof(kvm_dirty_gfn))) {
      std::atomic_ref flags(gfn.flags);
      if ((flags.load(std::memory_order_acquire) & KVM_DIRTY_GFN_F_RESET) == 0) continue;
      flags.store(0, std::memory_order_release);
      ++reset;
    }
  }
  return reset;
}

// kvm_userspace_memory_region2 begins with the older structure.
int set_user_memory_region(const Context& context) {
  const auto& region = context.as<kvm_userspace_memory_region>();
  context.state.vm_with_memory = &context.fake;
  if (region.memory_size == 0) {
    context.fake.slots.erase(region.slot);
  } else {
    context.fake.slots[region.slot] = {region.guest_phys_addr, region.memory_size,
                                       region.userspace_addr};
  }
  return 0;
}
// Nothing is ever dirty.
int get_dirty_log(const Context& context) {
  const auto& log = context.as<kvm_dirty_log>();
  const auto slot = context.fake.slots.find(log.slot);
  if (slot == context.fake.slots.end()) return -ENOENT;
  const std::uint64_t pages = slot->second.size / page_size;
  std::memset(log.dirty_bitmap, 0, (pages + 63) / 64 * 8);
  return 0;
}

int get_tsc_khz(const Context& context) { return static_cast<int>(context.fake.tsc_khz); }
int set_tsc_khz(const Context& context) {
  context.fake.tsc_khz = static_cast<std::uint32_t>(context.word);
  return 0;
}

// --- a vCPU ---

int translate(const Context& context) {
  auto& translation = context.as<kvm_translation>();
  translation.physical_address = translation.linear_address;
  translation.valid = 1;
  translation.writeable = 1;
  translation.usermode = 0;
  return 0;
}

// --- attributes and statistics ---

// The one of a vCPU; a device has every one.
bool is_tsc_offset(const Context& context) {
  const auto& attr = context.as<kvm_device_attr>();
  return context.fake.kind == Fake::Kind::vcpu && attr.group == KVM_VCPU_TSC_CTRL &&
         attr.attr == KVM_VCPU_TSC_OFFSET;
}
int has_device_attr(const Context& context) {
  return context.fake.kind == Fake::Kind::device || is_tsc_offset(context) ? 0 : -ENXIO;
}
constexpr std::uint64_t tsc_offset = ~std::uint64_t{0};  // no register has this id
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
