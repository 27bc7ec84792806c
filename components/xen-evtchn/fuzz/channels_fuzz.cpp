// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Any sequence of EVTCHNOPs, from a fresh domain or from a saved state of any bytes, some of them
// made by another vCPU while the VMM is being told of one before: every answer and every port is as
// the model says, and the VMM knows it.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <vector>

#include "../tests/channels_model.hpp"
#include "must.hpp"

namespace xen_evtchn {
namespace {

class Sequence {
 public:
  explicit Sequence(FuzzedDataProvider& input) : input_(input) {
    real_.meanwhile = [this] { another_vcpu(); };
  }

  // What was saved, if it could have been; else nothing is changed.
  void restore() {
    std::vector<Channel> saved(ports);
    for (Channel& channel : saved) {
      if (input_.ConsumeBool()) continue;
      channel.kind = static_cast<Kind>(input_.ConsumeIntegralInRange(0, 7));
      channel.vcpu = {number(vcpus)};
      channel.remote_dom = domain();
      channel.remote_port = {number(ports)};
      channel.virq = virq();
    }
    if (!real_.channels.restore(saved)) {
      MUST(real_.channels.save() == std::vector<Channel>(ports));
      return;
    }
    MUST(real_.channels.save() == saved);
    for (std::uint32_t port = 0; port < ports; ++port) {
      const Channel& is = saved[port];
      if (is.kind == Kind::unbound) model_.open[port] = {'u', is.vcpu.value, is.remote_dom};
      if (is.kind == Kind::interdomain) {
        model_.open[port] = {'i', is.vcpu.value, is.remote_port.value};
      }
      if (is.kind == Kind::virq) model_.open[port] = {'v', is.vcpu.value, is.virq};
      if (is.kind == Kind::ipi) model_.open[port] = {'p', is.vcpu.value, 0};
    }
    for (std::uint32_t port = 0; port < ports; ++port) real_.settle({port});
    MUST(is_as(model_, real_));
  }

  void step() {
    int expected = 0;
    int answer = 0;
    switch (input_.ConsumeIntegralInRange(0, 5)) {
      case 0: {
        const DomainId remote = domain();
        expected = model_.alloc_unbound(remote);
        answer = real_.opened(real_.channels.alloc_unbound(remote));
        break;
      }
      case 1: {
        const std::uint32_t remote = number(ports);
        expected = model_.bind_interdomain(remote);
        answer = real_.opened(real_.channels.bind_interdomain({remote}));
        real_.settle({remote});
        break;
      }
      case 2: {
        const std::uint32_t which = virq();
        const std::uint32_t vcpu = number(vcpus);
        expected = model_.bind_virq(which, vcpu);
        answer = real_.opened(real_.channels.bind_virq(which, {vcpu}));
        break;
      }
      case 3: {
        const std::uint32_t vcpu = number(vcpus);
        expected = model_.bind_ipi(vcpu);
        answer = real_.opened(real_.channels.bind_ipi({vcpu}));
        break;
      }
      case 4:
        return close();
      default:
        return bind_vcpu();
    }
    MUST(answer == expected);
    MUST(is_as(model_, real_));
  }

 private:
  // Mostly one that there is, or just isn't.
  std::uint32_t number(std::uint32_t count) {
    const auto small = input_.ConsumeIntegral<std::uint8_t>();
    return small < 0xf0 ? small % (count + 2) : input_.ConsumeIntegral<std::uint32_t>();
  }
  std::uint32_t virq() { return number(xen_abi::virq::count); }
  DomainId domain() {
    return input_.PickValueInArray<DomainId>({self, xen_abi::domid_self, 0, 8, 0x7ff1});
  }

  void close() {
    const std::uint32_t port = number(ports);
    const int expected = model_.close(port);
    MUST(real_.changed(real_.channels.close({port})) == expected);
    real_.settle({port});
    if (!is_another_) MUST(is_as(model_, real_));
  }
  void bind_vcpu() {
    const std::uint32_t port = number(ports);
    const std::uint32_t vcpu = number(vcpus);
    const int expected = model_.bind_vcpu(port, vcpu);
    MUST(real_.changed(real_.channels.bind_vcpu({port}, {vcpu})) == expected);
    if (!is_another_) MUST(is_as(model_, real_));
  }

  // Opens nothing: which ports are free then is nobody's to know.
  void another_vcpu() {
    if (is_another_ || !input_.ConsumeBool()) return;
    is_another_ = true;
    input_.ConsumeBool() ? close() : bind_vcpu();
    is_another_ = false;
  }

  FuzzedDataProvider& input_;
  Model model_;
  Real real_;
  bool is_another_ = false;
};

}  // namespace
}  // namespace xen_evtchn

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  FuzzedDataProvider input(data, size);
  xen_evtchn::Sequence sequence(input);
  if (input.ConsumeBool()) sequence.restore();
  for (int steps = 0; steps < 200 && input.remaining_bytes() > 0; ++steps) sequence.step();
  return 0;
}
