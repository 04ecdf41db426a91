# From the loader to Rust: 32 bits with paging off, to 64 bits in the high half.
#
# The loader follows the PVH protocol of Xen (docs/misc/pvh.pandoc): EBX holds the physical address of
# hvm_start_info, segments are flat, paging and interrupts are off, and memory past the file's bytes is zeroed.
# EAX says nothing: some loaders leave a multiboot number there.

# The ELF note that names the entry: name "Xen", type 18 = XEN_ELFNOTE_PHYS32_ENTRY. The address has 8 bytes because
# QEMU reads a size_t.
.section .note.pvh, "a", @note
.balign 4
    .long 4, 8, 18
    .asciz "Xen"
    .quad pvh_start

.section .boot, "awx", @progbits
.code32
.global pvh_start
pvh_start:
    cli
    cld
    # The boot tables: 4 GiB in 2 MiB entries, present, writable (0x83). Not global: the final tables replace them by
    # loading CR3, which keeps global entries in the TLB.
    mov $boot_pd, %edi
    xor %ecx, %ecx
1:  mov %ecx, %eax
    shl $21, %eax
    or $0x83, %eax
    mov %eax, (%edi,%ecx,8)
    movl $0, 4(%edi,%ecx,8)
    inc %ecx
    cmp $2048, %ecx
    jb 1b
    movl $(boot_pd + 0x0003), boot_pdpt + 0
    movl $(boot_pd + 0x1003), boot_pdpt + 8
    movl $(boot_pd + 0x2003), boot_pdpt + 16
    movl $(boot_pd + 0x3003), boot_pdpt + 24
    movl $(boot_pd + 0x0003), boot_pdpt_kernel + 510*8
    movl $(boot_pdpt + 3), boot_pml4 + 0                 # where this code runs
    movl $(boot_pdpt + 3), boot_pml4 + 273*8             # the direct map, 0xffff_8880_0000_0000
    movl $(boot_pdpt_kernel + 3), boot_pml4 + 511*8      # the kernel, 0xffff_ffff_8000_0000

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
    lgdt boot_gdtr
    ljmp $0x08, $long_entry
.code64
long_entry:
    mov $0x10, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    xor %eax, %eax
    mov %eax, %fs
    mov %eax, %gs
    movabs $stack_top, %rsp
    xor %ebp, %ebp
    mov %ebx, %edi                                       # the start info's address, zero-extended
    movabs ${start}, %rax
    call *%rax
    ud2

.balign 8
boot_gdt:
    .quad 0, 0x00af9a000000ffff, 0x00cf92000000ffff      # null, 64-bit code, data
boot_gdtr:
    .word 23
    .long boot_gdt

.section .boot.bss, "aw", @nobits
.balign 4096
.global boot_pml4
boot_pml4:        .skip 4096
boot_pdpt:        .skip 4096
boot_pdpt_kernel: .skip 4096
boot_pd:          .skip 4*4096

# The guard page, then the stack.
.section .stack, "aw", @nobits
.balign 4096
    .skip 4096
    .skip {stack_size}
.global stack_top
stack_top:
.text
