// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Small kernels of the real shape for the tests, and guest memory that watches what is done to it.
#pragma once

#include <elf.h>
#define ZLIB_CONST
#include <lz4.h>
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "linux_loader/guest_memory.hpp"
#include "vmm_base/guest_address.hpp"

namespace linux_loader::test {

using Bytes = std::vector<std::byte>;
using vmm_base::Gpa;

template <class T>
void poke(Bytes& bytes, std::size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof value);
}
template <class T>
T peek(std::span<const std::byte> bytes, std::size_t at) {
  T value{};
  std::memcpy(&value, bytes.data() + at, sizeof value);
  return value;
}

// RAM from 0 on, filled with 0xaa. Not mapped for the loader, but as MappedRam.
class Ram {
 public:
  explicit Ram(std::uint64_t size = 8 << 20) : bytes_(size, std::byte{0xaa}) {}

  vmm_base::Result<void> write(Gpa to, std::span<const std::byte> data) {
    if (!contains(to, data.size())) return vmm_base::Error{"write", EFAULT, to.value};
    std::memcpy(&bytes_[to.value], data.data(), data.size());
    return vmm_base::success();
  }
  vmm_base::Result<void> fill_zero(Gpa to, std::uint64_t size) {
    if (!contains(to, size)) return vmm_base::Error{"fill_zero", EFAULT, to.value};
    std::memset(&bytes_[to.value], 0, size);
    return vmm_base::success();
  }

  [[nodiscard]] std::span<const std::byte> bytes() const { return bytes_; }
  [[nodiscard]] std::span<const std::byte> at(std::uint64_t address, std::uint64_t size) const {
    return bytes().subspan(address, size);
  }
  template <class T>
  [[nodiscard]] T get(std::uint64_t address) const {
    return peek<T>(bytes_, address);
  }
  [[nodiscard]] std::string text(std::uint64_t address) const {
    return reinterpret_cast<const char*>(&bytes_[address]);
  }
  [[nodiscard]] bool is_untouched() const {
    return bytes_ == Bytes(bytes_.size(), std::byte{0xaa});
  }

 protected:
  [[nodiscard]] bool contains(Gpa to, std::uint64_t size) const {
    return to.value <= bytes_.size() && size <= bytes_.size() - to.value;
  }
  Bytes bytes_;
};

class MappedRam : public Ram {
 public:
  using Ram::Ram;
  std::byte* host(Gpa to, std::uint64_t size) {
    return contains(to, size) ? bytes_.data() + to.value : nullptr;
  }
};

// What a vmlinux is made of. The segments' data is all different, and none of it zero.
struct Vmlinux {
  struct Load {
    std::uint64_t offset, paddr, filesz, memsz;
  };
  // Unpacked 2 MiB below 3 MiB, the first lies where it runs, the second has to move down.
  std::vector<Load> loads{{0x1000, 0x101000, 0x2800, 0x2800}, {0x4000, 0x103800, 0x1234, 0x3000}};
  std::uint64_t entry = 0x101010;
  Bytes notes = note("Linux", 0x100, Bytes(4));

  static constexpr std::uint64_t notes_offset = 0x800;
  static constexpr std::uint64_t tail = 0x777;  // Relocations and the like follow the segments.

  static Bytes note(std::string_view owner, std::uint32_t type, const Bytes& value,
                    std::uint64_t align = 4) {
    const auto padded = [&](std::size_t size) { return (size + align - 1) / align * align; };
    Bytes bytes(12 + padded(owner.size() + 1) + padded(value.size()));
    poke(bytes, 0, static_cast<std::uint32_t>(owner.size() + 1));
    poke(bytes, 4, static_cast<std::uint32_t>(value.size()));
    poke(bytes, 8, type);
    std::memcpy(bytes.data() + 12, owner.data(), owner.size());
    std::copy(value.begin(), value.end(),
              bytes.begin() + static_cast<std::ptrdiff_t>(12 + padded(owner.size() + 1)));
    return bytes;
  }
  static Bytes pvh_note(std::uint64_t entry, std::size_t size = 8) {
    Bytes value(8);
    poke(value, 0, entry);
    value.resize(size);
    return note("Xen", 18, value);
  }
  Vmlinux& with_pvh(std::uint64_t at = 0x101020) {
    const Bytes more = pvh_note(at);
    notes.insert(notes.end(), more.begin(), more.end());
    return *this;
  }

  [[nodiscard]] static std::byte content(std::uint64_t offset) {
    return std::byte(offset % 251 + 1);
  }

