// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Raising and unmasking a 2-level event channel by hand, for kernels that don't do it
// (KVM_XEN_HVM_EVTCHN_SEND, Linux 5.19). The steps and their order are those of arch/x86/kvm/xen.c.
#pragma once

#include <cstddef>
#include <cstdint>

#include "xen_abi/event_channel.hpp"
#include "xen_abi/shared_info.hpp"

namespace xen_evtchn {

enum class Raised {
  already_pending,  // Nothing to do: whoever made it pending has seen to it.
  masked,           // Pending, and the guest will find it when it unmasks.
  merged,           // Pending, and the vCPU is about to look anyway.
  upcall,           // Pending; now inject the vCPU's upcall vector.
  out_of_range,     // No such port at this width: nothing was touched.
};

// `shared` and `info` are the domain's shared_info and the target vCPU's vcpu_info, in guest
// memory.
template <class Word>
Raised raise(xen_abi::SharedInfo<Word>& shared, xen_abi::VcpuInfo<Word>& info,
             xen_abi::EventPort port) noexcept {
  constexpr unsigned bits = 8 * sizeof(Word);
  if (port.value == 0 || port.value >= bits * bits) return Raised::out_of_range;
  const unsigned word = port.value / bits;
  const Word bit = Word{1} << (port.value % bits);

  // Sequentially consistent, as the guest's locked instructions are: between the pending bit and
  // the look at the mask, above all, no reordering may lose an event.
  if ((__atomic_fetch_or(&shared.evtchn_pending[word], bit, __ATOMIC_SEQ_CST) & bit) != 0) {
    return Raised::already_pending;
  }
  if ((__atomic_load_n(&shared.evtchn_mask[word], __ATOMIC_SEQ_CST) & bit) != 0) {
    return Raised::masked;
  }
  const Word selector = Word{1} << word;
  if ((__atomic_fetch_or(&info.pending_sel, selector, __ATOMIC_SEQ_CST) & selector) != 0) {
    return Raised::merged;
  }
  __atomic_store_n(&info.upcall_pending, std::uint8_t{1}, __ATOMIC_SEQ_CST);
  return Raised::upcall;
}

// Unmasks `port`. True if it had been masked and pending: then it is pending no more, and is to be
// raised anew, by whatever raises it otherwise, for whoever made it pending left it to the mask.
template <class Word>
bool unmask(xen_abi::SharedInfo<Word>& shared, xen_abi::EventPort port) noexcept {
  constexpr unsigned bits = 8 * sizeof(Word);
  if (port.value == 0 || port.value >= bits * bits) return false;
  const unsigned word = port.value / bits;
  const Word bit = Word{1} << (port.value % bits);
  const Word others = static_cast<Word>(~bit);
  if ((__atomic_fetch_and(&shared.evtchn_mask[word], others, __ATOMIC_SEQ_CST) & bit) == 0) {
    return false;
  }
  return (__atomic_fetch_and(&shared.evtchn_pending[word], others, __ATOMIC_SEQ_CST) & bit) != 0;
}

}  // namespace xen_evtchn
