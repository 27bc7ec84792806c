// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Who answers a timer hypercall: each cell of {Xen vCPU id never set, set right, set to another} x
// {timer port set, 0} x {set_singleshot, stop_singleshot, set_timer_op}, for two vCPUs and both
// widths of caller, on the kernel that runs this. What is expected follows from the kernel's
// version alone: Linux 7.3 changed the rule for an id that was never set.
#include <sys/utsname.h>

#include <cstdio>
#include <map>
#include <string>
#include <tuple>

#include "micro_vm.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/vcpu.hpp"

namespace conformance {
namespace {

enum class Id { never_set, right, another };
enum class Op { set_singleshot, stop_singleshot, set_timer_op };
enum class Who { kernel_ok, kernel_einval, punted };

const char* name(Id id) {
  return id == Id::never_set ? "never set" : id == Id::right ? "set right" : "set to another";
}
const char* name(Op op) {
  return op == Op::set_singleshot    ? "set_singleshot"
         : op == Op::stop_singleshot ? "stop_singleshot"
                                     : "set_timer_op";
}
const char* name(Who who) {
  return who == Who::kernel_ok       ? "kernel, 0"
         : who == Who::kernel_einval ? "kernel, -EINVAL"
                                     : "punted";
}

// "7.3.4+deb13…" and later have the new rule.
bool has_new_rule() {
  utsname kernel{};
  ::uname(&kernel);
  int major = 0;
  int minor = 0;
  EXPECT_EQ(std::sscanf(kernel.release, "%d.%d", &major, &minor), 2);
  return std::pair(major, minor) >= std::pair(7, 3);
}

Who expected(Id id, bool port, Op op, std::uint32_t vcpu) {
  if (!port) return Who::punted;
  if (op == Op::set_timer_op) return Who::kernel_ok;
  if (id == Id::right) return Who::kernel_ok;
  if (id == Id::another) return Who::kernel_einval;
  if (has_new_rule()) return Who::punted;
  return vcpu == 0 ? Who::kernel_ok : Who::kernel_einval;  // everybody's id is 0
}

// Far ahead, so that nothing fires; and near enough to escape set_timer_op's clamp.
constexpr std::uint64_t deadline = 3'600'000'000'000;

Call make_call(Op op, std::uint32_t vcpu, bool long_mode) {
  switch (op) {
    case Op::set_singleshot:
      return {xen_abi::hypercall::vcpu_op,
              {xen_abi::vcpuop::set_singleshot_timer, vcpu, MicroVm::argument.value}};
    case Op::stop_singleshot:
      return {xen_abi::hypercall::vcpu_op, {xen_abi::vcpuop::stop_singleshot_timer, vcpu, 0}};
    case Op::set_timer_op:
      break;
  }
  if (long_mode) return {xen_abi::hypercall::set_timer_op, {deadline, 0, 0}};
  return {xen_abi::hypercall::set_timer_op, {deadline & 0xffffffff, deadline >> 32, 0}};
}

TEST(PatchTable, EveryCell) {
  std::printf("%-15s %-5s %-16s %-4s %-16s %-16s\n", "Xen vCPU id", "port", "hypercall", "vCPU",
              "64-bit", "32-bit");
  for (const Id id : {Id::never_set, Id::right, Id::another}) {
    for (const bool port : {true, false}) {
      MicroVm vm(2);
      const xen_abi::SetSingleshotTimer argument{deadline, 0};
      must(vm.memory.write(MicroVm::argument, std::as_bytes(std::span(&argument, 1))));
      for (std::uint32_t vcpu = 0; vcpu < 2; ++vcpu) {
        // What the kernel says itself of an id that isn't set.
        const auto fresh = must(vm.vcpus[vcpu].xen_vcpu_get_attr<kvm_ioctls::XenVcpuIdAttr>());
        EXPECT_EQ(fresh.id.has_value(), !has_new_rule());
        if (id != Id::never_set) {
          const std::uint32_t value = id == Id::right ? vcpu : vcpu + 5;
          must(vm.vcpus[vcpu].xen_vcpu_set_attr(
              kvm_ioctls::XenVcpuIdAttr{vmm_base::XenVcpuId{value}}));
        }
        if (port) must(vm.vcpus[vcpu].xen_vcpu_set_attr(kvm_ioctls::XenTimer{.port = 3}));
      }
      for (const Op op : {Op::set_singleshot, Op::stop_singleshot, Op::set_timer_op}) {
        for (std::uint32_t vcpu = 0; vcpu < 2; ++vcpu) {
          std::map<bool, Who> seen;
          for (const bool long_mode : {true, false}) {
            const Outcome outcome = vm.call(vcpu, long_mode, make_call(op, vcpu, long_mode));
            EXPECT_TRUE(outcome.punted || outcome.result == 0 || outcome.result == -EINVAL)
                << outcome.result;
            seen[long_mode] = outcome.punted        ? Who::punted
                              : outcome.result == 0 ? Who::kernel_ok
                                                    : Who::kernel_einval;
            EXPECT_EQ(name(seen[long_mode]), std::string(name(expected(id, port, op, vcpu))))
                << name(id) << ", port " << port << ", " << name(op) << ", vCPU " << vcpu;
          }
          std::printf("%-15s %-5s %-16s %-4u %-16s %-16s\n", name(id), port ? "set" : "0", name(op),
                      vcpu, name(seen[true]), name(seen[false]));
        }
      }
      // Whoever set the timer in the kernel: it is there, or it isn't.
      if (port) {
        const auto timer = must(vm.vcpus[0].xen_vcpu_get_attr<kvm_ioctls::XenTimer>());
        EXPECT_EQ(timer.port, 3u);
        EXPECT_EQ(timer.expires_ns, deadline) << "set_timer_op was the last call, and the kernel's";
      }
    }
  }
}

TEST(PatchTable, ProbeNamesTheRule) {
  MicroVm vm(1);
  EXPECT_EQ(must(kvm_ioctls::xen_id_rule(vm.vcpus[0])),
            has_new_rule() ? kvm_ioctls::XenIdRule::unset : kvm_ioctls::XenIdRule::zero);
}

TEST(PatchTable, TheInvalidIdCannotBeSetNorAnyBeyondTheLastVcpu) {
  MicroVm vm(1);
  EXPECT_EQ(vm.vcpus[0].xen_vcpu_set_attr(kvm_ioctls::XenVcpuIdAttr{}).error().code, EINVAL);
  EXPECT_EQ(
      vm.vcpus[0]
          .xen_vcpu_set_attr(kvm_ioctls::XenVcpuIdAttr{vmm_base::XenVcpuId{kvm_ioctls::max_vcpus}})
          .error(),
      (vmm_base::Error{"KVM_XEN_VCPU_SET_ATTR", EINVAL, KVM_XEN_VCPU_ATTR_TYPE_VCPU_ID}));
}

}  // namespace
}  // namespace conformance
