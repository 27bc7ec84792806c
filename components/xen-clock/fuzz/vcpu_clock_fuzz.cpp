// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A pvclock page of any bytes that changes at any moment, on a host whose clocks do anything, and
// any TSC that KVM may tell of: a reading by the page is what a guest reads off it, and it is the
// page's only while that is what it was and keeps KVM's rate; all else is the VM's clock, or the
// host's.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <optional>

#include "must.hpp"
#include "xen_clock/vcpu_clock.hpp"

namespace xen_clock {
namespace {

struct FakeHost {
  static inline std::uint64_t tsc_now;
  static inline HostTime host_now;
  static inline Duration suspended_for;
  static std::uint64_t tsc() { return tsc_now; }
  static HostTime now() { return host_now; }
  static Duration suspended() { return suspended_for; }
};

class Sequence {
 public:
  explicit Sequence(FuzzedDataProvider& input) : input_(input) {
    FakeHost::tsc_now = 1'000'000;
    FakeHost::host_now = HostTime(std::chrono::seconds(50));
    FakeHost::suspended_for = {};
  }

  void step() {
    switch (input_.ConsumeIntegralInRange(0, 6)) {
      case 0:
        clock_.set_page(input_.ConsumeBool() ? &page_ : nullptr);
        break;
      case 1:
        return write_page();
      case 2:
        return scribble();
      case 3:
        return pass_time();
      case 4:
        return refresh();
      case 5:
        clock_.forget();
        known_.reset();
        break;
      default:
        return read();
    }
  }

 private:
  // As KVM would.
  void write_page() {
    page_.version += 2 - (page_.version & 1);
    page_.tsc_timestamp = FakeHost::tsc_now;
    page_.system_time = input_.ConsumeIntegralInRange<std::uint64_t>(0, std::uint64_t{1} << 50);
    page_.tsc_to_system_mul = 0x8000'0000;  // a TSC of 1 GHz
    page_.tsc_shift = 1;
  }
  // As the guest might.
  void scribble() {
    const auto at = input_.ConsumeIntegralInRange<std::size_t>(0, sizeof page_ - 1);
    const auto bytes = input_.ConsumeBytes<std::uint8_t>(
        input_.ConsumeIntegralInRange<std::size_t>(0, sizeof page_ - at));
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<std::uint8_t*>(&page_) + at);
  }
  void pass_time() {
    const auto ns = input_.ConsumeBool()
                        ? input_.ConsumeIntegralInRange<std::int64_t>(0, 1 << 30)
                        : input_.ConsumeIntegralInRange<std::int64_t>(0, std::int64_t{1} << 58);
    FakeHost::host_now = saturating_add(FakeHost::host_now, Duration(ns));
    if (input_.ConsumeBool()) FakeHost::tsc_now += static_cast<std::uint64_t>(ns);
    if (input_.ConsumeBool()) FakeHost::tsc_now = input_.ConsumeIntegral<std::uint64_t>();
    if (input_.ConsumeBool()) {
      FakeHost::suspended_for = Duration(input_.ConsumeIntegralInRange<std::int64_t>(
          0, FakeHost::host_now.time_since_epoch().count()));
    }
  }
  void refresh() {
    bool asked = false;
    std::optional<VcpuTsc> tsc;
    if (!input_.ConsumeBool()) {
      const auto offset = input_.ConsumeIntegral<std::uint64_t>();
      tsc = VcpuTsc{{.offset = offset}, 1'000'000, true};
      if (input_.ConsumeBool()) {
        tsc->host_khz = input_.ConsumeIntegral<std::uint32_t>();
        tsc->map = tsc_map(input_.ConsumeIntegral<std::uint32_t>(), tsc->host_khz,
                           input_.ConsumeBool() ? vmx_tsc_fraction_bits : svm_tsc_fraction_bits,
                           offset, input_.ConsumeIntegral<std::uint32_t>());
        tsc->master_clock = input_.ConsumeBool();
      }
    }
    const xen_abi::VcpuTimeInfo info = page_;
    clock_.refresh([&] {
      asked = true;
      return tsc;
    });
    if (!asked) return;
    known_.reset();
    if (tsc && tsc->master_clock && keeps_rate(info, *tsc)) known_ = Known{info, tsc->map};
  }
  void read() {
    const GuestTime vms = guest_time(input_.ConsumeIntegral<std::int64_t>());
    bool asked = false;
    const Reading reading = clock_.now([&] {
      asked = true;
      return vms;
    });
    switch (reading.source) {
      case Source::pvclock: {
        MUST(known_.has_value());
        MUST(page_.tsc_timestamp == known_->info.tsc_timestamp &&
             page_.system_time == known_->info.system_time &&
             page_.tsc_to_system_mul == known_->info.tsc_to_system_mul &&
             page_.tsc_shift == known_->info.tsc_shift);
        MUST((page_.version & 1) == 0 && page_.version != 0);
        const GuestTime guests = pvclock_time(page_, known_->map.guest_tsc(FakeHost::tsc_now));
        MUST(reading.time == guests);
        break;
      }
      case Source::vm_clock:
        MUST(asked && reading.time == vms);
        break;
      case Source::host_clock:
        MUST(asked && known_.has_value());
        break;
    }
    MUST(known_.has_value() || reading.source == Source::vm_clock);
  }

  struct Known {
    xen_abi::VcpuTimeInfo info;
    TscMap map;
  };
  FuzzedDataProvider& input_;
  alignas(8) xen_abi::VcpuTimeInfo page_{};
  BasicVcpuClock<FakeHost> clock_;
  std::optional<Known> known_;  // what the last refresh() took for the guest's clock
};

}  // namespace
}  // namespace xen_clock

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  xen_clock::Sequence sequence(input);
  for (int steps = 0; steps < 200 && input.remaining_bytes() > 0; ++steps) sequence.step();
  return 0;
}
