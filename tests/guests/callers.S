/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Hypercalls from where a kernel doesn't make them: from ring 3, and from 32-bit code. Interrupts are
   off; the caller's segments are those of callers.hpp. */
        .text

        /* int64 call_from_ring3(slot, a, b, c, uint64 *rsp0): rdi, rsi, rdx, rcx, r8 */
        .globl call_from_ring3
call_from_ring3:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        push    %r8                     /* aligns RSP, which the way back would do, too */
        mov     %rsp, (%r8)             /* where the way back finds us */
        mov     %rdi, %r11
        mov     %rsi, %rdi
        mov     %rdx, %rsi
        mov     %rcx, %rdx
        lea     -1024(%rsp), %rax
        pushq   $0x23
        push    %rax
        pushq   $2
        pushq   $0x2b
        lea     1f(%rip), %rax
        push    %rax
        iretq
1:      call    *%r11
        int     $0x80

        /* The handler of int 0x80: RAX is the hypercall's result. */
        .globl back_from_ring3
back_from_ring3:
        add     $40, %rsp
        mov     $16, %ecx
        mov     %ecx, %ss
        pushq   $2
        popfq
        pop     %r8
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        /* int64 call_from_32bit(slot, a, b, c): edi, esi, edx, ecx */
        .globl call_from_32bit
call_from_32bit:
        push    %rbx
        push    %rbp
        push    %r12
        push    %r13
        push    %r14
        push    %r15
        mov     %edi, %eax
        mov     %esi, %ebx
        xchg    %ecx, %edx
        pushq   $0x18
        lea     1f(%rip), %rbp
        push    %rbp
        lretq
        .code32
1:      call    *%eax
        ljmp    $8, $2f
        .code64
2:      movslq  %eax, %rax
        pop     %r15
        pop     %r14
        pop     %r13
        pop     %r12
        pop     %rbp
        pop     %rbx
        ret

        .section .note.GNU-stack, "", @progbits
