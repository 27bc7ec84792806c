// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// A soft reset on a real kernel: all that a guest has set of Xen's is gone from KVM, too, and can
// be set again.
#include <gtest/gtest.h>

#include <chrono>
#include <cstring>

#include "host.hpp"
#include "long_mode.hpp"
#include "machine.hpp"
#include "micro_vm.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_abi/memory.hpp"
#include "xen_abi/sched.hpp"
#include "xen_abi/shared_info.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_handlers.hpp"
#include "xen_hcall/dispatcher.hpp"
#include "xen_platform.hpp"
#include "xen_timer/delegated_backend.hpp"
#include "xen_timer/handler.hpp"

namespace conformance {
namespace {

using vmm_base::XenVcpuId;
using vmm_reference::Host;
using vmm_reference::XenPlatform;
using xen_abi::EventPort;
using Backend = xen_timer::DelegatedBackend<XenPlatform>;
namespace hypercall = xen_abi::hypercall;

constexpr XenVcpuId caller{0};
constexpr XenVcpuId other{1};
constexpr Gpa argument{0x9000};
constexpr Gpa areas{0xb000};
constexpr std::uint64_t shared_info_gfn = 0xa;
constexpr std::uint64_t grant_gfn = 0xf0000;  // where there is no RAM
constexpr std::uint8_t vector = 0xf3;
constexpr Gpa nowhere{kvm_ioctls::xen_invalid_gpa};

struct SoftReset : testing::Test {
  Host host = std::get<Host>(Host::open("/dev/kvm"));
  vmm_reference::Machine machine = must(vmm_reference::create_machine(
      host, {.ram_size = 4 << 20, .vcpu_count = 2, .all_running = true, .xen_ids = true}));
  vmm_reference::IrqRoutes routes{machine.vm};
  vmm_reference::HostErrors errors;
  XenPlatform platform{host, machine.vm, routes, machine.memory, machine.vcpus, errors};
  Backend backend = must(Backend::create(platform, 2));
  xen_timer::Handler<XenPlatform, Backend> timer{platform, backend};
  vmm_reference::XenHandlers others{platform, machine};
  xen_hcall::Dispatcher<decltype(timer), decltype(others)> calls{timer, others};

  SoftReset() {
    platform.on_timer_bound([this](XenVcpuId vcpu, EventPort port) {
      return port == EventPort{} ? timer.unbind(vcpu) : timer.bind(vcpu, port);
    });
    platform.on_timer_reset([this](XenVcpuId vcpu) { return timer.restore(vcpu, {}); });
    must(vmm_reference::write_page_tables(machine.memory));
    for (auto& vcpu : machine.vcpus) must(vmm_reference::enter_long_mode(vcpu, {}));
  }

  std::int64_t call(XenVcpuId vcpu, std::uint64_t number, std::uint64_t sub, std::uint64_t second,
                    std::uint64_t third = 0) {
    platform.enter_hypercall(vcpu, true);
    const auto answer = calls(vcpu, {number, {sub, second, third}, true, 0});
    EXPECT_TRUE(answer.host) << answer.host.error().message();
    return static_cast<std::int64_t>(answer.guest.rax());
  }
  template <class Argument>
  std::uint64_t put(const Argument& what) {
    must(machine.memory.write(argument, std::as_bytes(std::span(&what, 1))));
    return argument.value;
  }
  template <class Argument>
  Argument get() {
    Argument what{};
    must(machine.memory.read(argument, std::as_writable_bytes(std::span(&what, 1))));
    return what;
  }
  std::int64_t add_page(std::uint32_t space, std::uint64_t gfn) {
    return call(caller, hypercall::memory_op, xen_abi::memory_op::add_to_physmap,
                put(xen_abi::AddToPhysmap<std::uint64_t>{xen_abi::domid_self, 0, space, 0, gfn}));
  }
  std::int64_t event_op(std::uint32_t sub, std::uint64_t gva) {
    return call(caller, hypercall::event_channel_op, sub, gva);
  }
  std::int64_t vcpu_op(XenVcpuId vcpu, std::uint32_t sub, std::uint64_t gva) {
    return call(vcpu, hypercall::vcpu_op, sub, vcpu.value, gva);
  }

