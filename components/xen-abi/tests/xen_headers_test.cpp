// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Holds our layouts and numbers against Xen's own public headers (libxen-dev).
#include <gtest/gtest.h>

#include <cstdint>

extern "C" {
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#define __XEN_TOOLS__ 1  // for what is deprecated, too
#include <xen/arch-x86/cpuid.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/foreign/x86_32.h>
#include <xen/foreign/x86_64.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/xen.h>
#pragma pack()
}
#include "xen_abi/console.hpp"
#include "xen_abi/cpuid.hpp"
#include "xen_abi/event_channel.hpp"
#include "xen_abi/grant_table.hpp"
#include "xen_abi/hvm.hpp"
#include "xen_abi/hypercall.hpp"
#include "xen_abi/memory.hpp"
#include "xen_abi/physdev.hpp"
#include "xen_abi/sched.hpp"
#include "xen_abi/shared_info.hpp"
#include "xen_abi/vcpu.hpp"
#include "xen_abi/version.hpp"

namespace {

namespace abi = xen_abi;

#define SAME_SIZE(ours, theirs) static_assert(sizeof(ours) == sizeof(theirs))
#define SAME_OFFSET(ours, ours_field, theirs, theirs_field) \
  static_assert(offsetof(ours, ours_field) == offsetof(theirs, theirs_field))

// What a 64-bit guest passes; xen_layouts_32.inc has what a 32-bit one does.
SAME_SIZE(abi::SetSingleshotTimer, vcpu_set_singleshot_timer);
SAME_OFFSET(abi::SetSingleshotTimer, timeout_abs_ns, vcpu_set_singleshot_timer, timeout_abs_ns);
SAME_OFFSET(abi::SetSingleshotTimer, flags, vcpu_set_singleshot_timer, flags);
SAME_SIZE(abi::SetPeriodicTimer, vcpu_set_periodic_timer);
SAME_SIZE(abi::RegisterVcpuInfo, vcpu_register_vcpu_info);
SAME_OFFSET(abi::RegisterVcpuInfo, offset, vcpu_register_vcpu_info, offset);
SAME_SIZE(abi::RegisterArea, vcpu_register_runstate_memory_area);
SAME_SIZE(abi::RegisterArea, vcpu_register_time_memory_area);
SAME_SIZE(abi::RunstateInfo, vcpu_runstate_info);
SAME_OFFSET(abi::RunstateInfo, state_entry_time, vcpu_runstate_info, state_entry_time);
SAME_OFFSET(abi::RunstateInfo, time, vcpu_runstate_info, time);
SAME_SIZE(abi::VcpuHvmContext, vcpu_hvm_context);
SAME_OFFSET(abi::VcpuHvmContext, x86_32, vcpu_hvm_context, cpu_regs);
SAME_SIZE(abi::VcpuHvmX86_32, vcpu_hvm_x86_32);
SAME_OFFSET(abi::VcpuHvmX86_32, eflags, vcpu_hvm_x86_32, eflags);
SAME_OFFSET(abi::VcpuHvmX86_32, efer, vcpu_hvm_x86_32, efer);
SAME_OFFSET(abi::VcpuHvmX86_32, es_base, vcpu_hvm_x86_32, es_base);
SAME_OFFSET(abi::VcpuHvmX86_32, ss_limit, vcpu_hvm_x86_32, ss_limit);
SAME_OFFSET(abi::VcpuHvmX86_32, ds_ar, vcpu_hvm_x86_32, ds_ar);
SAME_OFFSET(abi::VcpuHvmX86_32, tr_ar, vcpu_hvm_x86_32, tr_ar);
SAME_SIZE(abi::VcpuHvmX86_64, vcpu_hvm_x86_64);
SAME_OFFSET(abi::VcpuHvmX86_64, rsp, vcpu_hvm_x86_64, rsp);
SAME_OFFSET(abi::VcpuHvmX86_64, rip, vcpu_hvm_x86_64, rip);
SAME_OFFSET(abi::VcpuHvmX86_64, efer, vcpu_hvm_x86_64, efer);

SAME_SIZE(abi::EvtchnAllocUnbound, evtchn_alloc_unbound);
SAME_OFFSET(abi::EvtchnAllocUnbound, remote_dom, evtchn_alloc_unbound, remote_dom);
SAME_OFFSET(abi::EvtchnAllocUnbound, port, evtchn_alloc_unbound, port);
SAME_SIZE(abi::EvtchnBindInterdomain, evtchn_bind_interdomain);
SAME_OFFSET(abi::EvtchnBindInterdomain, remote_port, evtchn_bind_interdomain, remote_port);
SAME_OFFSET(abi::EvtchnBindInterdomain, local_port, evtchn_bind_interdomain, local_port);
SAME_SIZE(abi::EvtchnBindVirq, evtchn_bind_virq);
SAME_OFFSET(abi::EvtchnBindVirq, vcpu, evtchn_bind_virq, vcpu);
SAME_OFFSET(abi::EvtchnBindVirq, port, evtchn_bind_virq, port);
SAME_SIZE(abi::EvtchnBindPirq, evtchn_bind_pirq);
SAME_SIZE(abi::EvtchnBindIpi, evtchn_bind_ipi);
SAME_OFFSET(abi::EvtchnBindIpi, port, evtchn_bind_ipi, port);
SAME_SIZE(abi::EvtchnClose, evtchn_close);
SAME_SIZE(abi::EvtchnSend, evtchn_send);
SAME_SIZE(abi::EvtchnStatus, evtchn_status);
SAME_OFFSET(abi::EvtchnStatus, port, evtchn_status, port);
SAME_OFFSET(abi::EvtchnStatus, status, evtchn_status, status);
SAME_OFFSET(abi::EvtchnStatus, vcpu, evtchn_status, vcpu);
SAME_OFFSET(abi::EvtchnStatus, remote_dom, evtchn_status, u.unbound.dom);
SAME_OFFSET(abi::EvtchnStatus, remote_dom, evtchn_status, u.interdomain.dom);
SAME_OFFSET(abi::EvtchnStatus, remote_port, evtchn_status, u.interdomain.port);
SAME_OFFSET(abi::EvtchnStatus, virq, evtchn_status, u.virq);
SAME_SIZE(abi::EvtchnBindVcpu, evtchn_bind_vcpu);
SAME_OFFSET(abi::EvtchnBindVcpu, vcpu, evtchn_bind_vcpu, vcpu);
SAME_SIZE(abi::EvtchnUnmask, evtchn_unmask);
SAME_SIZE(abi::EvtchnReset, evtchn_reset);
SAME_SIZE(abi::EvtchnSetPriority, evtchn_set_priority);

using AddToPhysmap = abi::AddToPhysmap<std::uint64_t>;
SAME_SIZE(AddToPhysmap, xen_add_to_physmap);
SAME_OFFSET(AddToPhysmap, size, xen_add_to_physmap, size);
SAME_OFFSET(AddToPhysmap, space, xen_add_to_physmap, space);
SAME_OFFSET(AddToPhysmap, idx, xen_add_to_physmap, idx);
SAME_OFFSET(AddToPhysmap, gpfn, xen_add_to_physmap, gpfn);
using AddToPhysmapBatch = abi::AddToPhysmapBatch<std::uint64_t>;
SAME_SIZE(AddToPhysmapBatch, xen_add_to_physmap_batch);
SAME_OFFSET(AddToPhysmapBatch, space, xen_add_to_physmap_batch, space);
SAME_OFFSET(AddToPhysmapBatch, size, xen_add_to_physmap_batch, size);
SAME_OFFSET(AddToPhysmapBatch, foreign_domid, xen_add_to_physmap_batch, u);
SAME_OFFSET(AddToPhysmapBatch, idxs, xen_add_to_physmap_batch, idxs);
SAME_OFFSET(AddToPhysmapBatch, gpfns, xen_add_to_physmap_batch, gpfns);
SAME_OFFSET(AddToPhysmapBatch, errs, xen_add_to_physmap_batch, errs);
using RemoveFromPhysmap = abi::RemoveFromPhysmap<std::uint64_t>;
SAME_SIZE(RemoveFromPhysmap, xen_remove_from_physmap);
SAME_OFFSET(RemoveFromPhysmap, gpfn, xen_remove_from_physmap, gpfn);
using MemoryReservation = abi::MemoryReservation<std::uint64_t>;
SAME_SIZE(MemoryReservation, xen_memory_reservation);
SAME_OFFSET(MemoryReservation, nr_extents, xen_memory_reservation, nr_extents);
SAME_OFFSET(MemoryReservation, extent_order, xen_memory_reservation, extent_order);
SAME_OFFSET(MemoryReservation, mem_flags, xen_memory_reservation, mem_flags);
SAME_OFFSET(MemoryReservation, domid, xen_memory_reservation, domid);
using MemoryMap = abi::MemoryMap<std::uint64_t>;
SAME_SIZE(MemoryMap, xen_memory_map);
SAME_OFFSET(MemoryMap, buffer, xen_memory_map, buffer);

SAME_SIZE(abi::HvmParam, xen_hvm_param);
SAME_OFFSET(abi::HvmParam, index, xen_hvm_param, index);
SAME_OFFSET(abi::HvmParam, value, xen_hvm_param, value);
SAME_SIZE(abi::EvtchnUpcallVector, xen_hvm_evtchn_upcall_vector);
SAME_OFFSET(abi::EvtchnUpcallVector, vector, xen_hvm_evtchn_upcall_vector, vector);
SAME_SIZE(abi::HvmPagetableDying, xen_hvm_pagetable_dying);
SAME_OFFSET(abi::HvmPagetableDying, gpa, xen_hvm_pagetable_dying, gpa);
SAME_SIZE(abi::HvmGetMemType, xen_hvm_get_mem_type);
SAME_OFFSET(abi::HvmGetMemType, mem_type, xen_hvm_get_mem_type, mem_type);
SAME_OFFSET(abi::HvmGetMemType, pfn, xen_hvm_get_mem_type, pfn);

SAME_SIZE(abi::CompileInfo, xen_compile_info);
SAME_OFFSET(abi::CompileInfo, compile_by, xen_compile_info, compile_by);
SAME_OFFSET(abi::CompileInfo, compile_domain, xen_compile_info, compile_domain);
SAME_OFFSET(abi::CompileInfo, compile_date, xen_compile_info, compile_date);
SAME_SIZE(abi::FeatureInfo, xen_feature_info);
static_assert(abi::extraversion_size == sizeof(xen_extraversion_t));
static_assert(abi::capabilities_size == sizeof(xen_capabilities_info_t));
static_assert(abi::changeset_size == sizeof(xen_changeset_info_t));
static_assert(abi::commandline_size == sizeof(xen_commandline_t));
static_assert(sizeof(xen_domain_handle_t) == 16);
static_assert(sizeof(xen_platform_parameters) == 8);

SAME_SIZE(abi::SchedShutdown, sched_shutdown);
SAME_SIZE(abi::SchedRemoteShutdown, sched_remote_shutdown);
SAME_OFFSET(abi::SchedRemoteShutdown, reason, sched_remote_shutdown, reason);
SAME_SIZE(abi::SchedWatchdog, sched_watchdog);
SAME_OFFSET(abi::SchedWatchdog, timeout, sched_watchdog, timeout);
SAME_SIZE(abi::SchedPoll64, sched_poll);
SAME_OFFSET(abi::SchedPoll64, nr_ports, sched_poll, nr_ports);
SAME_OFFSET(abi::SchedPoll64, timeout, sched_poll, timeout);

using GnttabSetupTable = abi::GnttabSetupTable<std::uint64_t>;
SAME_SIZE(GnttabSetupTable, gnttab_setup_table);
SAME_OFFSET(GnttabSetupTable, nr_frames, gnttab_setup_table, nr_frames);
SAME_OFFSET(GnttabSetupTable, status, gnttab_setup_table, status);
SAME_OFFSET(GnttabSetupTable, frame_list, gnttab_setup_table, frame_list);
SAME_SIZE(abi::GnttabQuerySize, gnttab_query_size);
SAME_OFFSET(abi::GnttabQuerySize, nr_frames, gnttab_query_size, nr_frames);
SAME_OFFSET(abi::GnttabQuerySize, max_nr_frames, gnttab_query_size, max_nr_frames);
SAME_OFFSET(abi::GnttabQuerySize, status, gnttab_query_size, status);
SAME_SIZE(abi::GnttabSetVersion, gnttab_set_version);
SAME_SIZE(abi::GnttabGetVersion, gnttab_get_version);
SAME_OFFSET(abi::GnttabGetVersion, version, gnttab_get_version, version);

SAME_SIZE(abi::PhysdevMapPirq, physdev_map_pirq);
SAME_SIZE(abi::PhysdevUnmapPirq, physdev_unmap_pirq);
SAME_SIZE(abi::MulticallEntry<std::uint64_t>, multicall_entry);
SAME_OFFSET(abi::MulticallEntry<std::uint64_t>, result, multicall_entry, result);
SAME_OFFSET(abi::MulticallEntry<std::uint64_t>, args, multicall_entry, args);

// What a 32-bit guest passes: ours. xen_headers_32.c holds the same lines against Xen's.
using Word = std::uint32_t;
#define SIZE_32(ours, theirs, bytes) static_assert(sizeof(abi::ours) == (bytes));
#define OFFSET_32(ours, ours_field, theirs, theirs_field, bytes) \
  static_assert(offsetof(abi::ours, ours_field) == (bytes));
#include "xen_layouts_32.inc"

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
  EXPECT_EQ(abi::hypercall::multicall, __HYPERVISOR_multicall);
  EXPECT_EQ(abi::hypercall::set_timer_op, __HYPERVISOR_set_timer_op);
  EXPECT_EQ(abi::hypercall::xen_version, __HYPERVISOR_xen_version);
  EXPECT_EQ(abi::hypercall::console_io, __HYPERVISOR_console_io);
  EXPECT_EQ(abi::hypercall::grant_table_op, __HYPERVISOR_grant_table_op);
  EXPECT_EQ(abi::hypercall::vm_assist, __HYPERVISOR_vm_assist);
  EXPECT_EQ(abi::hypercall::vcpu_op, __HYPERVISOR_vcpu_op);
  EXPECT_EQ(abi::hypercall::sched_op, __HYPERVISOR_sched_op);
  EXPECT_EQ(abi::hypercall::event_channel_op, __HYPERVISOR_event_channel_op);
  EXPECT_EQ(abi::hypercall::physdev_op, __HYPERVISOR_physdev_op);
  EXPECT_EQ(abi::hypercall::hvm_op, __HYPERVISOR_hvm_op);
  EXPECT_EQ(abi::domid_self, DOMID_SELF);
  EXPECT_EQ(abi::vm_assist::enable, static_cast<unsigned>(VMASST_CMD_enable));
  EXPECT_EQ(abi::vm_assist::disable, static_cast<unsigned>(VMASST_CMD_disable));
  EXPECT_EQ(abi::vm_assist::runstate_update_flag,
            static_cast<unsigned>(VMASST_TYPE_runstate_update_flag));
  EXPECT_EQ(abi::consoleio::write, static_cast<unsigned>(CONSOLEIO_write));
  EXPECT_EQ(abi::consoleio::read, static_cast<unsigned>(CONSOLEIO_read));
}

