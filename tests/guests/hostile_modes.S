/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
/* Random hypercalls from modes in which no kernel makes them: 32-bit without paging, and then VM86
   (CPL 3, a segment base of its own). It never comes back. */

        /* The next number, in ebp; and the registers of a call made of it: eax its number, ebx the
           sub-op, ecx and edx addresses between 16 and 32 MiB. */
        .macro random_call
        mov     %ebp, %eax
        shl     $13, %eax
        xor     %eax, %ebp
        mov     %ebp, %eax
        shr     $17, %eax
        xor     %eax, %ebp
        mov     %ebp, %eax
        shl     $5, %eax
        xor     %eax, %ebp
        mov     %ebp, %ebx
        and     $15, %ebx
        mov     %ebp, %ecx
        shr     $4, %ecx
        and     $0x00fffff8, %ecx
        or      $0x01000000, %ecx
        mov     %ebp, %edx
        shr     $2, %edx
        and     $0x00fffff8, %edx
        or      $0x01000000, %edx
        mov     %ebp, %esi
        mov     %ebp, %edi
        mov     %ebp, %eax
        shr     $27, %eax
        add     $4, %eax
        .endm

        .text
        .code64
        /* legacy_forever(seed, instruction): edi; rsi: three bytes that make a hypercall */
        .globl legacy_forever
legacy_forever:
        cli
        movzwl  (%rsi), %eax
        mov     %ax, hypercall_32
        mov     %ax, hypercall_16
        mov     2(%rsi), %al
        mov     %al, hypercall_32 + 2
        mov     %al, hypercall_16 + 2
        mov     %edi, %ebp
        mov     $vm86_start, %esi       /* to where a segment reaches */
        mov     $0x90000, %edi
        mov     $(vm86_end - vm86_start), %ecx
        cld
        rep movsb
        mov     $legacy_tss, %eax
        mov     %ax, legacy_gdt + 24 + 2
        shr     $16, %eax
        mov     %al, legacy_gdt + 24 + 4
        mov     %ah, legacy_gdt + 24 + 7
        lgdt    legacy_gdt_pointer
        mov     $16, %eax
        mov     %eax, %ss
        pushq   $8
        pushq   $1f
        lretq

        .code32
1:      mov     %eax, %ds
        mov     %eax, %es
        mov     %cr0, %eax
        and     $0x7fffffff, %eax
        mov     %eax, %cr0
        mov     $0xc0000080, %ecx       /* EFER: long mode off */
        rdmsr
        and     $0xfffffeff, %eax
        wrmsr
        mov     $24, %eax
        ltr     %ax
        movl    $300, rounds
        jmp     2f

        .data                           /* where it can be written */
2:      random_call
hypercall_32:
        nop
        nop
        nop
        incl    unpaged_calls
        decl    rounds
        jnz     2b
        pushl   $0x9000                 /* gs fs ds es */
        pushl   $0x9000
        pushl   $0x9000
        pushl   $0x9000
        pushl   $0x9000                 /* ss */
        pushl   $0xf000                 /* esp */
        pushl   $0x23002                /* VM, IOPL 3 */
        pushl   $0x9000                 /* cs */
        pushl   $0
        iretl

        .code16
vm86_start:
        random_call
hypercall_16:
        nop
        nop
        nop
        incl    0xfff0                  /* vm86_calls, at 0x9fff0 */
        jmp     vm86_start
vm86_end:

        .balign 8
legacy_gdt:
        .quad   0
        .quad   0x00cf9b000000ffff      /* 8: 32-bit code */
        .quad   0x00cf93000000ffff      /* 16: data */
        .quad   0x0000890000000067      /* 24: a TSS; its I/O bitmap allows the port of a hypercall */
legacy_gdt_pointer:
        .word   legacy_gdt_pointer - legacy_gdt - 1
        .quad   legacy_gdt
        .balign 8
legacy_tss:
        .space  104
        .globl unpaged_calls
unpaged_calls:
        .long   0
rounds: .long   0

        .section .note.GNU-stack, "", @progbits
