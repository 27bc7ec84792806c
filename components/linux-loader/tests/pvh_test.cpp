// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include <gtest/gtest.h>

#include "fake_kernel.hpp"
#include "linux_loader/elf.hpp"

namespace linux_loader {
namespace {

using test::Bytes;
using test::poke;
using test::Vmlinux;

constexpr std::uint64_t notes_at = Vmlinux::notes_offset;
const std::size_t pvh_at = notes_at + Vmlinux().notes.size();  // Where with_pvh() adds its note.
const std::size_t note_header = sizeof(Elf64_Ehdr) + 2 * sizeof(Elf64_Phdr);

void expect_refused(const Bytes& file, const char* reason, std::uint64_t offset) {
  const auto elf = parse_pvh_elf(file);
  ASSERT_FALSE(elf) << reason;
  EXPECT_STREQ(elf.error().reason, reason);
  EXPECT_EQ(elf.error().offset, offset) << reason;
}

TEST(ParsePvhElf, EntersAtTheNote) {
  const auto elf = parse_pvh_elf(Vmlinux().with_pvh(0x104000).bytes());
  ASSERT_TRUE(elf);
  EXPECT_EQ(elf.value().image.entry.value, 0x104000u);
  EXPECT_EQ(elf.value().image.end.value, 0x106800u);
  EXPECT_EQ(elf.value().segments.size(), 2u);
}

TEST(ParsePvhElf, TakesAnEntryOfFourBytes) {
  Vmlinux kernel;
  kernel.notes = Vmlinux::pvh_note(0x101004, 4);
  EXPECT_EQ(parse_pvh_elf(kernel.bytes()).value().image.entry.value, 0x101004u);
}

// FreeBSD's e_entry is a virtual address.
TEST(ParsePvhElf, DoesntLookAtTheElfEntry) {
  Vmlinux kernel;
  kernel.entry = 0xffffffff80381000;
  EXPECT_TRUE(parse_pvh_elf(kernel.with_pvh().bytes()));
  EXPECT_FALSE(parse_elf(kernel.bytes()));
}

TEST(ParsePvhElf, FindsTheNoteAmongOthersAndTakesTheFirst) {
  Vmlinux kernel;
  kernel.notes = Vmlinux::note("Xen", 17, Bytes(4));
  for (const Bytes& more : {Vmlinux::note("GNU", 18, Bytes(20)),
                            Vmlinux::note("Xen2", 18, Bytes(8)), Vmlinux::note("", 18, Bytes(8)),
                            Vmlinux::pvh_note(0x101001), Vmlinux::pvh_note(0x101002)}) {
    kernel.notes.insert(kernel.notes.end(), more.begin(), more.end());
  }
  EXPECT_EQ(parse_pvh_elf(kernel.bytes()).value().image.entry.value, 0x101001u);
}

TEST(ParsePvhElf, ComparesTheOwnersWholeName) {
  Vmlinux kernel;
  kernel.notes = Vmlinux::note(std::string_view("Xen\0and", 7), 18, Bytes(8));
  Bytes nameless(20);  // Its value starts as the name would.
  poke(nameless, 4, std::uint32_t{8});
  poke(nameless, 8, std::uint32_t{18});
  std::memcpy(nameless.data() + 12, "Xen", 3);
  kernel.notes.insert(kernel.notes.end(), nameless.begin(), nameless.end());
  EXPECT_EQ(parse_pvh_elf(kernel.with_pvh().bytes()).value().image.entry.value, 0x101020u);
}

TEST(ParsePvhElf, AlignsNotesTo8WhereTheProgramHeaderSaysSo) {
  Vmlinux kernel;
  kernel.notes = Vmlinux::note("GNU", 5, Bytes(1), 8);
  const Bytes pvh = [] {
    Bytes value(8);
    poke(value, 0, std::uint64_t{0x101008});
    return Vmlinux::note("Xen", 18, value, 8);
  }();
  kernel.notes.insert(kernel.notes.end(), pvh.begin(), pvh.end());
  Bytes file = kernel.bytes();
  poke(file, note_header + offsetof(Elf64_Phdr, p_align), std::uint64_t{8});
  EXPECT_EQ(parse_pvh_elf(file).value().image.entry.value, 0x101008u);
}

TEST(ParsePvhElf, RefusesAKernelWithoutTheNote) {
  expect_refused(Vmlinux().bytes(), "no PVH note: built without CONFIG_PVH",
                 offsetof(Elf64_Ehdr, e_phoff));
}

TEST(ParsePvhElf, RefusesAnEntryOutsideTheSegments) {
  for (const std::uint64_t entry :
       {std::uint64_t{0}, std::uint64_t{0x100fff}, std::uint64_t{0x106800}, ~std::uint64_t{0}}) {
    expect_refused(Vmlinux().with_pvh(entry).bytes(), "the PVH entry point lies in no segment",
                   pvh_at + 16);
  }
  Vmlinux high;
  high.loads[1].paddr = std::uint64_t{1} << 32;
  expect_refused(high.with_pvh(std::uint64_t{1} << 32).bytes(),
                 "the PVH entry point lies above 4 GiB", pvh_at + 16);
}

TEST(ParsePvhElf, RefusesNotesThatLie) {
  const Bytes good = Vmlinux().with_pvh().bytes();
  const auto changed = [&](std::size_t at, auto value) {
    Bytes file = good;
    poke(file, at, value);
    return file;
  };
  for (const std::uint32_t size : {0x40u, 0x7fffffffu, 0xffffffffu}) {
    expect_refused(changed(pvh_at, size), "a note's name outside the notes", pvh_at);
    expect_refused(changed(pvh_at + 4, size), "a note's value outside the notes", pvh_at + 4);
  }
  expect_refused(changed(pvh_at + 4, std::uint32_t{6}), "a PVH note that is neither 4 nor 8 bytes",
                 pvh_at + 4);
  expect_refused(changed(note_header + offsetof(Elf64_Phdr, p_offset), ~std::uint64_t{0}),
                 "notes outside the file", note_header + offsetof(Elf64_Phdr, p_offset));
  expect_refused(changed(note_header + offsetof(Elf64_Phdr, p_filesz), std::uint64_t{1} << 40),
                 "notes outside the file", note_header + offsetof(Elf64_Phdr, p_offset));
  const std::uint64_t cut = pvh_at - notes_at + 11;
  expect_refused(changed(note_header + offsetof(Elf64_Phdr, p_filesz), cut),
                 "the notes end within a note", pvh_at + 11);
}

TEST(ParsePvhElf, AnyByteOfTheNotesMayHaveAnyValue) {
  const Bytes good = Vmlinux().with_pvh().bytes();
  for (std::size_t at = notes_at; at < pvh_at + 24; ++at) {
    for (unsigned flip = 1; flip < 256; ++flip) {
      Bytes file = good;
      file[at] ^= std::byte(flip);
      const auto elf = parse_pvh_elf(file);
      if (elf) {
        EXPECT_GE(elf.value().image.entry.value, 0x101000u);
        EXPECT_LT(elf.value().image.entry.value, 0x106800u);
      } else {
        EXPECT_LT(elf.error().offset, file.size());
      }
    }
  }
}

}  // namespace
}  // namespace linux_loader
