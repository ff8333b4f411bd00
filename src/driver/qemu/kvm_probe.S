/* kvm_probe.S - the ROM that caps_probe.c boots to see whether KVM runs guests.
 *
 * It does what every guest's kernel does in its first moments and what half-working KVMs (nested,
 * PVM, emulating) have been seen to die of: from real mode to protected mode to long mode with
 * paging, then cmpxchg16b, BMI2, xsave and xrstor, as far as CPUID offers them. Then it writes
 * VZ_KVM_PROBE_DONE to port 0xf4, QEMU's isa-debug-exit, which ends QEMU with a status.
 *
 * The ROM is the last 64 KiB below 4 GiB; the processor starts 16 bytes before its end, with a code
 * segment that begins where the ROM does. Low memory is zeroed RAM. */

#define ROM_BYTES 0x10000
#define ROM_BASE  0xffff0000
#define CODE_AT   0xf000
#define RESET_AT  0xfff0

#define DONE 0x31
#define PORT 0xf4

#define PML4  0x1000
#define PDPT  0x2000
#define LOW   0x3000 /* page directory of the first GiB */
#define HIGH  0x4000 /* of the fourth, where the ROM is */
#define DATA  0x5000
#define AREA  0x6000 /* for xsave; 64-byte aligned */
#define STACK 0x8000

#define LINEAR(label) (ROM_BASE + (label) - vz_kvm_probe_rom)
#define OFFSET(label) ((label) - vz_kvm_probe_rom)

    .section .rodata
    .balign 16
    .globl vz_kvm_probe_rom, vz_kvm_probe_rom_end
    .hidden vz_kvm_probe_rom, vz_kvm_probe_rom_end
vz_kvm_probe_rom:
#if defined(__x86_64__)
    .skip CODE_AT, 0xf4 /* hlt */

    .code16
real:
    cli
    lgdtl %cs:OFFSET(gdt_pointer)
    movl %cr0, %eax
    orl $0x1, %eax
    movl %eax, %cr0
    ljmpl $0x08, $LINEAR(protected)

    .code32
protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $STACK, %esp
    movl $(PDPT | 3), PML4
    movl $(LOW | 3), PDPT
    movl $(HIGH | 3), PDPT + 3 * 8
    movl $0x83, LOW                    /* the first 2 MiB, */
    movl $0xffe00083, HIGH + 511 * 8   /* and the last below 4 GiB */
    movl %cr4, %eax
    orl $0x220, %eax                   /* PAE, OSFXSR */
    movl %eax, %cr4
    movl $PML4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx             /* EFER: long mode */
    rdmsr
    orl $0x100, %eax
    wrmsr
    movl %cr0, %eax
    andl $0xfffffffb, %eax             /* no x87 emulation */
    orl $0x80000002, %eax              /* paging; monitor coprocessor */
    movl %eax, %cr0
    ljmpl $0x18, $LINEAR(long)

    .code64
long:
    movl $1, %eax
    cpuid
    movl %ecx, %esi
    btl $13, %esi
    jnc no_cmpxchg16b
    xorl %eax, %eax
    xorl %edx, %edx
    movl $1, %ebx
    xorl %ecx, %ecx
    lock cmpxchg16b DATA
    jnz failed
    cmpl $1, DATA
    jne failed
no_cmpxchg16b:
    btl $26, %esi
    jnc no_xsave
    movq %cr4, %rax
    orl $0x40000, %eax                 /* OSXSAVE */
    movq %rax, %cr4
    xorl %ecx, %ecx
    movl $3, %eax
    xorl %edx, %edx
    xsetbv
    movl $3, %eax
    xsave64 AREA
    movl $3, %eax
    xrstor64 AREA
no_xsave:
    xorl %eax, %eax
    cpuid
    cmpl $7, %eax
    jb done
    movl $7, %eax
    xorl %ecx, %ecx
    cpuid
    btl $8, %ebx
    jnc done
    movl $4, %edx
    movl $3, %eax
    shlxl %edx, %eax, %eax
    cmpl $48, %eax
    jne failed
done:
    movb $DONE, %al
    outb %al, $PORT
failed:
    hlt
    jmp failed

    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff /* 32-bit code */
    .quad 0x00cf93000000ffff /* data */
    .quad 0x00af9b000000ffff /* 64-bit code */
gdt_pointer:
    .word gdt_pointer - gdt - 1
    .long LINEAR(gdt)

    .skip RESET_AT - OFFSET(.), 0xf4
    .code16
    jmp real
    .skip ROM_BYTES - OFFSET(.), 0xf4
    .code64
#endif
vz_kvm_probe_rom_end:

    .section .note.GNU-stack, "", %progbits
