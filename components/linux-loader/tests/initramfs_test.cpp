// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Where load_linux() puts an initramfs.
#include <asm/bootparam.h>
#include <gtest/gtest.h>
#include <xen/xen.h>
// After xen.h.
#include <xen/arch-x86/hvm/start_info.h>

#include <cstdint>
#include <span>
#include <vector>

#include "boot_images.hpp"
#include "fake_kernel.hpp"
#include "linux_loader/boot.hpp"

namespace linux_loader {
namespace {

using namespace test;

std::uint64_t placed_at(std::span<const std::byte> kernel, std::uint64_t size, Entry entry) {
  MappedRam ram;
  const Bytes initramfs(size, std::byte{7});
  LinuxConfig all = config(kernel, entry);
  all.initramfs = initramfs;
  const auto state = load_linux(ram, all);
  if (!state) return 0;
  expect_loaded(ram);
  return entry == Entry::pvh
             ? ram.get<hvm_modlist_entry>(ram.get<hvm_start_info>(0x6000).modlist_paddr).paddr
             : +ram.get<boot_params>(0x7000).hdr.ramdisk_image;
}

TEST(Initramfs, GoesToTheTopOfRamOnAPage) {
  EXPECT_EQ(placed_at(vmlinux, 1, Entry::pvh), ram_size - 0x1000);
  EXPECT_EQ(placed_at(vmlinux, 4096, Entry::pvh), ram_size - 0x1000);
  EXPECT_EQ(placed_at(vmlinux, 4097, Entry::linux64), ram_size - 0x2000);
}

TEST(Initramfs, TakesAllTheRoomAboveTheKernel) {
  const std::uint64_t room = ram_size - 0x107000;  // vmlinux ends at 0x106800
  EXPECT_EQ(placed_at(vmlinux, room, Entry::pvh), 0x107000u);
  const Bytes too_big(room + 1);
  LinuxConfig all = config(vmlinux);
  all.initramfs = too_big;
  expect_refused(all, "initramfs, byte 7311360: RAM below 4 GiB has no room for more");
}

// A bzImage's kernel owns init_size bytes from its address on.
TEST(Initramfs, StaysClearOfWhatTheKernelNeeds) {
  const std::uint64_t room = ram_size - 0x310000;
  EXPECT_EQ(placed_at(vmlinuz, room, Entry::linux64), 0x310000u);
  EXPECT_EQ(placed_at(vmlinuz, room + 1, Entry::linux64), 0u);
}

TEST(Initramfs, GoesBelowAKernelThatIsHigh) {
  Vmlinux kernel;
  kernel.loads = {{0x1000, 0x700000, 0x1000, 0x1000}};
  kernel.entry = 0x700000;
  const Bytes file = kernel.with_pvh(0x700000).bytes();
  MappedRam ram;
  const Bytes initramfs(2 << 20, std::byte{7});
  LinuxConfig all = config(file);
  all.initramfs = initramfs;
  ASSERT_TRUE(load_linux(ram, all));
  EXPECT_EQ(ram.get<std::uint64_t>(ram.get<hvm_start_info>(0x6000).modlist_paddr), 0x500000u);
}

// Where the kernel itself lies above the address that its image prefers.
TEST(Initramfs, StaysClearOfThePreferredAddress) {
  Vmlinux kernel;
  kernel.loads = {{0x1000, 0x500000, 0x1000, 0x1000}};
  const Bytes file = bzimage(pack(Codec::zstd, kernel.with_pvh(0x500000).bytes()));
  const Bytes initramfs(7 << 19);  // Fits only below 5 MiB.
  LinuxConfig all = config(file);
  all.initramfs = initramfs;
  expect_refused(all, "initramfs, byte 3141632: RAM below 4 GiB has no room for more");
}

TEST(Initramfs, GoesToTheSamePlaceWhateverTheOrderOfTheMap) {
  const std::vector<MemoryRange> reversed(map.rbegin(), map.rend());
  for (const std::uint64_t size : {std::uint64_t{0x1000}, std::uint64_t{0x600000}}) {
    MappedRam ram;
    const Bytes initramfs(size, std::byte{7});
    LinuxConfig all = config(vmlinux);
    all.initramfs = initramfs;
    std::vector<MemoryRange> two = reversed;
    two[0].size = 0x600000;  // 1 MiB .. 7 MiB
    two.insert(two.begin(), {{0x700000}, 0x100000, MemoryType::ram});
    all.memory_map = two;
    const auto state = load_linux(ram, all);
    ASSERT_EQ(state.has_value(), size == 0x1000);
    if (!state) continue;
    EXPECT_EQ(ram.get<std::uint64_t>(ram.get<hvm_start_info>(0x6000).modlist_paddr), 0x7ff000u);
  }
}

TEST(Initramfs, StaysBelowTheKernelsLimit) {
  Bytes kernel = vmlinuz;
  poke(kernel, 0x236, std::uint16_t{1});
  poke(kernel, 0x22c, std::uint32_t{0x5fffff});
  MappedRam ram;
  const Bytes initramfs(4096, std::byte{7});
  LinuxConfig all = config(kernel);
  all.initramfs = initramfs;
  ASSERT_TRUE(load_linux(ram, all));
  EXPECT_EQ(ram.get<std::uint64_t>(ram.get<hvm_start_info>(0x6000).modlist_paddr), 0x5ff000u);
}

// RAM above 4 GiB, or reserved, is no place for it.
TEST(Initramfs, StaysBelowFourGibibytesAndInRam) {
  std::vector<MemoryRange> ranges = map;
  ranges[2].size = 0x500000;
  ranges.push_back({{0x600000}, 0x200000, MemoryType::reserved});
  ranges.push_back({{std::uint64_t{4} << 30}, 1 << 30, MemoryType::ram});
  MappedRam ram;
  const Bytes initramfs(4096, std::byte{7});
  LinuxConfig all = config(vmlinux);
  all.initramfs = initramfs;
  all.memory_map = ranges;
  ASSERT_TRUE(load_linux(ram, all));
  EXPECT_EQ(ram.get<std::uint64_t>(ram.get<hvm_start_info>(0x6000).modlist_paddr), 0x5ff000u);
}

}  // namespace
}  // namespace linux_loader
