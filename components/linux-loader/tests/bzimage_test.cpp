// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/bzimage.hpp"

#include <gtest/gtest.h>

#include <array>
#include <string>

#include "fake_kernel.hpp"

namespace linux_loader {
namespace {

using test::Bytes;
using test::Codec;
using test::pack;
using test::poke;

const Bytes plain = test::Vmlinux().bytes();
constexpr std::uint64_t payload_at = 1024 + 0x300;

Bytes good() { return test::bzimage(pack(Codec::zstd, plain)); }

void expect_refused(std::span<const std::byte> file, const char* reason, std::uint64_t offset) {
  const auto image = parse_bzimage(file);
  ASSERT_FALSE(image) << reason;
  EXPECT_STREQ(image.error().reason, reason);
  EXPECT_EQ(image.error().offset, offset) << reason;
}
template <class T>
void expect_refused(std::size_t at, T value, const char* reason, std::uint64_t offset) {
  Bytes file = good();
  poke(file, at, value);
  expect_refused(file, reason, offset);
}

TEST(ParseBzImage, FindsItsParts) {
  const Bytes packed = pack(Codec::zstd, plain);
  const Bytes file = test::bzimage(packed);
  const auto image = parse_bzimage(file);
  ASSERT_TRUE(image);
  const BzImage& it = image.value();
  EXPECT_EQ(it.setup_header.data(), file.data() + 0x1f1);
  EXPECT_EQ(it.setup_header.size(), 0x202u + 0x6a - 0x1f1);
  EXPECT_EQ(it.code.data(), file.data() + 1024);
  EXPECT_EQ(it.code.size(), file.size() - 1024);
  EXPECT_EQ(it.payload.data(), file.data() + payload_at);
  EXPECT_EQ(it.payload.size(), packed.size());
  EXPECT_EQ(it.payload_offset, payload_at);
  EXPECT_EQ(it.unpacked_size, plain.size());
  EXPECT_EQ(it.pref_address.value, 0x300000u);
  EXPECT_EQ(it.init_size, 0x10000u);
  EXPECT_EQ(it.cmdline_size, 2047u);
  EXPECT_EQ(it.initrd_max.value, 0xffffffffu);
}

TEST(ParseBzImage, KeepsTheInitramfsLowForKernelsThatWantIt) {
  Bytes file = good();
  poke(file, 0x236, std::uint16_t{1});
  EXPECT_EQ(parse_bzimage(file).value().initrd_max.value, 0x7fffffffu);
}

TEST(ParseBzImage, CountsFourSetupSectorsWhereNoneAreNamed) {
  Bytes file = good();
  file.insert(file.begin() + 1024, 3 * 512, std::byte{});
  poke(file, 0x1f1, std::uint8_t{0});
  EXPECT_EQ(parse_bzimage(file).value().payload_offset, payload_at + 3 * 512);
}

TEST(ParseBzImage, RefusesWhatIsNotAKernelForThisMachine) {
  expect_refused(Bytes(0x264), "no setup header: not a bzImage", 0x202);
  expect_refused(0x1fe, std::uint16_t{0}, "no setup header: not a bzImage", 0x202);
  expect_refused(0x202, std::uint8_t{0}, "no setup header: not a bzImage", 0x202);
  expect_refused(0x206, std::uint16_t{0x20b}, "a boot protocol older than 2.12", 0x206);
  expect_refused(0x211, std::uint8_t{0}, "a zImage, which is loaded low", 0x211);
  expect_refused(0x236, std::uint16_t{0x7e}, "not for x86-64: no 64-bit entry point", 0x236);
  EXPECT_TRUE(is_bzimage(good()));
  EXPECT_FALSE(is_bzimage(Bytes(4096)));
  EXPECT_FALSE(is_bzimage({}));
}

TEST(ParseBzImage, RefusesAFileCutShort) {
  const Bytes file = good();
  for (std::size_t size = 0; size < file.size(); ++size) {
    // A copy, so that ASan sees what is read beyond its end.
    const Bytes cut(file.begin(), file.begin() + static_cast<std::ptrdiff_t>(size));
    const auto image = parse_bzimage(cut);
    ASSERT_FALSE(image) << size;
    EXPECT_EQ(image.error().offset, size);
  }
  expect_refused(std::span(file).first(0x263), "the file ends within the setup header", 0x263);
  expect_refused(std::span(file).first(1023), "the file ends within the setup code", 1023);
  expect_refused(std::span(file).first(1024), "the file ends within the kernel's code", 1024);
}

TEST(ParseBzImage, RefusesFieldsThatLie) {
  expect_refused(0x201, std::uint8_t{0x61}, "a setup header of a wrong length", 0x201);
  expect_refused(0x201, std::uint8_t{0x8f}, "a setup header of a wrong length", 0x201);
  expect_refused(0x1f4, std::uint32_t{0xffffffff}, "the file ends within the kernel's code",
                 good().size());
  expect_refused(0x248, std::uint32_t{0xffffffff}, "the packed kernel lies outside the code",
                 0x248);
  expect_refused(0x24c, std::uint32_t{0xffffffff}, "a packed kernel of a wrong length", 0x24c);
  expect_refused(0x24c, std::uint32_t{7}, "a packed kernel of a wrong length", 0x24c);
  for (const std::uint64_t address : {std::uint64_t{0xff000}, std::uint64_t{1} << 32,
                                      ~std::uint64_t{0}, std::uint64_t{0x300800}}) {
    expect_refused(0x258, address, "a preferred address that isn't a page between 1 MiB and 4 GiB",
                   0x258);
  }
  expect_refused(0x260, std::uint32_t{16}, "a kernel that wants less memory than its file has",
                 0x260);
}

// --- Unpacking ---

class Unpack : public ::testing::TestWithParam<Codec> {
 protected:
  // Unpacks `payload` to as many bytes as are asked for.
  static LoadResult<void> unpack_to(const Bytes& payload, std::span<std::byte> to) {
    const Bytes file = test::bzimage(payload);
    return unpack(parse_bzimage(file).value(), to);
  }
  static void expect_refused(const Bytes& payload, std::size_t size, const char* reason) {
    Bytes to(size);
    const auto done = unpack_to(payload, to);
    ASSERT_FALSE(done) << reason;
    EXPECT_STREQ(done.error().reason, reason);
    EXPECT_GE(done.error().offset, payload_at);
    EXPECT_LE(done.error().offset, payload_at + payload.size());
  }
};
std::string name_of(const ::testing::TestParamInfo<Codec>& codec) {
  constexpr std::array<const char*, 4> names{"gzip", "xz", "zstd", "lz4"};
  return names.at(static_cast<std::size_t>(codec.param));
}
INSTANTIATE_TEST_SUITE_P(Codecs, Unpack,
                         ::testing::Values(Codec::gzip, Codec::xz, Codec::zstd, Codec::lz4),
                         name_of);

TEST_P(Unpack, GivesBackWhatWasPacked) {
  Bytes to(plain.size());
  ASSERT_TRUE(unpack_to(pack(GetParam(), plain), to));
  EXPECT_EQ(to, plain);
}

// More than one of lz4's blocks; the second one short.
TEST_P(Unpack, GivesBackTenMebibytes) {
  Bytes big(10 << 20);
  for (std::size_t i = 0; i < big.size(); ++i) big[i] = std::byte(i >> 8 ^ i * 7);
  Bytes to(big.size());
  ASSERT_TRUE(unpack_to(pack(GetParam(), big), to));
  EXPECT_TRUE(to == big);
}

TEST_P(Unpack, WritesNoMoreThanTheSizeThatIsClaimed) {
  const Bytes packed = pack(GetParam(), plain);
  constexpr const char* reason = "the packed kernel isn't of the size it claims";
  expect_refused(packed, plain.size() - 1, reason);
  expect_refused(packed, plain.size() + 1, reason);
  expect_refused(packed, 1, reason);
}

// A bomb: 64 MiB in some KiB.
TEST_P(Unpack, StopsABombAtItsClaimedSize) {
  expect_refused(pack(GetParam(), Bytes(64 << 20)), 4096,
                 "the packed kernel isn't of the size it claims");
}

TEST_P(Unpack, RefusesAPackedKernelCutShort) {
  const Bytes packed = pack(GetParam(), plain);
  for (std::size_t size = 8; size < packed.size(); size += 37) {
    Bytes cut(packed.begin(), packed.begin() + static_cast<std::ptrdiff_t>(size));
    Bytes to(plain.size());
    EXPECT_FALSE(unpack_to(cut, to)) << size;
  }
}

TEST_P(Unpack, NoticesDamageAnywhereThatMatters) {
  const Bytes packed = pack(GetParam(), plain);
  std::size_t missed = 0;
  std::size_t tried = 0;
  for (std::size_t at = 4; at < packed.size() - 4; at += 11) {
    Bytes damaged = packed;
    damaged[at] ^= std::byte{0x55};
    Bytes to(plain.size());
    ++tried;
    if (unpack_to(damaged, to) && to != plain) ++missed;
  }
  // lz4's legacy format has no checksum.
  if (GetParam() != Codec::lz4) {
    EXPECT_EQ(missed, 0u) << "of " << tried;
  }
}

// The lengths of lz4's blocks are the one thing that isn't left to a library.
TEST(UnpackFormats, RefusesLz4BlocksThatLie) {
  const auto expect_damaged = [](const Bytes& packed, std::uint64_t at) {
    const Bytes file = test::bzimage(packed);
    Bytes to(plain.size());
    const auto done = unpack(parse_bzimage(file).value(), to);
    ASSERT_FALSE(done);
    EXPECT_STREQ(done.error().reason, "the packed kernel is damaged or cut short");
    EXPECT_EQ(done.error().offset, payload_at + at);
  };
  const Bytes good = pack(Codec::lz4, plain);
  for (const std::uint32_t length :
       {static_cast<std::uint32_t>(good.size() - 11), 0x7fffffffu, 0x80000000u, 0xffffffffu}) {
    Bytes packed = good;
    poke(packed, 4, length);
    expect_damaged(packed, 4);
  }
  Bytes packed = good;  // A length of which half is missing.
  packed.insert(packed.end() - 4, 2, std::byte{1});
  expect_damaged(packed, packed.size() - 4);
}

TEST(UnpackFormats, RefusesTheOthersByName) {
  const auto reason_of = [](std::string_view magic) {
    Bytes payload(64);
    std::memcpy(payload.data(), magic.data(), magic.size());
    const Bytes file = test::bzimage(payload);
    Bytes to(16);
    const auto done = unpack(parse_bzimage(file).value(), to);
    EXPECT_FALSE(done);
    EXPECT_EQ(done.error().offset, payload_at);
    return std::string(done.error().reason);
  };
  using namespace std::string_view_literals;
  EXPECT_EQ(reason_of("BZh9"), "packed with bzip2, which isn't supported");
  EXPECT_EQ(reason_of("\x5d\0\0\x80"sv), "packed with lzma, which isn't supported");
  EXPECT_EQ(reason_of("\x89LZO\0"sv), "packed with lzo, which isn't supported");
  EXPECT_EQ(reason_of(""), "packed in a way that isn't known");
}

// xz's own answer to a hostile header: a dictionary of 1.5 GiB isn't allocated.
TEST(UnpackFormats, RefusesADictionaryBeyondTheLimit) {
  lzma_options_lzma options;
  lzma_lzma_preset(&options, 0);
  lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, nullptr}};
  Bytes packed(4096);
  std::size_t size = 0;
  const std::array<std::uint8_t, 64> zeros{};
  // The encoder would allocate as much; only the header is to claim it.
  options.dict_size = 1u << 16;
  ASSERT_EQ(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, nullptr, zeros.data(),
                                      zeros.size(), reinterpret_cast<std::uint8_t*>(packed.data()),
                                      &size, packed.size()),
            LZMA_OK);
  packed.resize(size + 4);
  poke(packed, size, std::uint32_t{zeros.size()});
  // Block header at 12: size, flags, filter id 0x21, 1 byte of properties: the dictionary. CRC32.
  std::size_t at = 12;
  while (packed[at] != std::byte{0x21}) ++at;
  packed[at + 2] = std::byte{37};  // 1.5 GiB
  const std::size_t header_size = (std::to_integer<std::size_t>(packed[12]) + 1) * 4;
  poke(packed, 12 + header_size - 4,
       lzma_crc32(reinterpret_cast<const std::uint8_t*>(packed.data()) + 12, header_size - 4, 0));
  const Bytes file = test::bzimage(packed);
  Bytes to(zeros.size());
  const auto done = unpack(parse_bzimage(file).value(), to);
  ASSERT_FALSE(done);
  EXPECT_STREQ(done.error().reason, "unpacking the kernel takes over 160 MiB");
}

}  // namespace
}  // namespace linux_loader