  // What Linux sets on its way up, each of it as if for the first time.
  void set_all() {
    ASSERT_EQ(add_page(xen_abi::mapspace::shared_info, shared_info_gfn), 0);
    ASSERT_EQ(add_page(xen_abi::mapspace::grant_table, grant_gfn), 0);
    ASSERT_EQ(call(caller, hypercall::hvm_op, xen_abi::hvmop::set_param,
                   put(xen_abi::HvmParam{xen_abi::domid_self, 0, xen_abi::hvm_param::callback_irq,
                                         std::uint64_t{2} << 56 | vector})),
              0);
    for (const XenVcpuId vcpu : {caller, other}) {
      const Gpa own = areas + 0x200 * vcpu.value;
      ASSERT_EQ(vcpu_op(vcpu, xen_abi::vcpuop::register_vcpu_info,
                        put(xen_abi::RegisterVcpuInfo{
                            own.value >> vmm_base::page_shift,
                            static_cast<std::uint32_t>(own.value % vmm_base::page_size), 0})),
                0);
      ASSERT_EQ(
          vcpu_op(vcpu, xen_abi::vcpuop::register_vcpu_time_memory_area, put(own.value + 0x80)), 0);
      ASSERT_EQ(
          vcpu_op(vcpu, xen_abi::vcpuop::register_runstate_memory_area, put(own.value + 0x100)), 0);
      ASSERT_EQ(call(caller, hypercall::hvm_op, xen_abi::hvmop::set_evtchn_upcall_vector,
                     put(xen_abi::EvtchnUpcallVector{vcpu.value, vector})),
                0);
      ASSERT_EQ(event_op(xen_abi::evtchnop::bind_virq,
                         put(xen_abi::EvtchnBindVirq{xen_abi::virq::timer, vcpu.value, 0})),
                0);
      EXPECT_EQ(get<xen_abi::EvtchnBindVirq>().port, 1 + 2 * vcpu.value);
      ASSERT_EQ(event_op(xen_abi::evtchnop::bind_ipi, put(xen_abi::EvtchnBindIpi{vcpu.value, 0})),
                0);
      EXPECT_EQ(get<xen_abi::EvtchnBindIpi>().port, 2 + 2 * vcpu.value);
      // In an hour.
      const auto later = platform.guest_now(vcpu).time_since_epoch() + std::chrono::hours(1);
      ASSERT_EQ(call(vcpu, hypercall::set_timer_op, static_cast<std::uint64_t>(later.count()), 0),
                0);
      ASSERT_EQ(vcpu_op(vcpu, xen_abi::vcpuop::set_periodic_timer,
                        put(xen_abi::SetPeriodicTimer{3'600'000'000'000})),
                0);
    }
    ASSERT_GT(call(caller, hypercall::sched_op, xen_abi::schedop::watchdog,
                   put(xen_abi::SchedWatchdog{0, 1000})),
              0);
  }

