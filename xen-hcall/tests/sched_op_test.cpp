// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
#include "xen_hcall/sched_op.hpp"

#include "double_vmm.hpp"

namespace xen_hcall {
namespace {

namespace op = xen_abi::schedop;

struct Sched : Fixture {
  xen_evtchn::Channels channels{8, 2, 7};
  Shutdown<DoubleVmm> shutdown{vmm};
  SchedOp<DoubleVmm> sched{vmm, channels, shutdown};

  GuestResult call(std::uint32_t sub, std::uint64_t gva = base, bool long_mode = true) {
    return ask(sched, Hypercall{29, {sub, gva}, long_mode, 0}, {1});
  }
};

TEST_F(Sched, YieldAndBlockAreTheCallers) {
  EXPECT_EQ(call(op::yield), GuestResult::ok());
  EXPECT_EQ(call(op::block), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"yield 1", "block 1"}));
  vmm.failure = EINVAL;
  EXPECT_EQ(call(op::block), GuestResult(Errno::inval));
}

TEST_F(Sched, ShutdownOnceForAnyReasonOf8Bits) {
  EXPECT_EQ(call(op::shutdown, unmapped), GuestResult(Errno::fault));
  put(xen_abi::SchedShutdown{0x106});
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  put(xen_abi::SchedShutdown{1});
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"shutdown 6"});
}

TEST_F(Sched, ASoftResetIsntTheEnd) {
  put(xen_abi::SchedShutdown{0x105});
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"soft reset 1", "soft reset 1"}));
  vmm.failure = EIO;
  EXPECT_EQ(call(op::shutdown), GuestResult(Errno::inval));
  vmm.failure = 0;
  put(xen_abi::SchedShutdown{0});
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  EXPECT_EQ(said(), (Lines{"soft reset 1", "shutdown 0"}));
  // Who has ended isn't reset any more.
  shutdown.reset();
  put(xen_abi::SchedShutdown{5});
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  EXPECT_EQ(said(), Lines{});
}

TEST_F(Sched, ACodeSetBeforeMakesItASoftResetOrAnEnd) {
  put(xen_abi::SchedShutdown{5});
  EXPECT_EQ(call(op::shutdown_code), GuestResult::ok());
  put(xen_abi::SchedShutdown{1});
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"soft reset 1"});
  shutdown.reset();  // with which the code is gone
  put(xen_abi::SchedShutdown{3});
  EXPECT_EQ(call(op::shutdown_code), GuestResult::ok());
  put(xen_abi::SchedShutdown{5});
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"shutdown 3"});
}

// Has all that SchedOp needs, and no more.
struct NoSoftReset : DoubleVmm {
  void soft_reset(XenVcpuId) = delete;
};

TEST_F(Sched, AVmmWithoutASoftResetIsToldAnEnd) {
  NoSoftReset without;
  without.memory = vmm.memory;
  Shutdown<NoSoftReset> end(without);
  SchedOp<NoSoftReset> ended(without, channels, end);
  std::memset(without.memory.data(), 0, 8);
  without.memory[0] = std::byte{5};
  EXPECT_EQ(ask(ended, Hypercall{29, {op::shutdown, base}, true, 0}), GuestResult::ok());
  EXPECT_EQ(without.said, Lines{"shutdown 5"});
}

TEST_F(Sched, ACodeSetBeforeIsTheReason) {
  EXPECT_EQ(call(op::shutdown_code, unmapped), GuestResult(Errno::fault));
  put(xen_abi::SchedShutdown{3});
  EXPECT_EQ(call(op::shutdown_code), GuestResult::ok());
  EXPECT_EQ(said(), Lines{});
  put(xen_abi::SchedShutdown{0});
  EXPECT_EQ(call(op::shutdown_code), GuestResult::ok());
  EXPECT_EQ(call(op::shutdown), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"shutdown 3"});
}

TEST_F(Sched, OthersDomainsArentThereAndOnesOwnIsNotToBeNamed) {
  EXPECT_EQ(call(op::remote_shutdown, unmapped), GuestResult(Errno::fault));
  put(xen_abi::SchedRemoteShutdown{5, 0});
  EXPECT_EQ(call(op::remote_shutdown), GuestResult(Errno::srch));
  put(xen_abi::SchedRemoteShutdown{7, 0});
  EXPECT_EQ(call(op::remote_shutdown), GuestResult(Errno::perm));
  EXPECT_EQ(call(op::pin_override, unmapped), GuestResult(Errno::perm));
  EXPECT_EQ(call(8), GuestResult(Errno::nosys));
}

