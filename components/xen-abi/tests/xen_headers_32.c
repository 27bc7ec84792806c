// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Compiled for i386, and never run: xen_layouts_32.inc as Xen's own headers have it.
#define __XEN_INTERFACE_VERSION__ 0x00040e00
#include <stddef.h>
#include <stdint.h>
#include <xen/xen.h>

#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>

#define SIZE_32(ours, theirs, bytes) _Static_assert(sizeof(theirs) == (bytes), #theirs);
#define OFFSET_32(ours, ours_field, theirs, theirs_field, bytes) \
  _Static_assert(offsetof(theirs, theirs_field) == (bytes), #theirs "." #theirs_field);
#include "xen_layouts_32.inc"
