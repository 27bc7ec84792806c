// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/elf.hpp"

#include <elf.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <initializer_list>
#include <random>
#include <string>
#include <utility>

#include "../examples/load_kernel.hpp"

namespace linux_loader {
namespace {

using vmm_base::Gpa;
using Bytes = std::vector<std::byte>;
template <class T>
using List = std::initializer_list<T>;
using Pairs = List<std::pair<std::uint64_t, std::uint64_t>>;

constexpr std::uint64_t max64 = ~std::uint64_t{0};

// 16 KiB of RAM at 1 MiB.
class Ram {
 public:
  static constexpr std::uint64_t base = 0x100000;
  static constexpr std::uint64_t size = 0x4000;

  vmm_base::Result<void> write(Gpa to, std::span<const std::byte> data) {
    EXPECT_FALSE(data.empty());
    if (!contains(to, data.size())) return vmm_base::Error{"write", EFAULT, to.value};
    std::memcpy(&bytes_[to.value - base], data.data(), data.size());
    mark(to, data.size());
    return vmm_base::success();
  }

  vmm_base::Result<void> fill_zero(Gpa to, std::uint64_t count) {
    EXPECT_NE(count, 0u);
    if (!contains(to, count)) return vmm_base::Error{"fill_zero", EFAULT, to.value};
    std::memset(&bytes_[to.value - base], 0, count);
    mark(to, count);
    return vmm_base::success();
  }

  [[nodiscard]] std::byte at(std::uint64_t address) const { return bytes_.at(address - base); }
  [[nodiscard]] bool written(std::uint64_t address) const { return written_.at(address - base); }
  [[nodiscard]] bool is_untouched() const { return written_ == std::vector<bool>(size); }

 private:
  static bool contains(Gpa to, std::uint64_t count) {
    return to.value >= base && count <= size && to.value - base <= size - count;
  }

  // Refuses a second write to the same byte: segments don't overlap.
  void mark(Gpa to, std::uint64_t count) {
    for (std::uint64_t at = to.value - base; count != 0; ++at, --count) {
      EXPECT_FALSE(written_[at]);
      written_[at] = true;
    }
  }

  Bytes bytes_ = Bytes(size, std::byte{0xaa});
  std::vector<bool> written_ = std::vector<bool>(size);
};

struct ReadOnly {
  vmm_base::Result<void> read(Gpa, std::span<std::byte>);
};
static_assert(GuestWriter<Ram>);
static_assert(!GuestWriter<ReadOnly>);

constexpr std::uint64_t text_gpa = Ram::base + 0x1000;
constexpr std::uint64_t data_gpa = Ram::base + 0x3000;

// Where a test file's program headers stand, and what comes after them.
constexpr std::uint64_t segment_offset(std::size_t index) {
  return sizeof(Elf64_Ehdr) + index * sizeof(Elf64_Phdr);
}
constexpr std::uint64_t segment_field(std::size_t index, std::size_t field) {
  return segment_offset(index) + field;
}
constexpr std::uint64_t payload_offset = segment_offset(3);

// ELF header, program headers, then 32 bytes 0, 1, 2 ...; the last segment ends with the file.
struct File {
  static constexpr std::size_t payload_size = 32;

  Elf64_Ehdr header{};
  std::array<Elf64_Phdr, 3> segments{};

  File() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_entry = text_gpa + 4;
    header.e_phoff = sizeof header;
    header.e_ehsize = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = 3;

    segments[0].p_type = PT_NOTE;  // Not to be loaded, so its nonsense doesn't matter.
    segments[0].p_offset = max64;
    segments[0].p_filesz = max64;
    segments[1] = load(text_gpa, 0, 16, 16);
    segments[2] = load(data_gpa, 16, 16, 48);
  }