TEST(XenHeaders, Virqs) {
  EXPECT_EQ(abi::virq::timer, static_cast<unsigned>(VIRQ_TIMER));
  EXPECT_EQ(abi::virq::debug, static_cast<unsigned>(VIRQ_DEBUG));
  EXPECT_EQ(abi::virq::xenoprof, static_cast<unsigned>(VIRQ_XENOPROF));
  EXPECT_EQ(abi::virq::argo, static_cast<unsigned>(VIRQ_ARGO));
  EXPECT_EQ(abi::virq::xenpmu, static_cast<unsigned>(VIRQ_XENPMU));
  EXPECT_EQ(abi::virq::count, static_cast<unsigned>(NR_VIRQS));
}

TEST(XenHeaders, VersionOps) {
  EXPECT_EQ(abi::xenver::version, static_cast<unsigned>(XENVER_version));
  EXPECT_EQ(abi::xenver::extraversion, static_cast<unsigned>(XENVER_extraversion));
  EXPECT_EQ(abi::xenver::compile_info, static_cast<unsigned>(XENVER_compile_info));
  EXPECT_EQ(abi::xenver::capabilities, static_cast<unsigned>(XENVER_capabilities));
  EXPECT_EQ(abi::xenver::changeset, static_cast<unsigned>(XENVER_changeset));
  EXPECT_EQ(abi::xenver::platform_parameters, static_cast<unsigned>(XENVER_platform_parameters));
  EXPECT_EQ(abi::xenver::get_features, static_cast<unsigned>(XENVER_get_features));
  EXPECT_EQ(abi::xenver::pagesize, static_cast<unsigned>(XENVER_pagesize));
  EXPECT_EQ(abi::xenver::guest_handle, static_cast<unsigned>(XENVER_guest_handle));
  EXPECT_EQ(abi::xenver::commandline, static_cast<unsigned>(XENVER_commandline));
  EXPECT_EQ(abi::xenver::build_id, static_cast<unsigned>(XENVER_build_id));
  EXPECT_EQ(abi::feature::writable_page_tables, 1u << XENFEAT_writable_page_tables);
  EXPECT_EQ(abi::feature::auto_translated_physmap, 1u << XENFEAT_auto_translated_physmap);
  EXPECT_EQ(abi::feature::hvm_callback_vector, 1u << XENFEAT_hvm_callback_vector);
  EXPECT_EQ(abi::feature::hvm_safe_pvclock, 1u << XENFEAT_hvm_safe_pvclock);
  EXPECT_EQ(abi::feature::hvm_pirqs, 1u << XENFEAT_hvm_pirqs);
  EXPECT_EQ(abi::feature::memory_op_vnode_supported, 1u << XENFEAT_memory_op_vnode_supported);
  EXPECT_EQ(abi::feature::not_direct_mapped, 1u << XENFEAT_not_direct_mapped);
}

