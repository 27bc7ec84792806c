// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// load_linux() on any bytes, and on kernels of the real shape of which any field is another, also
// inside the packed one; with any initramfs, command line and memory map. Nothing is written but
// RAM of the map from 1 MiB on, and the loader's own place below; whether the memory is mapped for
// the loader or not, memory and registers come out the same; the initramfs is there in the end.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "../tests/fake_kernel.hpp"
#include "linux_loader/boot.hpp"
#include "must.hpp"

namespace linux_loader {
namespace {

using test::Bytes;
using test::Codec;
using test::Vmlinux;
using vmm_base::Gpa;

constexpr std::uint64_t ram_size = 4 << 20;

// Zeros, until they are written; only that is cleared afterwards.
class WatchedRam {
 public:
  explicit WatchedRam(std::vector<std::byte>& bytes, std::span<const MemoryRange> map)
      : bytes_(bytes), map_(map) {}
  WatchedRam(const WatchedRam&) = delete;
  WatchedRam& operator=(const WatchedRam&) = delete;
  ~WatchedRam() {
    for (const auto& [at, size] : written_) std::fill_n(&bytes_[at], size, std::byte{0});
  }

  vmm_base::Result<void> write(Gpa to, std::span<const std::byte> data) {
    if (!may_write(to, data.size())) return vmm_base::Error{"write", EFAULT, to.value};
    std::memcpy(&bytes_[to.value], data.data(), data.size());
    return vmm_base::success();
  }
  vmm_base::Result<void> fill_zero(Gpa to, std::uint64_t size) {
    if (!may_write(to, size)) return vmm_base::Error{"fill_zero", EFAULT, to.value};
    std::memset(&bytes_[to.value], 0, size);
    return vmm_base::success();
  }

  [[nodiscard]] bool equals(const WatchedRam& other) const {
    const auto same = [&](const auto& piece) {
      return std::memcmp(&bytes_[piece.first], &other.bytes_[piece.first], piece.second) == 0;
    };
    return std::all_of(written_.begin(), written_.end(), same) &&
           std::all_of(other.written_.begin(), other.written_.end(), same);
  }
  [[nodiscard]] std::span<const std::byte> at(std::uint64_t address, std::uint64_t size) const {
    MUST(address <= bytes_.size() && size <= bytes_.size() - address);
    return std::span(bytes_).subspan(address, size);
  }

 protected:
  bool may_write(Gpa to, std::uint64_t size) {
    MUST(size != 0 && to.value <= ~std::uint64_t{0} - size);
    const bool low = to.value >= 0x500 && to.value + size <= 0x21000;
    MUST(low || (to >= high_memory && is_ram(to.value, to.value + size)));
    if (to.value + size > bytes_.size()) return false;
    written_.emplace_back(to.value, size);
    return true;
  }
  std::byte* mapped(Gpa to) { return &bytes_[to.value]; }

 private:
  // Whole, in one range of the map.
  [[nodiscard]] bool is_ram(std::uint64_t start, std::uint64_t end) const {
    return std::any_of(map_.begin(), map_.end(), [&](const MemoryRange& range) {
      return range.type == MemoryType::ram && range.start.value <= start &&
             end <= range.start.value + range.size;
    });
  }