  template <class Attribute>
  Attribute of(XenVcpuId vcpu) {
    return must(machine.vcpus[vcpu.value].xen_vcpu_get_attr<Attribute>());
  }
  // Whether KVM sends on this IPI port by itself: then nobody else can take it.
  bool kernel_has(std::uint32_t port) {
    kvm_ioctls::XenEvtchn route{.send_port = port,
                                .kind = xen_abi::evtchn_status::ipi,
                                .port = port,
                                .vcpu = machine.vcpus[0].id()};
    const auto taken = machine.vm.xen_hvm_set_attr(route);
    if (!taken) {
      EXPECT_EQ(taken.error().code, EEXIST);
      return true;
    }
    route.flags = KVM_XEN_EVTCHN_DEASSIGN;
    must(machine.vm.xen_hvm_set_attr(route));
    return false;
  }
  void expect_all_set() {
    EXPECT_EQ(must(machine.vm.xen_hvm_get_attr<kvm_ioctls::XenSharedInfo>()).gfn, shared_info_gfn);
    EXPECT_EQ(must(machine.vm.xen_hvm_get_attr<kvm_ioctls::XenUpcallVector>()).vector, vector);
    EXPECT_EQ(platform.grant_frame(0), grant_gfn);
    for (const XenVcpuId vcpu : {caller, other}) {
      SCOPED_TRACE(vcpu.value);
      const Gpa own = areas + 0x200 * vcpu.value;
      EXPECT_EQ(of<kvm_ioctls::XenVcpuInfo>(vcpu).gpa, own);
      EXPECT_EQ(of<kvm_ioctls::XenVcpuTimeInfo>(vcpu).gpa, own + 0x80);
      EXPECT_EQ(of<kvm_ioctls::XenRunstateArea>(vcpu).gpa, own + 0x100);
      EXPECT_EQ(of<kvm_ioctls::XenVcpuUpcallVector>(vcpu).vector, vector);
      EXPECT_EQ(of<kvm_ioctls::XenTimer>(vcpu).port, 1 + 2 * vcpu.value);
      EXPECT_NE(of<kvm_ioctls::XenTimer>(vcpu).expires_ns, 0u);
      EXPECT_NE(must(timer.save(vcpu)).period, xen_clock::Duration{});
      EXPECT_TRUE(kernel_has(2 + 2 * vcpu.value));
    }
  }
  void expect_nothing_set() {
    EXPECT_EQ(must(machine.vm.xen_hvm_get_attr<kvm_ioctls::XenSharedInfo>()).gfn,
              kvm_ioctls::xen_invalid_gpa);
    EXPECT_EQ(must(machine.vm.xen_hvm_get_attr<kvm_ioctls::XenUpcallVector>()).vector, 0);
    EXPECT_EQ(platform.grant_frame(0), std::nullopt);
    EXPECT_EQ(platform.grant_table_size().frames, 1u);
    for (const XenVcpuId vcpu : {caller, other}) {
      SCOPED_TRACE(vcpu.value);
      EXPECT_EQ(of<kvm_ioctls::XenVcpuInfo>(vcpu).gpa, nowhere);
      EXPECT_EQ(of<kvm_ioctls::XenVcpuTimeInfo>(vcpu).gpa, nowhere);
      // Which is how KVM says that there is none.
      const auto runstate =
          machine.vcpus[vcpu.value].xen_vcpu_get_attr<kvm_ioctls::XenRunstateArea>();
      EXPECT_TRUE(!runstate && runstate.error().code == ENOENT);
      EXPECT_EQ(of<kvm_ioctls::XenVcpuUpcallVector>(vcpu).vector, 0);
      EXPECT_EQ(of<kvm_ioctls::XenTimer>(vcpu).port, 0u);
      EXPECT_EQ(of<kvm_ioctls::XenTimer>(vcpu).expires_ns, 0u);
      const auto timers = must(timer.save(vcpu));
      EXPECT_EQ(timers.port, EventPort{});
      EXPECT_EQ(timers.deadline, std::nullopt);
      EXPECT_EQ(timers.period, xen_clock::Duration{});
      EXPECT_FALSE(kernel_has(2 + 2 * vcpu.value));
    }
    for (std::uint32_t port = 1; port < 5; ++port) {
      EXPECT_EQ(event_op(xen_abi::evtchnop::status,
                         put(xen_abi::EvtchnStatus{xen_abi::domid_self, port, 0xff, 0, {}, 0})),
                0);
      EXPECT_EQ(get<xen_abi::EvtchnStatus>().status, xen_abi::evtchn_status::closed) << port;
    }
  }
};

TEST_F(SoftReset, AllOfXensIsGoneFromTheKernelAndCanBeSetAgain) {
  int watchdogs_running = 0;
  platform.on_watchdog([&](std::uint32_t, std::optional<std::chrono::seconds> after) {
    watchdogs_running += after ? 1 : -1;
  });
  bool ended = false;
  platform.on_shutdown([&](xen_abi::ShutdownReason) { ended = true; });

  for (int kernel = 0; kernel < 3; ++kernel) {
    SCOPED_TRACE(kernel);
    set_all();
    if (HasFatalFailure()) return;
    expect_all_set();
    EXPECT_EQ(watchdogs_running, 1);
    EXPECT_EQ(call(caller, hypercall::sched_op, xen_abi::schedop::shutdown,
                   put(xen_abi::SchedShutdown{
                       static_cast<std::uint32_t>(xen_abi::ShutdownReason::soft_reset)})),
              0);
    expect_nothing_set();
    EXPECT_EQ(watchdogs_running, 0);
  }
  EXPECT_FALSE(ended);
  EXPECT_TRUE(errors.message().empty()) << errors.message();
}

}  // namespace
}  // namespace conformance