TEST(XenHeaders, MemoryOps) {
  namespace op = abi::memory_op;
  EXPECT_EQ(op::increase_reservation, static_cast<unsigned>(XENMEM_increase_reservation));
  EXPECT_EQ(op::decrease_reservation, static_cast<unsigned>(XENMEM_decrease_reservation));
  EXPECT_EQ(op::maximum_ram_page, static_cast<unsigned>(XENMEM_maximum_ram_page));
  EXPECT_EQ(op::current_reservation, static_cast<unsigned>(XENMEM_current_reservation));
  EXPECT_EQ(op::maximum_reservation, static_cast<unsigned>(XENMEM_maximum_reservation));
  EXPECT_EQ(op::populate_physmap, static_cast<unsigned>(XENMEM_populate_physmap));
  EXPECT_EQ(op::add_to_physmap, static_cast<unsigned>(XENMEM_add_to_physmap));
  EXPECT_EQ(op::memory_map, static_cast<unsigned>(XENMEM_memory_map));
  EXPECT_EQ(op::machine_memory_map, static_cast<unsigned>(XENMEM_machine_memory_map));
  EXPECT_EQ(op::maximum_gpfn, static_cast<unsigned>(XENMEM_maximum_gpfn));
  EXPECT_EQ(op::remove_from_physmap, static_cast<unsigned>(XENMEM_remove_from_physmap));
  EXPECT_EQ(op::get_sharing_freed_pages, static_cast<unsigned>(XENMEM_get_sharing_freed_pages));
  EXPECT_EQ(op::get_sharing_shared_pages, static_cast<unsigned>(XENMEM_get_sharing_shared_pages));
  EXPECT_EQ(op::add_to_physmap_batch, static_cast<unsigned>(XENMEM_add_to_physmap_batch));
  EXPECT_EQ(abi::mapspace::shared_info, static_cast<unsigned>(XENMAPSPACE_shared_info));
  EXPECT_EQ(abi::mapspace::grant_table, static_cast<unsigned>(XENMAPSPACE_grant_table));
  EXPECT_EQ(abi::mapspace::gmfn, static_cast<unsigned>(XENMAPSPACE_gmfn));
  EXPECT_EQ(abi::mapspace::gmfn_range, static_cast<unsigned>(XENMAPSPACE_gmfn_range));
  EXPECT_EQ(abi::mapspace::gmfn_foreign, static_cast<unsigned>(XENMAPSPACE_gmfn_foreign));
  EXPECT_EQ(abi::mapspace::dev_mmio, static_cast<unsigned>(XENMAPSPACE_dev_mmio));
}

