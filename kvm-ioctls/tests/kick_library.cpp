// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A library that is loaded at run time, with KickSignal's handler in it: it is looked at, not run.
#include "kvm_ioctls/kicker.hpp"

extern "C" int install_kick_signal() {
  const auto signal = kvm_ioctls::KickSignal::install();
  return signal ? signal.value().number() : 0;
}
