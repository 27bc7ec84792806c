/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Entry of every vCPU: its own stack, our segments, then guest_main(index, count, timers). */
        .globl start
        .text
start:
        lgdt    gdt_pointer(%rip)
        mov     %rdi, %rax
        inc     %rax
        shl     $14, %rax               /* 16 KiB of stack each */
        lea     stacks(%rip), %rsp
        add     %rax, %rsp
        pushq   $8
        lea     1f(%rip), %rax
        pushq   %rax
        lretq
1:      mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        xor     %ebp, %ebp
        call    guest_main
2:      cli
        hlt
        jmp     2b

        /* The stack is aligned to 16 bytes, the processor has pushed 5 words: 9 more and a call. */
        .globl interrupt_entry
interrupt_entry:
        push    %rax
        push    %rcx
        push    %rdx
        push    %rsi
        push    %rdi
        push    %r8
        push    %r9
        push    %r10
        push    %r11
        lea     72(%rsp), %rdi          /* where RIP was pushed */
        cld
        call    handle_interrupt
        pop     %r11
        pop     %r10
        pop     %r9
        pop     %r8
        pop     %rdi
        pop     %rsi
        pop     %rdx
        pop     %rcx
        pop     %rax
        iretq

        .globl spurious_entry
spurious_entry:
        iretq

        .section .rodata
        .balign 8
gdt:    .quad   0
        .quad   0x00af9b000000ffff      /* 8: 64-bit code */
        .quad   0x00cf93000000ffff      /* 16: data */
gdt_pointer:
        .word   gdt_pointer - gdt - 1
        .quad   gdt

        .bss
        .balign 16
stacks: .space  64 << 14         /* vmm_reference::max_vcpus */

        .section .note.GNU-stack, "", @progbits