TEST(XenHeaders, HvmOps) {
  EXPECT_EQ(abi::hvmop::set_param, static_cast<unsigned>(HVMOP_set_param));
  EXPECT_EQ(abi::hvmop::get_param, static_cast<unsigned>(HVMOP_get_param));
  EXPECT_EQ(abi::hvmop::flush_tlbs, static_cast<unsigned>(HVMOP_flush_tlbs));
  EXPECT_EQ(abi::hvmop::pagetable_dying, static_cast<unsigned>(HVMOP_pagetable_dying));
  EXPECT_EQ(abi::hvmop::get_time, static_cast<unsigned>(HVMOP_get_time));
  EXPECT_EQ(abi::hvmop::xentrace, static_cast<unsigned>(HVMOP_xentrace));
  EXPECT_EQ(abi::hvmop::get_mem_type, static_cast<unsigned>(HVMOP_get_mem_type));
  EXPECT_EQ(abi::hvmop::set_evtchn_upcall_vector,
            static_cast<unsigned>(HVMOP_set_evtchn_upcall_vector));
  EXPECT_EQ(abi::hvmmem_ram_rw, HVMMEM_ram_rw);
  EXPECT_EQ(abi::hvmmem_mmio_dm, HVMMEM_mmio_dm);
}

TEST(XenHeaders, HvmParams) {
  namespace param = abi::hvm_param;
  EXPECT_EQ(param::callback_irq, static_cast<unsigned>(HVM_PARAM_CALLBACK_IRQ));
  EXPECT_EQ(param::store_pfn, static_cast<unsigned>(HVM_PARAM_STORE_PFN));
  EXPECT_EQ(param::store_evtchn, static_cast<unsigned>(HVM_PARAM_STORE_EVTCHN));
  EXPECT_EQ(param::pae_enabled, static_cast<unsigned>(HVM_PARAM_PAE_ENABLED));
  EXPECT_EQ(param::dm_domain, static_cast<unsigned>(HVM_PARAM_DM_DOMAIN));
  EXPECT_EQ(param::vm86_tss, static_cast<unsigned>(HVM_PARAM_VM86_TSS));
  EXPECT_EQ(param::console_pfn, static_cast<unsigned>(HVM_PARAM_CONSOLE_PFN));
  EXPECT_EQ(param::console_evtchn, static_cast<unsigned>(HVM_PARAM_CONSOLE_EVTCHN));
  EXPECT_EQ(param::acpi_ioports_location, static_cast<unsigned>(HVM_PARAM_ACPI_IOPORTS_LOCATION));
  EXPECT_EQ(param::memory_event_cr0, static_cast<unsigned>(HVM_PARAM_MEMORY_EVENT_CR0));
  EXPECT_EQ(param::nested_hvm, static_cast<unsigned>(HVM_PARAM_NESTEDHVM));
  EXPECT_EQ(param::memory_event_single_step,
            static_cast<unsigned>(HVM_PARAM_MEMORY_EVENT_SINGLE_STEP));
  EXPECT_EQ(param::bufioreq_evtchn, static_cast<unsigned>(HVM_PARAM_BUFIOREQ_EVTCHN));
  EXPECT_EQ(param::memory_event_msr, static_cast<unsigned>(HVM_PARAM_MEMORY_EVENT_MSR));
  EXPECT_EQ(param::vm_generation_id_addr, static_cast<unsigned>(HVM_PARAM_VM_GENERATION_ID_ADDR));
  EXPECT_EQ(param::altp2m, static_cast<unsigned>(HVM_PARAM_ALTP2M));
  EXPECT_EQ(param::x87_fip_width, static_cast<unsigned>(HVM_PARAM_X87_FIP_WIDTH));
  EXPECT_EQ(param::vm86_tss_sized, static_cast<unsigned>(HVM_PARAM_VM86_TSS_SIZED));
  EXPECT_EQ(param::count, static_cast<unsigned>(HVM_NR_PARAMS));
  EXPECT_EQ(std::uint64_t{0xff} << abi::callback_irq::type_shift, HVM_PARAM_CALLBACK_IRQ_TYPE_MASK);
  EXPECT_EQ(abi::callback_irq::gsi, static_cast<unsigned>(HVM_PARAM_CALLBACK_TYPE_GSI));
  EXPECT_EQ(abi::callback_irq::pci_intx, static_cast<unsigned>(HVM_PARAM_CALLBACK_TYPE_PCI_INTX));
  EXPECT_EQ(abi::callback_irq::vector, static_cast<unsigned>(HVM_PARAM_CALLBACK_TYPE_VECTOR));
}

