// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// raise() and unmask() on any contents of shared_info and vcpu_info: which bits change, and what is
// answered, is as a model over plain arrays of bits says; no other byte is touched.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <cstring>

#include "must.hpp"
#include "xen_evtchn/two_level.hpp"

namespace {

using xen_abi::EventPort;
using xen_evtchn::Raised;

template <class Word>
struct Pages {
  xen_abi::SharedInfo<Word> shared;
  xen_abi::VcpuInfo<Word> info;
};

template <class Word>
bool bit(const Word* words, std::uint32_t at) {
  return (words[at / (8 * sizeof(Word))] >> at % (8 * sizeof(Word)) & 1) != 0;
}
template <class Word>
void set_bit(Word* words, std::uint32_t at, bool to) {
  const Word mask = Word{1} << at % (8 * sizeof(Word));
  Word& word = words[at / (8 * sizeof(Word))];
  word = to ? word | mask : word & static_cast<Word>(~mask);
}

// The order of the steps is in the answers.
template <class Word>
Raised raise_in(Pages<Word>& pages, std::uint32_t port) {
  if (port == 0 || port >= 64 * sizeof(Word) * sizeof(Word)) return Raised::out_of_range;
  auto* pending = &pages.shared.evtchn_pending[0];
  const bool was_pending = bit(pending, port);
  set_bit(pending, port, true);
  if (was_pending) return Raised::already_pending;
  if (bit(&pages.shared.evtchn_mask[0], port)) return Raised::masked;
  const std::uint32_t selector = port / (8 * sizeof(Word));
  const bool was_selected = bit(&pages.info.pending_sel, selector);
  set_bit(&pages.info.pending_sel, selector, true);
  if (was_selected) return Raised::merged;
  pages.info.upcall_pending = 1;
  return Raised::upcall;
}
template <class Word>
bool unmask_in(Pages<Word>& pages, std::uint32_t port) {
  if (port == 0 || port >= 64 * sizeof(Word) * sizeof(Word)) return false;
  const bool was_masked = bit(&pages.shared.evtchn_mask[0], port);
  set_bit(&pages.shared.evtchn_mask[0], port, false);
  if (!was_masked) return false;
  const bool was_pending = bit(&pages.shared.evtchn_pending[0], port);
  set_bit(&pages.shared.evtchn_pending[0], port, false);
  return was_pending;
}

template <class Word>
void run(FuzzedDataProvider& input) {
  static Pages<Word> real;
  static Pages<Word> model;
  // One byte of the input a byte of each page would make all inputs the same length: a pattern.
  const auto fill = [&](auto& bits) {
    std::memset(&bits, input.PickValueInArray<std::uint8_t>({0, 0xff, 0x55, 0x80}), sizeof bits);
  };
  std::memset(&real, input.ConsumeIntegral<std::uint8_t>(), sizeof real);
  fill(real.shared.evtchn_pending);
  fill(real.shared.evtchn_mask);
  fill(real.info.pending_sel);
  std::memcpy(&model, &real, sizeof real);
  for (int steps = 0; steps < 100 && input.remaining_bytes() > 0; ++steps) {
    const std::uint32_t port = input.ConsumeBool() ? input.ConsumeIntegral<std::uint16_t>()
                                                   : input.ConsumeIntegral<std::uint32_t>();
    switch (input.ConsumeIntegralInRange(0, 3)) {
      case 0:
        MUST(xen_evtchn::raise(real.shared, real.info, EventPort{port}) == raise_in(model, port));
        break;
      case 1:
        MUST(xen_evtchn::unmask(real.shared, EventPort{port}) == unmask_in(model, port));
        break;
      default: {  // the guest writes
        const auto at = input.ConsumeIntegralInRange<std::size_t>(0, sizeof real - 1);
        const auto value = input.ConsumeIntegral<std::uint8_t>();
        for (Pages<Word>* pages : {&real, &model}) {
          std::memcpy(reinterpret_cast<std::uint8_t*>(pages) + at, &value, 1);
        }
      }
    }
    MUST(std::memcmp(&real, &model, sizeof real) == 0);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  input.ConsumeBool() ? run<std::uint64_t>(input) : run<std::uint32_t>(input);
  return 0;
}