  std::vector<std::byte>& bytes_;
  std::span<const MemoryRange> map_;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> written_;
};
struct MappedWatchedRam : WatchedRam {
  using WatchedRam::WatchedRam;
  std::byte* host(Gpa to, std::uint64_t size) { return may_write(to, size) ? mapped(to) : nullptr; }
};

void spoil(FuzzedDataProvider& input, Bytes& file) {
  const int pokes = input.ConsumeIntegralInRange(0, 8);
  for (int poke = 0; poke < pokes; ++poke) {
    // Mostly the headers: ELF's, or the setup header.
    const std::size_t at = input.ConsumeBool() ? input.ConsumeIntegralInRange<std::size_t>(0, 0x100)
                           : input.ConsumeBool()
                               ? input.ConsumeIntegralInRange<std::size_t>(0x1f0, 0x26b)
                               : input.ConsumeIntegral<std::uint16_t>();
    const auto width = std::size_t{1} << input.ConsumeIntegralInRange(0, 3);
    std::uint64_t value = input.ConsumeIntegral<std::uint8_t>();
    value = value < 0xc0 ? value << input.ConsumeIntegralInRange(0, 56)
                         : input.ConsumeIntegral<std::uint64_t>();
    if (at + width <= file.size()) std::memcpy(file.data() + at, &value, width);
  }
  if (input.ConsumeIntegral<std::uint8_t>() == 0xff) {
    file.resize(input.ConsumeIntegralInRange<std::size_t>(0, file.size()));
  }
  file.shrink_to_fit();
}

Bytes any_kernel(FuzzedDataProvider& input) {
  static const Bytes plain = Vmlinux().bytes();
  static const Bytes pvh = Vmlinux().with_pvh().bytes();
  static const std::array<Bytes, 4> packed{
      test::bzimage(pack(Codec::gzip, pvh)), test::bzimage(pack(Codec::xz, pvh)),
      test::bzimage(pack(Codec::zstd, pvh)), test::bzimage(pack(Codec::lz4, pvh))};
  const auto kind = input.ConsumeIntegralInRange<std::size_t>(0, 8);
  Bytes file;
  if (kind < packed.size()) {
    file = packed[kind];
  } else if (kind == 4) {
    file = plain;
  } else if (kind == 5) {
    file = pvh;
  } else if (kind == 6) {
    file = input.ConsumeRemainingBytes<std::byte>();
    return file;
  } else {  // spoilt first, packed then
    file = pvh;
    spoil(input, file);
    file = test::bzimage(pack(Codec::lz4, file), kind == 7 ? 0x300000 : 0x100000);
  }
  spoil(input, file);
  return file;
}

std::vector<MemoryRange> any_map(FuzzedDataProvider& input) {
  std::vector<MemoryRange> map = pc_memory_map(ram_size);
  const int others = input.ConsumeIntegralInRange(0, 3);
  if (input.ConsumeIntegral<std::uint8_t>() >= 0xf0) map.clear();
  for (int i = 0; i < others; ++i) {
    const std::uint64_t start = input.ConsumeBool()
                                    ? input.ConsumeIntegralInRange<std::uint64_t>(0, 5 << 8) << 12
                                    : input.ConsumeIntegral<std::uint64_t>();
    const std::uint64_t size = input.ConsumeBool()
                                   ? input.ConsumeIntegralInRange<std::uint64_t>(0, 4 << 8) << 12
                                   : input.ConsumeIntegral<std::uint64_t>();
    const auto type = static_cast<MemoryType>(input.ConsumeIntegralInRange(1, 2));
    map.push_back({{start}, size, type});
  }
  return map;
}

bool equal(const SegmentRegister& a, const SegmentRegister& b) {
  return a.base == b.base && a.limit == b.limit && a.selector == b.selector && a.type == b.type &&
         a.s == b.s && a.dpl == b.dpl && a.present == b.present && a.l == b.l && a.db == b.db &&
         a.g == b.g;
}
bool equal(const CpuState& a, const CpuState& b) {
  return a.rip == b.rip && a.rbx == b.rbx && a.rsi == b.rsi && a.rflags == b.rflags &&
         a.cr0 == b.cr0 && a.cr3 == b.cr3 && a.cr4 == b.cr4 && a.efer == b.efer &&
         equal(a.code, b.code) && equal(a.data, b.data) && equal(a.task, b.task) &&
         a.gdt_base == b.gdt_base && a.gdt_limit == b.gdt_limit;
}

void check_initramfs(const WatchedRam& ram, const LinuxConfig& config) {
  if (config.initramfs.empty()) return;
  std::uint64_t at = 0;
  if (config.entry == Entry::pvh) {
    const auto modules = test::peek<std::uint64_t>(ram.at(start_info_gpa.value + 16, 8), 0);
    at = test::peek<std::uint64_t>(ram.at(modules, 8), 0);
  } else {
    at = test::peek<std::uint32_t>(ram.at(boot_params_gpa.value + 0x218, 4), 0);
  }
  MUST(at % vmm_base::page_size == 0 && at >= high_memory.value);
  const auto there = ram.at(at, config.initramfs.size());
  MUST(std::equal(there.begin(), there.end(), config.initramfs.begin()));
}

void run(FuzzedDataProvider& input) {
  static std::vector<std::byte> plain_bytes(ram_size);
  static std::vector<std::byte> mapped_bytes(ram_size);
  const Entry entry =
      input.PickValueInArray<Entry>({Entry::pvh, Entry::linux64, Entry::decompressor});
  const std::vector<MemoryRange> map = any_map(input);
  const std::string cmdline = input.ConsumeRandomLengthString(input.ConsumeBool() ? 16 : 4096);
  std::size_t initramfs_size = input.ConsumeIntegral<std::uint16_t>();
  if (initramfs_size >= 0xf000)
    initramfs_size = input.ConsumeIntegralInRange<std::size_t>(0, 3 << 20);
  const Bytes initramfs(initramfs_size & 1 ? initramfs_size : 0, std::byte{0x77});
  const Bytes kernel = any_kernel(input);
  const LinuxConfig config{.kernel = kernel,
                           .initramfs = initramfs,
                           .cmdline = cmdline,
                           .memory_map = map,
                           .entry = entry};
  WatchedRam plain(plain_bytes, map);
  MappedWatchedRam mapped(mapped_bytes, map);
  const auto state = load_linux(plain, config);
  const auto mapped_state = load_linux(mapped, config);
  MUST(state.has_value() == mapped_state.has_value());
  if (!state) {
    MUST(state.error().message() == mapped_state.error().message());
    return;
  }
  MUST(equal(state.value(), mapped_state.value()));
  MUST(plain.equals(mapped));
  MUST(state.value().rip >= high_memory.value && state.value().rip < above_4g.value);
  check_initramfs(plain, config);
  MUST(std::memcmp(plain.at(cmdline_gpa.value, cmdline.size() + 1).data(), cmdline.c_str(),
                   cmdline.size() + 1) == 0);
}

}  // namespace
}  // namespace linux_loader

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  linux_loader::run(input);
  return 0;
}