TEST(XenHeaders, SchedOps) {
  EXPECT_EQ(abi::schedop::yield, static_cast<unsigned>(SCHEDOP_yield));
  EXPECT_EQ(abi::schedop::block, static_cast<unsigned>(SCHEDOP_block));
  EXPECT_EQ(abi::schedop::shutdown, static_cast<unsigned>(SCHEDOP_shutdown));
  EXPECT_EQ(abi::schedop::poll, static_cast<unsigned>(SCHEDOP_poll));
  EXPECT_EQ(abi::schedop::remote_shutdown, static_cast<unsigned>(SCHEDOP_remote_shutdown));
  EXPECT_EQ(abi::schedop::shutdown_code, static_cast<unsigned>(SCHEDOP_shutdown_code));
  EXPECT_EQ(abi::schedop::watchdog, static_cast<unsigned>(SCHEDOP_watchdog));
  EXPECT_EQ(abi::schedop::pin_override, static_cast<unsigned>(SCHEDOP_pin_override));
  const auto is = [](abi::ShutdownReason ours, int theirs) {
    return static_cast<int>(ours) == theirs;
  };
  EXPECT_TRUE(is(abi::ShutdownReason::poweroff, SHUTDOWN_poweroff));
  EXPECT_TRUE(is(abi::ShutdownReason::reboot, SHUTDOWN_reboot));
  EXPECT_TRUE(is(abi::ShutdownReason::suspend, SHUTDOWN_suspend));
  EXPECT_TRUE(is(abi::ShutdownReason::crash, SHUTDOWN_crash));
  EXPECT_TRUE(is(abi::ShutdownReason::watchdog, SHUTDOWN_watchdog));
  EXPECT_TRUE(is(abi::ShutdownReason::soft_reset, SHUTDOWN_soft_reset));
}