  [[nodiscard]] Bytes bytes() const {
    std::uint64_t size = notes_offset + notes.size();
    for (const Load& load : loads) size = std::max(size, load.offset + load.filesz);
    Bytes file(size + tail);
    for (std::size_t i = 0x400; i < file.size(); ++i) file[i] = content(i);
    Elf64_Ehdr header{};
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_ident[EI_DATA] = ELFDATA2LSB;
    header.e_ident[EI_VERSION] = EV_CURRENT;
    header.e_type = ET_EXEC;
    header.e_machine = EM_X86_64;
    header.e_version = EV_CURRENT;
    header.e_entry = entry;
    header.e_phoff = sizeof header;
    header.e_phentsize = sizeof(Elf64_Phdr);
    header.e_phnum = static_cast<Elf64_Half>(loads.size() + 1);
    poke(file, 0, header);
    std::size_t at = sizeof header;
    for (const Load& load : loads) {
      Elf64_Phdr segment{};
      segment.p_type = PT_LOAD;
      segment.p_offset = load.offset;
      segment.p_paddr = load.paddr;
      segment.p_vaddr = 0xffffffff80000000 + load.paddr;
      segment.p_filesz = load.filesz;
      segment.p_memsz = load.memsz;
      poke(file, at, segment);
      at += sizeof segment;
    }
    Elf64_Phdr segment{};
    segment.p_type = PT_NOTE;
    segment.p_offset = notes_offset;
    segment.p_filesz = notes.size();
    segment.p_align = 4;
    poke(file, at, segment);
    std::copy(notes.begin(), notes.end(), file.begin() + notes_offset);
    return file;
  }
};

enum class Codec { gzip, xz, zstd, lz4 };

inline Bytes pack(Codec codec, std::span<const std::byte> plain) {
  Bytes packed(plain.size() + plain.size() / 2 + 65536);
  const auto* from = reinterpret_cast<const std::uint8_t*>(plain.data());
  auto* to = reinterpret_cast<std::uint8_t*>(packed.data());
  std::size_t size = 0;
  switch (codec) {
    case Codec::gzip: {
      z_stream stream{};
      deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
      stream.next_in = from;
      stream.avail_in = static_cast<uInt>(plain.size());
      stream.next_out = to;
      stream.avail_out = static_cast<uInt>(packed.size());
      deflate(&stream, Z_FINISH);
      size = stream.total_out;
      deflateEnd(&stream);
      packed.resize(size);
      return packed;  // Its last 4 bytes are the size.
    }
    case Codec::xz:
      lzma_easy_buffer_encode(0, LZMA_CHECK_CRC32, nullptr, from, plain.size(), to, &size,
                              packed.size());
      break;
    case Codec::zstd: {
      // As Linux packs: with a checksum.
      ZSTD_CCtx* context = ZSTD_createCCtx();
      ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
      size = ZSTD_compress2(context, to, packed.size(), from, plain.size());
      ZSTD_freeCCtx(context);
      break;
    }
    case Codec::lz4: {
      constexpr std::size_t block = 8 << 20;
      poke(packed, 0, std::uint32_t{0x184c2102});
      size = 4;
      for (std::size_t at = 0; at < plain.size(); at += block) {
        const int length = static_cast<int>(std::min(block, plain.size() - at));
        const int written = LZ4_compress_default(reinterpret_cast<const char*>(from + at),
                                                 reinterpret_cast<char*>(to + size + 4), length,
                                                 static_cast<int>(packed.size() - size - 4));
        poke(packed, size, static_cast<std::uint32_t>(written));
        size += 4 + static_cast<std::size_t>(written);
      }
      break;
    }
  }
  packed.resize(size + 4);
  poke(packed, size, static_cast<std::uint32_t>(plain.size()));
  return packed;
}

// A bzImage round a packed kernel: one sector of setup code after the first, then a decompressor of
// 0x300 bytes, then the payload.
inline Bytes bzimage(const Bytes& payload, std::uint64_t pref_address = 0x300000) {
  constexpr std::size_t code = 1024;
  constexpr std::size_t payload_offset = 0x300;
  const std::size_t code_size = (payload_offset + payload.size() + 15) / 16 * 16;
  Bytes file(code + code_size);
  for (std::size_t i = code; i < file.size(); ++i) file[i] = Vmlinux::content(i);
  poke(file, 0x1f1, std::uint8_t{1});
  poke(file, 0x1f4, static_cast<std::uint32_t>(code_size / 16));
  poke(file, 0x1fe, std::uint16_t{0xaa55});
  poke(file, 0x201, std::uint8_t{0x6a});
  poke(file, 0x202, std::uint32_t{0x53726448});
  poke(file, 0x206, std::uint16_t{0x20f});
  poke(file, 0x211, std::uint8_t{1});
  poke(file, 0x22c, std::uint32_t{0x7fffffff});
  poke(file, 0x230, std::uint32_t{0x200000});
  poke(file, 0x236, std::uint16_t{0x7f});
  poke(file, 0x238, std::uint32_t{2047});
  poke(file, 0x248, static_cast<std::uint32_t>(payload_offset));
  poke(file, 0x24c, static_cast<std::uint32_t>(payload.size()));
  poke(file, 0x258, pref_address);
  poke(file, 0x260, static_cast<std::uint32_t>((code_size + 0xffff) / 0x10000 * 0x10000));
  std::copy(payload.begin(), payload.end(), file.begin() + code + payload_offset);
  return file;
}

}  // namespace linux_loader::test
