// SPDX-License-Identifier: BSD-3-Clause
//
// Holds our layouts and numbers against Xen's own public headers (libxen-dev).
#include <gtest/gtest.h>

#include <cstdint>

extern "C" {
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <xen/arch-x86/cpuid.h>
#include <xen/event_channel.h>
#include <xen/foreign/x86_32.h>
#include <xen/foreign/x86_64.h>
#include <xen/hvm/hvm_op.h>
#include <xen/memory.h>
#include <xen/vcpu.h>
#include <xen/xen.h>
#pragma pack()
}
#include "xen_abi/cpuid.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/memory.hpp"
#include "xen_abi/shared_info.hpp"
#include "xen_abi/vcpu.hpp"

namespace {

namespace abi = xen_abi;

#define SAME_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs))
#define SAME_OFFSET(ours, ours_field, theirs, theirs_field) \
  static_assert(offsetof(ours, ours_field) == offsetof(theirs, theirs_field))

// What the guest passes.
SAME_SIZE(abi::SetSingleshotTimer, vcpu_set_singleshot_timer);
SAME_OFFSET(abi::SetSingleshotTimer, timeout_abs_ns, vcpu_set_singleshot_timer, timeout_abs_ns);
SAME_OFFSET(abi::SetSingleshotTimer, flags, vcpu_set_singleshot_timer, flags);
SAME_SIZE(abi::SetPeriodicTimer, vcpu_set_periodic_timer);
SAME_SIZE(abi::RegisterVcpuInfo, vcpu_register_vcpu_info);
SAME_OFFSET(abi::RegisterVcpuInfo, offset, vcpu_register_vcpu_info, offset);
SAME_SIZE(abi::EvtchnBindVirq, evtchn_bind_virq);
SAME_OFFSET(abi::EvtchnBindVirq, vcpu, evtchn_bind_virq, vcpu);
SAME_OFFSET(abi::EvtchnBindVirq, port, evtchn_bind_virq, port);
SAME_SIZE(abi::EvtchnClose, evtchn_close);
SAME_SIZE(abi::EvtchnUnmask, evtchn_unmask);
SAME_SIZE(abi::AddToPhysmap<std::uint64_t>, xen_add_to_physmap);
SAME_OFFSET(abi::AddToPhysmap<std::uint64_t>, space, xen_add_to_physmap, space);
SAME_OFFSET(abi::AddToPhysmap<std::uint64_t>, idx, xen_add_to_physmap, idx);
SAME_OFFSET(abi::AddToPhysmap<std::uint64_t>, gpfn, xen_add_to_physmap, gpfn);
SAME_SIZE(abi::EvtchnUpcallVector, xen_hvm_evtchn_upcall_vector);
SAME_OFFSET(abi::EvtchnUpcallVector, vector, xen_hvm_evtchn_upcall_vector, vector);

// What both share, in both widths.
SAME_SIZE(abi::VcpuTimeInfo, vcpu_time_info_x86_64);
SAME_SIZE(abi::VcpuTimeInfo, vcpu_time_info_x86_32);
SAME_OFFSET(abi::VcpuTimeInfo, tsc_timestamp, vcpu_time_info_x86_32, tsc_timestamp);
SAME_OFFSET(abi::VcpuTimeInfo, system_time, vcpu_time_info_x86_32, system_time);
SAME_OFFSET(abi::VcpuTimeInfo, tsc_to_system_mul, vcpu_time_info_x86_32, tsc_to_system_mul);
SAME_OFFSET(abi::VcpuTimeInfo, tsc_shift, vcpu_time_info_x86_32, tsc_shift);
using Info64 = abi::VcpuInfo<std::uint64_t>;
using Info32 = abi::VcpuInfo<std::uint32_t>;
SAME_SIZE(Info64, vcpu_info_x86_64);
SAME_SIZE(Info32, vcpu_info_x86_32);
SAME_OFFSET(Info64, upcall_pending, vcpu_info_x86_64, evtchn_upcall_pending);
SAME_OFFSET(Info64, pending_sel, vcpu_info_x86_64, evtchn_pending_sel);
SAME_OFFSET(Info32, pending_sel, vcpu_info_x86_32, evtchn_pending_sel);
SAME_OFFSET(Info64, time, vcpu_info_x86_64, time);
SAME_OFFSET(Info32, time, vcpu_info_x86_32, time);
SAME_OFFSET(abi::SharedInfo<std::uint64_t>, evtchn_pending, shared_info_x86_64, evtchn_pending);
SAME_OFFSET(abi::SharedInfo<std::uint64_t>, evtchn_mask, shared_info_x86_64, evtchn_mask);
SAME_OFFSET(abi::SharedInfo<std::uint32_t>, evtchn_pending, shared_info_x86_32, evtchn_pending);
SAME_OFFSET(abi::SharedInfo<std::uint32_t>, evtchn_mask, shared_info_x86_32, evtchn_mask);
static_assert(sizeof(abi::SharedInfo<std::uint64_t>) == offsetof(shared_info_x86_64, wc_version));
static_assert(sizeof(abi::SharedInfo<std::uint32_t>) == offsetof(shared_info_x86_32, wc_version));
static_assert(abi::legacy_max_vcpus == XEN_LEGACY_MAX_VCPUS);

TEST(XenHeaders, Numbers) {
  EXPECT_EQ(abi::hypercall::memory_op, __HYPERVISOR_memory_op);
  EXPECT_EQ(abi::hypercall::set_timer_op, __HYPERVISOR_set_timer_op);
  EXPECT_EQ(abi::hypercall::xen_version, __HYPERVISOR_xen_version);
  EXPECT_EQ(abi::hypercall::vcpu_op, __HYPERVISOR_vcpu_op);
  EXPECT_EQ(abi::hypercall::sched_op, __HYPERVISOR_sched_op);
  EXPECT_EQ(abi::hypercall::event_channel_op, __HYPERVISOR_event_channel_op);
  EXPECT_EQ(abi::hypercall::hvm_op, __HYPERVISOR_hvm_op);
  EXPECT_EQ(abi::domid_self, DOMID_SELF);
  EXPECT_EQ(abi::virq::timer, VIRQ_TIMER);
  EXPECT_EQ(abi::virq::count, NR_VIRQS);
  EXPECT_EQ(abi::memory_op::add_to_physmap, XENMEM_add_to_physmap);
  EXPECT_EQ(abi::mapspace::shared_info, XENMAPSPACE_shared_info);
  EXPECT_EQ(abi::mapspace::grant_table, XENMAPSPACE_grant_table);
  EXPECT_EQ(abi::hvmop::set_param, HVMOP_set_param);
  EXPECT_EQ(abi::hvmop::get_param, HVMOP_get_param);
  EXPECT_EQ(abi::hvmop::set_evtchn_upcall_vector, HVMOP_set_evtchn_upcall_vector);
}

TEST(XenHeaders, VcpuOps) {
  EXPECT_EQ(abi::vcpuop::initialise, VCPUOP_initialise);
  EXPECT_EQ(abi::vcpuop::up, VCPUOP_up);
  EXPECT_EQ(abi::vcpuop::down, VCPUOP_down);
  EXPECT_EQ(abi::vcpuop::is_up, VCPUOP_is_up);
  EXPECT_EQ(abi::vcpuop::get_runstate_info, VCPUOP_get_runstate_info);
  EXPECT_EQ(abi::vcpuop::register_runstate_memory_area, VCPUOP_register_runstate_memory_area);
  EXPECT_EQ(abi::vcpuop::set_periodic_timer, VCPUOP_set_periodic_timer);
  EXPECT_EQ(abi::vcpuop::stop_periodic_timer, VCPUOP_stop_periodic_timer);
  EXPECT_EQ(abi::vcpuop::set_singleshot_timer, VCPUOP_set_singleshot_timer);
  EXPECT_EQ(abi::vcpuop::stop_singleshot_timer, VCPUOP_stop_singleshot_timer);
  EXPECT_EQ(abi::vcpuop::register_vcpu_info, VCPUOP_register_vcpu_info);
  EXPECT_EQ(abi::vcpuop::send_nmi, VCPUOP_send_nmi);
  EXPECT_EQ(abi::vcpuop::get_physid, VCPUOP_get_physid);
  EXPECT_EQ(abi::vcpuop::register_vcpu_time_memory_area, VCPUOP_register_vcpu_time_memory_area);
}

TEST(XenHeaders, EventChannelOps) {
  EXPECT_EQ(abi::evtchnop::bind_interdomain, EVTCHNOP_bind_interdomain);
  EXPECT_EQ(abi::evtchnop::bind_virq, EVTCHNOP_bind_virq);
  EXPECT_EQ(abi::evtchnop::bind_pirq, EVTCHNOP_bind_pirq);
  EXPECT_EQ(abi::evtchnop::close, EVTCHNOP_close);
  EXPECT_EQ(abi::evtchnop::send, EVTCHNOP_send);
  EXPECT_EQ(abi::evtchnop::status, EVTCHNOP_status);
  EXPECT_EQ(abi::evtchnop::alloc_unbound, EVTCHNOP_alloc_unbound);
  EXPECT_EQ(abi::evtchnop::bind_ipi, EVTCHNOP_bind_ipi);
  EXPECT_EQ(abi::evtchnop::bind_vcpu, EVTCHNOP_bind_vcpu);
  EXPECT_EQ(abi::evtchnop::unmask, EVTCHNOP_unmask);
  EXPECT_EQ(abi::evtchnop::reset, EVTCHNOP_reset);
  EXPECT_EQ(abi::evtchnop::init_control, EVTCHNOP_init_control);
  EXPECT_EQ(abi::evtchnop::expand_array, EVTCHNOP_expand_array);
  EXPECT_EQ(abi::evtchnop::set_priority, EVTCHNOP_set_priority);
}

TEST(XenHeaders, Cpuid) {
  EXPECT_EQ(abi::cpuid::base, static_cast<unsigned>(XEN_CPUID_FIRST_LEAF));
  EXPECT_EQ(abi::cpuid::signature_ebx, static_cast<unsigned>(XEN_CPUID_SIGNATURE_EBX));
  EXPECT_EQ(abi::cpuid::signature_ecx, static_cast<unsigned>(XEN_CPUID_SIGNATURE_ECX));
  EXPECT_EQ(abi::cpuid::signature_edx, static_cast<unsigned>(XEN_CPUID_SIGNATURE_EDX));
  EXPECT_EQ(abi::cpuid::hvm_vcpu_id_present, XEN_HVM_CPUID_VCPU_ID_PRESENT);
  EXPECT_EQ(abi::cpuid::hvm_upcall_vector, XEN_HVM_CPUID_UPCALL_VECTOR);
}

// In a function of its own: Xen's errno.h defines XEN_E* constants by including itself twice.
TEST(XenHeaders, Errnos) {
  enum {
#define XEN_ERRNO(name, value) theirs_##name = value,
#include <xen/errno.h>
  };
  EXPECT_EQ(static_cast<int>(abi::Errno::perm), theirs_EPERM);
  EXPECT_EQ(static_cast<int>(abi::Errno::noent), theirs_ENOENT);
  EXPECT_EQ(static_cast<int>(abi::Errno::srch), theirs_ESRCH);
  EXPECT_EQ(static_cast<int>(abi::Errno::nxio), theirs_ENXIO);
  EXPECT_EQ(static_cast<int>(abi::Errno::nomem), theirs_ENOMEM);
  EXPECT_EQ(static_cast<int>(abi::Errno::acces), theirs_EACCES);
  EXPECT_EQ(static_cast<int>(abi::Errno::fault), theirs_EFAULT);
  EXPECT_EQ(static_cast<int>(abi::Errno::busy), theirs_EBUSY);
  EXPECT_EQ(static_cast<int>(abi::Errno::exist), theirs_EEXIST);
  EXPECT_EQ(static_cast<int>(abi::Errno::inval), theirs_EINVAL);
  EXPECT_EQ(static_cast<int>(abi::Errno::nospc), theirs_ENOSPC);
  EXPECT_EQ(static_cast<int>(abi::Errno::nosys), theirs_ENOSYS);
  EXPECT_EQ(static_cast<int>(abi::Errno::opnotsupp), theirs_EOPNOTSUPP);
}

}  // namespace
