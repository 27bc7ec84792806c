// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What the VMM makes: VMs, vCPUs, devices, memory.
#include <sys/mman.h>

#include <atomic>
#include <cerrno>
#include <span>
#include <utility>

#include "request.hpp"

namespace kvm_ioctls::double_detail {

namespace {

int create(const Context& context, Fake::Kind kind, std::uint32_t id, std::size_t size,
           Fake*& made) {
  made = context.state.make(kind, id, size);
  return made == nullptr ? -errno : hand_out(*made);
}

}  // namespace

int create_vm(const Context& context) {
  Fake* vm = nullptr;
  const int fd = create(context, Fake::Kind::vm, context.state.vms, 0, vm);
  if (fd >= 0) ++context.state.vms;
  return fd;
}

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

}  // namespace kvm_ioctls::double_detail
