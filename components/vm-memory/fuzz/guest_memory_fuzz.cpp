// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Any reads, writes, fills and pointers, at any address and of any size, on regions that adjoin
// each other or don't: as a model says that has a byte a guest address.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <vector>

#include "must.hpp"
#include "vm_memory/guest_memory.hpp"

namespace vm_memory {
namespace {

constexpr std::uint64_t page = vmm_base::page_size;
constexpr std::uint64_t end_of_physical = std::uint64_t{1} << 52;
// Two neighbours of which the upper is named first, one by itself, and the last there can be.
constexpr std::array<GuestMemory::Range, 4> ranges{{{Gpa{2 * page}, page},
                                                    {Gpa{page}, page},
                                                    {Gpa{5 * page}, 2 * page},
                                                    {Gpa{end_of_physical - page}, page}}};

GuestMemory& memory() {
  static GuestMemory made =
      GuestMemory::create({ranges[0], ranges[1], ranges[2], ranges[3]}).value();
  return made;
}

// Every byte of the ranges, in their order, and the first address that isn't one.
struct Model {
  std::array<std::uint8_t, 5 * page> bytes{};

  std::uint8_t* find(std::uint64_t gpa) {
    std::size_t before = 0;
    for (const auto& range : ranges) {
      if (gpa >= range.gpa.value && gpa - range.gpa.value < range.size) {
        return &bytes[before + (gpa - range.gpa.value)];
      }
      before += range.size;
    }
    return nullptr;
  }
  // How many bytes from `gpa` on there are, at most `size`.
  std::uint64_t reach(std::uint64_t gpa, std::uint64_t size) {
    std::uint64_t at = 0;
    while (at < size && find(gpa + at) != nullptr) ++at;
    return at;
  }
};

std::uint64_t any_address(FuzzedDataProvider& input) {
  const auto choice = input.ConsumeIntegral<std::uint8_t>();
  if (choice < 0x80) return input.ConsumeIntegralInRange<std::uint64_t>(0, 8 * page);
  if (choice < 0xc0)
    return end_of_physical - input.ConsumeIntegralInRange<std::uint64_t>(0, 2 * page);
  if (choice < 0xe0) return ~std::uint64_t{0} - input.ConsumeIntegral<std::uint8_t>();
  return input.ConsumeIntegral<std::uint64_t>();
}

void is_refused_at(const Result<void>& result, std::uint64_t address) {
  MUST(!result && result.error().code == EFAULT && result.error().operand == address);
}

void step(FuzzedDataProvider& input, Model& model) {
  const std::uint64_t gpa = any_address(input);
  // Mostly small, for speed.
  std::uint64_t size = input.ConsumeIntegral<std::uint8_t>();
  if (size >= 0xf0) size = input.ConsumeIntegralInRange<std::uint64_t>(0, 3 * page);
  switch (input.ConsumeIntegralInRange(0, 3)) {
    case 0: {
      std::vector<std::byte> to(size, std::byte{0xee});
      const std::uint64_t reach = model.reach(gpa, size);
      const auto read = memory().read(Gpa{gpa}, to);
      if (reach < size) return is_refused_at(read, gpa + reach);
      MUST(read.has_value());
      for (std::uint64_t at = 0; at < size; ++at) {
        MUST(std::to_integer<std::uint8_t>(to[at]) == *model.find(gpa + at));
      }
      break;
    }
    case 1: {
      const auto value = input.ConsumeIntegral<std::uint8_t>();
      const std::vector<std::byte> from(size, std::byte{value});
      const std::uint64_t reach = model.reach(gpa, size);
      const auto written = memory().write(Gpa{gpa}, from);
      for (std::uint64_t at = 0; at < reach; ++at) *model.find(gpa + at) = value;
      if (reach < size) return is_refused_at(written, gpa + reach);
      MUST(written.has_value());
      break;
    }
    case 2: {
      if (input.ConsumeBool()) size = input.ConsumeIntegral<std::uint64_t>();
      const std::uint64_t reach = model.reach(gpa, std::min(size, 4 * page));
      const auto filled = memory().fill_zero(Gpa{gpa}, size);
      for (std::uint64_t at = 0; at < reach; ++at) *model.find(gpa + at) = 0;
      if (reach < size) return is_refused_at(filled, gpa + reach);
      MUST(filled.has_value());
      break;
    }
    default: {
      if (input.ConsumeBool()) size = input.ConsumeIntegral<std::uint64_t>();
      const std::byte* host = memory().host(Gpa{gpa}, size);
      const auto* in = std::find_if(ranges.begin(), ranges.end(), [&](const auto& range) {
        return gpa >= range.gpa.value && gpa - range.gpa.value < range.size;
      });
      const bool is_whole = in != ranges.end() && size <= in->size - (gpa - in->gpa.value);
      MUST((host != nullptr) == is_whole);
      if (host == nullptr) return;
      const Region& region = memory().regions()[static_cast<std::size_t>(in - ranges.begin())];
      MUST(host == region.host() + (gpa - in->gpa.value));
    }
  }
}

// Which ranges are taken.
void create(FuzzedDataProvider& input) {
  const auto any = [&] {
    const auto small = [&] { return input.ConsumeIntegralInRange<std::uint64_t>(0, 4) * page; };
    return GuestMemory::Range{
        Gpa{input.ConsumeBool() ? small() : any_address(input)},
        input.ConsumeBool() ? small() : input.ConsumeIntegral<std::uint64_t>()};
  };
  const GuestMemory::Range a = any();
  const GuestMemory::Range b = any();
  const auto good = [](const GuestMemory::Range& range) {
    return range.size != 0 && range.size % page == 0 && range.gpa.value % page == 0 &&
           range.gpa.value <= end_of_physical && range.size <= end_of_physical - range.gpa.value;
  };
  const auto overlap = [&] {
    return a.gpa.value < b.gpa.value + b.size && b.gpa.value < a.gpa.value + a.size;
  };
  // No host memory to speak of.
  if (a.size > 64 * page || b.size > 64 * page) return;
  const auto made = GuestMemory::create({a, b});
  MUST(made.has_value() == (good(a) && good(b) && !overlap()));
  if (made) return;
  const std::uint64_t wrong = good(a) ? b.gpa.value : a.gpa.value;
  MUST(made.error().code == EINVAL && made.error().operand == wrong);
}

}  // namespace
}  // namespace vm_memory

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace vm_memory;
  FuzzedDataProvider input(data, size);
  if (input.ConsumeIntegral<std::uint8_t>() == 0xff) {
    create(input);
    return 0;
  }
  Model model;
  for (const auto& range : ranges) MUST(memory().fill_zero(range.gpa, range.size).has_value());
  for (int steps = 0; steps < 50 && input.remaining_bytes() > 0; ++steps) step(input, model);
  return 0;
}
