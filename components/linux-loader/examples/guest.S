# SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
# A guest for load_kernel, linked to be entered at 0x100000.
  .globl _start
_start:
  hlt
  .section .note.GNU-stack, "", @progbits