  static Elf64_Phdr load(std::uint64_t paddr, std::uint64_t from, std::uint64_t filesz,
                         std::uint64_t memsz) {
    Elf64_Phdr segment{};
    segment.p_type = PT_LOAD;
    segment.p_offset = payload_offset + from;
    segment.p_vaddr = 0xffffffff80000000 + paddr;
    segment.p_paddr = paddr;
    segment.p_filesz = filesz;
    segment.p_memsz = memsz;
    return segment;
  }

  [[nodiscard]] Bytes bytes() const {
    Bytes file(payload_offset + payload_size);
    std::memcpy(file.data(), &header, sizeof header);
    std::memcpy(&file[segment_offset(0)], segments.data(), sizeof segments);
    for (std::size_t i = 0; i < payload_size; ++i) file[payload_offset + i] = std::byte(i);
    return file;
  }
};

// The file is refused for `reason`, and memory is as it was.
void expect_refused(const Bytes& file, const std::string& reason, std::uint64_t offset) {
  Ram ram;
  const auto image = load_elf(file, ram);
  ASSERT_FALSE(image) << "expected: " << reason;
  EXPECT_EQ(image.error().reason, reason);
  EXPECT_EQ(image.error().offset, offset) << reason;
  EXPECT_TRUE(ram.is_untouched()) << reason;
}

// Whatever the file, one of the two outcomes that the header promises.
void expect_sane(const Bytes& file) {
  Ram ram;
  const auto image = load_elf(file, ram);
  if (image) {
    EXPECT_LT(image.value().entry, image.value().end);
    EXPECT_TRUE(ram.written(image.value().entry.value));
    EXPECT_TRUE(ram.written(image.value().end.value - 1));
    return;
  }
  EXPECT_STRNE(image.error().reason, "");
  EXPECT_LE(image.error().offset, file.size());
  if (parse_elf(file)) {
    EXPECT_STREQ(image.error().reason, "guest memory refuses the segment");
  } else {
    EXPECT_TRUE(ram.is_untouched());
  }
}

TEST(LoadElf, WritesTheSegmentsAtTheirPhysicalAddresses) {
  Ram ram;
  const auto image = load_elf(File().bytes(), ram);
  ASSERT_TRUE(image) << image.error().reason;
  EXPECT_EQ(image.value().entry, Gpa{text_gpa + 4});
  EXPECT_EQ(image.value().end, Gpa{data_gpa + 48});
  for (unsigned i = 0; i < 16; ++i) {
    EXPECT_EQ(ram.at(text_gpa + i), std::byte(i));
    EXPECT_EQ(ram.at(data_gpa + i), std::byte(16 + i));
  }
  for (unsigned i = 16; i < 48; ++i) EXPECT_EQ(ram.at(data_gpa + i), std::byte{0});
  for (const std::uint64_t outside : {text_gpa - 1, text_gpa + 16, data_gpa - 1, data_gpa + 48}) {
    EXPECT_FALSE(ram.written(outside));
  }
}

TEST(LoadElf, EndIsThatOfTheHighestSegmentInAnyOrder) {
  File file;
  std::swap(file.segments[1], file.segments[2]);
  Ram ram;
  EXPECT_EQ(load_elf(file.bytes(), ram).value().end, Gpa{data_gpa + 48});
}

TEST(LoadElf, TakesASegmentOfZerosAlone) {
  File file;
  file.segments[2] = File::load(data_gpa, 0, 0, 8);
  Ram ram;
  EXPECT_EQ(load_elf(file.bytes(), ram).value().end, Gpa{data_gpa + 8});
  EXPECT_TRUE(ram.written(data_gpa + 7));
  EXPECT_FALSE(ram.written(data_gpa + 8));
}

TEST(LoadElf, PassesOverAnEmptySegmentWhereverItIs) {
  for (const std::uint64_t paddr : {std::uint64_t{0}, text_gpa + 4, data_gpa + 4096, max64}) {
    File file;
    file.segments[0] = File::load(paddr, 0, 0, 0);
    Ram ram;
    const auto image = load_elf(file.bytes(), ram);
    ASSERT_TRUE(image) << image.error().reason;
    EXPECT_EQ(image.value().end, Gpa{data_gpa + 48});
  }
}

TEST(LoadElf, TakesSegmentsThatTouch) {
  for (const std::uint64_t paddr : {text_gpa - 48, text_gpa + 16}) {
    File file;
    file.segments[2].p_paddr = paddr;
    Ram ram;
    EXPECT_EQ(load_elf(file.bytes(), ram).value().end,
              std::max(Gpa{text_gpa + 16}, Gpa{paddr + 48}));
  }
}

TEST(LoadElf, TakesTheLastByteOfRam) {
  File file;
  file.segments[2].p_paddr = Ram::base + Ram::size - file.segments[2].p_memsz;
  Ram ram;
  EXPECT_EQ(load_elf(file.bytes(), ram).value().end, Gpa{Ram::base + Ram::size});
}

TEST(LoadElf, ReadsUnalignedHeaders) {
  Bytes bytes = File().bytes();
  bytes.insert(bytes.begin(), std::byte{0});
  Ram ram;
  EXPECT_TRUE(load_elf(std::span<const std::byte>(bytes).subspan(1), ram));
}

TEST(LoadElf, RefusesAFileCutShortAnywhere) {
  const Bytes whole = File().bytes();
  for (std::size_t size = 0; size < whole.size(); ++size) {
    const Bytes cut(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
    if (size < sizeof(Elf64_Ehdr)) {
      expect_refused(cut, "the file ends within the ELF header", size);
    } else if (size < payload_offset) {
      expect_refused(cut, "program headers outside the file", offsetof(Elf64_Ehdr, e_phoff));
    } else {
      const std::size_t index = size < payload_offset + 16 ? 1 : 2;
      expect_refused(cut, "a segment's data outside the file",
                     segment_field(index, offsetof(Elf64_Phdr, p_offset)));
    }
  }
}

TEST(LoadElf, RefusesEveryOtherKindOfElf) {
  const auto with_ident = [](int index, unsigned char value) {
    File file;
    file.header.e_ident[index] = value;
    return file.bytes();
  };
  for (int i = 0; i < SELFMAG; ++i) expect_refused(with_ident(i, 0), "not an ELF file", 0);
  for (const auto bad : List<unsigned char>{ELFCLASSNONE, ELFCLASS32, 0xff}) {
    expect_refused(with_ident(EI_CLASS, bad), "not a 64-bit file", EI_CLASS);
  }
  for (const auto bad : List<unsigned char>{ELFDATANONE, ELFDATA2MSB, 0xff}) {
    expect_refused(with_ident(EI_DATA, bad), "not little-endian", EI_DATA);
  }
  expect_refused(with_ident(EI_VERSION, 2), "an unknown ELF version", EI_VERSION);

  for (const auto bad : List<Elf64_Half>{ET_NONE, ET_REL, ET_DYN, ET_CORE, 0xffff}) {
    File file;
    file.header.e_type = bad;
    expect_refused(file.bytes(), "not an executable (ET_EXEC)", offsetof(Elf64_Ehdr, e_type));
  }
  for (const auto bad : List<Elf64_Half>{EM_NONE, EM_386, EM_AARCH64, 0xffff}) {
    File file;
    file.header.e_machine = bad;
    expect_refused(file.bytes(), "not for x86-64", offsetof(Elf64_Ehdr, e_machine));
  }
  File file;
  file.header.e_version = 2;
  expect_refused(file.bytes(), "an unknown ELF version", offsetof(Elf64_Ehdr, e_version));
}

TEST(LoadElf, RefusesAProgramHeaderTableItCannotRead) {
  for (const auto bad : List<Elf64_Half>{0, 55, 57, 0xffff}) {
    File file;
    file.header.e_phentsize = bad;
    expect_refused(file.bytes(), "program headers of a wrong size",
                   offsetof(Elf64_Ehdr, e_phentsize));
  }
  File none;
  none.header.e_phnum = 0;
  expect_refused(none.bytes(), "no program headers", offsetof(Elf64_Ehdr, e_phnum));

  for (const std::size_t bad : {max_program_headers + 1, std::size_t{PN_XNUM}}) {
    File file;
    file.header.e_phnum = static_cast<Elf64_Half>(bad);
    expect_refused(file.bytes(), "too many program headers", offsetof(Elf64_Ehdr, e_phnum));
  }
  const std::uint64_t size = File().bytes().size();
  for (const std::uint64_t bad : {size - 3 * sizeof(Elf64_Phdr) + 1, size, size + 1,
                                  max64 - 3 * sizeof(Elf64_Phdr) + 1, max64}) {
    File file;
    file.header.e_phoff = bad;
    expect_refused(file.bytes(), "program headers outside the file", offsetof(Elf64_Ehdr, e_phoff));
  }
}

TEST(LoadElf, TakesAsManyProgramHeadersAsItsLimit) {
  File file;
  file.header.e_phnum = static_cast<Elf64_Half>(max_program_headers);
  file.header.e_phoff = file.bytes().size();
  Bytes bytes = file.bytes();
  bytes.resize(bytes.size() + max_program_headers * sizeof(Elf64_Phdr));
  std::memcpy(&bytes[file.header.e_phoff], file.segments.data(), sizeof file.segments);
  Ram ram;
  EXPECT_TRUE(load_elf(bytes, ram));
}

TEST(LoadElf, RefusesASegmentLargerInTheFileThanInMemory) {
  for (const std::uint64_t memsz : {0u, 15u}) {
    File file;
    file.segments[2].p_memsz = memsz;
    expect_refused(file.bytes(), "a segment larger in the file than in memory",
                   segment_field(2, offsetof(Elf64_Phdr, p_filesz)));
  }
}

TEST(LoadElf, RefusesSegmentDataOutsideTheFile) {
  const std::uint64_t size = File().bytes().size();
  for (const auto& [offset, filesz] : Pairs{
           {size - 15, 16}, {size, 1}, {size + 1, 0}, {max64, 16}, {max64 - 15, 16}, {1, max64}}) {
    File file;
    file.segments[2].p_offset = offset;
    file.segments[2].p_filesz = filesz;
    file.segments[2].p_memsz = filesz;
    expect_refused(file.bytes(), "a segment's data outside the file",
                   segment_field(2, offsetof(Elf64_Phdr, p_offset)));
  }
}

TEST(LoadElf, RefusesASegmentThatWraps) {
  for (const auto& [paddr, memsz] : Pairs{{max64, 16},
                                          {max64 - 15, 16},
                                          {data_gpa, max64},
                                          {1, max64},
                                          {1ull << 63, 1ull << 63}}) {
    File file;
    file.segments[2].p_paddr = paddr;
    file.segments[2].p_memsz = memsz;
    expect_refused(file.bytes(), "a segment that wraps around the address space",
                   segment_field(2, offsetof(Elf64_Phdr, p_memsz)));
  }
}

TEST(LoadElf, RefusesSegmentsThatOverlap) {
  for (const std::uint64_t paddr :
       {text_gpa - 47, text_gpa - 1, text_gpa, text_gpa + 1, text_gpa + 15}) {
    File file;
    file.segments[2].p_paddr = paddr;
    expect_refused(file.bytes(), "segments overlap",
                   segment_field(2, offsetof(Elf64_Phdr, p_paddr)));
  }
  File around;  // One within the other, and larger than any RAM.
  around.segments[2].p_paddr = 0;
  around.segments[2].p_memsz = max64;
  expect_refused(around.bytes(), "segments overlap",
                 segment_field(2, offsetof(Elf64_Phdr, p_paddr)));
}

TEST(LoadElf, RefusesAnEntryOutsideEverySegment) {
  for (const std::uint64_t entry : {std::uint64_t{0}, text_gpa - 1, text_gpa + 16, data_gpa - 1,
                                    data_gpa + 48, 0xffffffff80000000 + text_gpa, max64}) {
    File file;
    file.header.e_entry = entry;
    expect_refused(file.bytes(), "the entry point lies in no segment",
                   offsetof(Elf64_Ehdr, e_entry));
  }
  File nothing_to_load;
  nothing_to_load.segments[1].p_type = PT_NULL;
  nothing_to_load.segments[2].p_type = PT_NULL;
  expect_refused(nothing_to_load.bytes(), "the entry point lies in no segment",
                 offsetof(Elf64_Ehdr, e_entry));

  for (const std::uint64_t entry : {text_gpa, text_gpa + 15, data_gpa, data_gpa + 47}) {
    File file;
    file.header.e_entry = entry;
    Ram ram;
    EXPECT_TRUE(load_elf(file.bytes(), ram));
  }
}

TEST(LoadElf, RefusesASegmentThatMemoryRefuses) {
  const auto expect_memory_refuses = [](const File& file) {
    Ram ram;
    const auto image = load_elf(file.bytes(), ram);
    ASSERT_FALSE(image);
    EXPECT_STREQ(image.error().reason, "guest memory refuses the segment");
    EXPECT_EQ(image.error().offset, segment_field(2, offsetof(Elf64_Phdr, p_paddr)));
  };
  for (const std::uint64_t paddr : {std::uint64_t{0}, Ram::base - 1, Ram::base + Ram::size - 47,
                                    Ram::base + Ram::size, max64 - 48}) {
    File file;
    file.segments[2].p_paddr = paddr;
    expect_memory_refuses(file);
  }
  File huge;  // The data fits, the zeros don't.
  huge.segments[2].p_memsz = max64 - data_gpa;
  expect_memory_refuses(huge);
}

TEST(Readme, ExampleLoads) {
  Memory memory(2 << 20);
  EXPECT_EQ(load_elf(File().bytes(), memory).value().entry, Gpa{text_gpa + 4});
}

TEST(Hostile, AnyByteOfTheHeadersMayHaveAnyValue) {
  const Bytes good = File().bytes();
  for (std::size_t at = 0; at < payload_offset; ++at) {
    for (unsigned flip = 1; flip < 256; ++flip) {
      Bytes file = good;
      file[at] ^= std::byte(flip);
      expect_sane(file);
    }
  }
}

TEST(Hostile, AnyWordOfTheHeadersMayBeExtreme) {
  const Bytes good = File().bytes();
  for (std::size_t at = 0; at + 8 <= payload_offset; at += 8) {
    for (const std::uint64_t centre :
         List<std::uint64_t>{std::uint64_t{0}, std::uint64_t{good.size()}, text_gpa, data_gpa,
                             1ull << 31, 1ull << 32, 1ull << 63}) {
      for (std::uint64_t delta = 0; delta <= 128; ++delta) {
        const std::uint64_t value = centre + delta - 64;
        Bytes file = good;
        std::memcpy(&file[at], &value, sizeof value);
        expect_sane(file);
      }
    }
  }
}

// Two to four fields at a time, past the checks that one wrong field would meet; always the same.
TEST(Hostile, SeveralFieldsMayBeWrongTogether) {
  const Bytes good = File().bytes();
  std::mt19937_64 random(1);  // NOLINT: the same sequence each time is the point
  for (int round = 0; round < 20000; ++round) {
    Bytes file = good;
    for (auto edits = 2 + random() % 3; edits != 0; --edits) {
      const std::size_t at = 24 + random() % ((payload_offset - 24) / 8) * 8;
      const std::array<std::uint64_t, 6> values{random() % 64,
                                                file.size() - random() % 64,
                                                text_gpa + random() % 64,
                                                data_gpa - random() % 64,
                                                max64 - random() % 64,
                                                random()};
      std::memcpy(&file[at], &values.at(random() % values.size()), sizeof(std::uint64_t));
    }
    expect_sane(file);
    if (::testing::Test::HasFailure()) FAIL() << "round " << round;
  }
}

}  // namespace
}  // namespace linux_loader
