// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// How Linux packs vmlinux into a bzImage: scripts/Makefile.lib, arch/x86/boot/compressed/Makefile.
#define ZLIB_CONST  // its input is const
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstring>
#include <string_view>

#include "bytes.hpp"
#include "linux_loader/bzimage.hpp"
#include "vmm_base/result.hpp"

namespace linux_loader {
namespace {

using Packed = std::span<const std::byte>;

// What a codec answers: null, or what went wrong, and after how many bytes of the packed kernel.
struct Outcome {
  const char* reason = nullptr;
  std::size_t consumed = 0;
};
constexpr const char* damaged = "the packed kernel is damaged or cut short";
constexpr const char* wrong_size = "the packed kernel isn't of the size it claims";
constexpr const char* no_memory = "the host has no memory to unpack the kernel";

Outcome gunzip(Packed from, std::span<std::byte> to) {
  z_stream stream{};
  constexpr int gzip_format = 16 + MAX_WBITS;
  if (inflateInit2(&stream, gzip_format) != Z_OK) return {no_memory};
  // Both sizes are of 32 bits in the image.
  stream.next_in = reinterpret_cast<const Bytef*>(from.data());
  stream.avail_in = static_cast<uInt>(from.size());
  stream.next_out = reinterpret_cast<Bytef*>(to.data());
  stream.avail_out = static_cast<uInt>(to.size());
  const int status = inflate(&stream, Z_FINISH);
  inflateEnd(&stream);
  const Outcome at{nullptr, from.size() - stream.avail_in};
  if (status == Z_STREAM_END && stream.avail_out == 0) return at;
  if (status == Z_MEM_ERROR) return {no_memory, at.consumed};
  if (status == Z_STREAM_END || stream.avail_out == 0) return {wrong_size, at.consumed};
  return {damaged, at.consumed};
}

Outcome unxz(Packed from, std::span<std::byte> to) {
  std::uint64_t memory_limit = std::uint64_t{160} << 20;  // Linux 7 packs with 128 MiB.
  std::size_t in = 0;
  std::size_t out = 0;
  const lzma_ret status = lzma_stream_buffer_decode(
      &memory_limit, LZMA_TELL_UNSUPPORTED_CHECK, nullptr,
      reinterpret_cast<const std::uint8_t*>(from.data()), &in, from.size(),
      reinterpret_cast<std::uint8_t*>(to.data()), &out, to.size());
  if (status == LZMA_OK && out == to.size()) return {nullptr, in};
  if (status == LZMA_OK || status == LZMA_BUF_ERROR) return {wrong_size, in};
  if (status == LZMA_MEM_ERROR) return {no_memory, in};
  if (status == LZMA_MEMLIMIT_ERROR) return {"unpacking the kernel takes over 160 MiB", in};
  return {damaged, in};
}

Outcome unzstd(Packed from, std::span<std::byte> to) {
  // At one go, so that no window is needed, however large the frame wants it.
  const std::size_t size = ZSTD_decompress(to.data(), to.size(), from.data(), from.size());
  if (size == to.size()) return {nullptr, from.size()};
  if (ZSTD_isError(size) == 0 || ZSTD_getErrorCode(size) == ZSTD_error_dstSize_tooSmall) {
    return {wrong_size};
  }
  return {ZSTD_getErrorCode(size) == ZSTD_error_memory_allocation ? no_memory : damaged};
}

// lz4's legacy format: after the magic number, blocks that each unpack to 8 MiB, the last to less.
Outcome unlz4(Packed from, std::span<std::byte> to) {
  constexpr std::size_t block_size = std::size_t{8} << 20;
  std::size_t in = 4;
  std::size_t out = 0;
  while (in != from.size()) {
    if (!within(from, in, 4)) return {damaged, from.size()};
    const auto packed = read<std::uint32_t>(from, in);
    in += 4;
    if (packed > INT_MAX || !within(from, in, packed)) return {damaged, in - 4};
    const std::size_t room = std::min(block_size, to.size() - out);
    const int size = LZ4_decompress_safe(reinterpret_cast<const char*>(from.data() + in),
                                         reinterpret_cast<char*>(to.data() + out),
                                         static_cast<int>(packed), static_cast<int>(room));
    if (size < 0) return {room < block_size ? wrong_size : damaged, in};
    in += packed;
    out += static_cast<std::size_t>(size);
  }
  return {out == to.size() ? nullptr : wrong_size, in};
}

struct Codec {
  std::string_view magic;
  Outcome (*unpack)(Packed from, std::span<std::byte> to);
  bool size_follows;  // The size stands behind the packed kernel; in gzip it is a part of it.
};

using namespace std::string_view_literals;

constexpr auto refuse_bzip2 = [](Packed, std::span<std::byte>) {
  return Outcome{"packed with bzip2, which isn't supported"};
};
constexpr auto refuse_lzma = [](Packed, std::span<std::byte>) {
  return Outcome{"packed with lzma, which isn't supported"};
};
constexpr auto refuse_lzo = [](Packed, std::span<std::byte>) {
  return Outcome{"packed with lzo, which isn't supported"};
};

constexpr std::array<Codec, 7> codecs{{
    {"\x1f\x8b"sv, gunzip, false},
    {"\xfd"
     "7zXZ\0"sv,
     unxz, true},
    {"\x28\xb5\x2f\xfd"sv, unzstd, true},
    {"\x02\x21\x4c\x18"sv, unlz4, true},
    {"BZh"sv, refuse_bzip2, true},
    {"\x5d\x00\x00"sv, refuse_lzma, true},
    {"\x89LZO"sv, refuse_lzo, true},
}};

}  // namespace

LoadResult<void> unpack(const BzImage& image, std::span<std::byte> to) {
  for (const Codec& codec : codecs) {
    if (image.payload.size() < codec.magic.size() ||
        std::memcmp(image.payload.data(), codec.magic.data(), codec.magic.size()) != 0) {
      continue;
    }
    const auto packed = image.payload.first(image.payload.size() - (codec.size_follows ? 4 : 0));
    const Outcome outcome = codec.unpack(packed, to);
    if (outcome.reason == nullptr) return vmm_base::success();
    return LoadError{outcome.reason, image.payload_offset + outcome.consumed};
  }
  return LoadError{"packed in a way that isn't known", image.payload_offset};
}

}  // namespace linux_loader
