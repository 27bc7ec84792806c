// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/bzimage.hpp"

#include <algorithm>

#include "bytes.hpp"
#include "vmm_base/result.hpp"

namespace linux_loader {
namespace {

// Where the fields stand in the file: boot.rst, "The Real-Mode Kernel Header".
namespace field {
constexpr std::uint64_t setup_sects = 0x1f1;
constexpr std::uint64_t syssize = 0x1f4;
constexpr std::uint64_t boot_flag = 0x1fe;
constexpr std::uint64_t header_length = 0x201;
constexpr std::uint64_t header = 0x202;
constexpr std::uint64_t version = 0x206;
constexpr std::uint64_t loadflags = 0x211;
constexpr std::uint64_t initrd_addr_max = 0x22c;
constexpr std::uint64_t xloadflags = 0x236;
constexpr std::uint64_t cmdline_size = 0x238;
constexpr std::uint64_t payload_offset = 0x248;
constexpr std::uint64_t payload_length = 0x24c;
constexpr std::uint64_t pref_address = 0x258;
constexpr std::uint64_t init_size = BzImage::init_size_offset;
constexpr std::uint64_t handover_offset = 0x264;  // After the last one that is needed.
}  // namespace field

constexpr std::uint32_t hdrs = 0x53726448;  // "HdrS"
constexpr std::uint16_t oldest_version = 0x20c;
constexpr std::uint8_t loaded_high = 1;
constexpr std::uint16_t kernel_64 = 1;
constexpr std::uint16_t can_be_loaded_above_4g = 2;

}  // namespace

bool is_bzimage(std::span<const std::byte> file) noexcept {
  return within(file, field::header, 4) && read<std::uint16_t>(file, field::boot_flag) == 0xaa55 &&
         read<std::uint32_t>(file, field::header) == hdrs;
}

LoadResult<BzImage> parse_bzimage(std::span<const std::byte> file) {
  if (!within(file, 0, field::handover_offset)) {
    return LoadError{"the file ends within the setup header", file.size()};
  }
  if (!is_bzimage(file)) return LoadError{"no setup header: not a bzImage", field::header};
  if (read<std::uint16_t>(file, field::version) < oldest_version) {
    return LoadError{"a boot protocol older than 2.12", field::version};
  }
  if ((read<std::uint8_t>(file, field::loadflags) & loaded_high) == 0) {
    return LoadError{"a zImage, which is loaded low", field::loadflags};
  }
  const auto xloadflags = read<std::uint16_t>(file, field::xloadflags);
  if ((xloadflags & kernel_64) == 0) {
    return LoadError{"not for x86-64: no 64-bit entry point", field::xloadflags};
  }
  const std::uint64_t header_end = field::header + read<std::uint8_t>(file, field::header_length);
  constexpr std::uint64_t room_in_boot_params = 0x290;
  if (header_end < field::handover_offset || header_end > room_in_boot_params) {
    return LoadError{"a setup header of a wrong length", field::header_length};
  }
  if (header_end > file.size()) {
    return LoadError{"the file ends within the setup header", file.size()};
  }

  const auto setup_sects = read<std::uint8_t>(file, field::setup_sects);
  const std::uint64_t code_offset = (setup_sects == 0 ? 5u : setup_sects + 1u) * std::uint64_t{512};
  const std::uint64_t code_size = read<std::uint32_t>(file, field::syssize) * std::uint64_t{16};
  if (code_offset > file.size()) {
    return LoadError{"the file ends within the setup code", file.size()};
  }
  if (!within(file, code_offset, code_size)) {
    return LoadError{"the file ends within the kernel's code", file.size()};
  }
  const auto code = file.subspan(code_offset, code_size);

  const std::uint64_t payload_offset = read<std::uint32_t>(file, field::payload_offset);
  const std::uint64_t payload_length = read<std::uint32_t>(file, field::payload_length);
  if (payload_offset > code.size()) {
    return LoadError{"the packed kernel lies outside the code", field::payload_offset};
  }
  if (payload_length < 8 || !within(code, payload_offset, payload_length)) {
    return LoadError{"a packed kernel of a wrong length", field::payload_length};
  }
  const auto payload = code.subspan(payload_offset, payload_length);

  const auto pref_address = read<std::uint64_t>(file, field::pref_address);
  constexpr std::uint64_t lowest = 0x100000;
  constexpr std::uint64_t highest = std::uint64_t{1} << 32;
  if (pref_address < lowest || pref_address >= highest || pref_address % vmm_base::page_size != 0) {
    return LoadError{"a preferred address that isn't a page between 1 MiB and 4 GiB",
                     field::pref_address};
  }
  const std::uint64_t init_size = read<std::uint32_t>(file, field::init_size);
  if (init_size < code.size()) {
    return LoadError{"a kernel that wants less memory than its file has", field::init_size};
  }
  // A kernel that runs above 4 GiB takes its initramfs from anywhere; the field is for old loaders.
  const std::uint64_t initrd_max = (xloadflags & can_be_loaded_above_4g) != 0
                                       ? highest - 1
                                       : read<std::uint32_t>(file, field::initrd_addr_max);
  return BzImage{
      file.subspan(field::setup_sects, header_end - field::setup_sects),
      code,
      payload,
      code_offset + payload_offset,
      read<std::uint32_t>(payload, payload.size() - 4),
      {pref_address},
      init_size,
      read<std::uint32_t>(file, field::cmdline_size),
      {initrd_max},
  };
}

}  // namespace linux_loader
