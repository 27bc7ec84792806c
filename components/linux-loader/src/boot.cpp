// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "linux_loader/boot.hpp"

#include <asm/bootparam.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "linux_loader/bzimage.hpp"
#include "linux_loader/elf.hpp"
#include "pvh_abi.hpp"
#include "scratch.hpp"

namespace linux_loader {
namespace {

using vmm_base::Gpa;
using vmm_base::page_size;

constexpr Gpa gdt_gpa{0x500};
constexpr Gpa modules_gpa = start_info_gpa + sizeof(pvh::StartInfo);
constexpr Gpa pvh_map_gpa = start_info_gpa + 0x100;
constexpr Gpa page_tables_gpa{0x9000};  // Six pages.

// Linux's COMMAND_LINE_SIZE without the zero, for a vmlinux, which doesn't say.
constexpr std::uint64_t default_cmdline_size = 2047;
// Both ways of telling leave room for 128 ranges; at the PVH entry, Linux adds one of its own.
constexpr std::size_t max_ranges = 127;

// The page that we keep for it.
constexpr std::uint64_t max_cmdline_size = page_size - 1;
constexpr const char* cmdline_name = "command line";

// A kernel in guest memory.
struct Kernel {
  Gpa entry;
  Gpa start;
  Gpa end;  // The first byte after all that it may touch before it knows its memory map.
};

bool is_ram(std::span<const MemoryRange> map, Gpa start, std::uint64_t size) {
  return std::any_of(map.begin(), map.end(), [&](const MemoryRange& range) {
    return range.type == MemoryType::ram && range.start <= start &&
           start.value - range.start.value <= range.size &&
           size <= range.size - (start.value - range.start.value);
  });
}

LoadResult<void> check_segments(const Elf& elf, std::span<const MemoryRange> map) {
  for (const Segment& segment : elf.segments) {
    if (segment.address < high_memory) {
      return LoadError{"a segment below 1 MiB", segment.paddr_offset};
    }
    if (!is_ram(map, segment.address, segment.end().value - segment.address.value)) {
      return LoadError{"a segment outside RAM", segment.paddr_offset};
    }
  }
  return vmm_base::success();
}

// Whether each segment can be moved to its address from where it lies in `file`, which is guest
// memory at `at`, in the order of the file: only downwards, and over nothing still to be moved.
bool can_move_in_place(const Elf& elf, std::span<const std::byte> file, Gpa at) {
  std::uint64_t file_end = 0;
  for (const Segment& segment : elf.segments) {
    if (segment.data.empty()) continue;
    const auto offset = static_cast<std::uint64_t>(segment.data.data() - file.data());
    if (offset < file_end || segment.address > at + offset) return false;
    file_end = offset + segment.data.size();
  }
  return true;
}

// The file is guest memory at `at`; leaves there nothing but the segments.
LoadResult<void> move_in_place(GuestMemoryRef memory, const Elf& elf, std::span<std::byte> file,
                               Gpa at) {
  for (const Segment& segment : elf.segments) {
    if (segment.data.empty()) continue;
    std::byte* to = memory.host(segment.address, segment.data.size());
    if (to == nullptr) {
      return LoadError{"guest memory refuses the segment", segment.paddr_offset};
    }
    if (to != segment.data.data()) std::memmove(to, segment.data.data(), segment.data.size());
  }
  std::vector<Segment> ascending = elf.segments;
  std::sort(ascending.begin(), ascending.end(),
            [](const Segment& a, const Segment& b) { return a.address < b.address; });
  Gpa rest = at;
  const Gpa end = at + file.size();
  const auto clear_until = [&](Gpa until) {
    until = std::min(until, end);
    if (until <= rest) return true;
    return static_cast<bool>(memory.fill_zero(rest, until.value - rest.value));
  };
  for (const Segment& segment : ascending) {
    if (!clear_until(segment.address) ||
        (segment.zeros != 0 &&
         !memory.fill_zero(segment.address + segment.data.size(), segment.zeros))) {
      return LoadError{"guest memory refuses the segment", segment.paddr_offset};
    }
    rest = std::max(rest, segment.end());
  }
  if (!clear_until(end)) return LoadError{"guest memory refuses the segment", 0};
  return vmm_base::success();
}

LoadResult<void> write_segments(GuestMemoryRef memory, const Elf& elf) {
  for (const Segment& segment : elf.segments) {
    if ((!segment.data.empty() && !memory.write(segment.address, segment.data)) ||
        (segment.zeros != 0 &&
         !memory.fill_zero(segment.address + segment.data.size(), segment.zeros))) {
      return LoadError{"guest memory refuses the segment", segment.paddr_offset};
    }
  }
  return vmm_base::success();
}

LoadResult<Elf> parse_vmlinux(std::span<const std::byte> file, const LinuxConfig& config) {
  VMM_TRY(elf, config.entry == Entry::pvh ? parse_pvh_elf(file) : parse_elf(file));
  VMM_CHECK(check_segments(elf, config.memory_map));
  return std::move(elf);
}

Kernel placed(const Elf& elf) {
  Gpa start = elf.image.end;
  for (const Segment& segment : elf.segments) start = std::min(start, segment.address);
  return {elf.image.entry, start, elf.image.end};
}

LoadResult<Kernel> load_vmlinux(GuestMemoryRef memory, std::span<const std::byte> file,
                                const LinuxConfig& config) {
  VMM_TRY(elf, parse_vmlinux(file, config));
  VMM_CHECK(write_segments(memory, elf));
  return placed(elf);
}

// The kernel in a bzImage, unpacked and put where it is to run.
LoadResult<Kernel> load_packed(GuestMemoryRef memory, const BzImage& image,
                               const LinuxConfig& config) {
  const auto named = [](LoadError error) {
    error.file = "unpacked kernel";
    return error;
  };
  // vmlinux's segments start 2 MiB into the file: unpacked so far below its address, most or all of
  // it lies where it belongs at once.
  constexpr std::uint64_t first_segment = 2 << 20;
  const std::uint64_t size = image.unpacked_size;
  const std::uint64_t size_offset = image.payload_offset + image.payload.size() - 4;
  if (size == 0) return LoadError{"a packed kernel of no size", size_offset};
  if (image.pref_address.value >= high_memory.value + first_segment) {
    const Gpa at{image.pref_address.value - first_segment};
    std::byte* host = is_ram(config.memory_map, at, size) ? memory.host(at, size) : nullptr;
    if (host != nullptr) {
      const std::span<std::byte> file(host, size);
      VMM_CHECK(unpack(image, file));
      auto elf = parse_vmlinux(file, config);
      if (!elf) return named(elf.error());
      if (can_move_in_place(elf.value(), file, at)) {
        if (auto moved = move_in_place(memory, elf.value(), file, at); !moved) {
          return named(moved.error());
        }
        return placed(elf.value());
      }
      if (!memory.fill_zero(at, size)) {
        return named(LoadError{"guest memory refuses the segment", 0});
      }
    }
  }

  // Memory that isn't mapped, little of it, or an unusual kernel.
  std::uint64_t ram = 0;
  for (const MemoryRange& range : config.memory_map) {
    if (range.type == MemoryType::ram) ram += range.size;
  }
  if (size > ram) return LoadError{"the unpacked kernel is larger than RAM", size_offset};
  const Scratch scratch(size);
  if (scratch.bytes().empty()) {
    return LoadError{"the host has no memory to unpack the kernel", size_offset};
  }
  VMM_CHECK(unpack(image, scratch.bytes()));
  auto kernel = load_vmlinux(memory, scratch.bytes(), config);
  if (!kernel) return named(kernel.error());
  return kernel;
}

LoadResult<Kernel> load_bzimage(GuestMemoryRef memory, const BzImage& image,
                                const LinuxConfig& config) {
  const Gpa start = image.pref_address;
  const Gpa end = start + image.init_size;
  if (!is_ram(config.memory_map, start, image.init_size)) {
    return LoadError{"the kernel wants more RAM than there is", BzImage::init_size_offset};
  }
  if (config.entry == Entry::decompressor) {
    if (!memory.write(start, image.code)) {
      return LoadError{"guest memory refuses the kernel", BzImage::init_size_offset};
    }
    constexpr std::uint64_t entry_64 = 0x200;
    return Kernel{start + entry_64, start, end};
  }
  VMM_TRY(kernel, load_packed(memory, image, config));
  return Kernel{kernel.entry, std::min(kernel.start, start), std::max(kernel.end, end)};
}

// The highest place for the initramfs, below `limit` and clear of the kernel.
LoadResult<Gpa> place_initramfs(std::uint64_t size, const Kernel& kernel, Gpa limit,
                                std::span<const MemoryRange> map) {
  std::optional<Gpa> best;
  std::uint64_t largest = 0;
  const auto try_room = [&](Gpa start, Gpa end) {
    start.value = (std::max(start, high_memory).value + page_size - 1) / page_size * page_size;
    if (end <= start) return;
    largest = std::max(largest, end.value - start.value);
    if (size > end.value - start.value) return;
    const Gpa place{(end.value - size) / page_size * page_size};
    if (!best || *best < place) best = place;
  };
  for (const MemoryRange& range : map) {
    if (range.type != MemoryType::ram || range.start >= limit) continue;
    const Gpa end{range.start.value + std::min(range.size, limit.value - range.start.value)};
    try_room(range.start, std::min(end, kernel.start));
    try_room(std::max(range.start, kernel.end), end);
  }
  if (!best) return LoadError{"RAM below 4 GiB has no room for more", largest, "initramfs"};
  return *best;
}

LoadResult<void> check_cmdline(std::string_view cmdline, std::uint64_t limit) {
  if (cmdline.size() > limit) return LoadError{"longer than the kernel takes", limit, cmdline_name};
  if (const auto zero = cmdline.find('\0'); zero != std::string_view::npos) {
    return LoadError{"a zero, which ends it", zero, cmdline_name};
  }
  return vmm_base::success();
}

LoadResult<void> check_memory_map(std::span<const MemoryRange> map) {
  if (map.size() > max_ranges) return LoadError{"more than 127 ranges", max_ranges, "memory map"};
  for (std::size_t i = 0; i < map.size(); ++i) {
    if (map[i].size > std::numeric_limits<std::uint64_t>::max() - map[i].start.value) {
      return LoadError{"a range that wraps around the address space", i, "memory map"};
    }
  }
  return vmm_base::success();
}

// Writes what the loader keeps below 1 MiB.
class LowMemory {
 public:
  explicit LowMemory(GuestMemoryRef memory) : memory_(memory) {}

