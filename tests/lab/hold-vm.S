/* SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause */
# Opens /dev/kvm, makes a VM, prints a newline and sleeps for ever: what no shell
# can do. init carries it as base64 text, so that the lab needs no compiler;
# selftest checks that the two agree. Made by:
#
#   cc -c -o hold-vm.o hold-vm.S && objcopy -O binary -j .text hold-vm.o hold-vm
#   base64 hold-vm
        .intel_syntax noprefix
        .text

        # The ELF header, and one segment that is the whole file.
file:   .ascii  "\177ELF"
        .byte   2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0      # 64 bits, little endian
        .short  2, 62                                   # ET_EXEC, EM_X86_64
        .long   1
        .quad   0x400000 + start - file, segment - file, 0
        .long   0
        .short  64, 56, 1, 0, 0, 0
segment:
        .long   1, 5                                    # PT_LOAD, PF_R | PF_X
        .quad   0, 0x400000, 0x400000, end - file, end - file, 4096

start:  lea     rdi, [rip + path]
        push    2                       # O_RDWR
        pop     rsi
        push    2                       # open
        pop     rax
        syscall
        mov     edi, eax
        mov     esi, 0xae01             # KVM_CREATE_VM
        xor     edx, edx
        push    16                      # ioctl
        pop     rax
        syscall
        push    '\n'
        push    1
        pop     rdi
        mov     rsi, rsp
        push    1
        pop     rdx
        push    1                       # write
        pop     rax
        syscall
sleep:  push    34                      # pause
        pop     rax
        syscall
        jmp     sleep

path:   .asciz  "/dev/kvm"
end:
