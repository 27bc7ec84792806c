// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A VM's memory on a real kernel.
#include "device.hpp"

namespace kvm_ioctls {
namespace {

struct Memory : Guest {
  // mov %al,(0x3000); mov %al,(0x5000); hlt
  void load_writer() { load({0xa2, 0x00, 0x30, 0xa2, 0x00, 0x50, 0xf4}); }
};

TEST_F(Memory, DirtyLogHasThePagesThatTheGuestWrote) {
  load_writer();
  start(KVM_MEM_LOG_DIRTY_PAGES);
  DirtyBitmap pages(ram_size / 4096);
  must(vm->get_dirty_log(0, pages));  // what loading left
  run_to<Halted>();
  must(vm->get_dirty_log(0, pages));
  std::vector<std::uint64_t> dirty;
  pages.for_each([&](std::uint64_t page) {
    if (page != entry / 4096) dirty.push_back(page);  // the processor may note its fetches
  });
  EXPECT_EQ(dirty, (std::vector<std::uint64_t>{3, 5}));
  EXPECT_EQ(vm->get_dirty_log(7, pages).error(), (vmm_base::Error{"KVM_GET_DIRTY_LOG", ENOENT, 7}));
  DirtyBitmap small(ram_size / 4096 - 1);
  EXPECT_EQ(vm->get_dirty_log(0, small).error(),
            (vmm_base::Error{"KVM_GET_DIRTY_LOG, pages of the bitmap", EINVAL, small.pages()}));
  // Not logged any more, it is the kernel that says so.
  must(vm->set_user_memory_region(0, {0}, ram_size, ram));
  EXPECT_EQ(vm->get_dirty_log(0, pages).error(), (vmm_base::Error{"KVM_GET_DIRTY_LOG", ENOENT, 0}));
}

TEST_F(Memory, DirtyLogStaysUntilItIsCleared) {
  NEEDS(*vm, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2);
  must(vm->enable_cap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE));
  load_writer();
  start(KVM_MEM_LOG_DIRTY_PAGES);
  run_to<Halted>();
  for (int i = 0; i != 2; ++i) {
    DirtyBitmap pages(ram_size / 4096);
    must(vm->get_dirty_log(0, pages));
    EXPECT_TRUE(pages.test(3) && pages.test(5));
  }
  DirtyBitmap clear(ram_size / 4096);
  clear.set(3);
  must(vm->clear_dirty_log(0, 0, clear));
  DirtyBitmap pages(ram_size / 4096);
  must(vm->get_dirty_log(0, pages));
  EXPECT_FALSE(pages.test(3));
  EXPECT_TRUE(pages.test(5));
}

TEST_F(Memory, DirtyRingHasThePagesInOrder) {
  NEEDS(*vm, KVM_CAP_DIRTY_LOG_RING);
  constexpr std::size_t bytes = 65536;
  EXPECT_EQ(vm->enable_dirty_ring(12345).error(),
            (vmm_base::Error{"KVM_ENABLE_CAP", EINVAL, 12345}));
  must(vm->enable_dirty_ring(bytes));
  load_writer();
  start(KVM_MEM_LOG_DIRTY_PAGES);
  DirtyRing ring = must(vcpu->map_dirty_ring(bytes));
  run_to<Halted>();
  std::vector<std::uint64_t> dirty;
  const auto harvested = ring.harvest([&](std::uint32_t slot, std::uint64_t page) {
    EXPECT_EQ(slot, 0u);
    if (page == 3 || page == 5) dirty.push_back(page);
  });
  EXPECT_EQ(dirty, (std::vector<std::uint64_t>{3, 5}));
  EXPECT_EQ(must(vm->reset_dirty_rings()), harvested);
  EXPECT_EQ(ring.harvest([](std::uint32_t, std::uint64_t) {}), 0u);
  restart();
  run_to<Halted>();
  EXPECT_GE(ring.harvest([](std::uint32_t, std::uint64_t) {}), 2u) << "logged anew after the reset";
}

// A ring of 4096 bytes has 256 entries; KVM leaves room for its own.
TEST_F(Memory, AFullDirtyRingIsAnExit) {
  NEEDS(*vm, KVM_CAP_DIRTY_LOG_RING);
  if (!vm->enable_dirty_ring(4096)) GTEST_SKIP() << "page modification logging needs a larger ring";
  constexpr std::size_t size = 512 * 4096;
  void* more = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  ASSERT_NE(more, MAP_FAILED);
  // xor %ax,%ax; top: mov %ax,%ds; mov %al,(0); add $0x100,%ax; cmp $0xf000,%ax; jb top; hlt:
  // writes the first byte of 240 pages.
  load({0x31, 0xc0, 0x8e, 0xd8, 0xa2, 0x00, 0x00, 0x05, 0x00, 0x01, 0x3d, 0x00, 0xf0, 0x72, 0xf3,
        0xf4},
       0x800);
  std::memcpy(more, ram, ram_size);
  must(vm->set_user_memory_region(0, {0}, size, more, KVM_MEM_LOG_DIRTY_PAGES));
  vcpu.emplace(must(vm->create_vcpu({0})));
  restart(0x800);
  auto exit = must(vcpu->run());
  if (std::holds_alternative<Halted>(exit) && std::getenv("LAB") == nullptr) {
    GTEST_SKIP() << "this host's KVM notes fewer pages than the guest has written";
  }
  EXPECT_TRUE(std::holds_alternative<DirtyRingFull>(exit)) << "variant " << exit.index();
  vcpu.reset();
  vm.reset();
  ::munmap(more, size);
}

TEST_F(Memory, ASlotMayHaveAGuestMemfd) {
  NEEDS(*vm, KVM_CAP_USER_MEMORY2);
  UserspaceMemoryRegion2 region{};
  region.memory_size = ram_size;
  region.userspace_addr = reinterpret_cast<std::uintptr_t>(ram);
  must(vm->set_user_memory_region2(region));
  NEEDS(*vm, KVM_CAP_GUEST_MEMFD);
  const auto memfd = must(vm->create_guest_memfd(ram_size));
  region.slot = 1;
  region.flags = KVM_MEM_GUEST_MEMFD;
  region.guest_phys_addr = 0x100000;
  region.guest_memfd = static_cast<__u32>(memfd.get());
  must(vm->set_user_memory_region2(region));
  EXPECT_EQ(vm->create_guest_memfd(123).error(),
            (vmm_base::Error{"KVM_CREATE_GUEST_MEMFD", EINVAL, 123}));
}

TEST_F(Memory, PrivateMemoryNeedsItsTypeOfVm) {
  const int types = must(kvm->check_extension(KVM_CAP_VM_TYPES));
  if ((types & 1 << KVM_X86_SW_PROTECTED_VM) == 0) {
    EXPECT_FALSE(vm->set_memory_attributes({0}, 4096, KVM_MEMORY_ATTRIBUTE_PRIVATE));
    GTEST_SKIP() << "this kernel lacks KVM_X86_SW_PROTECTED_VM";
  }
  auto protected_vm = must(kvm->create_vm(KVM_X86_SW_PROTECTED_VM));
  must(protected_vm.set_memory_attributes({0}, 4096, KVM_MEMORY_ATTRIBUTE_PRIVATE));
}

TEST_F(Memory, EncryptionNeedsItsHardware) {
  kvm_sev_cmd command{};
  EXPECT_FALSE(vm->memory_encrypt_op(&command));
  EXPECT_FALSE(vm->memory_encrypt_reg_region(ram, ram_size));
  EXPECT_FALSE(vm->memory_encrypt_unreg_region(ram, ram_size));
  start();
  EXPECT_FALSE(vcpu->memory_encrypt_op(&command));
}

TEST_F(Memory, MemoryIsFaultedInBeforeTheGuestAsks) {
  NEEDS(*vm, KVM_CAP_PRE_FAULT_MEMORY);
  start(0, true);
  EXPECT_EQ(must(vcpu->pre_fault_memory({0}, ram_size)).size, 0u);
  EXPECT_EQ(vcpu->pre_fault_memory({1 << 20}, 4096).error(),
            (vmm_base::Error{"KVM_PRE_FAULT_MEMORY", ENOENT, 1 << 20}));
}

TEST_F(Memory, PlacesForIntelsPages) {
  must(vm->set_identity_map_addr({0xfffbc000}));
  must(vm->set_tss_addr({0xfffbd000}));
  must(vm->set_nr_mmu_pages(64));
  EXPECT_EQ(vm->set_nr_mmu_pages(1).error(), (vmm_base::Error{"KVM_SET_NR_MMU_PAGES", EINVAL, 1}));
}

TEST_F(Memory, SlotsMustNotOverlap) {
  must(vm->set_user_memory_region(0, {0}, ram_size, ram));
  EXPECT_EQ(vm->set_user_memory_region(1, {0x1000}, 0x1000, ram).error(),
            (vmm_base::Error{"KVM_SET_USER_MEMORY_REGION", EEXIST, 0x1000}));
}

}  // namespace
}  // namespace kvm_ioctls
