// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A call: recorded, failed if the test wants that, else answered by the test or by the double.
#include <cerrno>
#include <cstddef>

#include "state.hpp"

namespace kvm_ioctls::double_detail {

namespace {

Role role_of(Fake::Kind kind) {
  switch (kind) {
    case Fake::Kind::vm:
      return Role::vm;
    case Fake::Kind::vcpu:
      return Role::vcpu;
    case Fake::Kind::device:
      return Role::device;
    default:
      return Role::system;
  }
}

// --- the record ---

// How much the argument points to, bytes: its header and the entries that it counts.
std::size_t argument_size(unsigned long request, const std::byte* argument) {
  const std::size_t header = _IOC_SIZE(request);
  const auto counted = [&](std::size_t at, std::size_t entry) {
    std::uint32_t count = 0;
    std::memcpy(&count, argument + at, sizeof(count));
    return header + std::min<std::size_t>(count, 1 << 16) * entry;
  };
  switch (request) {
    case KVM_GET_SUPPORTED_CPUID:
    case KVM_GET_EMULATED_CPUID:
    case KVM_GET_SUPPORTED_HV_CPUID:
    case KVM_GET_CPUID2:
    case KVM_SET_CPUID2:
      return counted(0, sizeof(kvm_cpuid_entry2));
    case KVM_GET_MSRS:
    case KVM_SET_MSRS:
      return counted(0, sizeof(kvm_msr_entry));
    case KVM_GET_MSR_INDEX_LIST:
    case KVM_GET_MSR_FEATURE_INDEX_LIST:
      return counted(0, sizeof(__u32));
    case KVM_GET_REG_LIST:
      return counted(0, sizeof(__u64));
    case KVM_SET_GSI_ROUTING:
      return counted(0, sizeof(kvm_irq_routing_entry));
    case KVM_SET_SIGNAL_MASK:
      return counted(0, 1);
    case KVM_SET_PMU_EVENT_FILTER:
      return counted(offsetof(PmuEventFilterHeader, nevents), sizeof(__u64));
    case KVM_REINJECT_CONTROL:
      return sizeof(kvm_reinject_control);
    default:
      return header;
  }
}
Bytes copy_of(unsigned long request, std::uint64_t word) {
  // NOLINTNEXTLINE(performance-no-int-to-ptr): the VMM's
  const auto* argument = reinterpret_cast<const std::byte*>(word);
  const bool is_pointer = _IOC_SIZE(request) != 0 || request == KVM_REINJECT_CONTROL;
  if (!is_pointer || argument == nullptr) return {};
  return {argument, argument + argument_size(request, argument)};
}

// Whether this call is one that is to fail; -errno, or 0.
int failure(State& state, unsigned long request) {
  int error = 0;
  for (Failure& failure : state.failures) {
    if (failure.request.value_or(request) == request && --failure.left == 0 && error == 0) {
      error = failure.error;
    }
  }
  std::erase_if(state.failures, [](const Failure& failure) { return failure.left == 0; });
  return -error;
}

}  // namespace

int answer(State& state, Fake& fake, unsigned long request, std::uint64_t word) {
  Lock lock(state.mutex);
  const std::size_t number = state.calls.size();
  Call call;
  call.request = request;
  call.name = name_of(request);
  call.role = role_of(fake.kind);
  call.id = fake.id;
  call.word = word;
  call.in = copy_of(request, word);
  state.calls.push_back(call);

  int result = failure(state, request);
  if (result == 0) {
    result = KvmDouble::as_usual;
    if (const auto handler = state.handlers.find(request); handler != state.handlers.end()) {
      const KvmDouble::Handler answer = handler->second;
      lock.unlock();
      result = answer(call);
      lock.lock();
    }
    if (result == KvmDouble::as_usual) {
      result = request == KVM_RUN && fake.kind == Fake::Kind::vcpu
                   ? run(state, fake, lock)
                   : answer_as_usual(state, fake, request, word);
    }
  }
  state.calls[number].result = result;
  if (result >= 0) state.calls[number].out = copy_of(request, word);
  return result;
}

}  // namespace kvm_ioctls::double_detail