TEST(XenHeaders, GrantTableOps) {
  EXPECT_EQ(abi::gnttabop::map_grant_ref, static_cast<unsigned>(GNTTABOP_map_grant_ref));
  EXPECT_EQ(abi::gnttabop::unmap_grant_ref, static_cast<unsigned>(GNTTABOP_unmap_grant_ref));
  EXPECT_EQ(abi::gnttabop::setup_table, static_cast<unsigned>(GNTTABOP_setup_table));
  EXPECT_EQ(abi::gnttabop::copy, static_cast<unsigned>(GNTTABOP_copy));
  EXPECT_EQ(abi::gnttabop::query_size, static_cast<unsigned>(GNTTABOP_query_size));
  EXPECT_EQ(abi::gnttabop::set_version, static_cast<unsigned>(GNTTABOP_set_version));
  EXPECT_EQ(abi::gnttabop::get_version, static_cast<unsigned>(GNTTABOP_get_version));
  EXPECT_EQ(abi::gnttabop::swap_grant_ref, static_cast<unsigned>(GNTTABOP_swap_grant_ref));
  EXPECT_EQ(abi::grant_status::okay, GNTST_okay);
  EXPECT_EQ(abi::grant_status::general_error, GNTST_general_error);
  EXPECT_EQ(abi::grant_status::bad_domain, GNTST_bad_domain);
  EXPECT_EQ(abi::grant_status::bad_virt_addr, GNTST_bad_virt_addr);
}

