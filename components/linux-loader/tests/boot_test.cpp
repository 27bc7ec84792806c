// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/boot.hpp"

#include <asm/bootparam.h>
#include <gtest/gtest.h>
#include <xen/xen.h>
// After xen.h.
#include <xen/arch-x86/hvm/start_info.h>

#include <array>
#include <string>

#include "../examples/load_kernel.hpp"
#include "boot_images.hpp"
#include "fake_kernel.hpp"
#include "linux_loader/acpi.hpp"

namespace linux_loader {
namespace {

using namespace test;
using vmm_base::Gpa;

void expect_flat(const SegmentRegister& segment, bool code, bool is_64_bit) {
  EXPECT_EQ(segment.base, 0u);
  EXPECT_EQ(segment.limit, 0xffffffffu);
  EXPECT_EQ(segment.type, code ? 11 : 3);
  EXPECT_EQ(segment.s, 1);
  EXPECT_EQ(segment.present, 1);
  EXPECT_EQ(segment.dpl, 0);
  EXPECT_EQ(segment.g, 1);
  EXPECT_EQ(segment.l, is_64_bit);
  EXPECT_EQ(segment.db, !is_64_bit);
}

// --- Each entry ---

// xen/docs/misc/pvh.pandoc
TEST(LoadLinux, EntersPvhAsXenDoes) {
  MappedRam ram;
  const auto loaded = load_linux(ram, config(vmlinux));
  ASSERT_TRUE(loaded) << loaded.error().message();
  const CpuState& state = loaded.value();
  EXPECT_EQ(state.rip, 0x101020u);
  EXPECT_EQ(state.rbx, 0x6000u);
  EXPECT_EQ(state.cr0 & ~0x10ull, 1u);  // PE; ET is fixed
  EXPECT_EQ(state.cr3, 0u);
  EXPECT_EQ(state.cr4, 0u);
  EXPECT_EQ(state.efer, 0u);
  EXPECT_EQ(state.rflags, 2u);
  expect_flat(state.code, true, false);
  expect_flat(state.data, false, false);
  EXPECT_EQ(state.task.base, 0u);
  EXPECT_EQ(state.task.limit, 0x67u);
  EXPECT_EQ(state.task.type, 11);
  EXPECT_EQ(state.task.s, 0);
  EXPECT_EQ(state.task.present, 1);
  expect_loaded(ram);
}

// Documentation/arch/x86/boot.rst, "64-bit Boot Protocol"
TEST(LoadLinux, EntersLinuxIn64BitMode) {
  for (const Entry entry : {Entry::linux64, Entry::decompressor}) {
    MappedRam ram;
    const auto loaded = load_linux(ram, config(vmlinuz, entry));
    ASSERT_TRUE(loaded) << loaded.error().message();
    const CpuState& state = loaded.value();
    EXPECT_EQ(state.rip, entry == Entry::linux64 ? 0x101010u : 0x300200u);
    EXPECT_EQ(state.rsi, 0x7000u);
    EXPECT_EQ(state.rbx, 0u);
    EXPECT_EQ(state.cr0 & 0x80000001, 0x80000001u);
    EXPECT_EQ(state.cr4, 0x20u);
    EXPECT_EQ(state.efer, 0x500u);
    EXPECT_EQ(state.rflags, 2u);
    EXPECT_EQ(state.code.selector, 0x10);
    EXPECT_EQ(state.data.selector, 0x18);
    expect_flat(state.code, true, true);
    expect_flat(state.data, false, false);
    EXPECT_EQ(state.gdt_limit, 31u);
    EXPECT_EQ(ram.get<std::uint64_t>(state.gdt_base + 0x10), 0x00af9b000000ffffu);
    EXPECT_EQ(ram.get<std::uint64_t>(state.gdt_base + 0x18), 0x00cf93000000ffffu);
  }
}

TEST(LoadLinux, MapsFourGibibytesToThemselves) {
  MappedRam ram;
  const auto state = load_linux(ram, config(vmlinuz, Entry::linux64));
  ASSERT_TRUE(state);
  constexpr std::uint64_t address_bits = 0xffffffffff000;
  for (std::uint64_t address = 0; address < std::uint64_t{4} << 30; address += (2 << 20) - 1) {
    std::uint64_t entry = ram.get<std::uint64_t>(state.value().cr3 + (address >> 39) * 8);
    ASSERT_EQ(entry & 0x83, 3u);
    entry = ram.get<std::uint64_t>((entry & address_bits) + (address >> 30 & 511) * 8);
    ASSERT_EQ(entry & 0x83, 3u);
    entry = ram.get<std::uint64_t>((entry & address_bits) + (address >> 21 & 511) * 8);
    ASSERT_EQ(entry & 0x83, 0x83u);
    ASSERT_EQ(entry & address_bits, address >> 21 << 21);
  }
}

TEST(LoadLinux, LeavesTheDecompressorItsImage) {
  Ram ram;
  ASSERT_TRUE(load_linux(ram, config(vmlinuz, Entry::decompressor)));
  const auto code = std::span(vmlinuz).subspan(1024);
  EXPECT_TRUE(std::equal(code.begin(), code.end(), ram.at(0x300000, code.size()).begin()));
}

class LoadPacked : public ::testing::TestWithParam<Codec> {};
INSTANTIATE_TEST_SUITE_P(Codecs, LoadPacked,
                         ::testing::Values(Codec::gzip, Codec::xz, Codec::zstd, Codec::lz4));

TEST_P(LoadPacked, UnpacksWhereTheKernelRunsAndLeavesNothingElse) {
  MappedRam ram;
  const auto loaded = load_linux(ram, config(bzimage(pack(GetParam(), vmlinux))));
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(loaded.value().rip, 0x101020u);
  // The file was unpacked at 1 MiB: its headers and its tail are gone.
  expect_loaded(ram, 0x100000, 0x100000 + vmlinux.size());
  EXPECT_EQ(ram.get<std::uint8_t>(0x106800), 0xaa);
}

TEST_P(LoadPacked, UnpacksForMemoryThatIsNotMapped) {
  Ram ram;
  const auto loaded = load_linux(ram, config(bzimage(pack(GetParam(), vmlinux))));
  ASSERT_TRUE(loaded) << loaded.error().message();
  expect_loaded(ram);
}

// Segments that would have to move up, or over each other: unpacked apart, and then copied.
TEST(LoadLinux, LoadsPackedKernelsOfAnyLayout) {
  for (const auto& loads : {
           std::vector<Vmlinux::Load>{{0x1000, 0x101000, 0x3000, 0x3000},
                                      {0x4000, 0x200000, 0x1000, 0x1000}},
           std::vector<Vmlinux::Load>{{0x4000, 0x101000, 0x1000, 0x1000},
                                      {0x1000, 0x103000, 0x3000, 0x3000}},
           // The first up, over the second.
           std::vector<Vmlinux::Load>{{0x1000, 0x102000, 0x2000, 0x2000},
                                      {0x3000, 0x105000, 0x1000, 0x1000}},
           // Both down, but the first over the second.
           std::vector<Vmlinux::Load>{{0x4000, 0x101000, 0x1000, 0x1000},
                                      {0x1000, 0x100000, 0x1000, 0x1000}},
           // Zeros over what the next segment is moved from.
           std::vector<Vmlinux::Load>{{0x1000, 0x101000, 0x1000, 0x4000},
                                      {0x3000, 0x105000, 0x1000, 0x1000}},
       }) {
    Vmlinux kernel;
    kernel.loads = loads;
    kernel.with_pvh(loads[0].paddr);
    MappedRam ram;
    const auto loaded =
        load_linux(ram, config(bzimage(pack(Codec::zstd, kernel.with_pvh().bytes()))));
    ASSERT_TRUE(loaded) << loaded.error().message();
    for (const Vmlinux::Load& load : loads) {
      for (std::uint64_t i = 0; i < load.memsz; ++i) {
        ASSERT_EQ(ram.get<std::byte>(load.paddr + i),
                  i < load.filesz ? Vmlinux::content(load.offset + i) : std::byte{0});
      }
    }
  }
}

// In place: moved down, over its own start, and zeros where the next one was moved from.
TEST(LoadLinux, MovesSegmentsDownInPlace) {
  Vmlinux kernel;
  kernel.loads = {{0x1000, 0x100400, 0x1000, 0x2400}, {0x2000, 0x102800, 0x100, 0x100}};
  kernel.loads[1] = {0x3000, 0x102800, 0x2000, 0x2000};
  kernel.entry = 0x100400;
  MappedRam ram;
  ASSERT_TRUE(
      load_linux(ram, config(bzimage(pack(Codec::lz4, kernel.with_pvh(0x100500).bytes())))));
  for (const Vmlinux::Load& load : kernel.loads) {
    for (std::uint64_t i = 0; i < load.memsz; ++i) {
      ASSERT_EQ(ram.get<std::byte>(load.paddr + i),
                i < load.filesz ? Vmlinux::content(load.offset + i) : std::byte{0});
    }
  }
  for (std::uint64_t at = 0x104800; at < 0x105777; ++at) {
    ASSERT_EQ(ram.get<std::uint8_t>(at), 0) << std::hex << at;
  }
}

void expect_untouched(const Ram& ram, std::uint64_t from, std::uint64_t until) {
  for (std::uint64_t at = from; at < until; ++at) {
    ASSERT_EQ(ram.get<std::uint8_t>(at), 0xaa) << std::hex << at;
  }
}
void expect_zero(const Ram& ram, std::uint64_t from, std::uint64_t until) {
  for (std::uint64_t at = from; at < until; ++at) {
    ASSERT_EQ(ram.get<std::uint8_t>(at), 0) << std::hex << at;
  }
}

// A segment that would have to move up goes through a copy, and no other part of the file stays.
TEST(LoadLinux, LeavesNothingOfAFileThatCantBeMovedInPlace) {
  Vmlinux kernel;
  kernel.loads = {{0x1000, 0x140000, 0x1000, 0x1000}};
  kernel.entry = 0x140000;
  const Bytes file = kernel.with_pvh(0x140000).bytes();
  MappedRam ram;
  ASSERT_TRUE(load_linux(ram, config(bzimage(pack(Codec::lz4, file)))));
  expect_zero(ram, 0x100000, 0x100000 + file.size());
  for (std::uint64_t i = 0; i < 0x1000; ++i) {
    ASSERT_EQ(ram.get<std::byte>(0x140000 + i), Vmlinux::content(0x1000 + i));
  }
}

// As it may be: nobody asks for nothing.
struct ParticularRam : MappedRam {
  std::byte* host(Gpa to, std::uint64_t size) {
    EXPECT_NE(size, 0u);
    return MappedRam::host(to, size);
  }
};

// What was unpacked is cleared up to its end, and no further, whatever lies where.
TEST(LoadLinux, ClearsWhatItUnpackedAndNoMore) {
  Vmlinux kernel;
  kernel.loads = {{0x1000, 0x201000, 0x1000, 0x1000},  // 4 MiB - 2 MiB: unpacked at 2 MiB
                  {0x2000, 0x102000, 0x1000, 0x1000},  // below that
                  {0x3000, 0x300000, 0, 0x1000}};      // beyond it, and all zeros
  kernel.entry = 0x201000;
  const Bytes file = kernel.with_pvh(0x201000).bytes();
  ParticularRam ram;
  const auto loaded = load_linux(ram, config(bzimage(pack(Codec::xz, file), 0x400000)));
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(ram.get<std::byte>(0x102000), Vmlinux::content(0x2000));
  EXPECT_EQ(ram.get<std::byte>(0x201000), Vmlinux::content(0x1000));
  expect_untouched(ram, 0x100000, 0x102000);
  expect_untouched(ram, 0x103000, 0x200000);
  expect_zero(ram, 0x200000, 0x201000);
  expect_zero(ram, 0x202000, 0x200000 + file.size());
  expect_untouched(ram, 0x200000 + file.size(), 0x300000);
  expect_zero(ram, 0x300000, 0x301000);
  expect_untouched(ram, 0x301000, ram_size);
}

// The segments lie in RAM, and the unpacked file wouldn't.
TEST(LoadLinux, UnpacksNothingOverWhatIsNotRam) {
  Vmlinux kernel;
  kernel.loads = {{0x1000, 0x101000, 0x1000, 0x1000}, {0x4000, 0x102000, 0x1000, 0x1000}};
  const std::vector<MemoryRange> holed{{{0}, 0xa0000, MemoryType::ram},
                                       {{0x100000}, 0x4000, MemoryType::ram},
                                       {{0x104000}, 0x1fc000, MemoryType::reserved},
                                       {{0x300000}, 0x500000, MemoryType::ram}};
  const Bytes file = bzimage(pack(Codec::gzip, kernel.with_pvh().bytes()));
  LinuxConfig it = config(file);
  it.memory_map = holed;
  MappedRam ram;
  const auto loaded = load_linux(ram, it);
  ASSERT_TRUE(loaded) << loaded.error().message();
  EXPECT_EQ(ram.get<std::byte>(0x102000), Vmlinux::content(0x4000));
  expect_untouched(ram, 0x104000, 0x300000);
}

// --- What the kernel is told ---

TEST(LoadLinux, TellsPvhGuestsByXensStartInfo) {
  MappedRam ram;
  const Bytes initramfs(5000, std::byte{7});
  LinuxConfig all = config(vmlinuz);
  all.cmdline = "console=ttyS0 quiet";
  all.initramfs = initramfs;
  all.rsdp = rsdp_gpa;
  const auto state = load_linux(ram, all);
  ASSERT_TRUE(state);
  const auto info = ram.get<hvm_start_info>(state.value().rbx);
  EXPECT_EQ(info.magic, static_cast<std::uint32_t>(XEN_HVM_START_MAGIC_VALUE));
  EXPECT_EQ(info.version, 1u);
  EXPECT_EQ(info.flags, 0u);
  EXPECT_EQ(info.reserved, 0u);
  EXPECT_EQ(info.rsdp_paddr, 0xe0000u);
  EXPECT_EQ(ram.text(info.cmdline_paddr), "console=ttyS0 quiet");

  ASSERT_EQ(info.nr_modules, 1u);
  const auto module = ram.get<hvm_modlist_entry>(info.modlist_paddr);
  EXPECT_EQ(module.size, 5000u);
  EXPECT_EQ(module.cmdline_paddr, 0u);
  EXPECT_EQ(module.reserved, 0u);
  const auto placed = ram.at(module.paddr, 5000);
  EXPECT_TRUE(std::equal(placed.begin(), placed.end(), initramfs.begin()));

  ASSERT_EQ(info.memmap_entries, map.size());
  for (std::size_t i = 0; i < map.size(); ++i) {
    const auto range =
        ram.get<hvm_memmap_table_entry>(info.memmap_paddr + i * sizeof(hvm_memmap_table_entry));
    EXPECT_EQ(+range.addr, map[i].start.value);
    EXPECT_EQ(+range.size, map[i].size);
    EXPECT_EQ(+range.type, static_cast<std::uint32_t>(map[i].type));
    EXPECT_EQ(range.reserved, 0u);
  }
}

TEST(LoadLinux, TellsOthersByBootParameters) {
  MappedRam ram;
  const Bytes initramfs(5000, std::byte{7});
  LinuxConfig all = config(vmlinuz, Entry::linux64);
  all.cmdline = "console=ttyS0 quiet";
  all.initramfs = initramfs;
  all.rsdp = rsdp_gpa;
  const auto state = load_linux(ram, all);
  ASSERT_TRUE(state);
  const auto params = ram.get<boot_params>(state.value().rsi);
  EXPECT_EQ(+params.hdr.header, 0x53726448u);
  EXPECT_EQ(+params.hdr.boot_flag, 0xaa55u);
  EXPECT_EQ(+params.hdr.version, 0x20fu);  // The image's own header,
  EXPECT_EQ(+params.hdr.kernel_alignment, 0x200000u);
  EXPECT_EQ(+params.hdr.init_size, 0x10000u);
  EXPECT_EQ(+params.hdr.type_of_loader, 0xff);  // with ours in it.
  EXPECT_EQ(+params.hdr.loadflags, 1);
  EXPECT_EQ(+params.sentinel, 0);
  EXPECT_EQ(+params.acpi_rsdp_addr, 0xe0000u);
  EXPECT_EQ(ram.text(+params.hdr.cmd_line_ptr), "console=ttyS0 quiet");
  EXPECT_EQ(+params.hdr.ramdisk_size, 5000u);
  EXPECT_EQ(ram.get<std::uint8_t>(+params.hdr.ramdisk_image), 7);
  EXPECT_EQ(+params.ext_ramdisk_image, 0u);
  ASSERT_EQ(+params.e820_entries, map.size());
  for (std::size_t i = 0; i < map.size(); ++i) {
    const boot_e820_entry range = params.e820_table[i];
    EXPECT_EQ(+range.addr, map[i].start.value);
    EXPECT_EQ(+range.size, map[i].size);
    EXPECT_EQ(+range.type, static_cast<std::uint32_t>(map[i].type));
  }
}

TEST(LoadLinux, TellsAVmlinuxByBootParametersToo) {
  MappedRam ram;
  const auto state = load_linux(ram, config(vmlinux, Entry::linux64));
  ASSERT_TRUE(state) << state.error().message();
  EXPECT_EQ(state.value().rip, 0x101010u);
  const auto params = ram.get<boot_params>(state.value().rsi);
  EXPECT_EQ(+params.hdr.header, 0x53726448u);
  EXPECT_EQ(+params.hdr.type_of_loader, 0xff);
  EXPECT_EQ(+params.hdr.loadflags, 1);
  EXPECT_EQ(+params.e820_entries, map.size());
  EXPECT_EQ(ram.text(+params.hdr.cmd_line_ptr), "");
}

TEST(LoadLinux, TellsNothingOfAnInitramfsOrAcpiThatIsNotThere) {
  MappedRam ram;
  ASSERT_TRUE(load_linux(ram, config(vmlinuz)));
  const auto info = ram.get<hvm_start_info>(0x6000);
  EXPECT_EQ(info.nr_modules, 0u);
  EXPECT_EQ(info.modlist_paddr, 0u);
  EXPECT_EQ(info.rsdp_paddr, 0u);
  ASSERT_TRUE(load_linux(ram, config(vmlinuz, Entry::linux64)));
  const auto params = ram.get<boot_params>(0x7000);
  EXPECT_EQ(+params.hdr.ramdisk_image, 0u);
  EXPECT_EQ(+params.hdr.ramdisk_size, 0u);
}

TEST(LoadLinux, KeepsToItsPlacesBelowOneMebibyte) {
  for (const Entry entry : {Entry::pvh, Entry::linux64, Entry::decompressor}) {
    MappedRam ram;
    const std::string longest(2047, 'x');
    LinuxConfig all = config(vmlinuz, entry);
    all.cmdline = longest;
    ASSERT_TRUE(load_linux(ram, all));
    for (std::uint64_t at = 0; at < 0x100000; ++at) {
      if (at < 0x500 || at >= 0x21000) {
        ASSERT_EQ(ram.get<std::uint8_t>(at), 0xaa) << at;
      }
    }
    EXPECT_EQ(ram.text(0x20000), longest);
  }
}

// 127 ranges don't run into what comes after them.
TEST(LoadLinux, TellsAMemoryMapOf127Ranges) {
  std::vector<MemoryRange> ranges = map;
  while (ranges.size() < 127) {
    ranges.push_back({{(ranges.size() + 1) << 32}, 4096, MemoryType::reserved});
  }
  LinuxConfig many = config(vmlinuz);
  many.memory_map = ranges;
  MappedRam ram;
  ASSERT_TRUE(load_linux(ram, many));
  const auto info = ram.get<hvm_start_info>(0x6000);
  EXPECT_EQ(info.memmap_entries, 127u);
  EXPECT_EQ(ram.get<std::uint64_t>(info.memmap_paddr + 126 * 24), std::uint64_t{127} << 32);
  many.entry = Entry::linux64;
  ASSERT_TRUE(load_linux(ram, many));
  EXPECT_EQ(+ram.get<boot_params>(0x7000).e820_table[126].addr, std::uint64_t{127} << 32);
  ranges.push_back(ranges.back());
  many.memory_map = ranges;
  expect_refused(many, "memory map, byte 127: more than 127 ranges");
}

TEST(Readme, ExampleLoads) {
  MappedRam ram;
  const std::array<AcpiCpu, 2> cpus{{{{0}, {0}}, {{1}, {1}}}};
  const Bytes initrd(100);
  ASSERT_TRUE(boot_debian(ram, vmlinuz, initrd, ram_size, cpus));
  EXPECT_EQ(ram.text(0xe0000).substr(0, 8), "RSD PTR ");
}

}  // namespace
}  // namespace linux_loader
