# From INIT-SIPI to Rust, for every CPU but the first: real mode, to 64 bits in the high half, on the boot tables.
#
# The part up to ap_trampoline_end is copied to the physical page at AP_PAGE, where the CPU begins; it reaches nothing
# outside it but by the descriptors in it. The rest runs where it is linked, below 4 GiB.

.section .boot, "awx", @progbits
.code16
.balign 16
.global ap_trampoline
ap_trampoline:
    cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    lgdtl (ap_gdtr - ap_trampoline + {page})
    mov %cr0, %eax
    or $1, %eax
    mov %eax, %cr0
    ljmpl $0x18, $ap_protected
.balign 8
ap_gdt:
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff      # null, 64-bit code, data
    .quad 0x00cf9a000000ffff                             # 32-bit code
ap_gdtr:
    .word 31
    .long ap_gdt - ap_trampoline + {page}
.global ap_trampoline_end
ap_trampoline_end:

.code32
ap_protected:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    mov $0xa0, %eax                                      # CR4: PAE | PGE
    mov %eax, %cr4
    mov $boot_pml4, %eax
    mov %eax, %cr3
    mov $0xc0000080, %ecx                                # EFER |= LME | NXE
    rdmsr
    or $0x900, %eax
    wrmsr
    mov $0x80010033, %eax                                # CR0: PG | WP | NE | ET | MP | PE
    mov %eax, %cr0
    ljmp $0x08, $ap_long
.code64
ap_long:
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    # A small stack, of one CPU at a time, until the final tables are active.
    movabs $ap_boot_stack_top, %rsp
    xor %ebp, %ebp
    movabs ${begin}, %rax
    jmp *%rax

.bss
.balign 16
    .skip 16384
ap_boot_stack_top:
.text
