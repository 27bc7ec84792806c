// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// What load_linux() refuses, and that it takes whatever a file holds.
#include <elf.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "boot_images.hpp"
#include "fake_kernel.hpp"
#include "linux_loader/boot.hpp"

namespace linux_loader {
namespace {

using namespace test;

TEST(LoadLinuxRefuses, WhatIsNoKernelForTheEntry) {
  expect_refused(config({}), "kernel, byte 0: neither a bzImage nor an ELF file");
  const Bytes noise(5000, std::byte{0x5a});
  expect_refused(config(noise), "kernel, byte 0: neither a bzImage nor an ELF file");
  expect_refused(config(vmlinux, Entry::decompressor),
                 "kernel, byte 0: not a bzImage, which alone has a decompressor");
  const Bytes without = bzimage(pack(Codec::xz, Vmlinux().bytes()));
  expect_refused(config(without),
                 "unpacked kernel, byte 32: no PVH note: built without CONFIG_PVH");
  Bytes arm = vmlinux;
  poke(arm, offsetof(Elf64_Ehdr, e_machine), std::uint16_t{EM_AARCH64});
  expect_refused(config(arm), "kernel, byte 18: not for x86-64");
  const Bytes packed = bzimage(pack(Codec::gzip, arm));
  expect_refused(config(packed), "unpacked kernel, byte 18: not for x86-64");
}

TEST(LoadLinuxRefuses, SegmentsWhereTheyCannotBe) {
  const auto kernel_at = [](std::uint64_t paddr, std::uint64_t memsz = 0x1000) {
    Vmlinux kernel;
    kernel.loads = {{0x1000, paddr, 0x1000, memsz}};
    return kernel.with_pvh(paddr).bytes();
  };
  const Bytes low = kernel_at(0xff000);
  expect_refused(config(low), "kernel, byte 88: a segment below 1 MiB");
  const Bytes high = kernel_at(ram_size - 0xfff);
  expect_refused(config(high), "kernel, byte 88: a segment outside RAM");
  const Bytes large = kernel_at(0x100000, std::uint64_t{1} << 62);
  expect_refused(config(large), "kernel, byte 88: a segment outside RAM");
  const Bytes packed = bzimage(pack(Codec::lz4, high));
  expect_refused(config(packed), "unpacked kernel, byte 88: a segment outside RAM");
}

TEST(LoadLinuxRefuses, KernelsLargerThanRam) {
  Bytes hungry = vmlinuz;
  poke(hungry, 0x260, std::uint32_t{0x500001});
  for (const Entry entry : {Entry::pvh, Entry::linux64, Entry::decompressor}) {
    expect_refused(config(hungry, entry),
                   "kernel, byte 608: the kernel wants more RAM than there is");
  }
  Bytes bomb = pack(Codec::zstd, vmlinux);
  poke(bomb, bomb.size() - 4, std::uint32_t{0xffffffff});
  const Bytes file = bzimage(bomb);
  const auto at = std::to_string(1024 + 0x300 + bomb.size() - 4);
  expect_refused(config(file),
                 ("kernel, byte " + at + ": the unpacked kernel is larger than RAM").c_str());
}

TEST(LoadLinuxRefuses, ADamagedKernel) {
  Bytes damaged = vmlinuz;
  damaged[1024 + 0x300 + 200] ^= std::byte{0xff};
  expect_refused(config(damaged), "kernel, byte 1792: the packed kernel is damaged or cut short");
}

TEST(LoadLinuxRefuses, APackedKernelOfNoSize) {
  Bytes payload = pack(Codec::zstd, vmlinux);
  poke(payload, payload.size() - 4, std::uint32_t{0});
  const Bytes file = bzimage(payload);
  const auto at = std::to_string(1024 + 0x300 + payload.size() - 4);
  expect_refused(config(file), ("kernel, byte " + at + ": a packed kernel of no size").c_str());
}

TEST(LoadLinuxRefuses, CommandLinesThatTheKernelWouldCut) {
  const std::string long_one(2048, 'x');
  LinuxConfig it = config(vmlinuz);
  it.cmdline = long_one;
  expect_refused(it, "command line, byte 2047: longer than the kernel takes");
  it = config(vmlinux);
  it.cmdline = long_one;
  expect_refused(it, "command line, byte 2047: longer than the kernel takes");
  it.cmdline = std::string_view("a\0b", 3);
  expect_refused(it, "command line, byte 1: a zero, which ends it");
  Bytes boastful = vmlinuz;
  poke(boastful, 0x238, std::uint32_t{0xffffffff});
  const std::string page(4096, 'x');
  it = config(boastful);
  it.cmdline = page;
  expect_refused(it, "command line, byte 4095: longer than the kernel takes");
}

TEST(LoadLinuxRefuses, AMemoryMapThatWraps) {
  std::vector<MemoryRange> ranges = map;
  ranges[2].size = ~std::uint64_t{0};
  LinuxConfig it = config(vmlinuz);
  it.memory_map = ranges;
  expect_refused(it, "memory map, byte 2: a range that wraps around the address space");
}

// The map promises what the memory doesn't have.
TEST(LoadLinuxRefuses, MemoryThatRefuses) {
  const auto large = pc_memory_map(64 << 20);
  const Bytes initramfs(4096);
  for (const Entry entry : {Entry::pvh, Entry::decompressor}) {
    LinuxConfig it = config(vmlinuz, entry);
    it.memory_map = large;
    it.initramfs = initramfs;
    expect_refused(it, "initramfs, byte 0: guest memory refuses it");
    MappedRam small(0x200000);
    EXPECT_EQ(load_linux(small, it).has_value(), false);
  }
  // The kernel's place is RAM, but not the page at 0x20000.
  struct NoLow : MappedRam {
    vmm_base::Result<void> write(vmm_base::Gpa to, std::span<const std::byte> data) {
      if (to.value < 0x100000) return vmm_base::Error{"write", EFAULT, to.value};
      return MappedRam::write(to, data);
    }
  } no_low;
  const auto state = load_linux(no_low, config(vmlinuz));
  ASSERT_FALSE(state);
  EXPECT_EQ(state.error().message(), "guest memory, byte 131072: isn't RAM");
}

TEST(LoadLinuxRefuses, ABadFileBeforeItTouchesMemory) {
  MappedRam ram;
  Bytes cut = vmlinuz;
  cut.pop_back();
  EXPECT_FALSE(load_linux(ram, config(cut)));
  Bytes arm = vmlinux;
  poke(arm, offsetof(Elf64_Ehdr, e_machine), std::uint16_t{EM_AARCH64});
  EXPECT_FALSE(load_linux(ram, config(arm)));
  EXPECT_TRUE(ram.is_untouched());
}

// --- Hostile files ---

// Whatever it holds, it is loaded or refused; ASan and UBSan watch. What is loaded lies in RAM.
void expect_sane(const Bytes& file, Entry entry, MappedRam& ram) {
  const auto state = load_linux(ram, config(file, entry));
  if (state) {
    ASSERT_GE(state.value().rip, 0x100000u);
    ASSERT_LT(state.value().rip, ram_size);
  } else {
    ASSERT_FALSE(state.error().message().empty());
  }
}

TEST(Hostile, AnyByteOfTheSetupHeaderMayHaveAnyValue) {
  MappedRam ram;
  for (std::size_t at = 0x1f1; at < 0x26c; ++at) {
    for (const unsigned flip : {1u, 2u, 0x10u, 0x80u, 0xffu}) {
      Bytes file = vmlinuz;
      file[at] ^= std::byte(flip);
      for (const Entry entry : {Entry::pvh, Entry::linux64, Entry::decompressor}) {
        expect_sane(file, entry, ram);
      }
    }
  }
}

// The packed kernel, and the kernel that is packed; always the same sequence.
TEST(Hostile, ManyBytesMayBeWrongTogether) {
  MappedRam ram;
  std::mt19937_64 random(1);  // NOLINT: the same sequence each time is the point
  const std::array<std::uint64_t, 8> extremes{0,        1,      0x7fffffff, 0xffffffff,
                                              0x100000, 0x1000, ~0ull,      1ull << 63};
  for (int round = 0; round < 3000; ++round) {
    const auto codec = static_cast<Codec>(random() % 4);
    Bytes inner = vmlinux;
    for (auto edits = random() % 4; edits != 0; --edits) {
      // Headers and notes, in words.
      const std::size_t at = random() % ((Vmlinux::notes_offset + 64) / 4) * 4;
      const std::uint64_t value =
          random() % 2 == 0 ? extremes.at(random() % extremes.size()) : random() % 0x10000;
      poke(inner, at, value);
    }
    Bytes file = bzimage(pack(codec, inner));
    for (auto edits = random() % 3; edits != 0; --edits) {
      const std::size_t at =
          random() % 2 == 0 ? 0x1f1 + random() % 0x78 : random() % (file.size() - 8);
      poke(file, at, static_cast<std::uint16_t>(random()));
    }
    if (random() % 8 == 0) file.resize(random() % file.size());
    expect_sane(file, static_cast<Entry>(random() % 3), ram);
    if (::testing::Test::HasFatalFailure()) FAIL() << "round " << round;
  }
}

}  // namespace
}  // namespace linux_loader