TEST(XenHeaders, PhysdevOps) {
  EXPECT_EQ(abi::physdevop::irq_status_query, static_cast<unsigned>(PHYSDEVOP_irq_status_query));
  EXPECT_EQ(abi::physdevop::eoi, static_cast<unsigned>(PHYSDEVOP_eoi));
  EXPECT_EQ(abi::physdevop::map_pirq, static_cast<unsigned>(PHYSDEVOP_map_pirq));
  EXPECT_EQ(abi::physdevop::unmap_pirq, static_cast<unsigned>(PHYSDEVOP_unmap_pirq));
  EXPECT_EQ(abi::physdevop::get_free_pirq, static_cast<unsigned>(PHYSDEVOP_get_free_pirq));
  EXPECT_EQ(abi::physdevop::pirq_eoi_gmfn_v2, static_cast<unsigned>(PHYSDEVOP_pirq_eoi_gmfn_v2));
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
  EXPECT_EQ(abi::evtchn_status::closed, static_cast<unsigned>(EVTCHNSTAT_closed));
  EXPECT_EQ(abi::evtchn_status::unbound, static_cast<unsigned>(EVTCHNSTAT_unbound));
  EXPECT_EQ(abi::evtchn_status::interdomain, static_cast<unsigned>(EVTCHNSTAT_interdomain));
  EXPECT_EQ(abi::evtchn_status::pirq, static_cast<unsigned>(EVTCHNSTAT_pirq));
  EXPECT_EQ(abi::evtchn_status::virq, static_cast<unsigned>(EVTCHNSTAT_virq));
  EXPECT_EQ(abi::evtchn_status::ipi, static_cast<unsigned>(EVTCHNSTAT_ipi));
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
  EXPECT_EQ(static_cast<int>(abi::Errno::too_big), theirs_E2BIG);
  EXPECT_EQ(static_cast<int>(abi::Errno::dom), theirs_EDOM);
  EXPECT_EQ(static_cast<int>(abi::Errno::nodata), theirs_ENODATA);
  EXPECT_EQ(static_cast<int>(abi::Errno::overflow), theirs_EOVERFLOW);
  EXPECT_EQ(static_cast<int>(abi::Errno::ilseq), theirs_EILSEQ);
  EXPECT_EQ(static_cast<int>(abi::Errno::nobufs), theirs_ENOBUFS);
}

}  // namespace