  template <class T>
  void put(Gpa to, std::span<const T> values) {
    if (!values.empty() && !refused_ && !memory_.write(to, std::as_bytes(values))) refused_ = to;
  }
  template <class T>
  void put(Gpa to, const T& value) {
    put(to, std::span(&value, 1));
  }
  [[nodiscard]] LoadResult<void> result() const {
    if (refused_) return LoadError{"isn't RAM", refused_->value, "guest memory"};
    return vmm_base::success();
  }

 private:
  GuestMemoryRef memory_;
  std::optional<Gpa> refused_;
};

struct Initramfs {
  Gpa at;
  std::uint64_t size;
};

void put_start_info(LowMemory& low, const LinuxConfig& config, Initramfs initramfs) {
  pvh::StartInfo info{};
  info.magic = pvh::magic;
  info.version = 1;
  if (initramfs.size != 0) {
    info.nr_modules = 1;
    info.modlist_paddr = modules_gpa.value;
    low.put(modules_gpa, pvh::Module{initramfs.at.value, initramfs.size, 0, 0});
  }
  info.cmdline_paddr = cmdline_gpa.value;
  info.rsdp_paddr = config.rsdp.value;
  std::vector<pvh::MemoryMapEntry> map;
  for (const MemoryRange& range : config.memory_map) {
    map.push_back({range.start.value, range.size, static_cast<std::uint32_t>(range.type), 0});
  }
  info.memmap_paddr = pvh_map_gpa.value;
  info.memmap_entries = static_cast<std::uint32_t>(map.size());
  low.put(pvh_map_gpa, std::span<const pvh::MemoryMapEntry>(map));
  low.put(start_info_gpa, info);
}

void put_boot_params(LowMemory& low, const LinuxConfig& config,
                     std::span<const std::byte> setup_header, Initramfs initramfs) {
  boot_params params{};
  if (setup_header.empty()) {
    params.hdr.boot_flag = 0xaa55;
    params.hdr.header = 0x53726448;  // "HdrS"
    params.hdr.version = 0x20c;
    params.hdr.kernel_alignment = 2 << 20;
  } else {
    std::memcpy(reinterpret_cast<std::byte*>(&params) + offsetof(boot_params, hdr),
                setup_header.data(), setup_header.size());
  }
  params.hdr.type_of_loader = 0xff;  // None that has a number.
  params.hdr.loadflags |= LOADED_HIGH;
  params.hdr.cmd_line_ptr = static_cast<std::uint32_t>(cmdline_gpa.value);
  params.hdr.ramdisk_image = static_cast<std::uint32_t>(initramfs.at.value);
  params.hdr.ramdisk_size = static_cast<std::uint32_t>(initramfs.size);
  params.acpi_rsdp_addr = config.rsdp.value;
  for (const MemoryRange& range : config.memory_map) {
    params.e820_table[params.e820_entries++] = {range.start.value, range.size,
                                                static_cast<std::uint32_t>(range.type)};
  }
  low.put(boot_params_gpa, params);
}

// The first 4 GiB, mapped to themselves.
void put_page_tables(LowMemory& low) {
  constexpr std::uint64_t present_writable = 0x3;
  constexpr std::uint64_t large_page = 0x80;
  using Table = std::array<std::uint64_t, 512>;
  const Gpa pdpt = page_tables_gpa + page_size;
  Table pml4{};
  pml4[0] = pdpt.value | present_writable;
  low.put(page_tables_gpa, pml4);
  Table gigabytes{};
  for (std::uint64_t gigabyte = 0; gigabyte < 4; ++gigabyte) {
    const Gpa directory = pdpt + (gigabyte + 1) * page_size;
    gigabytes[gigabyte] = directory.value | present_writable;
    Table pages{};
    for (std::uint64_t page = 0; page < pages.size(); ++page) {
      pages[page] = (gigabyte << 30 | page << 21) | present_writable | large_page;
    }
    low.put(directory, pages);
  }
  low.put(pdpt, gigabytes);
}

// Intel SDM, volume 3A, figure 3-8.
constexpr std::uint64_t descriptor(const SegmentRegister& segment) {
  const auto at = [](std::uint64_t field, unsigned bit) { return field << bit; };
  const std::uint32_t limit = segment.g != 0 ? segment.limit >> 12 : segment.limit;
  return at(limit & 0xffff, 0) | at(segment.base & 0xffffff, 16) | at(segment.type, 40) |
         at(segment.s, 44) | at(segment.dpl, 45) | at(segment.present, 47) |
         at(limit >> 16 & 0xf, 48) | at(segment.avl, 52) | at(segment.l, 53) | at(segment.db, 54) |
         at(segment.g, 55) | at(segment.base >> 24 & 0xff, 56);
}

CpuState put_cpu_state(LowMemory& low, Gpa entry, Entry kind) {
  constexpr std::uint8_t read_execute = 11;
  constexpr std::uint8_t read_write = 3;
  constexpr std::uint8_t busy_tss = 11;
  const bool long_mode = kind != Entry::pvh;
  CpuState state{};
  state.rip = entry.value;
  state.rflags = 2;  // Always one; the rest is off.
  // Linux's __BOOT_CS and __BOOT_DS; PVH leaves selectors open.
  state.code = {.limit = 0xffffffff,
                .selector = 0x10,
                .type = read_execute,
                .s = 1,
                .present = 1,
                .l = long_mode,
                .db = !long_mode,
                .g = 1};
  state.data = {.limit = 0xffffffff,
                .selector = 0x18,
                .type = read_write,
                .s = 1,
                .present = 1,
                .db = 1,
                .g = 1};
  state.task = {.limit = 0x67, .type = busy_tss, .present = 1};
  state.cr0 = 0x11;  // ET PE
  if (long_mode) {
    state.rsi = boot_params_gpa.value;
    state.cr0 |= std::uint64_t{1} << 31;  // PG
    state.cr3 = page_tables_gpa.value;
    state.cr4 = 0x20;    // PAE
    state.efer = 0x500;  // LMA LME
  } else {
    state.rbx = start_info_gpa.value;
  }
  const std::array<std::uint64_t, 4> gdt{0, 0, descriptor(state.code), descriptor(state.data)};
  low.put(gdt_gpa, gdt);
  state.gdt_base = gdt_gpa.value;
  state.gdt_limit = sizeof gdt - 1;
  return state;
}

}  // namespace

LoadResult<CpuState> load_linux(GuestMemoryRef memory, const LinuxConfig& config) {
  VMM_CHECK(check_memory_map(config.memory_map));
  std::optional<BzImage> image;
  if (is_bzimage(config.kernel)) {
    VMM_TRY(parsed, parse_bzimage(config.kernel));
    image = parsed;
  } else if (config.entry == Entry::decompressor) {
    return LoadError{"not a bzImage, which alone has a decompressor", 0};
  } else if (!is_elf(config.kernel)) {
    return LoadError{"neither a bzImage nor an ELF file", 0};
  }
  VMM_CHECK(check_cmdline(config.cmdline, image ? std::min(image->cmdline_size, max_cmdline_size)
                                                : default_cmdline_size));

  VMM_TRY(kernel, image ? load_bzimage(memory, *image, config)
                        : load_vmlinux(memory, config.kernel, config));
  Initramfs initramfs{{}, config.initramfs.size()};
  if (initramfs.size != 0) {
    const Gpa limit = image ? image->initrd_max + 1 : above_4g;
    VMM_TRY(place, place_initramfs(initramfs.size, kernel, limit, config.memory_map));
    initramfs.at = place;
    if (!memory.write(place, config.initramfs)) {
      return LoadError{"guest memory refuses it", 0, "initramfs"};
    }
  }

  LowMemory low(memory);
  low.put(cmdline_gpa, std::span(config.cmdline));
  low.put(cmdline_gpa + config.cmdline.size(), '\0');
  if (config.entry == Entry::pvh) {
    put_start_info(low, config, initramfs);
  } else {
    put_boot_params(low, config, image ? image->setup_header : std::span<const std::byte>(),
                    initramfs);
    put_page_tables(low);
  }
  const CpuState state = put_cpu_state(low, kernel.entry, config.entry);
  VMM_CHECK(low.result());
  return state;
}

}  // namespace linux_loader
