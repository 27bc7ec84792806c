// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//
// Places where a debugger, bpftrace or perf may look in, by USDT: a no-op and a note in the ELF
// file each. Without <sys/sdt.h> (systemtap-sdt-dev) there are none.
#pragma once

#if __has_include(<sys/sdt.h>)
#include <sys/sdt.h>
#define VMM_PROBE(name, a, b, c) STAP_PROBE3(vmm_reference, name, a, b, c)
#else
#define VMM_PROBE(name, a, b, c) \
  do {                           \
    (void)(a);                   \
    (void)(b);                   \
    (void)(c);                   \
  } while (false)
#endif