TEST_F(Sched, PollWaitsUnlessAPortIsPending) {
  ASSERT_EQ(std::get<EventPort>(channels.bind_ipi({0})), EventPort{1});
  ASSERT_EQ(std::get<EventPort>(channels.bind_ipi({0})), EventPort{2});
  put(std::uint32_t{1}, base + 0x100);
  put(std::uint32_t{2}, base + 0x104);
  put(xen_abi::SchedPoll64{base + 0x100, 2, 1234});
  EXPECT_EQ(call(op::poll), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"poll 1 2 1234"});
  put(xen_abi::SchedPoll32{base + 0x104, 1, 77});
  EXPECT_EQ(call(op::poll, base, false), GuestResult::ok());
  EXPECT_EQ(said(), Lines{"poll 1 1 77"});
  vmm.pending = {2};
  EXPECT_EQ(call(op::poll, base, false), GuestResult::ok());
  EXPECT_EQ(said(), Lines{});
}

TEST_F(Sched, PollErrors) {
  const auto poll = [&](std::uint64_t ports, std::uint32_t count) {
    put(xen_abi::SchedPoll64{ports, count, 0});
    return call(op::poll);
  };
  EXPECT_EQ(call(op::poll, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(poll(unmapped, 129), GuestResult(Errno::inval));
  EXPECT_EQ(poll(unmapped, 1), GuestResult(Errno::fault));
  put(std::uint32_t{1}, base + 0x100);
  EXPECT_EQ(poll(base + 0x100, 1), GuestResult(Errno::inval));  // closed
  put(std::uint32_t{8}, base + 0x100);
  EXPECT_EQ(poll(base + 0x100, 1), GuestResult(Errno::inval));
  EXPECT_EQ(said(), Lines{});
}

TEST_F(Sched, WatchdogsAreTwo) {
  const auto watchdog = [&](std::uint32_t id, std::uint32_t timeout) {
    put(xen_abi::SchedWatchdog{id, timeout});
    return call(op::watchdog);
  };
  EXPECT_EQ(call(op::watchdog, unmapped), GuestResult(Errno::fault));
  EXPECT_EQ(watchdog(3, 1), GuestResult(Errno::inval));
  EXPECT_EQ(watchdog(1, 1), GuestResult(Errno::inval));  // not in use
  EXPECT_EQ(watchdog(0, 30), GuestResult::ok(1));
  EXPECT_EQ(watchdog(0, 40), GuestResult::ok(2));
  EXPECT_EQ(watchdog(0, 50), GuestResult(Errno::nospc));
  EXPECT_EQ(watchdog(1, 60), GuestResult::ok());
  EXPECT_EQ(watchdog(1, 0), GuestResult::ok());
  EXPECT_EQ(watchdog(1, 0), GuestResult(Errno::inval));
  EXPECT_EQ(said(), (Lines{"watchdog 0 30", "watchdog 1 40", "watchdog 0 60", "watchdog off 0"}));
  vmm.failure = EMFILE;
  EXPECT_EQ(watchdog(0, 1), GuestResult(Errno::inval));
  EXPECT_EQ(watchdog(2, 0), GuestResult(Errno::inval));
  vmm.failure = 0;
  EXPECT_EQ(watchdog(2, 0), GuestResult::ok());  // it was still in use
  EXPECT_EQ(watchdog(0, 1), GuestResult::ok(1));
  (void)said();
  EXPECT_TRUE(sched.reset());
  EXPECT_EQ(said(), Lines{"watchdog off 0"});
  EXPECT_EQ(watchdog(1, 1), GuestResult(Errno::inval));
  EXPECT_EQ(watchdog(0, 1), GuestResult::ok(1));
  vmm.failure = EMFILE;
  EXPECT_FALSE(sched.reset());
  vmm.failure = 0;
  EXPECT_EQ(watchdog(1, 0), GuestResult::ok());  // it is still in use
}

}  // namespace
}  // namespace xen_hcall
